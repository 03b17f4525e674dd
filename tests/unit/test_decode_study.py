"""The paired decode statistics against brute force and known tables."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.decode_study import ALPHA, bounds, judge, launch_order, signed_rank_index, walsh_averages

differences = st.lists(st.floats(-0.5, 0.5, allow_nan=False), min_size=1, max_size=12)


def tail_probability(pairs: int, statistic: int) -> float:
    """P(T+ <= statistic) by enumerating every assignment of signs."""
    signs = itertools.product((0, 1), repeat=pairs)
    sums = [sum(rank * sign for rank, sign in zip(range(1, pairs + 1), signs_, strict=True)) for signs_ in signs]
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
    [(6, 0.025, 0), (10, 0.025, 8), (10, 0.01, 5), (16, 0.025, 29), (16, 0.01, 23), (20, 0.025, 52), (20, 0.01, 43)],
)
def test_known_critical_values(pairs: int, alpha: float, index: int) -> None:
    """Printed tables of the one-sided signed-rank test."""
    assert signed_rank_index(pairs, alpha) == index


@given(differences)
def test_estimate_is_the_median_of_all_pairwise_averages(values: list[float]) -> None:
    """The Hodges-Lehmann estimate equals its definition, written the slow way."""
    averages = [(a + b) / 2 for i, a in enumerate(values) for j, b in enumerate(values) if i <= j]
    assert bounds(values)[1] == pytest.approx(statistics.median(averages))
    assert walsh_averages(values) == pytest.approx(sorted(averages))


@given(differences, st.floats(-1, 1))
def test_bounds_move_with_the_data(values: list[float], shift: float) -> None:
    """Adding a constant to every difference moves estimate and bounds by it."""
    for before, after in zip(bounds(values), bounds([value + shift for value in values]), strict=True):
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
    """Equal speed passes 5 %, a 10 % loss fails, and too little or contradictory data decide nothing."""
    assert judge(values, 0.05).decision == decision


def test_drop_is_reported_as_a_share() -> None:
    """Differences of ln 0.9 are a drop of 10 % with both bounds there."""
    study = judge([math.log(0.9)] * 6, 0.05)
    assert (study.drop, study.drop_low, study.drop_high) == pytest.approx((0.1, 0.1, 0.1))


@given(st.integers(1, 40), st.integers(0, 5))
def test_order_is_seeded_and_mirrored(replicate: int, seed: int) -> None:
    """Every arm runs once; the second block of two runs the arms backwards."""
    arms = ["store", "baseline", "full"]
    first = launch_order(arms, 2 * replicate - 1, seed, "p512_g128")
    assert sorted(first) == sorted(arms)
    assert launch_order(arms, 2 * replicate, seed, "p512_g128") == first[::-1]
    assert launch_order(arms[::-1], 2 * replicate - 1, seed, "p512_g128") == first
