"""Does more eviction keep less? The same launch at several target ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median

from pytest_h2o.parsers.rows import Row
from pytest_h2o.verdict import Evidence

LESS = "the more is asked to be evicted the less is kept"
LITTLE = "a little eviction leaves most of most answers as they were"
AGREES = "the more is evicted the less of an answer stays"
NEEDS = {
    LESS: "h2o_keep, h2o_kv_tokens_end or h2o_kv_resident_mb",
    LITTLE: "answers that llm_demo prints",
}
# One answer in twelve changes in its first letters by chance.
ENOUGH_PROMPTS = 4
FALLING = ("h2o_keep", "h2o_kv_tokens_end", "h2o_kv_resident_mb")
# Chance, for two prompts.
RISE = 0.1
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
    """Whether half of the answers stay the baseline's for ``least`` of them or more; a doubt where
    few were given.
    """
    typical = median(shares.values())
    text = f"the median of {len(shares)} answers stays the baseline's for {typical:.1%}"
    if typical >= least or len(shares) >= ENOUGH_PROMPTS:
        return Evidence.of(LITTLE, typical >= least, text)
    return Evidence(claim=LITTLE, standing="doubtful", text=text)


def agreement_evidence(shares: Sequence[Mapping[float, float]]) -> list[Evidence]:
    """Whether answers have less and less in common with the baseline's, prompt by prompt, where
    more is evicted; a doubt if not, since a single answer may part early by chance.
    """
    whole = [each for each in shares if len(each) > 2]
    if not whole:
        return []
    ratios = sorted(whole[0])
    medians = [median(each[ratio] for each in whole) for ratio in ratios]
    rises = any(after > before + RISE for before, after in pairwise(medians))
    shown = ", ".join(f"{share:.1%}" for share in medians)
    text = f"answers stay the baseline's for {shown} at target ratios {_listed(ratios)}"
    return [Evidence(claim=AGREES, standing="doubtful" if rises else "supported", text=text)]


def _evicts(row: Row) -> bool:
    """Whether a row says that something was evicted."""
    lossy = row.samples.get("h2o_lossy")
    return lossy is not None and lossy.mean > SLACK


def _shown(asked: list[float], values: list[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values)
    return f"{shown} at target ratios {_listed(asked)}"


def _listed(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:g}" for ratio in ratios)
