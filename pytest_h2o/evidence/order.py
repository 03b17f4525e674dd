"""Does more eviction keep less? The same launch at several target ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from pytest_h2o.parsers.rows import Row
from pytest_h2o.verdict import Evidence

LESS = "the more is asked to be evicted the less is kept"
LITTLE = "a little eviction does not change all of every answer"
NEEDS = {
    LESS: "h2o_keep, h2o_kv_tokens_end or h2o_kv_resident_mb",
    LITTLE: "answers that llm_demo prints",
}
# One answer in eight changes in its first letters by chance.
ENOUGH_PROMPTS = 3
FALLING = ("h2o_keep", "h2o_kv_tokens_end", "h2o_kv_resident_mb")
# Whole blocks, and answers that end at other tokens.
SLACK = 1.05


def kept_evidence(label: str, rows: Mapping[float, Row]) -> Iterator[Evidence]:
    """Whether what is kept falls from each target ratio to the next one, smallest first."""
    if len(rows) < 2:
        return
    must_fall = _evicts(rows[max(rows)])
    for metric in FALLING:
        values: list[float] = []
        for ratio in sorted(rows):
            sample = rows[ratio].samples.get(metric)
            if sample:
                values.append(sample.mean)
        if len(values) == len(rows):
            never_rises = all(after <= SLACK * before for before, after in pairwise(values))
            falls = values[-1] * SLACK < values[0]
            text = f"{label}: {metric} {_shown(sorted(rows), values)}"
            yield Evidence.of(LESS, never_rises and (falls or not must_fall), text)


def little_evidence(shares: Mapping[str, float], least: float) -> Evidence:
    """Whether some answer stays the baseline's for ``least`` of it; a doubt where few are given."""
    best = max(shares.values())
    text = f"the best of {len(shares)} answers stays the baseline's for {best:.1%}"
    if best >= least or len(shares) >= ENOUGH_PROMPTS:
        return Evidence.of(LITTLE, best >= least, text)
    return Evidence(claim=LITTLE, standing="doubtful", text=text)


def _evicts(row: Row) -> bool:
    """Whether a row says that something was evicted."""
    lossy = row.samples.get("h2o_lossy")
    return lossy is not None and lossy.mean > SLACK


def _shown(asked: list[float], values: list[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values)
    ratios = ", ".join(f"{ratio:g}" for ratio in asked)
    return f"{shown} at target ratios {ratios}"
