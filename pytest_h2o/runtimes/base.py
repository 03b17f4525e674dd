"""What a runtime and a program are: who can be asked for a launch, and what is launched."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

from pytest_h2o.parsers.held_out import HeldOut
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.knobs import KnobValue
from pytest_h2o.plan.specs import LaunchSpec, Work

# The files of a launch, in its directory.
CONFIG_FILE = "config.json"
TABLE_FILE = "log.md"
# In place of a file that nobody asked a program for.
NO_FILE = Path(os.devnull)
METRICS_FILE = "metrics.jsonl"
QUALITY_FILE = "quality.json"

Capability = Literal["h2o_columns", "kv_dump", "quality", "kv_quant"]
# What a runtime can report, in words.
CAPABILITIES: Mapping[Capability, str] = {
    "h2o_columns": "what H2O did (h2o_columns)",
    "kv_dump": "the KV of a prompt in files (kv_dump)",
    "quality": "how well a held-out text is predicted (quality)",
    "kv_quant": "what quantised KV costs and saves (kv_quant)",
}
Rows = tuple[Sequence[Row], Sequence[str]]


class RuntimeSetupError(Exception):
    """The runtime cannot be used as it is set up; the message names the file, the cause and what to
    do.
    """


class NothingPrintedError(Exception):
    """A launch that ended well printed nothing that rows can be read from; the message says what
    was expected.
    """


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process, ready to start.

    Attributes:
        argv: program and arguments; no shell is involved.
        env: variables set over the environment of this process.
        cwd: working directory of the process.
        config_path: where ``config`` must be written before the start.
        config: the generated engine configuration.
        table: file into which ``llm_bench`` writes its table.
        metrics: file into which ``llm_demo`` writes its JSONL record.
        files: other files that the program writes its results into.
        folders: directories that it leaves files of any name in.
        texts: what must be written before the start beside ``config``, by path.
        overridden: values of the user's base config that the launch replaces, by key.
        carried: the files that it reads, to be copied to a host that does not see them.
        by_hand: a shell starts it, and its output goes to a terminal.
        watched: a shell elsewhere ends the program when standard input ends, so it is held open,
            with a line in it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None
    config_path: Path
    config: Mapping[str, object]
    table: Path | None = None
    metrics: Path | None = None
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    texts: Mapping[Path, str] = field(default_factory=dict)
    overridden: Mapping[str, object] = field(default_factory=dict)
    by_hand: bool = False
    carried: tuple[Path, ...] = ()
    watched: bool = False


class Output(Protocol):
    """What a launch left: files that may be absent, and what it was asked for."""

    @property
    def spec(self) -> LaunchSpec:
        """What was launched."""

    @property
    def directory(self) -> Path:
        """The directory of the launch."""

    @property
    def argv(self) -> tuple[str, ...]:
        """How it was started, empty where that is unknown."""

    @property
    def stdout(self) -> Path:
        """What it printed."""

    @property
    def table(self) -> Path:
        """The table of ``llm_bench``."""

    @property
    def metrics(self) -> Path:
        """The JSONL record of ``llm_demo``."""


class Program(ABC):
    """One thing to launch: how a launch becomes arguments and config, and how what it leaves is
    read.

    A program is known by its ``name`` wherever it was launched, so a name stands for one program in
    all runtimes.

    Attributes:
        work: a launch is one prompt length (``lengths``) or one prompt file (``prompts``).
        files: names of the files that it leaves in the directory of a launch, beside what it
            prints.
        mib_rounding: half the last digit of what it prints in MiB.
    """

    name: ClassVar[str]
    work: ClassVar[Work]
    files: ClassVar[tuple[str, ...]] = ()
    mib_rounding: ClassVar[float] = 0.0

    @abstractmethod
    def arguments(self, spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
        """The words after those that start the program; raises ValueError if ``spec`` lacks
        something.
        """

    @abstractmethod
    def read(self, output: Output, *, fresh: bool) -> Rows:
        """The rows of a launch that ended well, and what is wrong with them.

        ``fresh`` files were written by this launch alone. Raises ParseError for a file that cannot
        be read, and :class:`NothingPrintedError`.
        """

    def config(self, spec: LaunchSpec) -> dict[str, object]:
        """The config keys that a launch sets over the user's."""
        return dict(spec.config)

    def environment(self, spec: LaunchSpec, directory: Path) -> dict[str, str]:
        """Variables that a launch in ``directory`` needs."""
        return {}

    def texts(self, spec: LaunchSpec) -> dict[str, str]:
        """What it reads from files in the directory of a launch, by their names."""
        return {}

    def responses(self, spec: LaunchSpec) -> int | None:
        """How often the model answers in one launch, warm-up included; None if unknown."""
        return 1

    def failure(self, printed: str) -> str:
        """Why a launch that exited with 0 failed all the same, by what it printed; empty if it did
        not.
        """
        return ""

    def text(self, output: Output) -> str | None:
        """What the model wrote, None where the program does not print it; raises ParseError."""
        return None

    def held_out(self, output: Output) -> HeldOut | None:
        """What a launch with ``quality`` showed with quantised KV, None where the program cannot
        tell; raises ParseError.
        """
        return None


@dataclass(frozen=True)
class Found:
    """A path that the user named, absolute, and where it was named: ``--llm-bench``,
    ``LLM_BENCH``.
    """

    path: Path
    source: str


@dataclass(frozen=True)
class Setup:
    """What a runtime is made from.

    Attributes:
        directory: where relative paths start.
        named: ``llm_bench``, ``llm_demo`` and ``model_config``, as far as the user named them.
        reason: why this runtime is used, for people.
    """

    directory: Path
    named: Mapping[str, Found] = field(default_factory=dict)
    reason: str = "chosen explicitly"
    kind: str = ""


class Runtime(Protocol):
    """A provider of programs."""

    @property
    def name(self) -> str:
        """Short name: ``embedded``, ``mnn``."""

    @property
    def programs(self) -> Mapping[str, Program]:
        """The programs by name; of those for the same work the first is launched."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What launches can report."""

    @property
    def elsewhere(self) -> Mapping[str, Path]:
        """The files that only the hosts of launches have, by name."""

    def describe(self) -> str:
        """One line, the name and a colon first, that says what is used and why."""

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if a launch could not succeed: programs, config and
        model files.
        """

    def fingerprint(self) -> dict[str, str]:
        """What results depend on (programs, config, model files) as short hashes by name; cheap for
        large files.
        """

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """How to start ``spec`` so that it writes only to ``directory``; raises
        :class:`RuntimeSetupError`.
        """


@dataclass(frozen=True)
class AroundRuntime:
    """What is a :class:`Runtime` by the programs of another one."""

    runtime: Runtime

    @property
    def name(self) -> str:
        """The runtime's name."""
        return self.runtime.name

    @property
    def programs(self) -> Mapping[str, Program]:
        """The runtime's programs."""
        return self.runtime.programs

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What its launches can report."""
        return self.runtime.capabilities

    @property
    def elsewhere(self) -> Mapping[str, Path]:
        """The files that only the hosts of its launches have."""
        return self.runtime.elsewhere


class RuntimeKind(ABC):
    """A runtime as an entry point of the group ``pytest_h2o.runtimes`` offers it, a
    :class:`Runtime` once it is made.

    Attributes:
        programs: the programs by name, known before anything is set up, as a replay needs them.
        defaults: knob values that stand for the global defaults.
    """

    name: ClassVar[str]
    programs: ClassVar[Mapping[str, Program]]
    capabilities: ClassVar[frozenset[Capability]] = frozenset(CAPABILITIES)
    defaults: ClassVar[Mapping[str, KnobValue]] = {}

    @property
    def elsewhere(self) -> Mapping[str, Path]:
        """The files that only the hosts of launches have, by name."""
        return {}

    @classmethod
    @abstractmethod
    def create(cls, setup: Setup) -> Self:
        """The runtime that ``setup`` describes; raises :class:`RuntimeSetupError`."""

    def describe(self) -> str:
        """One line that says what is used and why."""
        return f"{self.name}: {type(self).__module__}"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if a launch could not succeed."""
        return

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """What results depend on, as short hashes by name."""

    @abstractmethod
    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """How to start ``spec`` so that it writes only to ``directory``."""

    def program(self, spec: LaunchSpec) -> Program:
        """The program of a launch; raises :class:`RuntimeSetupError` if this runtime has none."""
        if spec.program not in self.programs:
            needed = spec.program or f"a program for {spec.work}"
            offered = ", ".join(self.programs) or "nothing"
            raise RuntimeSetupError(
                f"{needed} is needed, and the runtime {self.name} offers {offered}"
            )
        return self.programs[spec.program]
