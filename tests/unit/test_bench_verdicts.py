"""The simulation decides as the plugin does, and its rates keep their bounds."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from bench_verdicts import LIMIT, MOST, NOISES, bursts, decide, differences

from pytest_h2o.decode.pairs import OpenStudy, Pair, look

DECISIONS = {"pass": 1, "fail": -1, "inconclusive": 0}


@pytest.mark.parametrize("lengths", [1, 2, 3])
def test_simulated_studies_decide_like_the_plugin(lengths: int) -> None:
    """Round by round, on differences around the limit, more pairs of the doubtful lengths only."""
    drops = [0.02 * number for number in range(lengths)]
    rng = np.random.default_rng(3)
    drawn = rng.normal(-0.03, 0.05, (80, 1)) + rng.normal(0, 0.03, (80, MOST + 2))
    decisions, pairs = decide(drawn, drops)
    for values, decision, count in zip(drawn.tolist(), decisions, pairs, strict=True):
        study, labels = OpenStudy(MOST), [str(length) for length in range(lengths)]
        rounds = 0
        while study.open:
            for length, drop in enumerate(drops):
                if study.study is None or labels[length] in study.study.doubtful:
                    speed = math.exp(values[len(study.pairs)] + math.log1p(-drop))
                    study.pairs.append(Pair(labels[length], 1.0, speed))
            rounds += 1
            if rounds >= 2:
                look({"": study}, LIMIT, each_label=True)
        assert study.study is not None
        assert (DECISIONS[study.study.decision], len(study.pairs)) == (decision, count)
    assert set(decisions) == {1, -1, 0}


def test_order_does_not_favour_a_side() -> None:
    """Without a drop, drift and bursts meet candidate and baseline alike."""
    rng = np.random.default_rng(5)
    assert abs(differences(bursts(rng, 0.01), 4000, rng).mean()) < 0.002


@pytest.mark.parametrize("noise", NOISES)
def test_wrong_verdicts_are_rare(noise: str) -> None:
    """Of 400 studies of either kind none is wrong, nearly all are right, in few pairs."""
    for drop, right in ((0.0, 1), (0.10, -1)):
        rng = np.random.default_rng(7)
        drawn = differences(NOISES[noise](rng, 0.015), 400, rng)
        decision, pairs = decide(drawn, (drop, drop))
        assert not (decision == -right).any()
        assert (decision == right).mean() > 0.97
        assert pairs.mean() < 7.5


def test_a_drop_at_one_of_three_lengths_is_found() -> None:
    """Where launches differ by 1.5 %, most of the time."""
    rng = np.random.default_rng(8)
    decision, _ = decide(differences(bursts(rng, 0.015), 400, rng), (0.0, 0.0, 0.10))
    assert (decision == -1).mean() > 0.8
    assert (decision == 1).mean() < 0.03
