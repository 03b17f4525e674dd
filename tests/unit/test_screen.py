"""A session on a terminal: rows per gate, causes once, nothing broken inside a word."""

from __future__ import annotations

import re

import pytest

from pytest_h2o.plan.hints import BY_CAUSE, BY_GATE, BY_KNOB, BY_SUITE, hint_for
from pytest_h2o.plan.knobs import KNOBS, resolve
from pytest_h2o.report.groups import by_cause
from pytest_h2o.report.screen import session_lines, table_lines
from pytest_h2o.report.text import in_encoding
from pytest_h2o.verdict import Measured, Verdict, compare

CRASH = (
    "llm_bench: ended by signal 11 (SIGSEGV): Unable to open config file: /models/llama/config.json"
)
CASES = ("full_strict", "store_tuned", "full_coverage")


def verdict(gate: str, case: str, **fields: object) -> Verdict:
    """A verdict with a value of its own."""
    given = {"outcome": "pass", "value": 3.095, "target": 3.0, "operator": ">=", "margin": 0.095}
    return Verdict(gate=gate, case=case, metric=gate, **(given | {"unit": "ratio"} | fields))


def session() -> list[Verdict]:
    """Three cases of a gate that passes, of one that misses its target in one, and two gates that
    need a launch which crashed.
    """
    found = [verdict("lossy", case) for case in CASES]
    found += [verdict("lossless_accounted_everywhere", case) for case in CASES[:2]]
    missed = {"outcome": "fail", "value": 2.5, "margin": -0.5, "hint": "another LOSSLESS_CODEC"}
    found.append(verdict("lossless_accounted_everywhere", CASES[2], reason="too small", **missed))
    crashed = {"outcome": "fail", "value": None, "margin": None, "reason": CRASH, "cause": CRASH}
    found += [verdict(gate, CASES[0], **crashed) for gate in ("queue_peak", "fallback")]
    off = {"outcome": "skipped", "value": None, "reason": "turned off by REQUIRE_QUALITY=0"}
    return [*found, verdict("quality", "quality", **off)]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_no_word_is_broken(columns: int) -> None:
    """Every word of names, causes and hints stands whole in one line, however narrow the screen."""
    lines = session_lines(session(), columns, color=False)
    said = {word for line in lines for word in line.split()}
    expected = {*CRASH.split(), "lossless_accounted_everywhere", "LOSSLESS_CODEC", "3.095"}
    assert expected <= said
    assert max(map(len, lines)) <= max(columns, 66)


def test_one_row_per_gate_with_failing_cases_below() -> None:
    """A gate that passed has one row, one that did not has its failing cases below its own."""
    rows = [line.split() for line in table_lines(session(), 80, color=False)]
    assert [row[1] for row in rows if row[0] == "pass"] == ["lossy"]
    at = rows.index(["FAIL", "lossless_accounted_everywhere", "2", "of", "3"])
    assert rows[at + 1] == ["full_coverage", "2.5", ">=", "3", "-0.5"]
    assert [row[1] for row in rows if row[0] == "FAIL"][1:] == ["queue_peak", "fallback"]


def test_cases_of_one_cause_are_folded() -> None:
    """Cases that fail of causes which are told below the table have no rows; one that was measured
    has.
    """
    crashed = {"outcome": "fail", "value": None, "margin": None, "cause": CRASH}
    folded = [verdict("queue_peak", case, **crashed) for case in CASES]
    rows = [line.split() for line in table_lines(folded, 80, color=False)]
    assert [row[:5] for row in rows[1:]] == [["FAIL", "queue_peak", "0", "of", "3"]]
    mixed = [*folded[1:], verdict("queue_peak", CASES[0], outcome="fail", margin=-1.0)]
    assert len(table_lines(mixed, 80, color=False)) == 5


def test_a_cause_is_said_once() -> None:
    """Gates that share a cause are counted below it, the gate that is off names its knob."""
    text = " ".join(" ".join(session_lines(session(), 80, color=False)).split())
    assert text.count(CRASH) == 1
    assert "2 gates need this: queue_peak [full_strict], fallback [full_strict]" in text
    assert "try: another LOSSLESS_CODEC" in text
    assert "off: quality (REQUIRE_QUALITY=0)" in text


def test_colour_is_asked_for() -> None:
    """Escape codes are written for a terminal that wants colour and for no other."""
    assert "\x1b" not in "".join(session_lines(session(), 80, color=False))
    plain = [
        re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
        for line in table_lines(session(), 80, color=True)
    ]
    assert plain == table_lines(session(), 80, color=False)


def test_what_failed_has_no_margin() -> None:
    """A gate that evidence failed shows no positive margin beside FAIL."""
    contradicted = verdict("lossy", "full", outcome="fail", cause="plans were dropped")
    [_, row] = table_lines([contradicted], 80, color=False)
    assert row.split() == ["FAIL", "lossy", "0", "of", "1", "full", "3.095", ">=", "3", "-", "-"]


def test_causes_are_ordered() -> None:
    """What failed stands before what is undecided, and what more gates share before the rest."""
    undecided = verdict("decode_drop", "x", outcome="inconclusive", reason="5.0% lies inside")
    groups = by_cause([undecided, *session()])
    assert [len(group) for group in groups] == [2, 1, 1]
    assert groups[-1] == [undecided]


@pytest.mark.parametrize("text", [*BY_KNOB.values(), *BY_GATE.values(), *BY_CAUSE.values()])
def test_hints_name_knobs_that_exist(text: str) -> None:
    """Every setting that a hint names can be set."""
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", text))
    assert named <= {*KNOBS}


def test_a_missed_target_names_what_to_turn() -> None:
    """The hint of the lossy gate holds the setting and its value."""
    missed = compare(Measured(metric="h2o_lossy", value=2.0), ">=", 3.0)
    assert missed.outcome == "fail"
    hint = hint_for("lossy", "LOSSY_TARGET", resolve(["H2O_TARGET_LOSSY_RATIO=2.5"]))
    assert "H2O_TARGET_LOSSY_RATIO=... (now 2.5)" in hint


def test_quantised_kv_is_not_told_to_evict_less() -> None:
    """Where nothing is evicted, no setting of the eviction helps."""
    for knob, text in BY_SUITE["kv_quant"].items():
        assert hint_for("any", knob, resolve([]), "kv_quant") == text.format(knob=knob)
        assert "H2O" not in text


def test_a_terminal_of_another_encoding() -> None:
    """What it lacks is escaped, and nothing else is: colours stay colours."""
    text = "\x1b[32mpass\x1b[0m 455 µs in 中 é"
    assert in_encoding(text, "utf-8") == text
    assert in_encoding(text, "ascii") == "\x1b[32mpass\x1b[0m 455 us in \\u4e2d \\xe9"
    assert in_encoding(text, "gbk") == "\x1b[32mpass\x1b[0m 455 us in 中 é"
