"""What the charts and texts of a page are made from, against second ways to the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_h2o.decode.history import Entry
from pytest_h2o.notebook import read_run
from pytest_h2o.report.charts import decode_forest, decode_history, session_charts
from pytest_h2o.report.kv_lengths import eviction_plans, kv_points
from pytest_h2o.report.page import cards, tightest
from pytest_h2o.report.side_by_side import common_length, loops, stretches
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Interval, SpeedPair, Verdict

RECORDED = Path(__file__).parents[1] / "data" / "session"
LETTERS = st.text("ab \n", max_size=40)


@pytest.fixture(scope="module")
def records() -> list[LaunchRecord]:
    """Launches of a recorded session."""
    return list(read_run(RECORDED).records)


def study(case: str, value: float, pairs: Sequence[SpeedPair], target: float = 0.05) -> Verdict:
    """A decode verdict."""
    return Verdict(
        gate="decode_drop", case=case, metric="decode_drop", outcome="pass", value=value,
        target=target, operator="<=", margin=target - value, unit="share", pairs=tuple(pairs),
        interval=Interval(low=-0.01, high=None, level=0.96),
    )  # fmt: skip


def test_cases_of_one_study_are_one_line() -> None:
    """Cases that rest on the same pairs share a line; the drop is of tokens per second."""
    pairs = [SpeedPair(label="a", replicate=1, baseline=80.0, candidate=60.0)]
    others = [SpeedPair(label="a", replicate=2, baseline=50.0, candidate=60.0)]
    chart = decode_forest(
        [study("x", 0.02, pairs), study("y", 0.02, pairs), study("z", 0.02, others)]
    )
    assert chart is not None
    assert chart.rows == [["x, y", 2.0, -1.0, "-", 5.0, 1], ["z", 2.0, -1.0, "-", 5.0, 1]]
    points = chart.spec["layer"][0]["data"]["values"]
    assert [each["drop"] for each in points] == [25.0, -20.0]


def test_what_is_no_number_is_not_drawn() -> None:
    """A verdict without a finite value has no point, and no chart alone."""
    assert decode_forest([study("x", float("nan"), []), study("y", float("inf"), [])]) is None


def test_every_table_holds_what_its_chart_draws(records: list[LaunchRecord]) -> None:
    """The Pareto front of the compression chart is what no other median beats in both."""
    chart = next(each for each in session_charts([], records) if each.name == "compression")
    points = [(row[1], float(str(row[2])), float(str(row[3])), row[4]) for row in chart.rows]
    for length, ratio, speed, mark in points:
        beaten = any(
            other == length
            and more >= ratio
            and faster >= speed
            and (more, faster) != (ratio, speed)
            for other, more, faster, _ in points
        )
        assert (mark == "front") is not beaten
    drawn = chart.spec["layer"][2]["data"]["values"]
    assert len(drawn) == len(chart.rows) == 4


def test_kv_lengths_of_a_recorded_launch(records: list[LaunchRecord]) -> None:
    """Each of six layers is cut once, and ends as long as what its plan left plus what followed."""
    trace = next(each for each in session_charts([], records) if each.name == "kv")
    ends = {row[0]: row[1:3] for row in trace.rows}
    evicted = {row[0]: row[1:3] for row in trace.rows if row[3] == "evicted"}
    assert len(evicted) == len(ends) == 6
    for layer, (decoded, tokens) in ends.items():
        at, left = evicted[layer]
        assert decoded - at == tokens - left


def test_several_responses_are_no_curve(records: list[LaunchRecord]) -> None:
    """A launch that answers its prompts one after the other is not drawn as if it answered one."""
    several = [replace(each, spec=replace(each.spec, line_by_line=True)) for each in records]
    assert "kv" not in {each.name for each in session_charts([], several)}


def log(directory: Path, lines: Sequence[str], record: LaunchRecord) -> LaunchRecord:
    """A record whose program printed ``lines``."""
    path = directory / "stdout"
    path.write_text("\n".join(lines) + "\n")
    return replace(record, stdout=path)


@pytest.mark.parametrize("said", [True, False])
def test_a_dropped_plan_changes_no_length(
    records: list[LaunchRecord], tmp_path: Path, said: bool
) -> None:
    """A plan that is dropped, by its own line or since the layer plans again unshortened, is an
    event on an unbroken curve.
    """
    plan = "[H2O] layer=2 kv={} keep_ratio=0.3 evict={} lossy_ratio=3"
    stale = "Drop stale per-layer pending plan, layer=2"
    lines = [plan.format(110, 60), stale, plan.format(112, 50), plan.format(250, 40)]
    if not said:
        lines.remove(stale)
    plans = eviction_plans(log(tmp_path, lines, records[0]), 100)
    assert [(each.decoded, each.applied) for each in plans] == [
        (10, False),
        (12, True),
        (200, True),
    ]
    # Token by token: one more each, and what an applied plan drops.
    length, lengths = 100, []
    for decoded in range(221):
        lengths.append(length - 50 * (decoded == 12) - 40 * (decoded == 200))
        length = lengths[-1] + 1
    for point in kv_points(plans, 100, 220):
        if point.event == "evicted" or point.decoded in (0, 220):
            assert point.tokens == lengths[point.decoded]
        if point.event == "dropped plan":
            assert (point.decoded, point.tokens) == (10, 110)


def test_history_needs_an_earlier_session() -> None:
    """A first session has no chart; the band of a point is made of those before it alone."""
    entries = [
        Entry(
            ts_utc=f"2026-01-0{day}T00:00:00Z", key="k", decode_best=speed, overall_pass=True,
            summary="", case="c", identity={},
        )
        for day, speed in enumerate([10.0, 30.0, 20.0, 50.0], 1)
    ]  # fmt: skip
    assert decode_history(entries[:1], 2) is None
    chart = decode_history(entries, 2)
    assert chart is not None
    assert [row[4:] for row in chart.rows] == [["-"] * 3, [10, 10, 10], [10, 20, 30], [20, 25, 30]]


@given(LETTERS, LETTERS, LETTERS)
def test_stretches_are_the_text(shared: str, one: str, other: str) -> None:
    """Stretches make up the text, and those before the first difference are the other's."""
    same = common_length(shared + one, shared + other)
    assert same >= len(shared)
    parts = list(stretches(shared + one, same))
    assert "".join(part.text for part in parts) == shared + one
    equal = "".join(part.text for part in parts if not part.differs)
    assert (shared + other).startswith(equal)
    assert len(equal) == same


@given(
    st.text("xyz", max_size=30),
    st.text("abc", min_size=1, max_size=50),
    st.text("xyz", max_size=30),
)
@example("", "aaabbb", "")
def test_loops_are_found_wherever_they_are(before: str, period: str, after: str) -> None:
    """A planted loop is covered; text that no period repeats has none."""
    times = 60 // len(period) + 3
    text = before + period * times + after
    start, end = len(before), len(before) + len(period) * times
    covered = {at for first, last in loops(text) for at in range(first, last)}
    assert covered >= set(range(start + len(period), end - len(period)))
    assert loops("".join(chr(200 + at) for at in range(500))) == []


def test_cards_show_the_worst() -> None:
    """A card is of the failure if there is one, else of the least to spare, and says which way."""
    fast, slow = study("fast", -0.02, []), study("slow", 0.04, [])
    off = Verdict(gate="lossy", outcome="skipped")
    missing = Verdict(
        gate="lossy", case="m", outcome="fail", target=3.0, operator=">=", unit="ratio"
    )
    assert tightest([fast, slow]) is slow
    assert [(each.title, each.value) for each in cards([fast, slow, off])] == [
        ("Decode, worst case", "4.0% slower")
    ]
    assert cards([fast])[0].value == "2.0% faster"
    assert cards([slow, missing])[0].value == "not measured"
