"""What the repeated launches of the ``m3`` pack must meet together."""

from __future__ import annotations

import pytest

from pytest_h2o.evidence import launches_evidence
from pytest_h2o.lab.lab import Lab
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.m3


@pytest.mark.parametrize("joint", ["joint_full", "joint_store"])
def test_every_launch_usable(lab: Lab, gate: Gate, joint: str) -> None:
    """Every planned launch of a joint case must have ended well and printed its rows.

    The original stopped at the first failure without a report, and passed with no launch of a kind
    at all.
    """
    runs = [lab.run(name) for name in lab.cases if name.startswith(f"{joint}-")]
    problems = [problem for run in runs for problem in run.problems] or (
        [] if runs else [f"no {joint} case"]
    )
    source = next((run.source for run in runs if run.problems), None)
    gate.holds("launches", problems, source=source, evidence=launches_evidence(runs))
