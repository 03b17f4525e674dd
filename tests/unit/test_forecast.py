"""What is left of a session's launches, from earlier ones and from those of today."""

from __future__ import annotations

import pytest

from pytest_h2o.session.forecast import Forecast, duration


def test_nothing_is_guessed_from_nothing() -> None:
    """Without an earlier launch and before the first of today there is no estimate."""
    forecast = Forecast()
    forecast.expect(["bench-a", "bench-b"], {})
    assert (forecast.total, forecast.left()) == (2, None)
    forecast.ended("bench-a", 4.0)
    assert forecast.left() == 4.0


def test_today_corrects_the_past() -> None:
    """A machine that is half as fast today needs twice the time for the rest."""
    forecast = Forecast()
    forecast.expect(
        ["bench-a", "bench-b", "demo-c"], {"bench-a": 2.0, "bench-b": 3.0, "demo-c": 5.0}
    )
    assert forecast.left() == 10.0
    forecast.ended("bench-a", 4.0)
    assert forecast.left() == 16.0


def test_a_program_that_never_ran_is_not_guessed() -> None:
    """The time of one program says nothing of another."""
    forecast = Forecast()
    forecast.expect(["bench-a", "demo-c"], {})
    forecast.ended("bench-a", 4.0)
    assert forecast.left() is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (119, "2 min"), (4800, "1 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    """Seconds as people say them."""
    assert duration(seconds) == text
