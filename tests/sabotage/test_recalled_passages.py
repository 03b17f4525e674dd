"""A model that copies, with positions as they are and with wrong ones."""

from __future__ import annotations

import pytest
from copying_model import SETTINGS, copying_model
from staging import Judge, Stage


@pytest.mark.parametrize(
    ("fault", "outcome"), [("honest", "pass"), ("renumbers_positions", "fail")]
)
def test_passages_are_recalled(fault: str, outcome: str, stage: Stage, judge: Judge) -> None:
    """What is kept is continued under eviction, and not where positions are wrong."""
    copying = Stage(stage.directory, copying_model(stage.directory / "copying"))
    judged = judge(copying.faulty(fault, SETTINGS, 1, plain=True), "passages_are_recalled")
    [(found, reason)] = judged.gates.values()
    assert found == outcome, reason
