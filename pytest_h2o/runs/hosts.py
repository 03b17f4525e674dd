"""The hosts of a session: each makes one launch at a time, and one that dies is taken out."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.plan.seats import Hosts, kind_of, number_of
from pytest_h2o.runs.connection import broken, tail
from pytest_h2o.runs.guard import GRACE_S
from pytest_h2o.runs.hosts_file import HOSTS_FILE, Break, HostsFile, change_hosts, read_hosts
from pytest_h2o.runs.launcher import Ended
from pytest_h2o.runs.locks import hold, hold_any, host_lock_path, machine_lock_path
from pytest_h2o.runs.machine import machine
from pytest_h2o.runtimes.base import Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.copying import Courier
from pytest_h2o.runtimes.far_shell import without_end
from pytest_h2o.runtimes.placement import PlacedRuntime

# Seconds within which a host that lives answers.
PROBE_S = 20.0
NODE_FAILURE = re.compile(rb"^srun: error: Node failure on [^\n]{0,200}", re.MULTILINE)
THIS_MACHINE: Hosts = {"": ("",)}
OnWait = Callable[[float], None]


class HostsGoneError(Exception):
    """No host is left to launch on; the message says what became of each."""


@dataclass(frozen=True)
class Host:
    """Where one launch is made, and the runtime that makes it; this machine has no name."""

    name: str
    runtime: Runtime
    courier: Courier | None = None

    def carry(self, command: Command) -> None:
        """Bring what a launch reads, if the host does not see it; raises :class:`CopyError`."""
        if self.courier:
            self.courier.carry(command)

    def fetch(self, command: Command) -> None:
        """Get what a launch left, if it is not here; raises :class:`CopyError`."""
        if self.courier:
            self.courier.fetch(command)

    def loss(self, *, ok: bool, stderr: Path) -> str:
        """Why the host was lost in a launch, in words; empty if it was not, as this machine never
        is. ``ok`` says whether the launch seems to have ended well.
        """
        here = self.runtime
        if not self.name or not isinstance(here, PlacedRuntime):
            return ""
        said = NODE_FAILURE.search(tail(stderr))
        if said and here.placement.program == "srun":  # it exits with 0 all the same
            return said[0].decode(errors="replace")
        if ok and here.placement.tells_loss:
            return ""
        return self.silence()

    def break_of(self, ended: Ended, stderr: Path) -> str:
        """How the connection broke before the program ended, in words; empty if it did not."""
        here = self.runtime
        if not isinstance(here, PlacedRuntime) or ended.status not in ("ok", "failed"):
            return ""
        launcher = here.placement.program
        return broken(launcher, ended.returncode, stderr, end_seen=ended.end_seen)

    @property
    def label(self) -> str:
        """Its name; of one that the launcher alone names, the launcher."""
        if self.name or not isinstance(self.runtime, PlacedRuntime):
            return self.name
        return shlex.join(self.runtime.placement.launcher)

    def silence(self) -> str:
        """Why the host does not answer, in words; empty if it does."""
        return silence_of(self.runtime) if isinstance(self.runtime, PlacedRuntime) else ""


def silence_of(runtime: PlacedRuntime) -> str:
    """Why the host of a runtime does not answer, in words; empty if it does."""
    try:
        probe = subprocess.Popen(
            runtime.probe().argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"{runtime.placement.launcher[0]} cannot be started: {error.strerror}"
    try:
        _, errors = probe.communicate(timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        probe.terminate()  # srun gives back what it waits for
        with suppress(subprocess.TimeoutExpired):
            probe.communicate(timeout=GRACE_S)
        probe.kill()
        return f"it did not answer within {PROBE_S:g} s"
    if probe.returncode == 0:
        return ""
    said = without_end(errors).decode(errors="replace").strip().splitlines()
    last = said[-1][:200] if said else "it said nothing"
    return f"it does not answer: exit code {probe.returncode}, {last}"


def machine_of(kind: str) -> str:
    """What hosts of a kind are as machines, in words."""
    return f"hosts of the kind {kind}" if kind else "hosts"


class HostPool:
    """The hosts of a session, shared by all processes with the same ``root``.

    With ``roaming`` a launch is made on whichever host of its kind is free; else launches of one
    seat stay on one host, and move together when it dies.
    """

    def __init__(self, root: Path, runtime: Runtime, *, roaming: bool = False) -> None:
        self.path = root / HOSTS_FILE
        self.runtime = runtime
        self.roaming = roaming
        named: Hosts = runtime.hosts if isinstance(runtime, PlacedRuntime) else {}
        self.hosts = named or THIS_MACHINE
        if named:
            root.mkdir(parents=True, exist_ok=True)
            self._keep(lambda kept: kept)

    @property
    def size(self) -> int:
        """How many launches can be made at once."""
        return sum(len(names) for names in self.hosts.values())

    @property
    def named(self) -> list[Host]:
        """All hosts that have names."""
        found: list[Host] = []
        for kind, names in self.hosts.items():
            found += [self._host(name, kind) for name in names if name]
        return found

    @property
    def gone(self) -> Mapping[str, str]:
        """Why each host that was taken out was, by name."""
        return read_hosts(self.path).gone

    @property
    def breaks(self) -> Sequence[Break]:
        """The connections that broke while their hosts lived."""
        return read_hosts(self.path).breaks

    def only(self, name: str) -> HostPool:
        """This pool with one of its hosts."""
        pool = copy(self)
        pool.hosts = {"": (name,)}
        return pool

    def machine(self, seat: str) -> str:
        """What the launches of a seat are made on, in words: one kind of host is one machine."""
        if self.hosts is THIS_MACHINE:
            return machine()
        return machine_of(kind_of(seat))

    @contextmanager
    def take(self, seat: str, on_wait: OnWait) -> Iterator[Host]:
        """A host for a launch of ``seat``, held until the launch has ended.

        Raises :class:`HostsGoneError` where none is left at all, and :class:`RuntimeSetupError`
        where none of its kind is.
        """
        kind = kind_of(seat)
        while True:
            names = self._candidates(seat)
            with self._hold(names, on_wait) as index:
                if names[index] not in self.gone:  # it may have died while it was waited for
                    yield self._host(names[index], kind)
                    return

    def _host(self, name: str, kind: str) -> Host:
        if not name or not isinstance(self.runtime, PlacedRuntime):
            return Host(name, self.runtime)
        here = self.runtime.on(name, kind)
        if not here.copies:
            return Host(name, here)
        ledger = self.path.with_name(f"copies_{host_lock_path(name).stem}.json")
        return Host(name, here, Courier(here.placement, here.copies, ledger))

    def keeps(self, seat: str, name: str) -> bool:
        """Whether what was launched for a seat on a host is still to be compared with what will
        be.
        """
        if self.roaming or not self.hosts.get(kind_of(seat), ("",))[0]:
            return True
        try:
            return name in self._candidates(seat)
        except (HostsGoneError, RuntimeSetupError):
            return True

    def remove(self, host: Host, why: str) -> None:
        """Launch on this host no more in this session."""
        self._keep(lambda kept: kept.without(host.name, why))

    def note_break(self, host: Host, launch: str, why: str) -> None:
        """Keep that a launch is made again since its connection broke."""
        self._keep(lambda kept: kept.with_break(Break(host.label, launch, why)))

    def _keep(self, change: Callable[[HostsFile], HostsFile]) -> None:
        named: Hosts = {} if self.hosts is THIS_MACHINE else self.hosts
        change_hosts(self.path, named, change)

    def _candidates(self, seat: str) -> tuple[str, ...]:
        kind = kind_of(seat)
        names = self.hosts.get(kind, ())
        gone = self.gone
        living = tuple(name for name in names if name not in gone)
        if not living:
            self._give_up(kind, gone)
        if self.roaming:
            return living
        number = number_of(seat)
        planned = names[number % len(names)]
        if planned in living:
            return (planned,)
        return (living[number % len(living)],)

    def _give_up(self, kind: str, gone: Mapping[str, str]) -> None:
        became = "; ".join(f"{name}: {why}" for name, why in gone.items())
        if len(gone) >= self.size:
            raise HostsGoneError(f"no host is left: {became}")
        named = f"no host of the kind {kind} is left" if gone else f"there is no host {kind}"
        raise RuntimeSetupError(f"{named}: {became or 'name one with --h2o-hosts'}")

    @contextmanager
    def _hold(self, names: tuple[str, ...], on_wait: OnWait) -> Iterator[int]:
        paths = [host_lock_path(name) if name else machine_lock_path() for name in names]
        if len(paths) > 1:
            with hold_any(paths, on_wait) as index:
                yield index
            return
        with hold(paths[0], on_wait, fair=True):
            yield 0
