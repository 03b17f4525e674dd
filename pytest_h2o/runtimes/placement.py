"""Where launches run: a launcher in front of the program, the CPUs they may use, and their
environment.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.seats import Hosts, by_kind, parse_hosts
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import AroundRuntime, Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.copying import SOURCE, TARGET, Carrier, carrier_of, moved
from pytest_h2o.runtimes.far_shell import WATCH
from pytest_h2o.runtimes.runtime_by_kind import RuntimeByKind, answers, asking, problems_there

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
        by_kind: the launcher of each kind of host, where they have several; ``launcher`` is that of
            the first.
        copy_to: words that copy ``{source}`` to ``{target}`` on a host, for launchers of which it
            is not known how.
        copy_from: the same from a host; empty where the directories of launches are shared.
        cpus: CPU list as ``taskset -c`` takes it (``0-3,8``).
        env: variables of every launch.
    """

    launcher: tuple[str, ...] = ()
    cpus: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    by_kind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    copy_to: tuple[str, ...] = ()
    copy_from: tuple[str, ...] = ()

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
        launchers = self.by_kind.values() or [self.launcher]
        return all(HOST in shlex.join(words) for words in launchers)

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

        def named(words: Sequence[str]) -> tuple[str, ...]:
            return tuple(word.replace(HOST, host).replace(KIND, kind) for word in words)

        return replace(
            self, launcher=named(self.by_kind.get(kind, self.launcher)), by_kind={},
            copy_to=named(self.copy_to), copy_from=named(self.copy_from),
        )  # fmt: skip

    def carrier(self, kind: str = "") -> Carrier:
        """What copies to a host and back; raises :class:`RuntimeSetupError` where that is not
        known.
        """
        if self.copy_to:
            return Carrier(self.copy_to, self.copy_from, self.copy_from)
        return carrier_of(self.by_kind.get(kind, self.launcher))

    def describe(self) -> str:
        """What the placement adds, in words; empty if nothing."""
        parts = []
        launchers = [f"{kind} {shlex.join(words)}" for kind, words in self.by_kind.items()]
        if self.launcher and not launchers:
            launchers.append(shlex.join(self.launcher))
        if launchers:
            parts.append(f"launched by {' and '.join(launchers)}")
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
    launchers: dict[str, tuple[str, ...]] = {}
    for kind, text in by_kind("H2O_LAUNCHER", launcher).items():
        launchers[kind] = _words("H2O_LAUNCHER", text)
    first = next(iter(launchers.values()))
    return Placement(first, cpus, variables, {} if "" in launchers else launchers)


def _copying(knobs: Knobs, name: str) -> tuple[str, ...]:
    """The words of a knob that says how a file is copied; none where it is not given."""
    words = _words(name, knobs.text(name))
    text = " ".join(words)
    if words and not (SOURCE in text and TARGET in text):
        raise RuntimeSetupError(
            f"{name}={knobs.text(name)}: must say where {SOURCE} and {TARGET} go, as in "
            f"docker cp {SOURCE} {HOST}:{TARGET}"
        )
    return words


def _words(name: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise RuntimeSetupError(f"{name}={text!r}: {error}; quote it as for a shell") from None


@dataclass(frozen=True)
class PlacedRuntime(AroundRuntime):
    """A runtime whose launches are made through a placement, on any of some hosts.

    ``copies`` are the directories on hosts for copies, by kind of host, or that of all.
    """

    placement: Placement
    hosts: Hosts = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """The runtime and how its launches are made."""
        groups = [f"{kind or 'hosts'} {', '.join(names)}" for kind, names in self.hosts.items()]
        on = f" on {' and '.join(groups)}" if groups else ""
        return f"{self.runtime.describe()}, {self.placement.describe()}{on}"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if a launcher or ``taskset`` is missing, does not name
        its host, or the runtime is unusable.
        """
        if self.hosts and not self.placement.names_host:
            raise RuntimeSetupError(
                "H2O_HOSTS names hosts, and the launcher does not say where {host} goes; give "
                "--h2o-launcher 'ssh {host}'"
            )
        if self.placement.names_host and not self.hosts:
            raise RuntimeSetupError(
                f"the launcher {shlex.join(self.placement.launcher)} asks for a host; name some "
                f"with --h2o-hosts a,b,c"
            )
        kinds = self.placement.by_kind.keys()
        if kinds and kinds != self.hosts.keys():
            raise RuntimeSetupError(
                f"H2O_LAUNCHER is given for the kinds {', '.join(kinds)}, and H2O_HOSTS has "
                f"{', '.join(self.hosts) or 'none'}; give one for each"
            )
        if unknown := self.copies.keys() - self.hosts.keys() - {""}:
            raise RuntimeSetupError(f"H2O_COPY: H2O_HOSTS has no kind {', '.join(unknown)}")
        for kind, root in self.copies.items():
            if not (self.hosts and root.startswith("/")):
                raise RuntimeSetupError(
                    f"H2O_COPY={root}: expected an absolute path on the hosts of --h2o-hosts"
                )
            self.placement.carrier(kind)
        for first in self._first_words():
            if first and shutil.which(first) is None:
                raise RuntimeSetupError(
                    f"{first} is not a program on the PATH; install it or correct H2O_LAUNCHER"
                )
        self.runtime.check()
        if isinstance(self.runtime, RuntimeByKind):
            self._check_kinds(self.runtime)

    def _check_kinds(self, runtime: RuntimeByKind) -> None:
        """Raise :class:`RuntimeSetupError` unless each kind of host has its programs."""
        if runtime.kinds.keys() != self.hosts.keys():
            raise RuntimeSetupError(
                f"programs, model or prompts are named for the kinds {', '.join(runtime.kinds)}, "
                f"and H2O_HOSTS has {', '.join(self.hosts) or 'none'}; name them for each"
            )
        for kind, names in self.hosts.items():
            files, hashes = runtime.expected(kind)
            for name in names if files or hashes else ():
                said = self._said(name, kind, asking(files, hashes))
                if problems := "; ".join(problems_there(files, hashes, said)):
                    raise RuntimeSetupError(f"host {name} ({kind}): {problems}")

    def _said(self, name: str, kind: str, words: tuple[str, ...]) -> tuple[str, ...]:
        """What a host says to a question."""
        return answers(self.placement.on(name, kind).apply(_plain(words)).argv)

    def _first_words(self) -> list[str]:
        """What is started on this machine."""
        launchers = self.placement.by_kind.values() or [self.placement.launcher]
        cpus = "taskset" if self.placement.cpus else ""
        return [words[0] if words else cpus for words in launchers]

    def fingerprint(self) -> dict[str, str]:
        """The runtime's hashes and the placement: results made elsewhere are other results."""
        placement = hashlib.sha256(repr(self.placement).encode()).hexdigest()[:16]
        found = {**self.runtime.fingerprint(), "placement": placement}
        if isinstance(self.runtime, RuntimeByKind):
            for kind, names in self.hosts.items():
                found |= self._elsewhere(self.runtime, names, kind)
        return found

    def _elsewhere(self, runtime: RuntimeByKind, names: Sequence[str], kind: str) -> dict[str, str]:
        """Size and time of the files that the first host has which answers."""
        files, _ = runtime.expected(kind)
        for name in names if files else ():
            if said := self._said(name, kind, asking(files, {})):
                named = [f"{kind} {file}" for file in files]
                return dict(zip(named, said, strict=False))
        return {}

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """The runtime's command, placed."""
        command = self.runtime.command(spec, directory)
        root = self.copies.get("")
        if root:
            carrier = self.placement.carrier()
            command = moved(command, root, shares_launches=not carrier.pull)
        return self.placement.apply(command)

    def on(self, host: str, kind: str) -> PlacedRuntime:
        """This runtime on one host."""
        root = self.copies.get(kind, self.copies.get(""))
        return replace(
            self, placement=self.placement.on(host, kind), hosts={},
            copies={"": root} if root else {},
        )  # fmt: skip

    def probe(self) -> Command:
        """A command that does nothing, started as a launch is."""
        return self.placement.apply(_plain(("true",)))


def _plain(words: tuple[str, ...]) -> Command:
    """A command that is no launch."""
    return Command(argv=words, env={}, cwd=Path("/"), config_path=Path(), config={})


def placed(runtime: Runtime, knobs: Knobs) -> Runtime:
    """``runtime`` with the launcher, hosts, CPUs and environment of the knobs; raises
    :class:`RuntimeSetupError` and :class:`KnobError`.
    """
    texts = (knobs.text(name) for name in ("H2O_LAUNCHER", "H2O_CPUS", "H2O_LAUNCH_ENV"))
    placement = replace(
        parse_placement(*texts),
        copy_to=_copying(knobs, "H2O_COPY_TO"), copy_from=_copying(knobs, "H2O_COPY_FROM"),
    )  # fmt: skip
    hosts = parse_hosts(knobs.text("H2O_HOSTS"))
    by_hosts = hosts or isinstance(runtime, RuntimeByKind)
    if placement == Placement() and not by_hosts:
        return runtime
    copies = by_kind("H2O_COPY", knobs.text("H2O_COPY")) if knobs.text("H2O_COPY") else {}
    return PlacedRuntime(runtime, placement, hosts, copies)
