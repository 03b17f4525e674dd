"""What equal launches may and may not report differently."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gate_functions import M3, judge, make_run

from pytest_h2o.evidence import stability_evidence
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.verdict import Verdict

ROW = {"decode_tps": 100.0, "h2o_lossy": 2.71, "h2o_lossless_raw_mb": 0.42, "h2o_evict_us": 2.0}


def stable(*rows: dict[str, float], joint: str = "joint_full", setting: str = "") -> Verdict:
    """What the gate says of launches of one row each."""
    runs = [make_run([row], f"{joint}-{number}") for number, row in enumerate(rows, 1)]
    settings = [setting] if setting else []
    return judge(
        M3.test_stable, resolve(settings, suite="m3"), f"{joint}-1", joint=joint, joint_runs=runs
    )


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ({}, "pass", "2 columns of 3 launches are equal"),
        ({"h2o_evict_us": 90.0}, "pass", ""),
        ({"decode_tps": 120.0}, "pass", ""),
        ({"decode_tps": 160.0}, "fail", ""),
        ({"h2o_lossy": 2.7101}, "fail", "h2o_lossy is 2.71, 2.7101, 2.71 in row0"),
        ({"h2o_lossless_raw_mb": 0.5}, "fail", "h2o_lossless_raw_mb is 0.42, 0.5, 0.42"),
        ({"h2o_lossless_fallback": 1.0}, "fail", "h2o_lossless_fallback is absent, 1, absent"),
    ],
)
def test_what_is_computed_is_the_same(change: dict[str, float], outcome: str, words: str) -> None:
    """One launch of three that computes something else fails by name; times may vary, speeds a
    little.
    """
    verdict = stable(ROW, {**ROW, **change}, ROW)
    assert verdict.outcome == outcome
    assert words in verdict.reason + verdict.evidence


def test_a_launch_that_is_a_copy() -> None:
    """Two launches never take equally long to the last digit of every speed."""
    row = ROW | {"prefill_tps": 2068.59}
    one, other, copy = (
        make_run([row | {"decode_tps": speed}], case)
        for case, speed in (("a", 332.43), ("b", 331.96), ("c", 332.43))
    )
    for run in (one, other, copy):
        [reading] = run.rows
        for name in ("prefill_tps", "decode_tps"):
            reading.samples[name] = replace(reading.samples[name], std=47.64)
    [said] = stability_evidence([one, other, copy])
    assert (said.standing, said.text.startswith("c and a have")) == ("contradicted", True)
    assert [item.standing for item in stability_evidence([one, other])] == ["supported"]


def test_costs_against_the_yardstick_count() -> None:
    """Where every launch reports them, the machine's own ups and downs are no spread."""
    rows = [{**ROW, "decode_tps": speed, "decode_cost": 1.5} for speed in (100.0, 300.0)]
    verdict = stable(*rows)
    assert (verdict.outcome, verdict.value) == ("pass", 0.0)


def test_the_spread_is_a_knob() -> None:
    """Of the median, largest row; a negative limit turns the gate off."""
    rows = ({**ROW, "decode_tps": 90.0}, ROW, {**ROW, "decode_tps": 110.0})
    verdict = stable(*rows, setting="MAX_SPEED_SPREAD=0.1")
    assert (verdict.outcome, verdict.value) == ("fail", pytest.approx(0.2))
    assert stable(*rows, setting="MAX_SPEED_SPREAD=-1").outcome == "skipped"


def test_one_launch_agrees_with_nothing() -> None:
    """It is off, and says which knob makes it more; without any the gate fails."""
    verdict = stable(ROW, joint="joint_store")
    assert verdict.outcome == "skipped"
    assert "STORE_RUNS=2" in verdict.reason
    assert stable().outcome == "fail"


def test_a_broken_launch_fails() -> None:
    """A launch without a row of that length is no equal one."""
    runs = [make_run([ROW], "joint_full-1"), make_run([], "joint_full-2")]
    verdict = judge(
        M3.test_stable, resolve((), suite="m3"), "joint_full-1", joint="joint_full", joint_runs=runs
    )
    assert verdict.outcome == "fail"
