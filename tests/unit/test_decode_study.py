"""The paired decode statistics against brute force and known tables."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from pytest_h2o.decode.study import (
    ALPHA,
    LOOKS,
    bounds,
    holm,
    judge,
    judge_parts,
    launch_order,
    signed_rank_index,
    slow_p_value,
    walsh_averages,
)

differences = st.lists(st.floats(-0.5, 0.5, allow_nan=False), min_size=1, max_size=12)


def tail_probability(pairs: int, statistic: int) -> float:
    """P(T+ <= statistic) by enumerating every assignment of signs."""
    signs = itertools.product((0, 1), repeat=pairs)
    sums = [
        sum(rank * sign for rank, sign in zip(range(1, pairs + 1), signs_, strict=True))
        for signs_ in signs
    ]
    return sum(total <= statistic for total in sums) / len(sums)


@pytest.mark.parametrize("pairs", range(1, 13))
def test_index_is_the_largest_within_alpha(pairs: int) -> None:
    """The critical value agrees with the enumerated distribution of the signed-rank statistic."""
    index = signed_rank_index(pairs, ALPHA)
    if index is None:
        assert tail_probability(pairs, 0) > ALPHA
    else:
        assert tail_probability(pairs, index) <= ALPHA < tail_probability(pairs, index + 1)


@pytest.mark.parametrize(
    ("pairs", "alpha", "index"),
    [
        (6, 0.025, 0),
        (10, 0.025, 8),
        (10, 0.01, 5),
        (16, 0.025, 29),
        (16, 0.01, 23),
        (20, 0.025, 52),
        (20, 0.01, 43),
    ],
)
def test_known_critical_values(pairs: int, alpha: float, index: int) -> None:
    """Printed tables of the one-sided signed-rank test."""
    assert signed_rank_index(pairs, alpha) == index


@pytest.mark.parametrize("pairs", [*LOOKS, 12, 18, 24])
def test_p_values_agree_with_scipy(pairs: int) -> None:
    """The exact p-value is that of scipy's signed-rank test of the differences from the limit, over
    all its range.
    """
    rng = np.random.default_rng(pairs)
    for drop in np.linspace(-0.2, 0.3, 11):
        values = rng.normal(math.log1p(-drop), 0.05, pairs)
        expected = wilcoxon(values - math.log1p(-0.05), alternative="less", method="exact").pvalue
        assert slow_p_value(values.tolist(), 0.05) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pairs", LOOKS)
def test_bounds_agree_with_scipy(pairs: int) -> None:
    """A limit just inside a bound is not rejected at ALPHA by scipy's exact test, one just outside
    is.
    """
    values = np.random.default_rng(pairs).normal(0, 0.05, pairs)
    low, _, high = bounds(values.tolist())
    for limit, alternative, rejected in [
        (low - 1e-9, "greater", True), (low + 1e-9, "greater", False),
        (high + 1e-9, "less", True), (high - 1e-9, "less", False),
    ]:  # fmt: skip
        p = wilcoxon(values - limit, alternative=alternative, method="exact").pvalue
        assert (p <= ALPHA) == rejected


@given(differences, st.floats(-0.3, 0.3))
def test_fail_is_the_upper_bound_below_the_limit(values: list[float], target: float) -> None:
    """The p-value and the bound are one test."""
    study = judge(values, target)
    assert (study.decision == "fail") == (bounds(values)[2] < math.log1p(-target))


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=5))
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
    kept = [chosen for chosen in sets if min(named[name] for name in chosen) > ALPHA / len(chosen)]
    assert holm(named) == {name for name in named if not any(name in chosen for chosen in kept)}


@given(differences)
def test_estimate_is_the_median_of_all_pairwise_averages(values: list[float]) -> None:
    """The Hodges-Lehmann estimate equals its definition, written the slow way."""
    averages = [(a + b) / 2 for i, a in enumerate(values) for j, b in enumerate(values) if i <= j]
    assert bounds(values)[1] == pytest.approx(statistics.median(averages))
    assert walsh_averages(values) == pytest.approx(sorted(averages))


@given(differences, st.floats(-1, 1))
def test_bounds_move_with_the_data(values: list[float], shift: float) -> None:
    """Adding a constant to every difference moves estimate and bounds by it."""
    for before, after in zip(
        bounds(values), bounds([value + shift for value in values]), strict=True
    ):
        assert after == pytest.approx(before + shift) or (math.isinf(before) and before == after)


@given(differences)
def test_mirrored_data_give_mirrored_bounds(values: list[float]) -> None:
    """Swapping candidate and baseline swaps the bounds."""
    low, middle, high = bounds(values)
    assert bounds([-value for value in values]) == pytest.approx((-high, -middle, -low))


@pytest.mark.parametrize(
    ("values", "decision"),
    [
        ([0.0] * 6, "pass"),
        ([math.log(0.90)] * 6, "fail"),
        ([0.0] * 5, "inconclusive"),
        ([0.0, 0.02, -0.2, 0.01, 0.0, 0.0], "inconclusive"),
    ],
)
def test_decisions(values: list[float], decision: str) -> None:
    """Equal speed passes 5 %, a 10 % loss fails, and too little or contradictory data decide
    nothing.
    """
    assert judge(values, 0.05).decision == decision


@pytest.mark.parametrize(
    ("slow", "pairs", "decision", "slow_at"),
    [
        (0.0, 3, "pass", ""), (0.04, 3, "pass", ""),
        (0.10, 3, "inconclusive", "1024"),
        (0.10, 6, "inconclusive", "1024"),  # 1/64 for each of two is too much
        (0.10, 7, "fail", "1024"), (0.10, 1, "inconclusive", "1024"),
    ],
)  # fmt: skip
def test_a_slow_part_does_not_hide(slow: float, pairs: int, decision: str, slow_at: str) -> None:
    """Beside a length that got faster, a slow one keeps the whole from passing, and then fails it
    by name.
    """
    parts = {
        "512": [0.2 + number / 1000 for number in range(pairs)],
        "1024": [math.log1p(-slow)] * pairs,
    }
    whole = replace(judge([*parts["512"], *parts["1024"]], 0.05), decision="pass")
    study = judge_parts(whole, parts, 0.05)
    assert (study.decision, study.slow_at) == (decision, slow_at)
    if decision == "fail":
        assert study.drop == pytest.approx(slow)


def test_drop_is_reported_as_a_share() -> None:
    """Differences of ln 0.9 are a drop of 10 % with both bounds there."""
    study = judge([math.log(0.9)] * 6, 0.05)
    assert (study.drop, study.drop_low, study.drop_high) == pytest.approx((0.1, 0.1, 0.1))


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
