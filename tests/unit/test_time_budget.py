"""What is judged and launched within a given time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.plan.durations import seconds_of
from pytest_h2o.plan.knobs import KnobError, check_together, resolve
from pytest_h2o.session.forecast import Forecast
from pytest_h2o.session.time_budget import TimeBudget, best_first


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("30 min", 1800), ("1h30m", 5400), ("1.5 h", 5400), ("1d", 86400)],
)
def test_times_are_written_as_people_do(text: str, seconds: float) -> None:
    """Numbers with units, several of them added."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "soon", "30x", "m", "5m-2", "-5m", "1h 2"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """By the name of the knob, with how it is written."""
    with pytest.raises(KnobError, match=r"H2O_BUDGET.*30m"):
        check_together(resolve([f"H2O_BUDGET={text}"]))


def test_most_verdicts_come_first() -> None:
    """Ten gates of one launch come before one of three, gates without launches before all, and what
    takes too long at the end, in its own order.
    """
    needs = [["a", "b", "c"], ["d"], [], ["d"], ["e", "f"], ["a"]]
    each = dict.fromkeys("abcdef", 10.0) | {"f": 1000.0}

    def seconds(names: Collection[str]) -> float:
        return sum(each[name] for name in names)

    assert best_first(needs, seconds, 100.0) == ([2, 1, 3, 5, 0, 4], 5)
    assert best_first(needs, seconds, 15.0) == ([2, 1, 3, 0, 4, 5], 3)


launches = st.lists(st.sampled_from("abcd"), max_size=3, unique=True)


@given(st.lists(launches, max_size=6), st.integers(0, 12))
def test_what_is_promised_fits(needs: list[list[str]], limit: int) -> None:
    """No gate is lost, those that are said to fit do, and no other one would fit beside them; of
    one launch each, no choice has more.
    """
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    order, fitting = best_first(needs, lambda names: sum(seconds[name] for name in names), limit)
    assert sorted(order) == list(range(len(needs)))

    def cost(numbers: tuple[int, ...] | list[int]) -> float:
        names = {name for number in numbers for name in needs[number]}
        return sum(seconds[name] for name in names)

    assert cost(order[:fitting]) <= limit
    for number in order[fitting:]:
        assert cost([*order[:fitting], number]) > limit
    if all(len(names) <= 1 for names in needs):
        numbers = range(len(needs))
        possible = (
            len(chosen)
            for size in range(len(needs) + 1)
            for chosen in itertools.combinations(numbers, size)
            if cost(chosen) <= limit
        )
        assert fitting >= max(possible) / 2


def forecast_of(seconds: dict[str, float]) -> Forecast:
    """What earlier sessions tell."""
    forecast = Forecast()
    forecast.expect(list(seconds), seconds)
    return forecast


def test_promised_launches_come_before_more_pairs() -> None:
    """What was not promised may take what the promised ones leave, and they take what there is."""
    forecast = forecast_of({"bench-a": 20.0, "bench-b": 30.0, "bench-c": 5.0})
    budget = TimeBudget("1m", promised=["bench-a", "bench-b"])
    assert budget.allows("bench-a", forecast)
    assert budget.allows("bench-c", forecast)
    assert not budget.allows("bench-d", forecast)  # guessed at 18 s
    forecast.ended("bench-a", 20.0)
    assert budget.allows("bench-d", forecast)


def test_time_that_is_over_is_over() -> None:
    """However short the launch."""
    budget = TimeBudget("1m", begun=time.monotonic() - 61)
    assert not budget.allows("bench-a", forecast_of({"bench-a": 0.1}))
    assert TimeBudget("", begun=time.monotonic() - 1e6).allows("bench-a", Forecast())
    assert budget.used_up == "the time of H2O_BUDGET=1m was used up"
