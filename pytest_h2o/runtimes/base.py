"""What a runtime is: something that says how ``llm_bench`` and ``llm_demo`` are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_h2o.plan.specs import LaunchSpec

# The files of a launch, in its directory.
CONFIG_FILE, TABLE_FILE, METRICS_FILE, QUALITY_FILE = (
    "config.json",
    "log.md",
    "metrics.jsonl",
    "quality.json",
)


class RuntimeSetupError(Exception):
    """The runtime cannot be used as it is set up; the message names the file, the cause and what to
    do.
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
        overridden: values of the user's base config that the launch replaces, by key.
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
    overridden: Mapping[str, object] = field(default_factory=dict)
    watched: bool = False


class Runtime(Protocol):
    """A provider of ``llm_bench`` and ``llm_demo``."""

    @property
    def name(self) -> str:
        """Short name: ``embedded``, ``mnn``."""

    def describe(self) -> str:
        """One line that says what is used and why."""

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
