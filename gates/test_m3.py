"""What the repeated launches of the ``m3`` pack must meet together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_h2o.evidence import launches_evidence, speed_spread, stability_evidence
from pytest_h2o.runs.results import Run, problems_of
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.m3


def test_every_launch_usable(joint: str, joint_runs: Sequence[Run], gate: Gate) -> None:
    """Every planned launch of a joint case must have ended well and printed its rows.

    Repeats show what a single launch hides. One that crashed says more than those that did not, and
    none at all says nothing: neither may be accepted.
    """
    problems = problems_of(joint_runs) if joint_runs else [f"no {joint} case"]
    broken = [run for run in joint_runs if run.problems]
    source, cause = (broken[0].source, broken[0].cause_of()) if broken else (None, "")
    evidence = launches_evidence(joint_runs)
    gate.holds("launches", problems, source=source, cause=cause, evidence=evidence)


def test_stable(joint: str, joint_runs: Sequence[Run], gate: Gate) -> None:
    """Equal launches must compute the same: ratios, bytes, evicted tokens, encoded blocks and
    fallbacks, to the last printed digit.

    What differs though nothing was changed comes from memory that was not set, or from threads that
    race. Only speed may vary, by MAX_SPEED_SPREAD of the median at most: numbers of a machine that
    is less steady say little. That the same text is written each time is for
    ``test_repeated_launches_agree`` to judge. A case that is launched once has nothing to compare.
    """
    gate.repeats(joint_runs, f"{joint.removeprefix('joint_').upper()}_RUNS")
    gate.at_most(
        speed_spread(joint_runs), "MAX_SPEED_SPREAD", evidence=stability_evidence(joint_runs)
    )
