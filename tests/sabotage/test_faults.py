"""Engines that compute something wrong, and print what a real build prints, are refused; honest
ones are not.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from live import (
    FAULTS,
    HONEST,
    HONEST_TEXTS,
    QUICK_DISGUISES,
    TEXT_FAULTS,
    Fault,
)
from staging import HERE, Judge, Stage


def test_every_fault_replaces_something_that_is_there() -> None:
    """Where parts of the engine are renamed, a fault would crash or do nothing."""
    command = [sys.executable, str(HERE / "installed.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert not result.stdout


def refused(fault: Fault, side: str, stage: Stage, judge: Judge) -> dict[str, str]:
    """The gates that fail, with their reasons."""
    plain = side == "lines"
    select, settings = fault.judged_by(side)
    return judge(stage.faulty(fault.name, settings, fault.prompts, plain=plain), select).failed


@pytest.mark.parametrize(
    "fault", [*FAULTS, *TEXT_FAULTS, *QUICK_DISGUISES], ids=lambda fault: fault.name
)
def test_fault_is_caught(
    fault: Fault, stage: Stage, judge: Judge, request: pytest.FixtureRequest
) -> None:
    """Some gate fails; where what a real build prints cannot tell, the list says why, and the
    engine's own columns tell.
    """
    side = "columns" if fault.unseen else "lines"
    failed = refused(fault, side, stage, judge)
    assert not any("TypeError" in reason for reason in failed.values()), failed
    request.node.user_properties.append(("live", {fault.name: {side: bool(failed)}}))
    assert failed


@pytest.mark.parametrize(
    "honest", [*HONEST, *HONEST_TEXTS], ids=lambda fault: f"{fault.name}-{fault.select}"
)
def test_honest_engine_passes_the_same_gates(honest: Fault, stage: Stage, judge: Judge) -> None:
    """No gate that catches a fault fails without one."""
    assert refused(honest, "lines", stage, judge) == {}
