"""The launches that one directory recorded, whatever left them there.

Four layouts are known beside a run directory of this project: ``launches.json`` (a list) or
``launch.json`` (one object), each with argv and exit codes; ``manifest.json`` as the original sweep
writes it, with what all its launches printed in ``bench_stdout.log``; and a folder of ``*.log``
files, here or in ``logs``. What a file does not say stays unknown: without argv no particular row
is expected, without an exit code a launch ended well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pytest_h2o.kit.command_lines import bench_line, demo_line, is_demo
from pytest_h2o.kit.manifest import settings_of
from pytest_h2o.kit.transcripts import TranscriptPiece, split_transcript
from pytest_h2o.lab.recordings import Recorded, RecordingError
from pytest_h2o.parsers.argv_options import plain_path
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec
from pytest_h2o.runs.ending import explain
from pytest_h2o.runs.launcher import describe_exit
from pytest_h2o.runs.records import LaunchRecord, RecordStatus
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.runtimes import LLM_BENCH, LLM_DEMO
from pytest_h2o.runtimes.base import NO_FILE
from pytest_h2o.runtimes.launch_config import kept_config

T = TypeVar("T")
SIZE_LIMIT = 16 * 2**20
MAX_ENTRIES = 10_000
TRANSCRIPT = "bench_stdout.log"
BASELINE = "baseline_batch"
LISTS = ("launches.json", "launch.json", "manifest.json")
CONSOLES = ("_stdout.log", ".console.log")
# Columns may stand in any order, and colours around them.
TABLE_HEAD = re.compile(
    r"\| *(?:model|modelSize|backend|threads|llm_demo|test) *\|"
    r"(?:[^|\n]*\|)*? *(?:llm_demo|test|speed\(tok/s\)|t/s|threads|backend|model) *\|"
)
# What llm_demo says before and after an answer.
DEMO_HEAD = re.compile(r"^(config path|prompt file) is (\S.*)$", re.MULTILINE)
Settings = Mapping[str, ConfigValue]
EMPTY: Settings = MappingProxyType({})


class LaunchEntry(BaseModel):
    """One launch as ``launches.json`` or ``launch.json`` describe it."""

    argv: Annotated[list[str], Field(max_length=1000)] = []
    returncode: int | None = None
    seconds: float | None = None
    run_id: str = ""


class SweepEntry(BaseModel):
    """One combination as ``manifest.json`` describes it; its other keys are settings."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    prompt_len: int
    gen_len: int
    return_code: int | None = None


def has_any(directory: Path, names: Iterable[str]) -> bool:
    """Whether a file with one of the names lies there."""
    return any((directory / name).is_file() for name in names)


def has_launches(directory: Path) -> bool:
    """Whether this project's own launches lie there, and no recording that is called so."""
    launches = directory / "launches"
    return launches.is_dir() and not has_any(launches, LISTS)


def logs_in(directory: Path) -> list[Path]:
    """What is called a log there, in order; nobody is kept from calling a directory so."""
    return [path for path in sorted(directory.glob("*.log")) if not path.is_dir()]


def holds_launches(directory: Path) -> bool:
    """Whether any of the layouts is known to lie there, and not only logs of who knows what."""
    if has_any(directory, (*LISTS, TRANSCRIPT)) or has_launches(directory):
        return True
    return bool(_logs(directory))


def baseline_in(directory: Path) -> str:
    """The folder in which a sweep's launches were made once more with H2O off; empty without one.
    Whoever renamed it left its manifest.
    """
    if (directory / BASELINE).is_dir():
        return BASELINE
    if not (directory / "manifest.json").is_file():
        return ""
    for path in sorted(directory.glob("*/manifest.json")):
        if not has_launches(path.parent) and _is_off(path):
            return path.parent.name
    return ""


def _is_off(manifest: Path) -> bool:
    try:
        entries = _read(manifest, list[SweepEntry])
    except RecordingError:
        return False  # said where it is read
    off = [(entry.model_extra or {}).get("disable_h2o") is True for entry in entries]
    return bool(off) and all(off)


def launches_in(directory: Path, transcript: Path | None = None) -> tuple[Recorded, ...]:
    """The launches of all layouts that the directory has, and logs that none of them names.

    ``transcript`` holds what all launches of a sweep printed, by default ``bench_stdout.log``.
    """
    found = list(_listed(directory, transcript or directory / TRANSCRIPT))
    read: set[Path] = set()
    for each in found:
        read.update(each.record.files)
    copies: set[str] = set()
    if has_launches(directory):  # the tables of this project's own sweeps lie there once more
        copies = {f"{each.record.spec.arm}.log" for each in found}
    for path in _logs(directory):
        if path not in read and path.name not in copies and _is_output(path, read):
            found.append(_from_log(directory, path))
    return tuple(found)


def loose_logs(directory: Path) -> tuple[Recorded, ...]:
    """Every log as a launch of its own."""
    paths = logs_in(directory)
    _check_number(directory, paths)
    return tuple(_from_log(directory, path) for path in paths)


def _check_number(place: Path, found: Sized) -> None:
    if len(found) > MAX_ENTRIES:
        raise RecordingError(f"{place}: {len(found)} launches, at most {MAX_ENTRIES}")


def _is_output(path: Path, read: Collection[Path]) -> bool:
    """Whether a log is that of a launch of its own, not what stands on another one's stderr."""
    if path.stem.endswith(".stderr"):
        return False
    return path.with_suffix(".stdout") not in read


def _listed(directory: Path, transcript: Path) -> Iterator[Recorded]:
    """The launches that a layout names, or that the transcript tells of."""
    if has_launches(directory):
        for record in ReplayStore(directory).records():
            yield Recorded(record, (record.label,))
    if (path := directory / "launch.json").is_file():
        yield _from_argv(directory, _read(path, LaunchEntry))
    manifest = directory / "manifest.json"
    if (path := directory / "launches.json").is_file():
        entries = _read(path, list[LaunchEntry])
        yield from _from_list(directory, entries, transcript)
        yield from _not_listed(directory, manifest, {entry.run_id for entry in entries})
    elif manifest.is_file() and not has_launches(directory):
        yield from _from_manifest(directory, manifest, transcript)
    elif transcript.is_file():
        run_ids = [path.stem for path in _logs(directory)]
        yield from _unlisted(directory, split_transcript(transcript, run_ids))


def _not_listed(directory: Path, manifest: Path, named: Collection[str]) -> Iterator[Recorded]:
    """The combinations of a manifest that a list of launches beside it does not name."""
    entries = _read(manifest, list[SweepEntry]) if manifest.is_file() and any(named) else []
    for entry in entries:
        if entry.run_id not in named:
            yield _untold(directory, entry, settings_of(entry.model_dump()))


def _logs(directory: Path) -> list[Path]:
    """The logs in ``logs``, and those that hold a table beside it."""
    inside, beside = logs_in(directory / "logs"), logs_in(directory)
    for found in (inside, beside):
        _check_number(directory, found)
    # A folder of logs that somebody else's programs wrote is no launch.
    beside = [path for path in beside if _tells_of_a_launch(path)]
    return inside + beside


def _tells_of_a_launch(path: Path) -> bool:
    """Whether a log holds the head of a table or what llm_demo says, and is none of several
    launches.
    """
    if path.name.endswith(CONSOLES) or not path.is_file():
        return False
    text = _beginning(path)
    return bool(TABLE_HEAD.search(text) or DEMO_HEAD.search(text))


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return decoded(file.read(SIZE_LIMIT))


def _read(path: Path, kind: type[T]) -> T:
    """The content of a JSON file; raises :class:`RecordingError`."""
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
    if isinstance(content, list):
        _check_number(path, content)
    return content


def _from_list(
    directory: Path, entries: Sequence[LaunchEntry], transcript: Path
) -> Iterator[Recorded]:
    """Launches that ``launches.json`` lists, with what a transcript tells of those that it names
    only.
    """
    run_ids = [entry.run_id for entry in entries if entry.run_id]
    pieces = split_transcript(transcript, run_ids) if run_ids and transcript.is_file() else {}
    for entry in entries:
        piece = pieces.pop(entry.run_id, None)
        if piece is None or entry.argv:
            yield _from_argv(directory, entry)
        else:
            told = entry.model_copy(update={"argv": list(piece.argv)})
            yield bench_launch(directory, told, piece=piece.path)
    yield from _unlisted(directory, pieces)


def _unlisted(directory: Path, pieces: Mapping[str, TranscriptPiece]) -> Iterator[Recorded]:
    """Launches of which a transcript alone tells: a list that was cut short names fewer."""
    _check_number(directory, pieces)
    for piece in pieces.values():
        unnamed = LaunchEntry(argv=list(piece.argv), run_id=piece.run_id)
        yield bench_launch(directory, unnamed, piece=piece.path)


def _from_argv(directory: Path, entry: LaunchEntry) -> Recorded:
    return _demo(directory, entry) if is_demo(entry.argv) else bench_launch(directory, entry)


def bench_launch(
    directory: Path, entry: LaunchEntry, *, piece: Path | None = None, said: Settings = EMPTY
) -> Recorded:
    """A launch of ``llm_bench``; ``piece`` is its part of a transcript, ``said`` the settings that
    a manifest has for it.
    """
    line = bench_line(entry.argv)
    stems = [entry.run_id]
    stems += [Path(plain_path(path)).stem for path in line.configs]
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, stems) | dict(said),
        prompt_tokens=line.prompt_tokens,
        gen_tokens=line.gen_tokens,
        repeat=line.repeat,
        threads=line.threads,
        backend=line.backend,
    )
    stem = entry.run_id or "log"
    stdout = piece or _find(directory, f"{stem}.stdout", "stdout")
    if line.table:
        table = _find(directory, line.table, f"{stem}.log")
    else:
        table = _find(directory, f"{stem}.stdout", "stdout", f"{stem}.log")
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
    if line.config and not record.config_path.is_file():
        record = replace(record, config_path=_find(directory, line.config))
    return Recorded(replace(record, metrics=_find(directory, *names)), (stem,))


def _from_manifest(directory: Path, path: Path, transcript: Path) -> Iterator[Recorded]:
    entries = _read(path, list[SweepEntry])
    planned = all(entry.return_code is None for entry in entries)
    if planned and not _logs(directory) and not transcript.is_file():
        raise RecordingError(f"{path} is a plan, nothing was launched; run it without --dry-run")
    run_ids = [entry.run_id for entry in entries]
    pieces = split_transcript(transcript, run_ids) if transcript.is_file() else {}
    for entry in entries:
        yield _combination(directory, entry, pieces.pop(entry.run_id, None))
    yield from _unlisted(directory, pieces)


def _combination(directory: Path, entry: SweepEntry, piece: TranscriptPiece | None) -> Recorded:
    said = settings_of(entry.model_dump())
    if piece is None:
        return _untold(directory, entry, said)
    launch = LaunchEntry(
        argv=list(piece.argv), returncode=entry.return_code, run_id=Path(entry.run_id).name
    )
    return bench_launch(directory, launch, piece=piece.path, said=said)


def _untold(directory: Path, entry: SweepEntry, said: Settings) -> Recorded:
    """A combination of which no transcript tells."""
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [entry.run_id]) | dict(said),
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
    said = dict(DEMO_HEAD.findall(_beginning(path))) if path.is_file() else {}
    if "prompt file" in said:
        return _from_demo_log(directory, path, Path(plain_path(said["prompt file"].strip())))
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


def _from_demo_log(directory: Path, path: Path, prompt: Path) -> Recorded:
    """What llm_demo printed: nobody knows what it was asked for, or whether for a record."""
    stem = path.name.removesuffix(".log").removesuffix(".stdout")
    spec = LaunchSpec(
        program=LLM_DEMO.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [stem, "config"]),
        gen_tokens=0,
        prompt_file=prompt,
    )
    record = _record(spec, directory, LaunchEntry(), table=path, stdout=path, stem=stem)
    if not record.metrics.is_file():
        record = replace(record, metrics=NO_FILE)
    return Recorded(record, (spec.label,))


def _record(  # noqa: PLR0913  the files of a launch
    spec: LaunchSpec, directory: Path, entry: LaunchEntry, *, table: Path, stdout: Path, stem: str
) -> LaunchRecord:
    stderr = _find(directory, f"{stem}.stderr", "stderr")
    status, reason = _ended(spec.program, entry, stdout, stderr)
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


def _ended(
    program: str, entry: LaunchEntry, stdout: Path, stderr: Path
) -> tuple[RecordStatus, str]:
    """How a launch ended, by its exit code if there is one, and by what it printed."""
    ended: RecordStatus = "ok" if entry.returncode in (None, 0) else "failed"
    ending = "" if entry.returncode is None else describe_exit(entry.returncode)
    return explain(program, ended, ending, stdout, stderr)


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
    return Path(plain_path(name)).name or "unnamed"


def _config(directory: Path, stems: Iterable[str]) -> dict[str, ConfigValue]:
    """The ``kv_*`` keys of the first config that was kept under one of ``stems``."""
    for stem in filter(None, stems):
        path = _find(directory, f"{stem}.json")
        if path.is_file():
            return settings_in(path)
    return {}


def settings_in(path: Path) -> dict[str, ConfigValue]:
    """The ``kv_*`` keys of a config; none of one that cannot be read."""
    found: dict[str, ConfigValue] = {}
    for key, value in (kept_config(path) or {}).items():
        if key.startswith("kv_") and isinstance(value, bool | int | float | str):
            found[key] = value
    return found


def demo_record(
    spec: LaunchSpec,
    directory: Path,
    entry: LaunchEntry,
    files: tuple[Path, Path, Path, Path],
    missing: str = "",
) -> Recorded:
    """A launch over a real prompt whose ``files`` are stdout, stderr, metrics record and config;
    ``missing`` says why there was none.
    """
    stdout, stderr, metrics, config = files
    status, reason = _ended(spec.program, entry, stdout, stderr)
    if missing:
        status, reason = "not_recorded", missing
    record = LaunchRecord(
        spec=spec,
        status=status,
        reason=reason,
        directory=directory,
        stdout=stdout,
        stderr=stderr,
        config_path=config,
        table=stdout,
        metrics=metrics,
        returncode=entry.returncode,
    )
    return Recorded(record, (spec.label,))
