"""What the sabotage suite shares: stand-in programs, and one honest session made with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from staging import ACCEPTANCE, FILES, ROOT, TEMPLATES, WITHOUT, Judge, Judged, Score, Stage

from pytest_h2o.report import files as _files
from pytest_h2o.session import session as _session

# Extension modules cannot be imported twice in one process, and the others need not be.
PRELOADED = (np, pd, _session, _files)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A model config, its files, two prompts of each length; a measurement lock of its own, as
    nothing is timed.
    """
    directory = tmp_path_factory.mktemp("stage")
    for name in FILES:
        (directory / name).write_text("{}")
    (directory / "config.json").write_text(
        json.dumps({"llm_model": FILES[0], "llm_weight": FILES[1]})
    )
    (directory / "prompts").mkdir()
    for path in TEMPLATES.glob("prompt_*-candidate"):
        name = path.name.replace("-candidate", ".txt")
        (directory / "prompts" / name).write_bytes((ROOT / "prompts" / name).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("H2O_LOCK_DIR", str(directory))
        yield Stage(directory)


@pytest.fixture(scope="session")
def honest_session(stage: Stage) -> Path:
    """The run directory of a session with honest programs, every gate of which passed."""
    out = stage.directory / "honest"
    select = f"({ACCEPTANCE}) and {WITHOUT}"
    gates = ["-m", "final", "-k", select, str(ROOT / "gates")]
    command = [sys.executable, "-m", "pytest", *gates, *stage.arguments(), "--h2o-out", str(out)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=stage.directory, env=os.environ
    )
    assert result.returncode == 0, result.stdout
    return (out / "latest").resolve()


@pytest.fixture
def judge(pytester: pytest.Pytester) -> Judge:
    """Runs the selected gates and returns what became of them, by gate and case, and the run
    directory.
    """

    def run(arguments: list[str], select: str, module: str = "") -> Judged:
        gates = ["-m", "final", "-k", f"({select}) and {WITHOUT}", str(ROOT / "gates" / module)]
        pytester.runpytest_inprocess(*gates, *arguments, "--h2o-out", "runs")
        summary = max(
            pytester.path.glob("runs/[0-9]*/summary.json"), key=lambda path: path.stat().st_mtime_ns
        )
        verdicts = json.loads(summary.read_text())["gates"]
        found = {
            f"{each['gate']}[{each['case']}]": (each["outcome"], each["reason"])
            for each in verdicts
        }
        return Judged(found, summary.parent)

    return run


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Iterator[Score]:
    """What the test finds out, for the score that ``tests/conftest.py`` prints."""
    score = Score()
    yield score
    request.node.user_properties.append(("sabotage", asdict(score)))
