"""Where launches run: a launcher in front of the program, the CPUs they may use, and their
environment.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.seats import Hosts, parse_hosts
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import AroundRuntime, Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.copying import carrier_of, moved
from pytest_h2o.runtimes.far_shell import WATCH

COMMAND = "{command}"
HOST = "{host}"
KIND = "{kind}"
# These join their words with blanks and give the result to a shell on the other side.
JOINING = ("ssh", "adb")
# These exit with 0 as well when their host is gone in the middle.
UNTOLD = ("adb",)
_CPUS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Placement:
    """How a program is started, without a shell on this machine.

    Attributes:
        launcher: words put in front of the program, such as ``srun -N1 --exclusive``. A word
            ``{command}`` is replaced by the whole command line quoted for a POSIX shell, for
            launchers that give it to a shell elsewhere (``docker exec -i c sh -c {command}``);
            ``ssh`` and ``adb`` get it in this form as their last word. ``{host}`` and ``{kind}``
            in a word stand for the host of a launch.
        cpus: CPU list as ``taskset -c`` takes it (``0-3,8``).
        env: variables of every launch.
    """

    launcher: tuple[str, ...] = ()
    cpus: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def apply(self, command: Command) -> Command:
        """``command`` started in this way."""
        env = {**command.env, **self.env}
        words = command.argv
        if self.cpus:
            words = ("taskset", "-c", self.cpus, *words)
        if not self.launcher:
            return replace(command, argv=words, env=env)
        # A launcher may run the program on another machine, so the variables travel as arguments
        # too.
        if env:
            variables = [f"{name}={value}" for name, value in env.items()]
            words = ("env", *variables, *words)
        argv, watched = _launched(self.launcher, words, command.cwd or Path())
        return replace(command, argv=argv, env=env, watched=watched)

    @property
    def names_host(self) -> bool:
        """Whether the launcher must be told the host of a launch."""
        return any(HOST in word for word in self.launcher)

    @property
    def tells_loss(self) -> bool:
        """Whether an exit code of 0 means that the program ended."""
        return self.program not in UNTOLD

    @property
    def program(self) -> str:
        """The name of what launches; empty without a launcher."""
        return PurePath(self.launcher[0]).name if self.launcher else ""

    def on(self, host: str, kind: str) -> Placement:
        """This placement on one host."""
        words = [word.replace(HOST, host).replace(KIND, kind) for word in self.launcher]
        return replace(self, launcher=tuple(words))

    def describe(self) -> str:
        """What the placement adds, in words; empty if nothing."""
        parts = []
        if self.launcher:
            parts.append(f"launched by {shlex.join(self.launcher)}")
        if self.cpus:
            parts.append(f"on CPUs {self.cpus}")
        if self.env:
            parts.append(f"with {', '.join(self.env)} set")
        return " ".join(parts)


def _launched(
    launcher: tuple[str, ...], words: tuple[str, ...], cwd: Path
) -> tuple[tuple[str, ...], bool]:
    """The words to start, and whether they start a shell elsewhere."""
    quoted = shlex.join(("exec", "sh", "-c", WATCH, "sh", str(cwd), *words))
    if any(COMMAND in word for word in launcher):
        return tuple(word.replace(COMMAND, quoted) for word in launcher), True
    if PurePath(launcher[0]).name in JOINING:
        return (*launcher, quoted), True
    return (*launcher, *words), False


def parse_placement(launcher: str, cpus: str, env: str) -> Placement:
    """The placement that three texts describe; raises :class:`RuntimeSetupError` naming the one
    that is wrong.
    """
    if cpus and not _CPUS.fullmatch(cpus):
        raise RuntimeSetupError(f"H2O_CPUS={cpus!r}: expected a list of CPUs such as 0-3,8")
    variables = {}
    for word in _words("H2O_LAUNCH_ENV", env):
        name, equals, value = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise RuntimeSetupError(
                f"H2O_LAUNCH_ENV: {word!r} is not NAME=VALUE; quote values that contain blanks"
            )
        variables[name] = value
    return Placement(_words("H2O_LAUNCHER", launcher), cpus, variables)


def _words(name: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise RuntimeSetupError(f"{name}={text!r}: {error}; quote it as for a shell") from None


@dataclass(frozen=True)
class PlacedRuntime(AroundRuntime):
    """A runtime whose launches are made through a placement, on any of some hosts."""

    placement: Placement
    hosts: Hosts = field(default_factory=dict)
    copies: str = ""

    def describe(self) -> str:
        """The runtime and how its launches are made."""
        groups = [f"{kind or 'hosts'} {', '.join(names)}" for kind, names in self.hosts.items()]
        on = f" on {' and '.join(groups)}" if groups else ""
        return f"{self.runtime.describe()}, {self.placement.describe()}{on}"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if the launcher or ``taskset`` is missing, does not
        name its host, or the runtime is unusable.
        """
        if self.hosts and not self.placement.names_host:
            raise RuntimeSetupError(
                "H2O_HOSTS names hosts, and the launcher does not say where {host} goes; give "
                "--h2o-launcher 'ssh {host}'"
            )
        if self.copies:
            if not (self.hosts and self.copies.startswith("/")):
                raise RuntimeSetupError(
                    f"H2O_COPY={self.copies}: expected an absolute path on the hosts of --h2o-hosts"
                )
            carrier_of(self.placement.launcher)
        if self.placement.names_host and not self.hosts:
            raise RuntimeSetupError(
                f"the launcher {shlex.join(self.placement.launcher)} asks for a host; name some "
                f"with --h2o-hosts a,b,c"
            )
        first = "taskset" if self.placement.cpus else ""
        if self.placement.launcher:
            first = self.placement.launcher[0]
        if first and shutil.which(first) is None:
            raise RuntimeSetupError(
                f"{first} is not a program on the PATH; install it or correct H2O_LAUNCHER"
            )
        self.runtime.check()

    def fingerprint(self) -> dict[str, str]:
        """The runtime's hashes and the placement: results made elsewhere are other results."""
        placement = hashlib.sha256(repr(self.placement).encode()).hexdigest()[:16]
        return {**self.runtime.fingerprint(), "placement": placement}

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """The runtime's command, placed."""
        command = self.runtime.command(spec, directory)
        if self.copies:
            carrier = carrier_of(self.placement.launcher)
            command = moved(command, self.copies, shares_launches=not carrier.pull)
        return self.placement.apply(command)

    def on(self, host: str, kind: str) -> PlacedRuntime:
        """This runtime on one host."""
        return replace(self, placement=self.placement.on(host, kind), hosts={})

    def probe(self) -> Command:
        """A command that does nothing, started as a launch is."""
        nothing = Command(argv=("true",), env={}, cwd=Path("/"), config_path=Path(), config={})
        return self.placement.apply(nothing)


def placed(runtime: Runtime, knobs: Knobs) -> Runtime:
    """``runtime`` with the launcher, hosts, CPUs and environment of the knobs; raises
    :class:`RuntimeSetupError` and :class:`KnobError`.
    """
    texts = (knobs.text(name) for name in ("H2O_LAUNCHER", "H2O_CPUS", "H2O_LAUNCH_ENV"))
    placement = parse_placement(*texts)
    hosts = parse_hosts(knobs.text("H2O_HOSTS"))
    if placement == Placement() and not hosts:
        return runtime
    return PlacedRuntime(runtime, placement, hosts, knobs.text("H2O_COPY"))
