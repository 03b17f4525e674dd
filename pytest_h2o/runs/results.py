"""What the launches of one case printed, and the numbers gates ask of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

from pytest_h2o.metrics import METRICS, Sample, number
from pytest_h2o.parsers.loglines import LogFacts, read_facts_of_rows, read_log_facts
from pytest_h2o.parsers.rows import ParseError, Row
from pytest_h2o.runs.ending import what_it_said
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runtimes import RuntimeSetupError, find_program
from pytest_h2o.runtimes.base import NothingPrintedError
from pytest_h2o.verdict import NO_H2O, Measured, ShownRow, root_of

MAX_RATIO = 1e6
SHOWN = 3
ROUNDING = 1e-3  # of shares that are printed with four decimals, and means of several
UNITS = {metric.name: metric.unit for metric in METRICS}


class RunRows:
    """Whether the rows of one case can be judged; :class:`Run` has where they come from."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    cause: str
    no_h2o: str

    @property
    def source(self) -> Path | None:
        """The file to look into first."""
        raise NotImplementedError

    def samples(self, metric: str) -> list[tuple[Row, Sample]]:
        """The rows that printed ``metric``."""
        return [(row, row.samples[metric]) for row in self.rows if metric in row.samples]

    def missing(self, metric: str) -> str:
        """Why ``metric`` cannot be judged (a bad launch, an absent column, a value that is not
        finite), or nothing.
        """
        if self.problems:
            return "; ".join(self.problems)
        absent = [row for row in self.rows if metric not in row.samples]
        if absent and metric.startswith("h2o_") and not self.has_h2o:
            return self._kind_of_program()
        if metric == "decode_tps" and absent:
            return f"no decode speed in {_labels(absent)}: they time prefill, or both together"
        if absent:
            return (
                f"no value for {metric} in {_labels(absent)}; the binary may be older than "
                f"this metric"
            )
        wrong = (_wrong(metric, row, sample) for row, sample in self.samples(metric))
        return next(filter(None, wrong), "" if self.rows else "no rows were measured")

    def missing_columns(self, metrics: Sequence[str]) -> list[str]:
        """Why not all of ``metrics`` can be judged; those that the program does not print are named
        together.
        """
        if self.problems or not self.rows:
            return [self.missing(metrics[0])]
        absent: list[str] = []
        reasons: list[str] = []
        for metric in metrics:
            if self._absent(metric):
                absent.append(metric)
            elif (reason := self.missing(metric)) and reason not in reasons:
                reasons.append(reason)
        if absent and not self.has_h2o:
            return [self._kind_of_program()]
        if absent:
            what = f"no value for {', '.join(absent)} in {_labels(self.rows)}"
            reasons.insert(0, f"{what}: {self._kind_of_program()}")
        return reasons

    def cause_of(self, *metrics: str) -> str:
        """The root of what makes the run, or one of ``metrics``, unusable, in words that others
        share; empty where nothing does, or the reason stands alone.
        """
        if self.problems:
            return self.cause or root_of(self.problems)
        absent = [each for each in metrics if each.startswith("h2o_") and self._absent(each)]
        if absent and self.has_h2o and not self.no_h2o:
            return f"the program prints no {absent[0]}: it looks older than this column"
        return self._kind_of_program() if absent else ""

    def _absent(self, metric: str) -> bool:
        return any(metric not in row.samples for row in self.rows)

    def _kind_of_program(self) -> str:
        """What columns that are absent say about the program."""
        if self.no_h2o:
            return self.no_h2o
        return "the binary looks older than these columns" if self.has_h2o else NO_H2O

    @property
    def has_h2o(self) -> bool:
        """Whether any row shows a number of H2O."""
        printed: set[str] = set()
        for row in self.rows:
            printed.update(row.samples)
        return any(metric.startswith("h2o_") for metric in printed)


class RunNumbers(RunRows):
    """The numbers that gates ask of the rows of one case."""

    def highest(self, metric: str) -> Measured:
        """The largest value of any row: the best row of a ratio, the worst of a budget."""
        return self._choose(metric, max)

    def lowest(self, metric: str) -> Measured:
        """The smallest value of any row."""
        return self._choose(metric, min)

    def best(self, metric: str, *, every_row: bool) -> Measured:
        """The largest value of any row, or the smallest where every row must do."""
        return self._choose(metric, min if every_row else max)

    def best_sum(self, *metrics: str, every_row: bool) -> Measured:
        """The largest sum of several metrics in one row, or the smallest where every row must
        do.
        """
        values: list[float] = []
        for row in self._usable(metrics):
            values.append(sum(row.samples[metric].mean for metric in metrics))
        name = " + ".join(metrics)
        return self._of_rows(name, metrics, values, UNITS[metrics[0]], every_row=every_row)

    def best_of(self, metric: str, other: str, *, every_row: bool) -> Measured:
        """:meth:`best`, where rows that show nothing of ``metric`` count by what they show of
        ``other``, if printed.
        """
        values = [_first_positive(row, metric, other) for row in self._usable([metric])]
        return self._of_rows(metric, [metric], values, UNITS[metric], every_row=every_row)

    def ceiling(self, *, every_row: bool) -> Measured:
        """The lossy ratio that protected tokens and whole blocks leave room for, or a larger one
        that was reached.

        The keep shares are those of the last trigger, the ratio may be that of others.
        """
        metrics = ("h2o_floor_keep", "h2o_quantized_keep", "h2o_lossy")
        values: list[float] = []
        limits: dict[float | None, str] = {}
        for row in self._usable(metrics):
            floor, quantized, lossy = (row.samples[metric].mean for metric in metrics)
            value = max(1 / max(floor, quantized, 1e-9), lossy)
            values.append(value)
            limits[value] = _what_limits(floor, quantized)
        name = "lossy ratio within reach"
        found = self._of_rows(name, metrics, values, "ratio", every_row=every_row)
        return replace(found, limits=limits.get(found.value, ""))

    def rows_with(self, *metrics: str) -> Measured:
        """How many rows show all of these metrics above 0."""
        full: list[float] = []
        for row in self._usable(metrics):
            shown = all(row.samples[metric].mean > 0 for metric in metrics)
            full.append(float(shown))
        name = "rows with " + ", ".join(metrics)
        counted = self._of_rows(name, metrics, full, "rows", every_row=False)
        return counted if counted.missing else replace(counted, value=sum(full))

    def _usable(self, metrics: Sequence[str]) -> tuple[Row, ...]:
        """The rows, or none of them if one of ``metrics`` cannot be judged."""
        return () if any(map(self.missing, metrics)) else self.rows

    def _of_rows(
        self,
        name: str,
        metrics: Sequence[str],
        values: Sequence[float],
        unit: str,
        *,
        every_row: bool,
    ) -> Measured:
        """The largest of one value per row, or the smallest where every row must do."""
        pick = min if every_row else max
        rows: list[ShownRow] = []
        for row, value in zip(self.rows, values, strict=False):
            rows.append(ShownRow(row.label, number(value, digits=6), finite(value)))
        return Measured(
            metric=name,
            value=pick(values, default=None),
            unit=unit,
            source=self.source,
            rows=tuple(rows),
            missing=next(filter(None, map(self.missing, metrics)), ""),
            cause=self.cause_of(*metrics),
        )

    def _choose(self, metric: str, pick: Callable[[Sequence[float]], float]) -> Measured:
        samples = self.samples(metric)
        missing = self.missing(metric)
        value = None if missing else pick([sample.mean for _, sample in samples])
        source = next((row.source for row, sample in samples if sample.mean == value), self.source)
        rows = [ShownRow(row.label, _show(sample), finite(sample.mean)) for row, sample in samples]
        return Measured(
            metric=metric,
            value=value,
            unit=UNITS.get(metric, ""),
            source=source,
            rows=tuple(rows),
            missing=missing,
            cause=self.cause_of(metric),
        )


@dataclass(frozen=True)
class Run(RunNumbers):
    """A case's launches and the rows read from them; ``problems`` says in words what makes it
    unusable, ``cause`` the first of them in words that do not name the launch. ``no_h2o`` is why
    the runtime reports no ``h2o_*`` metric, empty if it does.
    """

    case: str
    launches: tuple[LaunchRecord, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    cause: str = ""
    no_h2o: str = ""

    @property
    def source(self) -> Path | None:
        """The file of the first row, or where the first launch without one left its output, if
        there are problems.
        """
        read = {row.source for row in self.rows}
        for record in self.launches if self.problems else ():
            if read.isdisjoint(record.files):
                return _place(record)
        return self.rows[0].source if self.rows else None

    def launch_of(self, row: Row) -> LaunchRecord | None:
        """The launch that printed ``row``; None where several have written to its file."""
        found = [record for record in self.launches if row.source in record.files]
        return found[0] if len(found) == 1 else None

    @cached_property
    def facts(self) -> tuple[LogFacts, ...]:
        """What the log lines of each launch say, in launch order."""
        return tuple(
            _read_facts(
                record.stdout, record.stderr, _version(record.stdout), _version(record.stderr)
            )
            for record in self.launches
        )


def problems_of(runs: Iterable[Run]) -> list[str]:
    """What is wrong with any of several runs."""
    return list(chain.from_iterable(run.problems for run in runs))


def facts_of_rows(record: LaunchRecord, rows: Sequence[Row]) -> Mapping[int, LogFacts]:
    """What a launch's log lines say of each of its rows, by the row's line: programs print a row
    when it is measured, so the lines above it are its own. Empty where rows stand in a file of
    their own.
    """
    if any(row.source != record.stdout for row in rows):
        return {}
    ends = tuple(sorted(row.line for row in rows))
    return _facts_by_line(record.stdout, ends, _version(record.stdout))


@lru_cache(maxsize=256)
def _facts_by_line(
    stdout: Path, ends: tuple[int, ...], _: tuple[int, int]
) -> Mapping[int, LogFacts]:
    return dict(zip(ends, read_facts_of_rows(stdout, ends), strict=True))


def finite(value: float) -> float | None:
    """A number that a report can hold; None instead of one that is not finite."""
    return value if math.isfinite(value) else None


def read_launches(case: str, records: Sequence[LaunchRecord]) -> Run:
    """Read every launch of a run; each must have ended well and printed the one row that it was
    launched for.
    """
    rows: list[Row] = []
    problems: list[str] = []
    failed: dict[str, list[LaunchRecord]] = {}
    for record in records:
        if record.status == "ok":
            found, trouble = read_launch(record)
            rows += found
            problems += trouble
        else:
            failed.setdefault(root_of([record.reason]), []).append(record)
    endings = list(map(_failed, failed.values()))
    cause = ""
    if endings or problems:
        # How a program ended says more than what another one printed.
        ordered = sorted(records, key=lambda record: record.status == "ok")
        cause = next(filter(None, map(launch_cause, ordered)), "")
    return Run(case, tuple(records), tuple(rows), tuple(endings + problems), cause)


def read_launch(
    record: LaunchRecord, labels: Sequence[str] | None = None
) -> tuple[list[Row], list[str]]:
    """The rows a launch was made for, or the reasons why there are none.

    ``labels`` are those rows', by default the one of its spec; if it is empty, any rows will do.
    """
    if record.status != "ok":
        return [], [_failed([record])]
    try:
        rows, problem = _checked(record, labels)
    except (ParseError, RuntimeSetupError) as error:
        said = what_it_said(record.stdout, record.stderr, or_last=False)
        said.insert(0, f"{error} ({record.spec.name})")
        return [], ["\n".join(said)]
    except Exception as error:  # a program of somebody else may raise anything at odd output
        return [], [located(_unreadable(record, error), record.directory, record.spec.name)]
    if not problem:
        return rows, []
    source = rows[0].source if rows else _place(record)
    return [], [located(problem, source, record.spec.name)]


def launch_cause(record: LaunchRecord, labels: Sequence[str] | None = None) -> str:
    """Why :func:`read_launch` finds nothing, in words that do not name the launch; else empty."""
    try:
        problem = record.reason if record.status != "ok" else _checked(record, labels)[1]
    except (ParseError, RuntimeSetupError) as error:
        problem = str(error)
    except Exception as error:
        problem = _unreadable(record, error)
    said = _first_words(problem)
    launched = record.status not in ("not_started", "not_recorded", "out_of_time")
    return f"{record.program}: {said}" if said and launched else said


def _unreadable(record: LaunchRecord, error: Exception) -> str:
    return f"{record.program} cannot read what it left: {type(error).__name__}: {error}"


def _checked(record: LaunchRecord, labels: Sequence[str] | None) -> tuple[list[Row], str]:
    """What a launch that ended well printed, and what is wrong with it; raises ParseError."""
    files = map(_version, record.files)
    rows, told = _read_rows(record, labels is None, *files)
    problems = list(told)
    for row in rows:
        problems += row.problems
        problems += _no_numbers(row)
    if rows or not problems:
        planned = [record.spec.label] if labels is None else labels
        problems += _unplanned([row.label for row in rows], planned)
    text = "; ".join(problems)
    broken = not rows or any(row.problems or _no_numbers(row) for row in rows)
    if broken and text and "\n" not in text:
        # Whatever its exit code was, the cause may be in what it said.
        said = what_it_said(record.stdout, record.stderr, or_last=False)
        said.insert(0, text)
        text = "\n".join(said)
    return list(rows), text


def _no_numbers(row: Row) -> list[str]:
    """Speeds that are no numbers: what was timed did not run."""
    found: list[str] = []
    for metric in ("prefill_tps", "decode_tps"):
        sample = row.samples.get(metric)
        if sample and not math.isfinite(sample.mean):
            found.append(f"{metric} is {_show(sample)} in {row.label}, not a number")
    return found


def _failed(alike: Sequence[LaunchRecord]) -> str:
    """How some launches ended, which was the same way."""
    names = [record.name for record in alike]
    return located(alike[0].reason, alike[0].directory, *names)


def _place(record: LaunchRecord) -> Path:
    """The file that a launch's row is read from, if it is there."""
    for path in (record.table, record.stdout):
        if path.is_file():
            return path
    return record.directory


def located(text: str, source: Path, *launches: str) -> str:
    """A problem in one line, the cause before the launches and the place, with what else a program
    said below it.
    """
    cause = _first_words(text)
    names = ", ".join(launches[:SHOWN])
    if len(launches) > SHOWN:
        names += ", ..."
    if len(launches) != 1:
        names = f"{len(launches)} launches: {names}"
    place = "" if str(source) in cause else f"; see {source}"
    below = text.split("\n")[2:]
    return "\n".join([f"{cause} ({names}{place})", *below])


def _first_words(text: str) -> str:
    """How a launch ended, and the first thing that its program said, in one line."""
    first, *told = text.split("\n")
    said = told[0].strip() if told else ""
    # A line of the engine's at work is how far it came, no cause.
    return first if not said or said.startswith("[H2O") else f"{first}: {said}"


def _unplanned(found: Sequence[str], planned: Sequence[str]) -> list[str]:
    """How the rows that were found differ from those that were launched; nothing is expected if
    none are planned.
    """
    if not planned or sorted(found) == sorted(planned):
        return []
    if len(found) != len(planned):
        were = "was" if len(planned) == 1 else "were"
        return [f"{len(found)} rows where {len(planned)} {were} launched"]
    return [f"the row is {', '.join(found)}, launched was {', '.join(planned)}"]


def _version(path: Path) -> tuple[int, int]:
    """What changes with a file's content; zeros without one."""
    with suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size
    return 0, 0


def _size_of_output(record: LaunchRecord) -> str:
    """What a launch printed of which nothing can be shown."""
    paths = {record.stderr, *record.files}
    size = sum(_version(path)[1] for path in paths)
    return f", but {size} bytes that are no text" if size else ", and nothing else"


# Every gate of a case, its evidence and its reports read the same launches.
@lru_cache(maxsize=1024)
def _read_rows(
    record: LaunchRecord, fresh: bool, *_: tuple[int, int]
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows of a launch and what is wrong with them; ``fresh`` files were written by this launch
    alone.
    """
    if changed := record.changed:
        names = " and ".join(changed)
        return (), (f"{names} changed after the launch had ended; something else wrote there",)
    try:
        rows, problems = find_program(record.program).read(record, fresh=fresh)
    except NothingPrintedError as error:
        said = what_it_said(record.stdout, record.stderr)
        beside = "" if said else _size_of_output(record)
        return (), ("\n".join([f"{error}{beside}", *said]),)
    return tuple(rows), tuple(problems)


@lru_cache(maxsize=1024)
def _read_facts(stdout: Path, stderr: Path, *_: tuple[int, int]) -> LogFacts:
    """What the log lines of a launch say; as the rows, they are read once and looked at often."""
    printed = [path for path in dict.fromkeys((stdout, stderr)) if path.is_file()]
    return read_log_facts(*printed)


def _wrong(metric: str, row: Row, sample: Sample) -> str:
    """Why a number that was printed cannot be one."""
    # The programs compute a deviation of equal values by rounding errors, and print the root of
    # -1e-12 as nan.
    if not math.isfinite(sample.mean) or math.isinf(sample.std or 0):
        return f"{metric} is {_show(sample)} in {row.label}, not a number"
    if UNITS.get(metric) == "ratio" and sample.mean > MAX_RATIO:
        return f"{metric} is {_show(sample)} in {row.label}, more than any cache can shrink"
    if sample.mean < 0 or (sample.std or 0) < 0:
        return f"{metric} is {_show(sample)} in {row.label}, which cannot be negative"
    return ""


def _what_limits(floor: float, quantized: float) -> str:
    """Which knobs keep a share ``quantized`` of the cache, of which ``floor`` is protected whatever
    is asked for.
    """
    if floor >= 1:
        return (
            "H2O_RECENT_TOKENS and H2O_SINK_TOKENS protect all of the cache, or "
            "H2O_TRIGGER_MIN was not reached"
        )
    if quantized - floor < ROUNDING:
        return (
            f"H2O_RECENT_TOKENS and H2O_SINK_TOKENS, in blocks of H2O_BLOCK_TOKENS, protect "
            f"{floor:.1%} of the cache"
        )
    return (
        f"{quantized:.1%} of the cache are kept for H2O_TARGET_LOSSY_RATIO (H2O_KEEP_RATIO in "
        f"static mode), rounded up "
        f"by H2O_BLOCK_TOKENS; H2O_RECENT_TOKENS and H2O_SINK_TOKENS protect {floor:.1%}"
    )


def _first_positive(row: Row, metric: str, other: str) -> float:
    value = row.samples[metric].mean
    return row.samples[other].mean if value <= 0 and other in row.samples else value


def _show(sample: Sample) -> str:
    return number(sample.mean, digits=6) + (
        "" if sample.std is None else f" ± {number(sample.std, digits=6)}"
    )


def _labels(rows: Sequence[Row]) -> str:
    return ", ".join(row.label for row in rows)
