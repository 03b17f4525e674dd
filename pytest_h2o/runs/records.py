"""What is kept of a launch: :class:`LaunchRecord` and its file ``launch.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.usage import Usage
from pytest_h2o.runtimes import find_program
from pytest_h2o.runtimes.base import CONFIG_FILE, METRICS_FILE, TABLE_FILE
from pytest_h2o.runtimes.registry import UnknownProgramError

RECORD_FILE = "launch.json"
SCHEMA_VERSION = 1
SIZE_LIMIT = 16 * 2**20
RecordStatus = Literal["ok", "failed", "timeout", "not_started", "not_recorded", "out_of_time"]
T = TypeVar("T")


class RecordError(ValueError):
    """A ``launch.json`` cannot be used; the message names the file and the cause."""


@dataclass(frozen=True, kw_only=True)
class LaunchRecord(Usage):
    """One launch, how it ended and what it used. Every file is named; one that the program did not
    write does not exist.

    Attributes:
        status: ``ok`` (exit code 0), ``failed``, ``timeout``, ``not_started``, ``not_recorded``
            in a replay, or ``out_of_time`` where the session has no more of it.
        reason: how it ended, in words; after a failure followed by the most telling lines of its
            output.
        seconds: wall time; cpu_seconds: user and system time. None if it was not started.
        table: where ``llm_bench`` writes its table; metrics: where ``llm_demo`` writes its JSONL
            record.
        overridden: values of the user's base config that the launch replaced.
        outputs: hashes of what the :attr:`files` held when the launch had ended, by file name.
        inputs: what the results depend on, as hashes by name.
        reused_from: the directory of an earlier session that the launch was taken from.
        host: the host that it was launched on; empty for this machine.
    """

    spec: LaunchSpec
    status: RecordStatus
    reason: str
    directory: Path
    stdout: Path
    stderr: Path
    config_path: Path
    table: Path
    metrics: Path
    runtime: str = ""
    argv: tuple[str, ...] = ()
    started_utc: str | None = None
    returncode: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    overridden: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    reused_from: str | None = None
    host: str = ""

    def __hash__(self) -> int:
        return hash((self.directory, self.spec.key))

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    @property
    def program(self) -> str:
        """The spec's program."""
        return self.spec.program

    @property
    def label(self) -> str:
        """The spec's label."""
        return self.spec.label

    @property
    def repeat(self) -> int | None:
        """The spec's measured repeats."""
        return self.spec.repeat

    @property
    def changed(self) -> list[str]:
        """The outputs that are not what they were when the launch had ended; none where that was
        not noted.
        """
        found: list[str] = []
        for path in self.files:
            noted = self.outputs.get(path.name)
            if noted is not None and digest(path) != noted:
                found.append(path.name)
        return found

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """What results are read from: stdout, and the files that programs leave."""
        paths = [self.stdout, self.table, self.metrics]
        paths += [self.directory / name for name in files_of(self.program)]
        return tuple(dict.fromkeys(paths))

    def sealed(self) -> LaunchRecord:
        """This record with the hashes of its outputs; one of them that is no file fails the
        launch.
        """
        # Nothing of another is read as a measurement, and what wrote too much may be endless.
        if self.status != "ok":
            return self
        strange = [path.name for path in self.files if path.exists() and not path.is_file()]
        if strange:
            reason = f"{' and '.join(strange)} is no regular file; the program must write its own"
            return replace(self, status="failed", reason=reason)
        return replace(self, outputs={path.name: digest(path) for path in self.files})


def digest(path: Path) -> str:
    """The first half of the SHA-256 of a regular file, ``absent`` without one."""
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def files_of(program: str) -> tuple[str, ...]:
    """The names of the files that a program leaves; none of one that is not known here."""
    try:
        return find_program(program).files
    except UnknownProgramError:
        return ()


HINTS: Mapping[type, Mapping[str, Any]] = {
    LaunchRecord: get_type_hints(LaunchRecord),
    LaunchSpec: get_type_hints(LaunchSpec),
}


def standard_paths(directory: Path) -> dict[str, Any]:
    """The files of a launch in ``directory``, as fields of its record."""
    return {
        "directory": directory,
        "stdout": directory / "stdout",
        "stderr": directory / "stderr",
        "config_path": directory / CONFIG_FILE,
        "table": directory / TABLE_FILE,
        "metrics": directory / METRICS_FILE,
    }


def save_record(record: LaunchRecord) -> None:
    """Write ``launch.json`` at once or not at all; paths below the launch's directory are kept
    relative.

    A table or a metrics record that the program does not write is not named.
    """
    content = {"schema_version": SCHEMA_VERSION, **_fields(record), "spec": _fields(record.spec)}
    left = files_of(record.program)
    for name, file in (("table", TABLE_FILE), ("metrics", METRICS_FILE)):
        if file not in left:
            del content[name]

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Path) and value.is_relative_to(record.directory):
            value = value.relative_to(record.directory)
        return str(value)

    write_atomically(
        record.directory / RECORD_FILE, json.dumps(content, indent=1, default=plain) + "\n"
    )


def load_record(path: Path) -> LaunchRecord:
    """Read a ``launch.json``, wherever its directory was moved to; raises :class:`RecordError`."""
    try:
        if path.stat().st_size > SIZE_LIMIT or not path.is_file():
            raise ValueError("larger than 16 MiB, or no regular file")
        content = json.loads(path.read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {content['schema_version']}, expected {SCHEMA_VERSION}"
            )
        if content.get("status") == "ok" and content.get("returncode"):
            raise ValueError(f"status ok with exit code {content['returncode']}")
        spec = _build(LaunchSpec, content["spec"], Path())
        find_program(spec.program)
        return _build(
            LaunchRecord, {**standard_paths(path.parent), **content, "spec": spec}, path.parent
        )
    except UnknownProgramError as error:
        raise RecordError(
            f"{path} is not a launch record for what is installed: {error}"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(
            f"{path} is not a launch record: {type(error).__name__}: {error}"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by a file that is complete or absent, whatever interrupts."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _fields(instance: LaunchRecord | LaunchSpec) -> dict[str, object]:
    return {each.name: getattr(instance, each.name) for each in fields(instance)}


def _build(cls: type[T], content: Mapping[str, Any], directory: Path) -> T:
    """An instance of a dataclass from plain JSON values, every one checked against its field's
    type.
    """
    values = {}
    for name, hint in HINTS[cls].items():
        if name not in content:
            continue
        value = content[name]
        if isinstance(value, str) and Path in (hint, *get_args(hint)):
            value = directory / value
        if isinstance(value, list):
            value = tuple(value)
        if not _fits(value, hint):
            raise ValueError(f"{name} is {value!r:.100}")
        values[name] = value
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if args:  # Mapping[str, ...]
        return isinstance(value, dict) and all(_fits(item, args[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, hint)
