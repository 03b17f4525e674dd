"""Launches that something else recorded: other layouts of a run directory, read for judging without
launching.

Four layouts are known: ``launches.json`` (a list) or ``launch.json`` (one object), each with argv
and exit codes; ``manifest.json`` as the original sweep writes it; and a folder of ``*.log`` files,
here or in ``logs``. What a file
does not say stays unknown: without argv no particular row is expected, without an exit code a
launch ended well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise, product
from math import prod
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pytest_h2o.plan.cases import Case, candidate_case, recorded_case
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.prompts import Prompt, PromptSelection, bucket_of
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec, Work
from pytest_h2o.runs.ending import explain
from pytest_h2o.runs.launcher import describe_exit
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launch
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.runtimes import LLM_BENCH, LLM_DEMO

T = TypeVar("T")
SIZE_LIMIT = 16 * 2**20
MAX_ENTRIES = 10_000
# Options of llm_bench that this reads, by every spelling; each multiplies the rows by its number of
# values.
OPTIONS = {
    "-a": "backend", "--backends": "backend", "-c": "precision", "--precision": "precision", "-t": "threads",
    "--threads": "threads", "--memory": "memory", "--power": "power", "-dyo": "dynamic", "-mr": "ratio",
    "-scn": "cores",
    "-qatten": "attention", "--quant-attention": "attention", "-p": "prompts", "--n-prompt": "prompts",
    "-n": "gens", "--n-gen": "gens", "-rep": "repeat", "--n-repeat": "repeat", "-kv": "demo", "--kv-cache": "demo",
    "-fp": "table", "--file-print": "table", "-m": "config", "--model": "config",
}  # fmt: skip
VARIANTS = (
    "config",
    "backend",
    "precision",
    "threads",
    "memory",
    "power",
    "dynamic",
    "ratio",
    "cores",
    "attention",
)


class RecordingError(ValueError):
    """A directory holds nothing that can be judged; the message names the file, the cause and the
    next step.
    """


class Entry(BaseModel):
    """One launch as ``launches.json`` or ``launch.json`` describe it."""

    argv: Annotated[list[str], Field(max_length=1000)] = []
    returncode: int | None = None
    seconds: float | None = None
    run_id: str = ""


class ManifestEntry(BaseModel):
    """One combination as the original sweep's ``manifest.json`` describes it; its other keys are in
    its config.
    """

    run_id: str
    prompt_len: int
    gen_len: int
    return_code: int | None = None


@dataclass(frozen=True)
class Recorded:
    """A launch and the labels of the rows that it must have printed; none where that is unknown."""

    record: LaunchRecord
    labels: tuple[str, ...] = ()

    def read(self, case: str) -> Run:
        """The launch as a run of its own."""
        rows, problems = read_launch(self.record, self.labels)
        return Run(case, (self.record,), tuple(rows), tuple(problems))


@dataclass(frozen=True)
class Recording:
    """What a directory recorded."""

    directory: Path
    launches: tuple[Recorded, ...]

    @property
    def name(self) -> str:
        """The name of the directory, which is also that of its bench case."""
        return self.directory.name

    def cases(self, knobs: Knobs) -> dict[str, Case]:
        """The recorded cases: one of prompt lengths if there is any, and the real prompts."""
        bench = [each.record.spec for each in self.launches if each.record.spec.work == "lengths"]
        cases = [recorded_case(self.name, knobs, bench[0])] if bench else []
        cases.append(candidate_case(knobs))
        return {case.name: case for case in cases}

    def run(self, case: Case) -> Run:
        """The recorded launches of a case's kind."""
        if case.name not in self._runs:
            self._runs[case.name] = _joined(case.name, self._of(case.work), self.directory)
        return self._runs[case.name]

    @cached_property
    def prompts(self) -> PromptSelection:
        """The recorded prompts; their texts are not at hand."""
        paths = [each.record.spec.prompt_file for each in self._of("prompts")]
        return PromptSelection(
            tuple(Prompt(path, bucket_of(path.name), path.stem) for path in paths if path), ()
        )

    @property
    def records(self) -> list[LaunchRecord]:
        """The recorded launches."""
        return [each.record for each in self.launches]

    @property
    def has_h2o(self) -> bool:
        """Whether any launch had H2O on."""
        return any(each.record.spec.config.get("kv_h2o_enable") for each in self.launches)

    @cached_property
    def _runs(self) -> dict[str, Run]:
        return {}

    def _of(self, work: Work) -> list[Recorded]:
        return [each for each in self.launches if each.record.spec.work == work]


def _joined(case: str, launches: Sequence[Recorded], directory: Path) -> Run:
    runs = [each.read(case) for each in launches]
    problems = (
        [problem for run in runs for problem in run.problems]
        if runs
        else [f"no such launch in {directory}"]
    )
    return Run(
        case,
        tuple(record for run in runs for record in run.launches),
        tuple(row for run in runs for row in run.rows),
        tuple(problems),
    )


def is_own(directory: Path, *, sweep: bool) -> bool:
    """Whether a directory holds the launches of a session's cases, or with ``sweep`` those of
    combinations.

    What ``pytest-h2o bench`` and ``sweep`` write has a manifest: a recording of one case unless a
    preset names it.
    """
    return _has_launches(directory) and (sweep or not (directory / "manifest.json").is_file())


def _has_launches(directory: Path) -> bool:
    return (directory / "launches").is_dir()


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
    if _has_launches(directory):
        for record in ReplayStore(directory).records():
            yield Recorded(record, (record.label,))
    elif (path := directory / "launches.json").is_file():
        yield from (_from_argv(directory, entry) for entry in _read(path, list[Entry]))
    elif (path := directory / "launch.json").is_file():
        yield _from_argv(directory, _read(path, Entry))
    elif (path := directory / "manifest.json").is_file():
        entries = _read(path, list[ManifestEntry])
        if all(entry.return_code is None for entry in entries) and not _logs(directory):
            raise RecordingError(
                f"{path} is a plan, nothing was launched; run it without --dry-run"
            )
        yield from (_from_manifest(directory, entry) for entry in entries)
    else:
        yield from (_from_log(directory, path) for path in _logs(directory)[:MAX_ENTRIES])


def _read(path: Path, kind: type[T]) -> T:
    try:
        with path.open("rb") as file:
            content = TypeAdapter(kind).validate_json(file.read(SIZE_LIMIT))
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
    return sorted((inside if inside.is_dir() else directory).glob("*.log"))


def _from_argv(directory: Path, entry: Entry) -> Recorded:
    argv = _without_launcher(entry.argv)
    if Path(argv[0] if argv else "").name.startswith(LLM_DEMO.name):
        return _demo(directory, entry, argv)
    options = _options(argv)
    prompts = [
        length for length in _integers(options.get("prompts", ["512"])) if length
    ]  # 0 is skipped
    gens = [length for length in _integers(options.get("gens", ["128"])) if length]
    demo_table = options.get("demo", ["false"])[-1] == "true"
    copies = prod(len(options.get(name, [""])) for name in VARIANTS)
    labels = tuple(f"p{p}_g{g}" for p, g in product(prompts, gens)) * copies if demo_table else ()
    stem = entry.run_id or "log"
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(
            directory, [entry.run_id, *(Path(path).stem for path in options.get("config", []))]
        ),
        prompt_tokens=next(iter(prompts), None),
        gen_tokens=next(iter(gens), 0),
        repeat=next(iter(_integers(options.get("repeat", ["5"]))), None),
        threads=next(iter(_integers(options.get("threads", ["4"]))), 4),
        backend=backend
        if (backend := options.get("backend", ["cpu"])[0]) in ("metal", "opencl")
        else "cpu",
    )
    printed = _find(directory, Path(options["table"][-1]).name) if "table" in options else None
    stdout = _find(directory, f"{stem}.stdout", "stdout")
    return Recorded(
        _record(spec, directory, entry, table=printed or stdout, stdout=stdout, stem=stem), labels
    )


def _without_launcher(argv: list[str]) -> list[str]:
    """The words from the program on: ``taskset -c 0,1`` and the like have options that look like
    the program's.
    """
    return next(
        (
            argv[at:]
            for at, word in enumerate(argv)
            if Path(word).name.startswith((LLM_BENCH.name, LLM_DEMO.name))
        ),
        argv,
    )


def _demo(directory: Path, entry: Entry, argv: list[str]) -> Recorded:
    prompt = Path(argv[2] if len(argv) > 2 else "unnamed")
    budget = _integers(argv[3:4])
    spec = LaunchSpec(
        program=LLM_DEMO.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, ["config"]),
        gen_tokens=budget[0] if budget else 0,
        prompt_file=prompt,
    )
    stdout = _find(directory, f"{prompt.stem}.stdout", "stdout")
    record = _record(spec, directory, entry, table=stdout, stdout=stdout, stem=prompt.stem)
    words = chain.from_iterable(
        word.split("=", 1) if word.startswith("--") else [word] for word in argv[3:]
    )
    named = [value for word, value in pairwise(words) if word == "--metrics-jsonl"]
    record = replace(record, metrics=_find(directory, f"{prompt.stem}.metrics.jsonl", *named[-1:]))
    return Recorded(record, (prompt.stem,))


def _from_manifest(directory: Path, entry: ManifestEntry) -> Recorded:
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [entry.run_id]),
        prompt_tokens=entry.prompt_len,
        gen_tokens=entry.gen_len,
    )
    table = _find(directory, f"{Path(entry.run_id).name}.log")
    stdout = _find(directory, f"{Path(entry.run_id).name}.stdout")
    ended = Entry(returncode=entry.return_code)
    return Recorded(
        _record(spec, directory, ended, table=table, stdout=stdout, stem=entry.run_id),
        (spec.label,),
    )


def _from_log(directory: Path, path: Path) -> Recorded:
    """A log of unknown origin: it may hold a table alone, or all that a program printed."""
    spec = LaunchSpec(
        program=LLM_BENCH.name,
        arm=directory.name,
        replicate=1,
        config=_config(directory, [path.stem]),
        gen_tokens=0,
    )
    stdout = path.with_suffix(".stdout")
    out = stdout if stdout.is_file() else path
    return Recorded(_record(spec, directory, Entry(), table=path, stdout=out, stem=path.stem))


def _record(  # noqa: PLR0913  the files of a launch
    spec: LaunchSpec, directory: Path, entry: Entry, *, table: Path, stdout: Path, stem: str
) -> LaunchRecord:
    stderr = _find(directory, f"{stem}.stderr", "stderr")
    ok = entry.returncode in (None, 0)
    ending = "" if entry.returncode is None else describe_exit(entry.returncode)
    status, reason = explain(spec.program, "ok" if ok else "failed", ending, stdout, stderr)
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
    """The ``kv_*`` keys of the launch's config, as far as it was kept."""
    path = next(
        (path for stem in stems if stem and (path := _find(directory, f"{stem}.json")).is_file()),
        None,
    )
    if path is None or path.stat().st_size > SIZE_LIMIT:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        k: v
        for k, v in content.items()
        if k.startswith("kv_") and isinstance(v, bool | int | float | str)
    }


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """The values of the options that are known here; the program adds up lists that are given
    twice.
    """
    values: dict[str, list[str]] = {}
    for word, value in pairwise(argv):
        if name := OPTIONS.get(word.replace("_", "-") if word.startswith("--") else word):
            parts = value.split(",")
            values.setdefault(name, []).extend(parts[:1] if name in ("demo", "table") else parts)
    return values


def _integers(words: Iterable[str]) -> list[int]:
    return [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 10]
