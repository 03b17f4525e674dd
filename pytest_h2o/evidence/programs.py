"""Does ``llm_bench``, whose text nobody reads, do what ``llm_demo`` does? What H2O gains in one it
gains in the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launches
from pytest_h2o.verdict import Evidence

SAME_WORK = "llm_bench computes what llm_demo computes"
# Prompts of about one length, and pairs enough that a busy machine does not decide.
ABOUT_AS_LONG, LEAST_PAIRS = 1.5, 3
# Of medians over pairs; honest programs come to 1.2.
GAINS_MORE, GAINS_FAR_MORE = 1.25, 1.5
Pairs = Sequence[tuple[LaunchRecord, LaunchRecord]]


def programs_evidence(bench: Pairs, demo: Pairs) -> Iterator[Evidence]:
    """Needs (baseline, candidate) launches of both programs over prompts of about one length."""
    demo_gains = _gains(demo)
    for length, gains in _gains(bench).items():
        beside: list[float] = []
        for tokens, own in demo_gains.items():
            if length / ABOUT_AS_LONG <= tokens <= length * ABOUT_AS_LONG:
                beside += own
        if min(len(gains), len(beside)) < LEAST_PAIRS:
            continue
        in_bench, in_demo = median(gains), median(beside)
        text = (
            f"with H2O llm_bench decodes {in_bench:.3g} times as fast after {length} tokens, "
            f"llm_demo {in_demo:.3g} times"
        )
        if in_bench <= GAINS_MORE * in_demo:
            yield Evidence.of(SAME_WORK, True, text)
        elif in_bench <= GAINS_FAR_MORE * in_demo:
            yield Evidence(claim=SAME_WORK, standing="doubtful", text=text)
        else:
            yield Evidence.of(SAME_WORK, False, text)


def _gains(pairs: Pairs) -> dict[int, list[float]]:
    """How often as fast as its baseline each candidate decodes, by the length of the prompt."""
    found = defaultdict[int, list[float]](list)
    for baseline, candidate in pairs:
        before = {row.label: row for row in read_launches("baseline", [baseline]).rows}
        for row in read_launches("candidate", [candidate]).rows:
            other = before.get(row.label)
            speed, usual = row.samples.get("decode_tps"), None
            if other:
                usual = other.samples.get("decode_tps")
            if speed and usual and usual.mean > 0 and row.prompt_tokens:
                found[row.prompt_tokens].append(speed.mean / usual.mean)
    return found
