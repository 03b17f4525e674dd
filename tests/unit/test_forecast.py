"""What is left of a session's launches, from earlier ones and from those of today."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.session.forecast import Forecast, Lanes, duration


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


HOSTS = Lanes.of({"pixel": ("a", "b"), "server": ("c",)}, 3)


def test_hosts_launch_at_once() -> None:
    """What is left takes as long as the host with most of it, or as the processes that ask."""
    seconds = {"bench-a": 30.0, "bench-b@2": 10.0, "bench-c@2": 10.0, "bench-d@3": 5.0}
    hosts = {"": ("x", "y", "z")}
    left = {}
    for processes in (1, 2, 3, 9):
        forecast = Forecast(Lanes.of(hosts, processes))
        forecast.expect(list(seconds), seconds)
        left[processes] = forecast.left()
    assert left == {1: 55.0, 2: 30.0, 3: 30.0, 9: 30.0}
    forecast.ended("bench-a", 30.0)
    assert forecast.left() == 20.0
    alone = Forecast(Lanes(processes=4))
    alone.expect(list(seconds), seconds)
    assert alone.left() == 55.0


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 9), st.sampled_from(["pixel", "pixel.2", "server"])),
        st.floats(0.125, 64, width=16),
        min_size=1,
    ),
    st.integers(1, 4),
)
def test_time_of_hosts_is_that_of_a_schedule(
    work: dict[tuple[int, str], float], processes: int
) -> None:
    """Never less than any schedule can do, nor more than one after the other; with a process for
    each host, what a simulation of them takes.
    """
    seconds = {f"bench-{number}-r1@{mark}": each for (number, mark), each in work.items()}
    found = Lanes(HOSTS.kinds, processes).together(seconds)
    clocks = dict.fromkeys(HOSTS.kinds, 0.0)
    for (_, mark), each in work.items():
        clocks[mark] += each
    assert max(clocks.values()) <= found <= sum(clocks.values())
    assert found * processes >= sum(clocks.values()) * 0.999
    if processes >= 3:
        assert found == max(clocks.values())


def test_kinds_of_hosts_have_their_own_speed() -> None:
    """One that is four times as slow is guessed so where nothing else is known of it; and it is
    today's pace of its kind that counts.
    """
    before = {
        "bench-x-r1@pixel": 40.0, "bench-x-r1@server": 10.0, "bench-y-r1@server": 20.0,
    }  # fmt: skip
    forecast = Forecast(HOSTS)
    forecast.expect([*before, "bench-y-r1@pixel.2"], before)
    assert forecast.guess("bench-y-r1@pixel.2") == 80.0
    assert forecast.guess("bench-z-r1@pixel") == 40.0
    assert forecast.guess("bench-z-r1@server") == 15.0
    forecast.ended("bench-x-r1@server", 30.0)
    assert forecast.guess("bench-y-r1@server") == 60.0
    assert forecast.guess("bench-x-r1@pixel") == 40.0


def test_names_tell_hosts_apart() -> None:
    """By their marks; an @ of a prompt's name is none, and nothing is where there are no hosts."""
    assert HOSTS.place("demo-p@home-r1@pixel.2") == ("demo-p@home-r1", "pixel.2")
    assert HOSTS.place("demo-p@home-r1") == ("demo-p@home-r1", "")
    assert Lanes().place("bench-r1@pixel") == ("bench-r1@pixel", "")
    assert HOSTS.alike("x@pixel.2") == ["x@pixel.2", "x@pixel"]
    assert HOSTS.kind("x@server") == "server"
