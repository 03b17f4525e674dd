"""Does ``llm_bench``, whose text nobody reads, do what ``llm_demo`` does? What H2O gains in one it
gains in the other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from pytest_h2o.parsers.rows import Row
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launches
from pytest_h2o.verdict import Evidence

SAME_WORK = "llm_bench computes what llm_demo computes"
READ = "llm_bench reads its prompts as llm_demo does"
# Prompts of about one length, and launches enough that a busy machine does not decide.
ABOUT_AS_LONG, LEAST_PAIRS = 1.5, 3
# Of medians over pairs; honest programs come to 1.2.
GAINS_MORE, GAINS_FAR_MORE = 1.25, 1.5
READS_FASTER, READS_FAR_FASTER = 2.0, 4.0
Pairs = Sequence[tuple[LaunchRecord, LaunchRecord]]
ByLength = dict[int, list[float]]


def programs_evidence(bench: Pairs, demo: Pairs) -> Iterator[Evidence]:
    """Needs (baseline, candidate) launches of both programs over prompts of about one length."""
    for length, in_bench, in_demo in _beside(_gains(bench), _gains(demo)):
        text = (
            f"with H2O llm_bench decodes {in_bench:.3g} times as fast after {length} tokens, "
            f"llm_demo {in_demo:.3g} times"
        )
        yield _held(SAME_WORK, in_bench / in_demo, (GAINS_MORE, GAINS_FAR_MORE), text)
    for length, in_bench, in_demo in _beside(_readings(bench), _readings(demo)):
        text = f"llm_bench reads {length} tokens at {in_bench:.4g} tok/s, llm_demo at {in_demo:.4g}"
        limits = READS_FASTER, READS_FAR_FASTER
        if bench[0][0].spec.backend != "cpu":
            # llm_demo compiles its kernels while it reads its first prompt.
            limits = READS_FASTER, math.inf
        yield _held(READ, in_bench / in_demo, limits, text)


def _held(claim: str, ratio: float, limits: tuple[float, float], text: str) -> Evidence:
    doubtful, wrong = limits
    if doubtful < ratio <= wrong:
        return Evidence(claim=claim, standing="doubtful", text=text)
    return Evidence.of(claim, ratio <= doubtful, text)


def _beside(bench: ByLength, demo: ByLength) -> Iterator[tuple[int, float, float]]:
    """Lengths of the bench with the medians of both programs, where there are values enough."""
    for length, own in bench.items():
        beside: list[float] = []
        for tokens, values in demo.items():
            if length / ABOUT_AS_LONG <= tokens <= length * ABOUT_AS_LONG:
                beside += values
        if min(len(own), len(beside)) >= LEAST_PAIRS:
            yield length, median(own), median(beside)


def _gains(pairs: Pairs) -> ByLength:
    """How often as fast as its baseline each candidate decodes, by the length of the prompt."""
    found: ByLength = defaultdict(list)
    for baseline, candidate in pairs:
        before = {row.label: row for row in read_launches("baseline", [baseline]).rows}
        for row in read_launches("candidate", [candidate]).rows:
            usual = _speed(before[row.label], "decode_tps") if row.label in before else 0.0
            speed = _speed(row, "decode_tps")
            if usual and speed and row.prompt_tokens:
                found[row.prompt_tokens].append(speed / usual)
    return found


def _readings(pairs: Pairs) -> ByLength:
    """How fast each baseline reads its prompt, by the length of the prompt."""
    found: ByLength = defaultdict(list)
    for baseline, _ in pairs:
        for row in read_launches("baseline", [baseline]).rows:
            speed = _speed(row, "prefill_tps")
            if speed and row.prompt_tokens:
                found[row.prompt_tokens].append(speed)
    return found


def _speed(row: Row, name: str) -> float:
    """A speed in tokens a second, 0 where the row has none that is one."""
    sample = row.samples.get(name)
    return sample.mean if sample and 0 < sample.mean < math.inf else 0.0
