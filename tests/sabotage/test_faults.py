"""Engines that compute something wrong are refused with all columns, and with those of a real build
alone; honest ones are not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from live import FAULTS, HONEST, HONEST_TEXTS, TEXT_FAULTS, Fault, plain
from staging import Judge, Stage


def refused(fault: Fault, stage: Stage, judge: Judge, target: Path) -> dict[str, dict[str, str]]:
    """The gates that fail, with their reasons: of the launches as they are, and of what is left of
    them where only the columns of a real build are printed.
    """
    arguments = stage.faulty(fault.name, fault.settings, fault.prompts)
    columns = judge(arguments, fault.select)
    session = plain(columns.directory, target)
    lines = judge([*arguments, "--h2o-replay", str(session)], fault.select)
    return {"columns": columns.failed, "lines": lines.failed}


@pytest.mark.parametrize("fault", [*FAULTS, *TEXT_FAULTS], ids=lambda fault: fault.name)
def test_fault_is_caught(
    fault: Fault, stage: Stage, judge: Judge, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Some gate fails; where what a real build prints cannot tell, the list says why."""
    failed = refused(fault, stage, judge, tmp_path / "plain")
    assert not any("TypeError" in reason for reason in failed["columns"].values()), failed
    caught = {side: bool(gates) for side, gates in failed.items()}
    request.node.user_properties.append(("live", {fault.name: caught}))
    assert caught["columns"] or fault.unseen, failed
    assert caught["lines"] == (not fault.unseen), failed


@pytest.mark.parametrize(
    "honest", [*HONEST, *HONEST_TEXTS], ids=lambda fault: f"{fault.name}-{fault.select}"
)
def test_honest_engine_passes_the_same_gates(
    honest: Fault, stage: Stage, judge: Judge, tmp_path: Path
) -> None:
    """No gate that catches a fault fails without one."""
    assert refused(honest, stage, judge, tmp_path / "plain") == {"columns": {}, "lines": {}}
