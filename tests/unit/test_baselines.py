"""Decode baselines: decisions over stored numbers, and the history file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.decode.baselines import (
    Baseline,
    against,
    against_rows,
    fixed,
    rolling,
    same_batch,
    throughput,
)
from pytest_h2o.decode.history import Entry, append_history, read_history
from pytest_h2o.runs.machine import machine

HERE = {"machine": "a", "model": "m", "settings": "s"}
SPEEDS = st.floats(0.1, 1e4)


def entry(speed: float, key: str = "k", *, passed: bool = True, **others: str) -> Entry:
    return Entry(
        ts_utc="2026-01-31T12:00:00Z", key=key, decode_best=speed, overall_pass=passed, summary="",
        case="full_strict", identity={**HERE, **others},
    )  # fmt: skip


def roll(
    entries: Sequence[Entry],
    given: float | None = None,
    *,
    failed_too: bool = False,
    least: int = 3,
) -> Baseline:
    return rolling(
        entries, key="k", identity=HERE, window=8, least=least, given=given, failed_too=failed_too
    )


@given(st.lists(st.tuples(SPEEDS, st.sampled_from("kx"), st.booleans()), max_size=30))
def test_rolling_is_the_median_of_the_last_that_passed(
    history: list[tuple[float, str, bool]],
) -> None:
    """The window counts entries of this key that passed; too few of them leave no baseline, and
    that is said.
    """
    baseline = roll([entry(speed, key, passed=passed) for speed, key, passed in history])
    usable = [speed for speed, key, passed in history if key == "k" and passed][-8:]
    assert baseline.samples == len(usable)
    if len(usable) >= 3:
        assert (baseline.value, baseline.source) == (median(usable), "rolling_median")
    else:
        assert baseline.value is None
        assert f"{len(usable)} of 3 samples" in baseline.missing


def test_rolling_falls_back_to_what_was_given() -> None:
    """With too few samples a given number is the baseline, under the original's name for it, and
    the reason is said.
    """
    baseline = roll([entry(5.0)], 6.6)
    assert (baseline.value, baseline.source, baseline.samples, baseline.missing) == (
        6.6,
        "fixed_fallback",
        1,
        "",
    )
    assert "1 of 3 samples" in baseline.text


def test_rolling_counts_failed_runs_only_if_asked() -> None:
    """The original took failed runs in, so that each regression made the next one easier to
    pass.
    """
    entries = [*(entry(100.0) for _ in range(3)), *(entry(50.0, passed=False) for _ in range(5))]
    assert roll(entries).value == 100.0
    assert "5 entries that failed left out" in roll(entries).text
    assert roll(entries, failed_too=True).value == 50.0


@pytest.mark.parametrize("name", HERE)
def test_rolling_says_what_does_not_match(name: str) -> None:
    """Speeds of another machine, model or setting are left out and counted, whatever key they
    carry.
    """
    entries = [entry(100.0) for _ in range(3)] + [entry(1.0, **{name: "other"})]
    assert roll(entries).value == 100.0
    assert f"1 entry of another or unknown {name} left out" in roll(entries).text


def test_fixed_has_no_default() -> None:
    """No machine's constant stands in for a baseline that was not given."""
    assert fixed(None).value is None
    assert "DECODE_BASELINE" in fixed(None).missing
    assert fixed(6.6).text == "6.6 tok/s (fixed, 1 sample)"


def test_same_batch_is_the_fastest_row() -> None:
    """The fastest row counts, as in the original; without any speed only a given number is left."""
    assert same_batch([3.0, 5.0], None).value == 5.0
    assert (same_batch([0.0], 6.6).value, same_batch([0.0], 6.6).source) == (
        6.6,
        "same_batch_fallback_fixed",
    )
    assert same_batch([0.0], None).missing


@given(st.dictionaries(st.text("ab", min_size=1), SPEEDS, min_size=1), SPEEDS)
def test_all_rows_never_lose_less_than_the_best(speeds: dict[str, float], number: float) -> None:
    """The best row loses least, the worst most; each is the drop of one row."""
    baseline = Baseline(value=number, source="fixed", samples=1)
    best, worst = against(speeds, baseline).value, against(speeds, baseline, all_rows=True).value
    drops = [(number - speed) / number for speed in speeds.values()]
    assert (best, worst) == (min(drops), max(drops))


def test_rows_are_compared_with_their_own_baseline() -> None:
    """A long prompt that became slower is not hidden by a short one that is faster than it ever
    was.
    """
    measured = against_rows({"p512": 100.0, "p1024": 40.0}, {"p512": 100.0, "p1024": 80.0})
    assert measured.value == 0.5
    assert against_rows({"p512": 100.0}, {}).missing == "no baseline speed for p512"


def test_throughput_weighs_by_tokens() -> None:
    """100 tokens at 10 tok/s and 100 at 40 take 12.5 s together: 16 tok/s, not the mean of 25."""
    assert throughput({"a": 100, "b": 100}, {"a": 10.0, "b": 40.0}) == 16.0


def test_history_survives_damage(tmp_path: Path) -> None:
    """Cut, foreign, non-finite and endless lines are passed over; what follows them is read."""
    path = tmp_path / "history.jsonl"
    append_history(path, [entry(1.0)])
    damaged = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"key": "k"}',
        b"{" * 200_000,
        b"x" * 200_000,
    ]
    for speed in (0, -1, "NaN", "Infinity", '"much"', None):
        damaged.append(
            b'{"key": "k", "overall_pass": true, "decode_best": %s}' % str(speed).encode()
        )
    damaged.append(b'{"key": "k", "overall_pass": "yes", "decode_best": 1}')
    damaged.append(b'{"key": "k", "overall_pass": true, "decode_best": 1, "identity": 5}')
    with path.open("ab") as file:
        file.write(b"\n".join(damaged) + b"\n")
    append_history(path, [entry(2.0)])
    with path.open("ab") as file:
        file.write(b'{"key": "k", "decode_be')  # a writer that was killed
    append_history(path, [entry(3.0)])
    assert [found.decode_best for found in read_history(path)] == [1.0, 2.0, 3.0]
    assert list(read_history(tmp_path / "none.jsonl")) == []


def test_original_lines_are_read_but_do_not_match(tmp_path: Path) -> None:
    """A line that the original wrote carries no fingerprint: it is left out, and that is said."""
    line = {
        "ts_utc": "x",
        "key": "k",
        "decode_best": 6.5,
        "overall_pass": True,
        "summary": "summary.md",
    }
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert (
        "1 entry of another or unknown machine and model and settings left out"
        in roll(list(read_history(path))).missing
    )


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    """Sessions that end at the same time append whole lines."""
    path = tmp_path / "deep" / "history.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_history(path, [entry(1.0 + number)] * 5), range(20)))
    assert sorted(found.decode_best for found in read_history(path)) == sorted(
        [1.0 + n for n in range(20)] * 5
    )


def test_machine_is_stable() -> None:
    """The machine is described by more than its architecture, in the same words each time."""
    assert machine() == machine()
    assert len(machine().split(", ")) >= 3
