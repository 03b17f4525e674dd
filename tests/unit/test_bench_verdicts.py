"""The simulation decides as the plugin does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from bench_verdicts import LIMIT, decide, differences, launches

from pytest_h2o.decode.study import LOOKS, judge, judge_parts

DECISIONS = {"pass": 1, "fail": -1, "inconclusive": 0}


@pytest.mark.parametrize("lengths", [2, 3])
def test_vectorised_studies_decide_like_the_plugin(lengths: int) -> None:
    """Look by look, on differences around the limit, with as many pairs of every prompt length."""
    looks = [-(-look // lengths) * lengths for look in LOOKS]
    drawn = np.random.default_rng(3).normal(-LIMIT, 0.04, (300, looks[-1]))
    decisions, pairs = decide(drawn, lengths)
    for values, decision, count in zip(drawn.tolist(), decisions, pairs, strict=True):
        studies = [
            judge_parts(
                judge(values[:look], LIMIT),
                {str(at): values[at:look:lengths] for at in range(lengths)},
                LIMIT,
            )
            for look in looks
        ]
        decided = (
            (study, look)
            for study, look in zip(studies, looks, strict=True)
            if study.decision != "inconclusive"
        )
        ended, look = next(decided, (studies[-1], looks[-1]))
        assert (DECISIONS[ended.decision], look) == (decision, count)
    assert set(decisions) == {1, -1, 0}


def test_order_does_not_favour_a_side() -> None:
    """Without a drop, drift and bursts meet candidate and baseline alike."""
    rng = np.random.default_rng(5)
    draw = launches(rng, 0.01)
    drawn = differences(draw, 4000, rng)
    assert abs(drawn.mean()) < 0.002
    assert (decide(drawn)[0] == -1).mean() < 0.01
