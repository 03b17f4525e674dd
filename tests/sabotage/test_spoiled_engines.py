"""Engines that evict the wrong thing are caught by what they then predict, or by what they then
print.
"""

from __future__ import annotations

import pytest
from original import LOSSY_TARGET, rows_of, values
from staging import Judge, Score, Stage

QUALITY, LOSSY = "quality_under_eviction", "lossy"


@pytest.mark.parametrize(
    ("defect", "rule", "words"),
    [
        ("oldest_tokens", QUALITY, "divergence from the full cache"),
        ("lightest_tokens", QUALITY, "perplexity of passages that return"),
        ("recent_tokens_dropped", QUALITY, "perplexity_increase"),
        ("keys_without_values", QUALITY, "perplexity_increase"),
        ("no_sink", LOSSY, "plans protect fewer tokens than sink and recent"),
        ("quantised_attention", LOSSY, "H2O never triggered"),
    ],
)
def test_spoiled_engine_is_caught(  # noqa: PLR0913, PLR0917  a fixture each
    defect: str, rule: str, words: str, stage: Stage, judge: Judge, score: Score
) -> None:
    """The gate in charge fails, and its reason names the defect."""
    judged = judge(stage.spoiled(defect), f"{rule} and full_strict" if rule == LOSSY else rule)
    [(outcome, reason)] = [found for name, found in judged.gates.items() if name.startswith(rule)]
    score.gates[defect] = outcome == "fail" and words in reason
    rows = [row for path in judged.directory.glob("launches/*/log.md") for row in rows_of(path)]
    # The original judges ratios, not what is kept: a launch without a table means nothing to it.
    score.original[defect] = bool(rows) and max(values(rows, "h2o_lossy")) < LOSSY_TARGET
    assert score.gates[defect], f"{rule} was {outcome}: {reason}"


def test_honest_engine_is_accepted(stage: Stage, judge: Judge) -> None:
    """The same windows and launches of the engine as it is pass the same gates."""
    judged = judge(stage.spoiled("honest"), f"{QUALITY} or ({LOSSY} and full_strict)")
    assert (judged.failed, len(judged.gates)) == ({}, 2)
