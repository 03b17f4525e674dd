"""How long the launches that are left will take, learnt from earlier sessions and from this one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_h2o.plan.seats import Hosts, seats_of
from pytest_h2o.plan.specs import seat_mark
from pytest_h2o.runs.hosts import machine_of
from pytest_h2o.runs.launch_folder import file_name
from pytest_h2o.runs.machine import machine
from pytest_h2o.runs.records import RECORD_FILE, LaunchRecord, RecordError, load_record
from pytest_h2o.runtimes.base import Runtime
from pytest_h2o.runtimes.placement import PlacedRuntime

SESSIONS = 5


@dataclass(frozen=True)
class Lanes:
    """What launches at once: the hosts, and the processes that ask for launches.

    ``kinds`` gives the kind of host for what stands behind the ``@`` of a launch's name; empty
    where there is one machine.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @classmethod
    def of(cls, hosts: Hosts, processes: int) -> Lanes:
        """Those of some hosts."""
        kinds: dict[str, str] = {}
        for kind in hosts:
            for seat in seats_of(hosts, kind):
                kinds[seat_mark(seat)] = kind
        return cls(kinds, processes)

    def place(self, name: str) -> tuple[str, str]:
        """What a launch does, and the mark of its host; none on one machine."""
        stem, _, mark = name.rpartition("@")
        return (stem, mark) if mark in self.kinds else (name, "")

    def kind(self, name: str) -> str:
        """The kind of host of a launch."""
        return self.kinds.get(self.place(name)[1], "")

    def alike(self, name: str) -> list[str]:
        """The names of the same launch on all hosts of its kind, its own first."""
        stem = self.place(name)[0]
        marks = [other for other, kind in self.kinds.items() if kind == self.kind(name)]
        names = [f"{stem}@{other}" if other else stem for other in marks]
        return list(dict.fromkeys([name, *names]))

    @property
    def described(self) -> str:
        """What launches at once, in words; empty if nothing does."""
        count = min(len(self.kinds), self.processes)
        if len(self.kinds) < 2:
            return ""
        if count < 2:
            return f" in one process; -n {len(self.kinds)} lets all hosts launch at once"
        return f" on {count} of {len(self.kinds)} hosts at once"

    def together(self, seconds: Mapping[str, float]) -> float:
        """Seconds for launches by name: each host makes its own one after the other, and no more
        hosts launch at once than there are processes.
        """
        busy: dict[str, float] = {}
        for name, each in seconds.items():
            mark = self.place(name)[1]
            busy[mark] = busy.get(mark, 0.0) + each
        if not busy:
            return 0.0
        return max(*busy.values(), sum(busy.values()) / self.processes)


class Forecast:
    """``before`` holds the seconds of earlier launches by name; what this session adds corrects
    them.
    """

    def __init__(self, lanes: Lanes | None = None) -> None:
        self.lanes = lanes or Lanes()
        self.names: Collection[str] = ()
        self.before: Mapping[str, float] = {}
        self.now: dict[str, float] = {}

    @property
    def total(self) -> int:
        """How many launches are planned at least; 0 if that is not known."""
        return len(self.names)

    def expect(self, names: Collection[str], before: Mapping[str, float]) -> None:
        """What is planned, and what is known of it."""
        self.names, self.before = names, before

    def ended(self, name: str, seconds: float) -> None:
        """A launch has ended, or was taken over."""
        self.now[name] = seconds

    def left(self) -> float | None:
        """Seconds for the planned launches that have not ended; None if one cannot be guessed, or
        all have.
        """
        ahead = [name for name in self.names if name not in self.now]
        known = self.known(ahead)
        return self.lanes.together(known) if ahead and len(known) == len(set(ahead)) else None

    def known(self, names: Iterable[str]) -> dict[str, float]:
        """The guesses of those launches that one can be made of."""
        guesses = {name: self.guess(name) for name in names}
        return {name: guess for name, guess in guesses.items() if guess is not None}

    def together(self, names: Iterable[str]) -> float:
        """Seconds for some launches, those that nothing is known of not counted."""
        return self.lanes.together(self.known(names))

    def guess(self, name: str) -> float | None:
        """Seconds of one launch: as before, at today's speed; as on another kind of host, by what
        both have made; else as others of its program.
        """
        if name in self.before:
            return self.before[name] * self._pace(self.lanes.kind(name))
        elsewhere = self._as_elsewhere(name)
        if elsewhere is not None:
            return elsewhere
        program, kind = name.partition("-")[0], self.lanes.kind(name)
        for seconds in (self.now, self.before):
            own = {each: spent for each, spent in seconds.items() if self.lanes.kind(each) == kind}
            if alike := _of_program(program, own):
                return sum(alike) / len(alike)
        alike = _of_program(program, self.now) or _of_program(program, self.before)
        return sum(alike) / len(alike) if alike else None

    def _pace(self, kind: str) -> float:
        """How much longer launches take now than before on a kind of host."""
        both = [name for name, seconds in self.now.items() if seconds and self.before.get(name)]
        both = [name for name in both if self.lanes.kind(name) == kind]
        if not both:
            return 1.0
        return sum(self.now[name] for name in both) / sum(self.before[name] for name in both)

    def _as_elsewhere(self, name: str) -> float | None:
        """Seconds of a launch that was made on another kind of host, at the ratio of the speeds of
        both kinds.
        """
        here = self.lanes.kind(name)
        stem = self.lanes.place(name)[0]
        own = self._by_work(here)
        for kind in dict.fromkeys(self.lanes.kinds.values()):
            there = self._by_work(kind)
            both = there.keys() & own.keys()
            if kind != here and stem in there and both:
                slower = sum(own[each] for each in both) / sum(there[each] for each in both)
                return there[stem] * slower
        return None

    def _by_work(self, kind: str) -> dict[str, float]:
        """The seconds of launches on one kind of host, by what they do; the last ones count."""
        found = {}
        for name, each in {**self.before, **self.now}.items():
            if each and self.lanes.kind(name) == kind:
                found[self.lanes.place(name)[0]] = each
        return found


def _of_program(program: str, seconds: Mapping[str, float]) -> list[float]:
    return [each for name, each in seconds.items() if name.partition("-")[0] == program]


@dataclass(frozen=True)
class Maker:
    """Who made the launches that tell of this session's: the runtime as it describes itself, and
    the machine by kind of host.
    """

    runtime: str
    machines: Mapping[str, str]

    def made(self, record: LaunchRecord, kind: str) -> bool:
        """Whether a launch was made so; hosts of a kind may have been others, or more of them."""
        if record.inputs.get("machine") != self.machines.get(kind):
            return False
        if not record.host:
            return record.runtime == self.runtime
        return record.runtime.startswith(f"{self.runtime} on ")


def maker_of(runtime: Runtime) -> Maker:
    """Who makes the launches of a runtime."""
    if not isinstance(runtime, PlacedRuntime) or not runtime.hosts:
        return Maker(runtime.describe(), {"": machine()})
    machines = {kind: machine_of(kind) for kind in runtime.hosts}
    return Maker(replace(runtime, hosts={}).describe(), machines)


def earlier_seconds(
    runs: Path, own: Path, maker: Maker, names: Iterable[str], lanes: Lanes
) -> dict[str, float]:
    """The seconds of launches by name in the latest run directories below ``runs``, of the same
    runtime, programs and model on the same machine, or on any host of the same kind.
    """
    found: dict[str, float] = {}
    for root in latest_launches(runs):
        for name in names if root.parent != own else ():
            if name not in found and (seconds := _seconds(root, maker, name, lanes)):
                found[name] = seconds
    return found


def latest_launches(runs: Path) -> list[Path]:
    """Where the latest sessions kept their launches, the last one first."""
    roots = sorted(runs.glob("*/launches"), reverse=True) if runs.is_dir() else []
    return [root for root in roots if not root.parent.is_symlink()][:SESSIONS]


def _seconds(root: Path, maker: Maker, name: str, lanes: Lanes) -> float | None:
    """The seconds that a launch took in a session."""
    for each in lanes.alike(name):
        try:
            record = load_record(root / file_name(each) / RECORD_FILE)
        except RecordError:
            continue
        if record.status == "ok" and maker.made(record, lanes.kind(name)):
            return record.seconds
    return None


def duration(seconds: float) -> str:
    """Seconds for people: ``40 s``, ``2 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
