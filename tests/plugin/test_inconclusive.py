"""A decode study that decides nothing is an outcome of its own, whatever DECODE_INCONCLUSIVE makes
of the test.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "session"
KNOBS = [
    "PROMPTS=512",
    "GENS=48",
    "REPEAT=1",
    "THREADS=2",
    "DECODE_MAX_PAIRS=6",
    "DECODE_DROP_TARGET=0.05",
]
# Extension modules cannot be imported twice in one process, so the outer test run loads them first.
PRELOADED = (np, pd)


@pytest.fixture
def contradictory(tmp_path: Path) -> Path:
    """A recorded session with a candidate that is clearly faster in three pairs and clearly slower
    in three.
    """
    session = Path(shutil.copytree(RECORDED, tmp_path / "session"))
    for number in range(1, 7):
        path = session / "launches" / f"bench-p512_g48-full-r{number}" / "log.md"
        speed = 400.0 if number % 2 else 100.0
        path.write_text(
            re.sub(r"<br>[0-9.]+ ± [0-9.]+ \|", f"<br>{speed} ± 0.00 |", path.read_text(), count=1)
        )
    return session


@pytest.mark.parametrize(
    ("policy", "outcome", "accepted", "element"),
    [
        ("fail", "failed", False, "failure"),
        ("xfail", "xfailed", True, "skipped"),
        ("skip", "skipped", True, "skipped"),
        ("warn", "passed", True, None),
    ],
)
def test_policies(  # noqa: PLR0913, PLR0917
    pytester: pytest.Pytester,
    contradictory: Path,
    policy: str,
    outcome: str,
    accepted: bool,
    element: str | None,
) -> None:
    """The numbers are on the screen, in the JUnit file and in the summary files, and the outcome
    there is the same.
    """
    knobs = [
        word for knob in (*KNOBS, f"DECODE_INCONCLUSIVE={policy}") for word in ("--h2o-set", knob)
    ]
    result = pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-p", "no:xdist",
        "-m", "final", "-k", "decode_drop and full_strict", "--h2o-replay", str(contradictory),
        "--h2o-runtime", "embedded", "--h2o-out", "runs", "--junitxml", "junit.xml", *knobs,
    )  # fmt: skip
    result.assert_outcomes(
        **{outcome: 1}, warnings=policy == "warn", deselected=result.parseoutcomes()["deselected"]
    )
    assert result.ret == (not accepted)
    result.stdout.fnmatch_lines(
        [
            "UNDECIDED  decode_drop *",
            "UNDECIDED: 5.0% lies inside *: undecided after 6 pairs;*",
            "*decode_drop [[]full_strict]",
            "  try: raise DECODE_MAX_PAIRS *",
        ]
    )
    suite = ET.parse(pytester.path / "junit.xml").find("testsuite")
    properties = {item.get("name"): item.get("value") for item in suite.iter("property")}
    assert properties["decode_drop[full_strict].outcome"] == "inconclusive"
    [case] = suite.iter("testcase")
    said = case.findtext("system-out")
    assert "5.0% lies inside" in said
    assert "6 pairs, seed 1" in said
    assert [child.tag for child in case if child.tag != "system-out"] == (
        [element] if element else []
    )
    [summary] = pytester.path.glob("runs/[0-9]*/summary.json")
    document = json.loads(summary.read_text())
    assert (document["overall_pass"], document["gates"][0]["outcome"]) == (False, "inconclusive")
    quality_gate = (summary.parent / "cases/full_strict/summary.md").read_text()
    assert f"- decode_pass: {str(accepted).lower()}" in quality_gate
    assert "UNDECIDED" in summary.with_suffix(".md").read_text()
