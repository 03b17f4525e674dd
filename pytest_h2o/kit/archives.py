"""Directories that something else left, read as recordings that can be judged without launching.

Four layouts are known beside a run directory of this project: ``launches.json`` (a list) or
``launch.json`` (one object), each with argv and exit codes; ``manifest.json`` as the original sweep
writes it; and a folder of ``*.log`` files, here or in ``logs``. What a file does not say stays
unknown: without argv no particular row is expected, without an exit code a launch ended well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pytest_h2o.kit.command_lines import bench_line, demo_line, is_demo
from pytest_h2o.lab.recordings import Recorded, Recording, RecordingError
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec
from pytest_h2o.runs.ending import explain
from pytest_h2o.runs.launcher import describe_exit
from pytest_h2o.runs.records import LaunchRecord, RecordStatus
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.runtimes import LLM_BENCH, LLM_DEMO

T = TypeVar("T")
SIZE_LIMIT = 16 * 2**20
MAX_ENTRIES = 10_000


class LaunchEntry(BaseModel):
    """One launch as ``launches.json`` or ``launch.json`` describe it."""

    argv: Annotated[list[str], Field(max_length=1000)] = []
    returncode: int | None = None
    seconds: float | None = None
    run_id: str = ""


class SweepEntry(BaseModel):
    """One combination as ``manifest.json`` describes it, as far as it is read; its other keys are
    in its config.
    """

    run_id: str
    prompt_len: int
    gen_len: int
    return_code: int | None = None


def is_own(directory: Path, *, sweep: bool) -> bool:
    """Whether a directory holds the launches of a session's cases, or with ``sweep`` those of
    combinations.

    What ``pytest-h2o bench`` and ``sweep`` write has a manifest: a recording of one case unless a
    preset names it.
    """
    return _has_launches(directory) and (sweep or not (directory / "manifest.json").is_file())


def read_recording(directory: Path) -> Recording:
    """Everything that ``directory`` recorded; raises :class:`RecordingError`."""
    directory = directory.resolve()
    launches = tuple(_launches(directory))
    if not launches:
        expected = "launches/, launches.json, launch.json, manifest.json or *.log"
        raise RecordingError(
            f"{directory} holds none of {expected}; give the directory of an earlier run"
        )
    return Recording(directory, launches)


def _launches(directory: Path) -> Iterator[Recorded]:
    """The launches of the first layout that the directory has."""
    if _has_launches(directory):
        for record in ReplayStore(directory).records():
            yield Recorded(record, (record.label,))
    elif (path := directory / "launches.json").is_file():
        for entry in _read(path, list[LaunchEntry]):
            yield _from_argv(directory, entry)
    elif (path := directory / "launch.json").is_file():
        yield _from_argv(directory, _read(path, LaunchEntry))
    elif (path := directory / "manifest.json").is_file():
        yield from _from_manifest(directory, path)
    else:
        for path in _logs(directory)[:MAX_ENTRIES]:
            yield _from_log(directory, path)


def _has_launches(directory: Path) -> bool:
    return (directory / "launches").is_dir()


def _read(path: Path, kind: type[T]) -> T:
    try:
        with path.open("rb") as file:
            content = TypeAdapter(kind).validate_json(decoded(file.read(SIZE_LIMIT)))
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise RecordingError(
            f"{path}: {place}: {first['msg']}; give the directory of an earlier run"
        ) from None
    if isinstance(content, list) and len(content) > MAX_ENTRIES:
        raise RecordingError(f"{path}: {len(content)} launches, at most {MAX_ENTRIES}")
    return content


def _logs(directory: Path) -> list[Path]:
    inside = directory / "logs"
    folder = inside if inside.is_dir() else directory
    return sorted(folder.glob("*.log"))


def _from_argv(directory: Path, entry: LaunchEntry) -> Recorded:
    return _demo(directory, entry) if is_demo(entry.argv) else _bench(directory, entry)


def _bench(directory: Path, entry: LaunchEntry) -> Recorded:
    line = bench_line(entry.argv)
    stems = [entry.run_id]
    stems += [Path(path).stem for path in line.configs]
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, stems),
        prompt_tokens=line.prompt_tokens,
        gen_tokens=line.gen_tokens,
        repeat=line.repeat,
        threads=line.threads,
        backend=line.backend,
    )
    stem = entry.run_id or "log"
    stdout = _find(directory, f"{stem}.stdout", "stdout")
    table = stdout if line.table is None else _find(directory, line.table)
    record = _record(spec, directory, entry, table=table, stdout=stdout, stem=stem)
    return Recorded(record, line.labels)


def _demo(directory: Path, entry: LaunchEntry) -> Recorded:
    line = demo_line(entry.argv)
    spec = LaunchSpec(
        program=LLM_DEMO.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, ["config"]),
        gen_tokens=line.gen_tokens,
        prompt_file=line.prompt,
    )
    stem = line.prompt.stem
    stdout = _find(directory, f"{stem}.stdout", "stdout")
    names = [f"{stem}.metrics.jsonl"]
    if line.metrics:
        names.append(line.metrics)
    record = _record(spec, directory, entry, table=stdout, stdout=stdout, stem=stem)
    return Recorded(replace(record, metrics=_find(directory, *names)), (stem,))


def _from_manifest(directory: Path, path: Path) -> Iterator[Recorded]:
    entries = _read(path, list[SweepEntry])
    planned = all(entry.return_code is None for entry in entries)
    if planned and not _logs(directory):
        raise RecordingError(f"{path} is a plan, nothing was launched; run it without --dry-run")
    for entry in entries:
        yield _combination(directory, entry)


def _combination(directory: Path, entry: SweepEntry) -> Recorded:
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [entry.run_id]),
        prompt_tokens=entry.prompt_len,
        gen_tokens=entry.gen_len,
    )
    name = Path(entry.run_id).name
    table = _find(directory, f"{name}.log")
    stdout = _find(directory, f"{name}.stdout")
    ended = LaunchEntry(returncode=entry.return_code)
    record = _record(spec, directory, ended, table=table, stdout=stdout, stem=entry.run_id)
    return Recorded(record, (spec.label,))


def _from_log(directory: Path, path: Path) -> Recorded:
    """A log of unknown origin: it may hold a table alone, or all that a program printed."""
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [path.stem]),
        gen_tokens=0,
    )
    beside = path.with_suffix(".stdout")
    stdout = beside if beside.is_file() else path
    unknown = LaunchEntry()
    record = _record(spec, directory, unknown, table=path, stdout=stdout, stem=path.stem)
    return Recorded(record)


def _record(  # noqa: PLR0913  the files of a launch
    spec: LaunchSpec, directory: Path, entry: LaunchEntry, *, table: Path, stdout: Path, stem: str
) -> LaunchRecord:
    stderr = _find(directory, f"{stem}.stderr", "stderr")
    ended: RecordStatus = "ok" if entry.returncode in (None, 0) else "failed"
    ending = "" if entry.returncode is None else describe_exit(entry.returncode)
    status, reason = explain(spec.program, ended, ending, stdout, stderr)
    return LaunchRecord(
        spec=spec,
        status=status,
        reason=reason,
        directory=directory,
        stdout=stdout,
        stderr=stderr,
        config_path=_find(directory, f"{stem}.json", "config.json"),
        table=table,
        metrics=_find(directory, f"{stem}.metrics.jsonl"),
        argv=tuple(entry.argv),
        returncode=entry.returncode,
        seconds=entry.seconds,
    )


def _find(directory: Path, *names: str) -> Path:
    """The first of ``names`` that is a file here, in ``logs`` or in ``configs``; else where it
    would be.
    """
    for name in map(_base, names):
        for folder in (directory, directory / "logs", directory / "configs"):
            if (folder / name).is_file():
                return folder / name
    return directory / _base(names[0])


def _base(name: str) -> str:
    return Path(name).name or "unnamed"


def _config(directory: Path, stems: Iterable[str]) -> Mapping[str, ConfigValue]:
    """The ``kv_*`` keys of the first config that was kept under one of ``stems``."""
    paths = [_find(directory, f"{stem}.json") for stem in stems if stem]
    kept = [path for path in paths if path.is_file()]
    if not kept or kept[0].stat().st_size > SIZE_LIMIT:
        return {}
    try:
        content = json.loads(kept[0].read_bytes())
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    values = (bool, int, float, str)
    return {
        key: value
        for key, value in content.items()
        if key.startswith("kv_") and isinstance(value, values)
    }
