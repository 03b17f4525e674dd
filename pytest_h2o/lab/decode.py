"""The decode speed of a case held against what DECODE_BASELINE_MODE names, and what the history
keeps of it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pytest_h2o.decode.baselines import (
    Baseline,
    against,
    against_rows,
    fixed,
    not_measured,
    rolling,
    same_batch,
    throughput,
)
from pytest_h2o.decode.history import Entry, append_history, read_history
from pytest_h2o.decode.pairs import PairedStudy, row_pairs, unmatched
from pytest_h2o.lab.lab import Lab
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import UNEVICTED, Case
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes.launch_config import PATH_FIELDS
from pytest_h2o.verdict import BaselineSpeed, Measured, SpeedPair, Verdict

Records = tuple[tuple[LaunchRecord, LaunchRecord], ...]


@dataclass(frozen=True)
class Comparison:
    """The decode drop of a case; ``detail`` names the baseline, ``records`` has its launch before
    the candidate's.

    ``pairs`` are the rows of the same work on both sides, where the baseline has rows.
    """

    measured: Measured
    detail: str = ""
    records: Records = ()
    baseline: BaselineSpeed | None = None
    pairs: tuple[SpeedPair, ...] = ()


class NotComparable(Exception):
    """A decode speed is missing; the message says why, ``cause`` what is at the root of it."""

    def __init__(self, reason: str, cause: str = "") -> None:
        super().__init__(reason)
        self.cause = cause


def held_against(lab: Lab, name: str, bucket: str = "") -> PairedStudy | Comparison:
    """The decode speed of a case, or of its prompts in one bucket, held against its baseline."""
    mode = lab.baseline_mode(name)
    if mode == "paired":
        return lab.study(name, bucket)
    run = lab.run(name, bucket)
    try:
        if mode == "same_batch":
            return _beside(lab, run, bucket)
        return _against_stored(lab, run)
    except NotComparable as error:
        return Comparison(not_measured(str(error), run.source, error.cause))


def baseline_held(lab: Lab) -> PairedStudy:
    """The baseline's decode speed against that of a candidate with nothing to evict."""
    if not lab.workload.relations.relates("speed"):
        return PairedStudy((), None, (), None)
    return lab.screened(UNEVICTED) or lab.study(UNEVICTED)


def bench_pairs(lab: Lab) -> Records:
    """The (baseline, candidate) launches of the first ``llm_bench`` case that is studied in this
    session anyway.
    """
    for name, case in lab.cases.items():
        studied = name in lab.demand.studies and case.judged and not case.quantises
        if studied and case.work == "lengths":
            return tuple(held_against(lab, name).records)
    return ()


def _against_stored(lab: Lab, run: Run) -> Comparison:
    """The case against a number that is given, or kept of earlier sessions."""
    case = lab.cases[run.case]
    knobs = case.knobs(lab.knobs)
    speeds = _speeds(lab, run)
    baseline = _stored(lab, case, knobs)
    measured = against(speeds, baseline, all_rows=knobs.on("REQUIRE_ALL_ROWS"))
    return _comparison(run, measured, baseline.text, baseline.speed)


def _beside(lab: Lab, run: Run, bucket: str) -> Comparison:
    """The case against launches of the same session with H2O off."""
    case = lab.cases[run.case]
    knobs = case.knobs(lab.knobs)
    speeds = _speeds(lab, run)
    other = lab.baseline_run(run.case, bucket)
    alone = "" if other.problems else unmatched(other, run)
    if alone:
        raise NotComparable(alone)
    found = _speeds(lab, other)
    before = {label: found[label] for label in speeds}
    by_row = against_rows(speeds, before)
    baseline, best = _same_session(case, knobs, (run, speeds), (other, before))
    measured = replace(best, rows=by_row.rows)
    detail, speed = baseline.text, baseline.speed
    if knobs.on("REQUIRE_ALL_ROWS"):
        measured, detail, speed = by_row, "same_batch, row by row", _typical(before)
    elif case.work == "lengths" and before and not knobs.on("DECODE_FASTEST_ROW"):
        by_length = against_rows(_lengths(speeds), _lengths(before))
        measured = replace(by_length, rows=by_row.rows)
        speed = _typical(_lengths(before))
        detail = _each_length(speed)
    found_pairs = list(row_pairs(other, run))
    return replace(
        _comparison(run, measured, detail, speed),
        records=tuple(pair.records for pair in found_pairs if pair.records),
        pairs=tuple(pair.shown for pair in found_pairs),
    )


def _comparison(
    run: Run, measured: Measured, detail: str, baseline: BaselineSpeed | None
) -> Comparison:
    """A comparison that names its baseline if there is one to compare with."""
    measured = replace(measured, source=run.source)
    if measured.missing:
        return Comparison(measured)
    return Comparison(measured, detail, baseline=baseline)


def _lengths(speeds: Mapping[str, float]) -> dict[str, float]:
    """The median speed by length, of speeds by row: the first row of a length has its label, the
    others a number behind it.
    """
    found: dict[str, list[float]] = {}
    for label, speed in speeds.items():
        found.setdefault(label.partition(" #")[0], []).append(speed)
    return {label: median(values) for label, values in found.items()}


def _each_length(speed: BaselineSpeed | None) -> str:
    if speed is None:
        return ""
    lengths = "1 length" if speed.samples == 1 else f"{speed.samples} lengths"
    return f"{speed.value:g} tok/s (same_batch, each of {lengths} on its own)"


def _typical(speeds: Mapping[str, float]) -> BaselineSpeed | None:
    """The baseline's rows in one number, where each was compared on its own."""
    if not speeds:
        return None
    return BaselineSpeed(value=median(speeds.values()), source="same_batch", samples=len(speeds))


def _same_session(
    case: Case,
    knobs: Knobs,
    candidate: tuple[Run, dict[str, float]],
    other: tuple[Run, dict[str, float]],
) -> tuple[Baseline, Measured]:
    """Bench cases compare their fastest rows, real prompts all their tokens over all their time."""
    if case.work == "lengths":
        baseline = same_batch(other[1].values(), knobs.optional("DECODE_BASELINE"))
        return baseline, against(candidate[1], baseline)
    run, speeds = candidate
    after = throughput(_tokens(run), speeds)
    before = throughput(_tokens(other[0]), other[1])
    baseline = Baseline(value=before, source="same_batch", samples=len(speeds))
    return baseline, against({"all prompts": after}, baseline)


def _stored(lab: Lab, case: Case, knobs: Knobs) -> Baseline:
    given = knobs.optional("DECODE_BASELINE")
    if lab.baseline_mode(case.name) == "fixed":
        return fixed(given)
    return rolling(
        read_history(lab.history) if lab.history else (),
        key=history_key(knobs, case.kind),
        identity=identity(lab.run(case.name)),
        window=knobs.integer("DECODE_BASELINE_ROLLING_WINDOW"),
        least=knobs.integer("DECODE_BASELINE_ROLLING_MIN_SAMPLES"),
        given=given,
        failed_too=knobs.on("DECODE_BASELINE_HISTORY_FAILED"),
    )


def keep_history(
    lab: Lab, verdicts: Collection[Verdict], root: Path, unfinished: Collection[str]
) -> None:
    """Append a session's decode speeds to the history, unless the user does not want it."""
    if lab.history and lab.knobs.on("UPDATE_DECODE_BASELINE_HISTORY"):
        append_history(lab.history, history_entries(lab, verdicts, root, unfinished))


def history_entries(
    lab: Lab, verdicts: Collection[Verdict], root: Path, unfinished: Collection[str] = ()
) -> list[Entry]:
    """What the history keeps of a session: bench cases whose decode gate was judged, once for
    shared launches.

    A case without a readable speed never enters it, one with a gate that failed, or that was not
    judged since the case is ``unfinished``, only if the user asks for it.
    """
    entries: dict[tuple[str, ...], Entry] = {}
    studied = [verdict.case for verdict in verdicts if verdict.gate == "decode_drop"]
    for name in dict.fromkeys(studied):
        case = lab.cases.get(name)
        if case is None or case.work != "lengths" or case.launch:
            continue
        outcomes = {verdict.outcome for verdict in verdicts if verdict.case == name}
        passed = outcomes <= {"pass", "skipped"} and name not in unfinished
        best = lab.run(name).highest("decode_tps").value
        if best and best > 0 and (passed or lab.knobs.on("DECODE_BASELINE_HISTORY_FAILED")):
            keys = tuple(launch.spec.key for launch in lab.run(name).launches)
            entries.setdefault(keys, _entry(lab, name, best, passed, root / "summary.json"))
    return list(entries.values())


def _entry(lab: Lab, name: str, best: float, passed: bool, summary: Path) -> Entry:
    return Entry(
        ts_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        key=history_key(lab.cases[name].knobs(lab.knobs), lab.cases[name].kind),
        decode_best=round(best, 4),
        overall_pass=passed,
        summary=str(summary),
        case=name,
        identity=identity(lab.run(name)),
    )


def history_key(knobs: Knobs, kind: str = "") -> str:
    """DECODE_BASELINE_KEY, else one made of the host, or the kind of host, and the work."""
    given = knobs.text("DECODE_BASELINE_KEY")
    if given:
        return given
    prompts = ",".join(map(str, knobs.integers("PROMPTS")))
    gens = ",".join(map(str, knobs.integers("GENS")))
    node = kind or knobs.text("H2O_HOSTS") or platform.node() or "host"
    host = f"{node}_{knobs['BACKEND']}_t{knobs['THREADS']}"
    return f"{host}_p{prompts}_g{gens}_rep{knobs['REPEAT']}"


def identity(run: Run) -> dict[str, str]:
    """What must be equal for speeds to be comparable, whatever their key; empty where unknown."""
    first = run.launches[0]
    # Without the modification time, which a copy of the same file does not share.
    files: dict[str, str] = {}
    for name, text in first.inputs.items():
        if name in PATH_FIELDS:
            files[name] = re.sub(r"-\d+-", "-", text)
    model = _hash(files) if files else ""
    return {
        "machine": first.inputs.get("machine", ""),
        "model": model,
        "settings": _hash(dict(first.spec.config)),
    }


def _speeds(lab: Lab, run: Run) -> dict[str, float]:
    """Decode speed by row label; raises :class:`NotComparable`."""
    missing = run.missing("decode_tps")
    if missing:
        raise NotComparable(missing, run.cause_of("decode_tps"))
    speeds = {name: row.samples["decode_tps"].mean for name, row in _rows(run).items()}
    still = [name for name, speed in speeds.items() if speed <= 0]
    if still and lab.cases[run.case].work == "prompts":
        raise NotComparable(f"the decode speed of {', '.join(still)} is not above 0")
    return speeds


def _tokens(run: Run) -> dict[str, int]:
    """Generated tokens by row label; raises :class:`NotComparable`."""
    rows = _rows(run)
    tokens = {name: row.decode_tokens for name, row in rows.items() if row.decode_tokens}
    without = [name for name in rows if name not in tokens]
    if without:
        raise NotComparable(f"no count of generated tokens for {', '.join(without)}")
    return tokens


def _rows(run: Run) -> dict[str, Row]:
    """The rows by label; a recording may have several of one label, which are numbered."""
    rows: dict[str, Row] = {}
    seen: Counter[str] = Counter()
    for row in run.rows:
        seen[row.label] += 1
        number = seen[row.label]
        rows[row.label if number == 1 else f"{row.label} #{number}"] = row
    return rows


def _hash(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
