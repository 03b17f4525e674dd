"""How a measurement becomes a verdict."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.decode.judge import judge_study
from pytest_h2o.decode.study import judge
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.report.files import summary
from pytest_h2o.report.models import GateVerdict, Summary
from pytest_h2o.report.text import failure_table, verdict_row
from pytest_h2o.verdict import (
    STANDINGS,
    BaselineSpeed,
    Evidence,
    Interval,
    Measured,
    Operator,
    ShownRow,
    SpeedPair,
    Standing,
    Verdict,
    compare,
    weigh,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)


def measured(value: float | None, missing: str = "") -> Measured:
    return Measured(
        metric="h2o_lossy", value=value, unit="ratio", source=Path("log.md"), missing=missing
    )


@given(numbers, numbers, st.sampled_from([">=", "<=", ">"]))
def test_comparison_agrees_with_python(value: float, target: float, operator: Operator) -> None:
    """The outcome is that of the plain comparison, and the margin is negative only when it
    fails.
    """
    expected = {">=": value >= target, "<=": value <= target, ">": value > target}[operator]
    verdict = compare(measured(value), operator, target)
    assert (verdict.outcome == "pass") == expected
    assert verdict.margin is not None
    assert expected or verdict.margin <= 0
    assert bool(verdict.reason) != expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("operator", [">=", "<=", ">"])
def test_what_is_not_a_number_never_passes(value: float | None, operator: Operator) -> None:
    """Absent, NaN and infinite values fail with a reason, whatever the direction."""
    verdict = compare(measured(value), operator, 3.0)
    assert verdict.outcome == "fail"
    assert verdict.reason


def test_missing_beats_a_value() -> None:
    """A measurement that says why it cannot be judged fails with that reason even if a number is
    there.
    """
    assert compare(measured(9.0, "column absent"), ">=", 3.0).reason == "column absent"


def test_margins_have_no_rounding_errors() -> None:
    """What a report shows as the margin is the difference of the decimal numbers that it shows."""
    assert compare(measured(5.905), "<=", 0.0 + 5.905 - 5.904999999999999).margin == -5.905
    assert compare(measured(3.144), ">=", 3.0).margin == 0.144
    assert compare(measured(30000.1), ">", 30000.0).margin == 0.1


@pytest.mark.parametrize(
    ("unit", "value", "target", "shown"),
    [
        ("tokens", 11520, 0, ["11520 tokens", "> 0 tokens", "11520 tokens"]),
        ("µs", 4912.4, 30000, ["4912 µs", "> 30000 µs", "-25088 µs"]),
        ("share", 0.12, 0.08, ["12.0%", "> 8.0%", "4.0%"]),
        ("ratio", 3.1444, 3, ["3.144", "> 3", "0.1444"]),
        ("MiB", 2.5e7, 9999999, ["2.5e+07 MiB", "> 9999999 MiB", "1.5e+07 MiB"]),
        ("tok/s", None, 1200000, ["-", "> 1200000 tok/s", "-"]),
    ],
)
def test_numbers_as_people_read_them(
    unit: str, value: float | None, target: float, shown: list[str]
) -> None:
    """Units are there, also where nothing was measured, and exponents are not, below ten
    million.
    """
    verdict = compare(Measured(metric="x", value=value, unit=unit), ">", target)
    assert list(verdict_row(verdict)[3:6]) == shown


def test_evidence() -> None:
    """One contradiction fails a passing verdict and is its reason; no possible look and doubts are
    said.
    """
    passing = compare(measured(3.2), ">=", 3.0)
    support, against = (
        evidence("supported", "KV shrank"),
        evidence("contradicted", "plans were dropped"),
    )
    unknown, doubt = evidence("not evidenced", "needs lines"), evidence("doubtful", "old KV")
    assert weigh(passing, []) == passing
    assert weigh(passing, [support]) == replace(
        passing, standing="supported", evidence="KV shrank", claims=(support,)
    )
    assert weigh(passing, [support, unknown]).not_evidenced == "eviction (needs lines)"
    assert weigh(passing, [support, unknown, doubt]).standing == "doubtful"
    assert weigh(passing, [doubt]).warning == "old KV (casts doubt on: eviction)"
    contradicted = weigh(passing, [support, against, doubt])
    assert (contradicted.outcome, contradicted.standing) == ("fail", "contradicted")
    assert contradicted.reason == "plans were dropped (contradicts: eviction)"


def test_required_evidence() -> None:
    """A claim without evidence fails where evidence is required, a doubtful one does not."""
    passing = compare(measured(3.2), ">=", 3.0)
    assert weigh(passing, [evidence("not evidenced", "needs lines")]).outcome == "pass"
    required = weigh(passing, [evidence("not evidenced", "needs lines")], require=True)
    assert (required.outcome, required.reason) == (
        "fail",
        "claimed, not evidenced: eviction (needs lines)",
    )
    assert weigh(passing, [evidence("doubtful", "old KV")], require=True).outcome == "pass"


def evidence(standing: Standing, text: str) -> Evidence:
    return Evidence(claim="eviction", standing=standing, text=text)


# What joined texts are full of, and what JSON, XML and reports must escape.
texts = st.text() | st.sampled_from(["; ", ": ", "a; b: c", "-> 2 tok/s", "\x00\x1b", '"\n\\'])
absent = st.none() | numbers
TEXT_FIELDS = (
    "gate", "case", "metric", "operator", "unit", "source", "knob", "reason", "cause", "standing",
    "evidence", "not_evidenced", "warning", "suites", "rerun",
)  # fmt: skip
verdicts = st.builds(
    Verdict,
    outcome=st.sampled_from(["pass", "fail", "inconclusive", "skipped"]),
    value=absent,
    target=absent,
    margin=absent,
    **dict.fromkeys(TEXT_FIELDS, texts),
    interval=st.none() | st.builds(Interval, low=absent, high=absent, level=numbers),
    baseline=st.none()
    | st.builds(BaselineSpeed, value=numbers, source=texts, samples=st.integers(0)),
    rows=st.lists(st.builds(ShownRow, texts, texts, absent)).map(tuple),
    pairs=st.lists(
        st.builds(
            SpeedPair,
            label=texts,
            replicate=st.none() | st.integers(),
            baseline=numbers,
            candidate=numbers,
            baseline_cost=absent,
            candidate_cost=absent,
        )
    ).map(tuple),
    claims=st.lists(
        st.builds(Evidence, claim=texts, standing=st.sampled_from(STANDINGS), text=texts)
    ).map(tuple),
)  # fmt: skip


@given(verdicts)
def test_properties_round_trip(verdict: Verdict) -> None:
    """Every report rebuilds the verdict from plain properties without loss, also where they went
    through an xdist worker, or as texts through a JUnit file.
    """
    properties = verdict.properties()
    assert all(isinstance(value, str | float) for _, value in properties)
    assert Verdict.from_properties(dict(properties)) == verdict
    sent = execnet.loads(execnet.dumps(properties))
    assert Verdict.from_properties(dict(sent)) == verdict
    printed = {name: str(value) for name, value in properties}
    assert Verdict.from_properties(printed) == verdict


@given(verdicts)
def test_summary_round_trip(verdict: Verdict) -> None:
    """What summary.json holds is the verdict, to the last digit."""
    document = summary("t", resolve(), {"x": verdict})
    [gate] = Summary.model_validate_json(document.model_dump_json()).gates
    assert gate == GateVerdict.of("x", verdict)


def test_a_cause_is_shared_by_what_it_fails() -> None:
    """What was not measured has the cause of the measurement, else its reason; a number that misses
    its target stands alone.
    """
    crashed = replace(
        measured(None, "exit code 3 (bench-1)\n  more"), cause="llm_bench: exit code 3"
    )
    assert compare(crashed, ">=", 3.0).cause == "llm_bench: exit code 3"
    assert compare(replace(crashed, cause=""), ">=", 3.0).cause == "exit code 3 (bench-1)"
    assert compare(measured(2.0), ">=", 3.0).cause == ""
    assert compare(measured(4.0), ">=", 3.0).cause == ""
    against = evidence("contradicted", "plans were dropped")
    weighed = weigh(compare(measured(4.0), ">=", 3.0), [against])
    assert weighed.cause == "plans were dropped"
    for name in ("bench-p512-full-r1", "bench-p512-full-r2@3", "bench-p512-full-r1@pixel.2"):
        against = evidence("contradicted", f"plans were dropped ({name})")
        assert weigh(compare(measured(4.0), ">=", 3.0), [against]).cause == "plans were dropped"
    assert weigh(compare(crashed, ">=", 3.0), [against]).cause == "llm_bench: exit code 3"


def test_a_failure_table_begins_with_the_cause() -> None:
    """Above all stands why, without launches and paths; what the reason adds is below, by name."""
    crashed = Verdict(
        gate="lossy", case="full", outcome="fail", cause="llm_bench: exit code 3: no model",
        reason="exit code 3: no model (bench-1, bench-2; see /runs/bench-1)",
    )  # fmt: skip
    head, *lines = failure_table(crashed).splitlines()
    assert head == "llm_bench: exit code 3: no model"
    assert "  launched  bench-1, bench-2" in lines
    refuted = weigh(
        compare(measured(4.0), ">=", 3.0),
        [
            evidence("contradicted", "plans were dropped (bench-p512-full-r1)"),
            evidence("contradicted", "KV grew (bench-p512-full-r1)"),
        ],
    )
    assert refuted.cause == "plans were dropped"
    head, *lines = failure_table(replace(refuted, gate="lossy")).splitlines()
    assert head == "plans were dropped"
    assert any(line.split()[:2] == ["reason", "KV"] for line in lines)


@given(st.text(), st.integers(20, 120))
def test_a_failure_table_fits(text: str, columns: int) -> None:
    """On a screen no line is wider than it, but for words that are and for the command."""
    verdict = Verdict(
        gate="lossy", case="full", outcome="fail", reason=text, hint=text, rerun="a b"
    )
    for line in failure_table(verdict, columns).splitlines():
        longest = max(map(len, line.split()), default=0)
        assert len(line) <= max(columns, 11 + 20, 11 + longest)


@given(st.text())
def test_failure_table_is_safe_to_print(text: str) -> None:
    """Control characters of a log never reach the terminal, and the table stays parseable text."""
    table = failure_table(
        Verdict(
            gate="lossy",
            case="full",
            outcome="fail",
            reason=text,
            rerun=text,
            rows=(ShownRow(text, text),),
        )
    )
    assert all(character.isprintable() or character == "\n" for character in table)
    ElementTree.fromstring(f"<x>{table.translate({38: '', 60: '', 62: ''})}</x>")


def test_study_verdict_keeps_the_decision() -> None:
    """A study's decision, drop and margin are the verdict's."""
    verdict = judge_study(judge({"": [math.log(0.9)] * 6}, 0.05), 0.05)
    assert verdict.outcome == "fail"
    assert verdict.margin == pytest.approx(-0.05, abs=1e-4)
    assert "more than 5.0% slower" in verdict.reason
    assert verdict.interval is not None
    assert (verdict.interval.low, verdict.interval.high, verdict.interval.level) == (
        pytest.approx(0.1, abs=0.015),
        pytest.approx(0.1, abs=0.015),
        0.98,
    )


def test_few_pairs_bound_little() -> None:
    """Two equal pairs have an interval that is far wider than that of six."""
    found = [judge_study(judge({"": [math.log(0.9)] * count}, 0.05), 0.05) for count in (2, 6)]
    widths = []
    for verdict in found:
        interval = verdict.interval
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        widths.append(interval.high - interval.low)
    assert found[0].outcome == "inconclusive"
    assert widths[0] > 4 * widths[1]


def test_undecided_study_says_what_may_help() -> None:
    """The conclusion first, with the bounds, and then what to do."""
    verdict = judge_study(judge({"": [math.log(0.93), math.log(0.97)] * 5}, 0.05), 0.05)
    assert verdict.outcome == "inconclusive"
    assert re.match(
        r"5\.0% lies inside \+[234]\.\d% to \+[678]\.\d%: undecided after 10 pairs; ",
        verdict.reason,
    )
    assert verdict.hint.startswith("raise DECODE_MAX_PAIRS or DECODE_BUDGET_S, or ")
    assert "longer" in verdict.hint


def test_a_limit_that_is_met_to_the_last_digit_is_met() -> None:
    """6.27 tok/s are 5 % less than 6.60, whatever the last bit of the quotient says."""
    assert (
        compare(Measured(metric="drop", value=(6.6 - 6.27) / 6.6, unit="share"), "<=", 0.05).outcome
        == "pass"
    )
