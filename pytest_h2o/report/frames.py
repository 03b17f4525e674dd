"""Launches, rows, verdicts and pairs as pandas frames: the one place that turns records into a
table.

The columns are those of :data:`METRIC_COLUMNS`, :data:`GATE_COLUMNS`, :data:`PAIR_COLUMNS` and
:data:`LAUNCH_COLUMNS`, in their order, with the unit in brackets where there is one. What is absent
is missing in a frame (NaN, NA or None), never 0. Texts are one line without control characters.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from pytest_h2o.decode.baselines import drop
from pytest_h2o.decode.pairs import Pair, read_pair, row_pairs
from pytest_h2o.metrics import METRICS
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import baseline_of
from pytest_h2o.report.text import clean
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import UNITS, Run, read_launch
from pytest_h2o.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

Line = dict[str, object]

METRIC_COLUMNS = {
    "launch": "name of the launch",
    "program": "the program that was launched",
    "arm": "name of the settings; baseline has H2O off",
    "replicate": "which launch of the same work, from 1",
    "label": "the row: p512_g128, or the prompt's name; of the launch where it printed no row",
    "status": "how the launch ended: ok, failed, timeout, not_started",
    "returncode": "exit code of the program",
    "seconds": "wall time of the launch [s]",
    "cpu_seconds": "user and system time of the launch [s]",
    "prompt_tokens": "prompt length of the row [tokens]",
    "decode_tokens": "generated length of the row [tokens]",
}
GATE_COLUMNS = {
    "nodeid": "the test that gave the verdict",
    "gate": "name of the gate",
    "case": "what was judged",
    "metric": "what was measured",
    "outcome": "pass, fail, inconclusive or skipped",
    "value": "measured value, in the column unit",
    "target": "required value, in the column unit",
    "operator": "how the value must compare with the target: >=, <= or >",
    "margin": "by how much the requirement is met, negative if it is not, in the column unit",
    "unit": "unit of value, target and margin; a share of 0.05 is 5 %",
    "source": "file or directory that the value was read from",
    "knob": "the knob that sets the target",
    "reason": "why the gate did not pass",
    "standing": "worst standing of its claims: supported, not evidenced, doubtful, contradicted",
    "evidence": "what supports the claims",
    "not_evidenced": "the claims that the output gives no evidence for",
    "warning": "what casts doubt on the claims",
    "suites": "the suites that the gate is in, comma separated",
    "rerun": "the command that repeats the gate",
    "cause": "the root of a failure, in words that all failures of this root share",
    "interval_low": "lower end of the confidence interval of value, in the column unit",
    "interval_high": "upper end of the confidence interval of value, in the column unit",
    "interval_level": "probability that the interval covers the true value [share]",
    "baseline_speed": "decode speed that the value was held against [tok/s]",
    "baseline_source": "where that speed came from: paired, same_batch, rolling or fixed",
    "baseline_samples": "how many samples it was made from",
}
PAIR_COLUMNS = {
    "arm": "the candidate's settings",
    "label": "the work: p512_g128, or the prompt's name",
    "replicate": "which pair of the same work, from 1",
    "baseline": "name of the launch with H2O off",
    "candidate": "name of the launch with H2O on",
    "baseline_tps": "decode speed with H2O off [tok/s]",
    "candidate_tps": "decode speed with H2O on [tok/s]",
    "drop": "share of the baseline's speed that is lost, negative if faster [share]",
    "baseline_cost": "time of a token with H2O off [yardsticks]",
    "candidate_cost": "time of a token with H2O on [yardsticks]",
    "problem": "why the two cannot be compared; empty if they can",
}
LAUNCH_COLUMNS = {
    "launch": "name of the launch",
    "program": "the program that was launched",
    "arm": "name of the settings; baseline has H2O off",
    "replicate": "which launch of the same work, from 1",
    "label": "the work: p512_g128, or the prompt's name",
    "prompt_tokens": "prompt length that was asked for [tokens]",
    "gen_tokens": "length to generate that was asked for [tokens]",
    "repeat": "measured repeats in the launch",
    "prompt_file": "file with the prompt",
    "threads": "threads that were asked for",
    "backend": "backend that was asked for",
    "paired_with": "the arm that a baseline launch belongs to, if it is not shared",
    "config": "engine configuration that was asked for, by key",
    "argv": "the command line, quoted for a shell",
    "runtime": "what made the launch",
    "status": "how the launch ended: ok, failed, timeout, not_started",
    "reason": "how it ended, in words",
    "problem": "why its output cannot be used; empty if it can",
    "returncode": "exit code of the program",
    "started_utc": "when it was started (UTC)",
    "seconds": "wall time [s]",
    "cpu_seconds": "user and system time [s]",
    "reused_from": "the earlier run directory that the launch was taken from",
    "directory": "where its files are",
    "spec_key": "hash of what was asked for; equal launches have equal ones",
    "inputs": "hashes of what results depend on (programs, config, model, machine), by name",
    "outputs": "hashes of the files that the program wrote, by name",
}
INTEGERS = (
    "replicate",
    "returncode",
    "prompt_tokens",
    "decode_tokens",
    "gen_tokens",
    "repeat",
    "threads",
    "baseline_samples",
)
FLOATS = (
    "seconds",
    "cpu_seconds",
    "value",
    "target",
    "margin",
    "interval_low",
    "interval_high",
    "interval_level",
    "baseline_speed",
    "baseline_tps",
    "candidate_tps",
    "drop",
    "baseline_cost",
    "candidate_cost",
)
TYPES = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLOATS, "float64")
STATISTICS = {"_std": "sample standard deviation over the repeats", "_n": "number of repeats"}
LONG_ARGV = 100_000  # characters of a command line
# Decode speed first: it is what most readers look for.
METRIC_ORDER = sorted(UNITS, key=lambda name: name != "decode_tps")


def metric_frame(records: Iterable[LaunchRecord]) -> pd.DataFrame:
    """One line per row that a launch printed, at least one per launch.

    A metric that any row has is a column with the mean in its unit, followed by one with ``_std``
    (same unit) and one with ``_n`` (repeats), see ``metrics.py``; those that nobody knows come
    last.
    """
    lines, present = _metric_table(records)
    types: dict[str, str] = {}
    for name in present:
        types |= {name: "float64", f"{name}_std": "float64", f"{name}_n": "Int64"}
    return _frame(lines, METRIC_COLUMNS, types)


def metric_means(records: Iterable[LaunchRecord]) -> Iterator[list[object]]:
    """What ``metrics.csv`` holds of a :func:`metric_frame`, the header first: how each launch
    ended, and the means in six digits. Made without pandas, which is slow to import.
    """
    lines, present = _metric_table(records)
    identity = [name for name in METRIC_COLUMNS if name not in ("prompt_tokens", "decode_tokens")]
    yield list(chain(identity, present))
    for line in lines:
        cells = [_cell(name, line.get(name)) for name in identity]
        for name in present:
            mean = line.get(name)
            cells.append(_cell(name, mean if mean is None else float(f"{mean:.6g}")))
        yield cells


def _metric_table(records: Iterable[LaunchRecord]) -> tuple[list[Line], list[str]]:
    """The lines of all launches, and which metrics any of them has, in order."""
    lines: list[Line] = []
    for record in records:
        lines += _metric_lines(record)
    printed: dict[str, None] = {}
    for line in lines:
        for name in line:
            if name.endswith("_n"):
                printed[name.removesuffix("_n")] = None
    present = [name for name in METRIC_ORDER if name in printed]
    present += [name for name in printed if name not in UNITS]
    return lines, present


def _cell(name: str, value: object) -> object:
    """A value as CSV has it: what is absent or no number is empty."""
    if value is None:
        return ""
    if name in FLOATS and isinstance(value, int):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        return ""
    return value


def gate_frame(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """One line per verdict, which are given by the node id of their test."""
    lines: list[Line] = []
    for nodeid, verdict in verdicts.items():
        values = asdict(verdict) | _comparison(verdict) | {"nodeid": nodeid}
        line: Line = {}
        for name in GATE_COLUMNS:
            if name in values:
                line[name] = _one_line(values[name])
        lines.append(line)
    return _frame(lines, GATE_COLUMNS)


def _comparison(verdict: Verdict) -> Line:
    """What a verdict was held against, and how sure its value is, as far as either is known."""
    found: Line = {}
    if verdict.interval:
        found["interval_low"] = verdict.interval.low
        found["interval_high"] = verdict.interval.high
        found["interval_level"] = verdict.interval.level
    if verdict.baseline:
        found["baseline_speed"] = verdict.baseline.value
        found["baseline_source"] = verdict.baseline.source
        found["baseline_samples"] = verdict.baseline.samples
    return found


def pair_frame(
    records: Sequence[LaunchRecord], baseline_records: Sequence[LaunchRecord] = ()
) -> pd.DataFrame:
    """One line per launch that has one with H2O off beside it on the same work.

    Rows of ``baseline_records``, those of another directory, lie beside the rows of the same label.
    """
    if baseline_records:
        pairs = row_pairs(_run_of(baseline_records), _run_of(records))
        return _frame([_pair_values(pair) for pair in pairs], PAIR_COLUMNS)
    lines = []
    for baseline, candidate in beside(records):
        pair, problems = read_pair(baseline, candidate)
        values = _pair_values(pair) if pair else {}
        names = _pair_names(baseline, candidate)
        lines.append(values | names | {"problem": clean("; ".join(problems))})
    return _frame(lines, PAIR_COLUMNS)


def beside(records: Sequence[LaunchRecord]) -> list[tuple[LaunchRecord, LaunchRecord]]:
    """Each launch with H2O on, after the one with H2O off that it is compared with."""
    by_key = {record.spec.key: record for record in records}
    found = []
    for candidate in records:
        baseline = _beside(candidate, by_key)
        if baseline:
            found.append((baseline, candidate))
    return found


def launch_frame(records: Iterable[LaunchRecord]) -> pd.DataFrame:
    """One line per launch: what was asked for, how it ended, and what it depends on."""
    import pandas as pd  # noqa: PLC0415  (slow to import)

    frame = _frame([_launch_line(record) for record in records], LAUNCH_COLUMNS)
    started = pd.to_datetime(frame["started_utc"], utc=True, errors="coerce")
    return frame.assign(started_utc=started)


def column_frame(**frames: pd.DataFrame) -> pd.DataFrame:
    """What the columns of the given ``metrics``, ``gates``, ``pairs`` and ``launches`` mean, with
    their units.
    """
    meanings = {
        "metrics": METRIC_COLUMNS | _metric_meanings(),
        "gates": GATE_COLUMNS,
        "pairs": PAIR_COLUMNS,
        "launches": LAUNCH_COLUMNS,
    }
    lines: list[Line] = []
    for name, frame in frames.items():
        for column in frame.columns:
            text = meanings[name].get(column, "as the program prints it")
            lines.append({"frame": name, "column": column, "meaning": text})
    return _frame(lines, ["frame", "column", "meaning"])


def _frame(
    lines: Sequence[Line], columns: Iterable[str], types: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The lines as a frame, whose numbers have a type even where all of them are absent.

    ``types`` names further columns, those of the metrics, and their types.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    further = types or {}
    names = list(columns) + list(further)
    present = {name: kind for name, kind in (TYPES | dict(further)).items() if name in names}
    return pd.DataFrame(lines, columns=names).astype(present)


def _metric_lines(record: LaunchRecord) -> list[Line]:
    spec = record.spec
    launch: Line = {
        "launch": clean(spec.name),
        "program": spec.program,
        "arm": clean(spec.arm),
        "replicate": spec.replicate,
        "label": clean(spec.label),
        "status": record.status,
        "returncode": record.returncode,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
    }
    rows, _ = read_launch(record, ())
    return [launch | _row_values(row) for row in rows] or [launch]


def _row_values(row: Row) -> Line:
    values: Line = {
        "label": clean(row.label),
        "prompt_tokens": row.prompt_tokens,
        "decode_tokens": row.decode_tokens,
    }
    for name, sample in row.samples.items():
        values[name] = sample.mean
        values[f"{name}_std"] = sample.std
        values[f"{name}_n"] = sample.n
    return values


def _metric_meanings() -> dict[str, str]:
    meanings = {}
    for metric in METRICS:
        meanings[metric.name] = f"{metric.doc} [{metric.unit}]"
        for suffix, text in STATISTICS.items():
            unit = "" if suffix == "_n" else f" [{metric.unit}]"
            meanings[metric.name + suffix] = f"{text}{unit}"
    return meanings


def _one_line(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


def _beside(candidate: LaunchRecord, by_key: Mapping[str, LaunchRecord]) -> LaunchRecord | None:
    """The baseline launch of its own, or else the one that all arms share, if there is one."""
    spec = candidate.spec
    if not spec.config.get("kv_h2o_enable"):
        return None
    own = by_key.get(baseline_of(spec, spec.arm).key)
    return own or by_key.get(baseline_of(spec).key)


def _run_of(records: Sequence[LaunchRecord]) -> Run:
    """All rows of some launches; what is wrong with one is not wrong with the others."""
    rows: list[Row] = []
    for record in records:
        rows += read_launch(record, ())[0]
    return Run("", tuple(records), tuple(rows), ())


def _pair_names(baseline: LaunchRecord, candidate: LaunchRecord) -> Line:
    return {
        "arm": clean(candidate.spec.arm),
        "label": clean(candidate.spec.label),
        "replicate": candidate.spec.replicate,
        "baseline": clean(baseline.spec.name),
        "candidate": clean(candidate.spec.name),
    }


def _pair_values(pair: Pair) -> Line:
    names = _pair_names(*pair.records) if pair.records else {}
    comparable = pair.baseline > 0 and pair.candidate > 0
    return names | {
        "label": clean(pair.label),
        "baseline_tps": pair.baseline,
        "candidate_tps": pair.candidate,
        "drop": drop(pair.candidate, pair.baseline) if comparable else None,
        "baseline_cost": pair.baseline_cost,
        "candidate_cost": pair.candidate_cost,
        "problem": "" if comparable else "a decode speed is not above 0",
    }


def _launch_line(record: LaunchRecord) -> Line:
    spec = record.spec
    _, problems = read_launch(record, ())
    return {
        "launch": clean(spec.name),
        "program": spec.program,
        "arm": clean(spec.arm),
        "replicate": spec.replicate,
        "label": clean(spec.label),
        "prompt_tokens": spec.prompt_tokens,
        "gen_tokens": spec.gen_tokens,
        "repeat": spec.repeat,
        "prompt_file": clean(spec.prompt_file) if spec.prompt_file else None,
        "threads": spec.threads,
        "backend": spec.backend,
        "paired_with": clean(spec.paired_with),
        "config": dict(spec.config),
        "argv": clean(shlex.join(record.argv), LONG_ARGV),
        "runtime": clean(record.runtime),
        "status": record.status,
        "reason": clean(record.reason),
        "problem": clean("; ".join(problems)),
        "returncode": record.returncode,
        "started_utc": record.started_utc,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "reused_from": record.reused_from,
        "directory": clean(record.directory),
        "spec_key": spec.key,
        "inputs": dict(record.inputs),
        "outputs": dict(record.outputs),
    }
