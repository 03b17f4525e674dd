"""The paired decode statistics against slow sums, scipy and known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import cauchy
from scipy.stats import t as student

from pytest_h2o.decode.effects import SAME, SCALES, part_tables, quantiles, weigh
from pytest_h2o.decode.study import ERROR, LEAST_PAIRS, LEAST_TO_FAIL, holm, judge, launch_order

LIMIT = math.log1p(-0.05)
differences = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=8)
STUDIES = [
    {"": [0.06, 0.05, 0.02, -0.01]},
    {"": [0.01, -0.02, 0.2]},
    {"512": [0.05, 0.045, 0.06], "1024": [-0.05, -0.04]},
    {"512": [0.02, -0.03], "1024": [0.04, 0.01], "2048": [-0.01, 0.3]},
]


EFFECTS = np.linspace(-3, 3, 40_001)


def densities(values: list[float], scale: float) -> np.ndarray:
    """The prior density of each effect times the likelihood of the differences."""
    noise = student.pdf((np.array(values)[:, None] - EFFECTS) / scale, 2) / scale
    return cauchy.pdf(EFFECTS, scale=0.1) * noise.prod(axis=0)


@pytest.mark.parametrize("study", STUDIES)
def test_probabilities_are_the_integrals_of_the_model(study: dict[str, list[float]]) -> None:
    """The coarse grid of logarithms agrees with scipy's densities on a fine one."""
    parts = list(study.values())
    none_slow, slow = weigh(part_tables(parts))
    fast = EFFECTS > 0
    total = none = 0.0
    part_fast = np.zeros(len(parts))
    for scale in SCALES:
        shared = densities([value for values in parts for value in values], scale)
        apart = [densities(values, scale) for values in parts]
        masses = [each.sum() for each in apart]
        step = (EFFECTS[1] - EFFECTS[0]) ** (len(parts) - 1)
        total += (SAME * shared.sum() + (1 - SAME) * math.prod(masses) * step) / scale
        fast_masses = [each[fast].sum() for each in apart]
        none += (SAME * shared[fast].sum() + (1 - SAME) * math.prod(fast_masses) * step) / scale
        for index, mass in enumerate(fast_masses):
            others = math.prod(masses) / masses[index]
            part_fast[index] += (
                SAME * shared[fast].sum() + (1 - SAME) * mass * others * step
            ) / scale
    assert none_slow == pytest.approx(none / total, rel=0.03, abs=2e-4)
    assert slow == pytest.approx(1 - part_fast / total, rel=0.03, abs=2e-4)


@pytest.mark.parametrize("study", STUDIES)
def test_quantiles_and_probabilities_are_of_one_model(study: dict[str, list[float]]) -> None:
    """Of the distribution of a part's effect, what lies below the limit is its probability to be
    slow, though the grid is another.
    """
    parts = list(study.values())
    _, slow = weigh(part_tables(parts))
    for index, probability in enumerate(slow):
        below, above = quantiles(parts, (probability * 0.9, probability * 0.9 + 0.1), index)
        assert below < 0 < above


@given(differences)
def test_quantiles_ascend(values: list[float]) -> None:
    """Bounds enclose the estimate."""
    low, middle, high = quantiles([values], (ERROR, 0.5, 1 - ERROR))
    assert low < middle < high


@given(differences)
def test_mirrored_data_give_mirrored_probabilities(values: list[float]) -> None:
    """Neither pass nor FAIL is favoured beforehand."""
    none_slow, _ = weigh(part_tables([values]))
    mirrored, _ = weigh(part_tables([[-value for value in values]]))
    assert none_slow + mirrored == pytest.approx(1)


@given(st.lists(differences, min_size=2, max_size=3))
def test_order_is_of_no_account(parts: list[list[float]]) -> None:
    """Neither that of the pairs nor that of the parts."""
    none_slow, slow = weigh(part_tables(parts))
    other, turned = weigh(part_tables([values[::-1] for values in parts[::-1]]))
    assert other == pytest.approx(none_slow)
    assert turned[::-1] == pytest.approx(slow)


def test_hundreds_of_contradicting_rows_are_weighed() -> None:
    """Recorded studies have many rows, whose likelihood is far below the smallest number."""
    none_slow, slow = weigh(part_tables([[0.01] * 400, [-0.2, 0.3] * 200, [-2.0] * 300]))
    assert none_slow == pytest.approx(0, abs=1e-9)
    assert np.isfinite(slow).all()
    assert slow[2] == pytest.approx(1)


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=5))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis is rejected if and only if Bonferroni's test rejects every set of hypotheses
    that holds it.
    """
    named = {str(index): p for index, p in enumerate(p_values)}
    sets = [
        set(chosen)
        for size in range(1, len(named) + 1)
        for chosen in itertools.combinations(named, size)
    ]
    kept = [chosen for chosen in sets if min(named[name] for name in chosen) > ERROR / len(chosen)]
    assert holm(named) == {name for name in named if not any(name in chosen for chosen in kept)}


@pytest.mark.parametrize(
    ("values", "decision"),
    [
        ([0.0] * LEAST_PAIRS, "pass"),
        ([0.0] * (LEAST_PAIRS - 1), "inconclusive"),
        ([math.log(0.90)] * LEAST_TO_FAIL, "fail"),
        ([math.log(0.90)] * (LEAST_TO_FAIL - 1), "inconclusive"),
        ([math.log(0.5)] * LEAST_TO_FAIL, "fail"),
        ([0.0, 0.01, -0.2, 0.01, 0.0, 0.0], "pass"),  # one pair is off
        ([0.0, 0.02, -0.2, -0.1, 0.1, 0.3], "inconclusive"),
        ([LIMIT] * 100, "inconclusive"),
    ],
)
def test_decisions(values: list[float], decision: str) -> None:
    """Equal speed passes 5 %, a 10 % loss fails, and too little or contradictory data decide
    nothing.
    """
    assert judge({"": values}, 0.05).decision == decision


@pytest.mark.parametrize(
    ("slow", "pairs", "decision", "slow_at"),
    [
        (0.0, 2, "pass", ""), (0.04, 3, "pass", ""), (0.10, 3, "fail", "1024"),
        (0.10, 2, "inconclusive", "1024"), (0.10, 1, "inconclusive", "1024"),
    ],
)  # fmt: skip
def test_a_slow_part_does_not_hide(slow: float, pairs: int, decision: str, slow_at: str) -> None:
    """Beside a length that got faster, a slow one keeps the whole from passing, fails it by name,
    with its own numbers, and is measured again.
    """
    parts = {
        "512": [0.05 + number / 1000 for number in range(pairs)],
        "1024": [math.log1p(-slow)] * pairs,
    }
    study = judge(parts, 0.05)
    assert (study.decision, study.slow_at, study.pairs) == (decision, slow_at, 2 * pairs)
    if slow_at and pairs > 1:
        assert study.doubtful == ("1024",)
        assert study.drop == pytest.approx(slow, abs=0.01)


def test_drop_is_reported_as_a_share() -> None:
    """Differences of ln 0.9 are a drop of 10 %, and of ln 0.4 one of 60 %, with bounds on either
    side.
    """
    for share in (0.9, 0.4):
        study = judge({"": [math.log(share)] * 20}, 0.05)
        assert study.drop == pytest.approx(1 - share, abs=2e-4)
        assert study.drop - 0.02 < study.drop_low < study.drop < study.drop_high < study.drop + 0.02


@given(st.integers(0, 40), st.integers(0, 5))
def test_order_is_seeded_and_mirrored(block: int, seed: int) -> None:
    """Every arm runs once; the second turn of two runs the arms backwards."""
    arms = ["store", "baseline", "full"]
    first = launch_order(arms, 2 * block, seed, "bench")
    assert sorted(first) == sorted(arms)
    assert launch_order(arms, 2 * block + 1, seed, "bench") == first[::-1]
    assert launch_order(arms[::-1], 2 * block, seed, "bench") == first


def test_the_coin_is_fair() -> None:
    """Over many blocks and seeds, either of two arms begins about half of them."""
    begins = [
        launch_order(["a", "b"], 2 * block, seed, "bench")[0]
        for block in range(50)
        for seed in range(20)
    ]
    assert 0.45 < begins.count("a") / len(begins) < 0.55
