"""The simulation decides as the plugin does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from bench_verdicts import LIMIT, decide, launches, paired

from pytest_h2o.decode_study import LOOKS, judge

DECISIONS = {"pass": 1, "fail": -1, "inconclusive": 0}


def test_vectorised_studies_decide_like_the_plugin() -> None:
    """Look by look, on differences around the limit."""
    differences = np.random.default_rng(3).normal(-LIMIT, 0.04, (300, LOOKS[-1]))
    decisions, pairs = decide(differences)
    for values, decision, count in zip(differences.tolist(), decisions, pairs, strict=True):
        studies = [judge(values[:look], LIMIT) for look in LOOKS]
        ended = next((study for study in studies if study.decision != "inconclusive"), studies[-1])
        assert (DECISIONS[ended.decision], ended.pairs) == (decision, count)
    assert set(decisions) == {1, -1, 0}


def test_order_does_not_favour_a_side() -> None:
    """Without a drop, drift and bursts meet candidate and baseline alike."""
    rng = np.random.default_rng(5)
    draw = launches(rng, 0.01)
    speeds = draw(4000, 40).reshape(4000, 20, 2)
    assert abs((speeds[..., 0] - speeds[..., 1]).mean()) < 0.002
    decisions, _ = paired(draw, 4000, 0.0, rng)
    assert (decisions == -1).mean() < 0.01
