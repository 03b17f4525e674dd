"""What a session says: the acceptance without options, a plan, listings, and its last lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stand_in import ROOT, install, launches

from pytest_h2o.session import session

# A session in this process must not import them again.
PRELOADED = (np, pd, session)
GATES = (str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider")
FEW = ["PROMPTS=512", "REPEAT=1", "MAX_PROMPTS=1", "FULL_RUNS=1"]
SETTINGS = [word for setting in FEW for word in ("--h2o-set", setting)]


@pytest.fixture(autouse=True)
def lock(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine lock of its own, a screen of 80 columns, and no CI around."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(pytester.path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.mark.parametrize("listing", [["--collect-only", "-q"], ["--fixtures"]], ids=" ".join)
def test_listing_needs_no_baseline(pytester: pytest.Pytester, listing: list[str]) -> None:
    """What runs nothing asks for no baseline, and without -m the gates are those of final."""
    result = pytester.runpytest_inprocess(*GATES, *listing)
    assert (result.ret, result.stderr.str()) == (0, "")
    assert "runtime_fixed" not in result.stdout.str()


def test_the_example_of_the_command_lists_all_suites(pytester: pytest.Pytester) -> None:
    """A suite that is named is not narrowed, and listing it asks for no baseline either."""
    result = pytester.runpytest_inprocess(*GATES, "-m", "all_in_one", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_decode_drop[[]runtime_fixed]"])


def test_a_plan_launches_nothing(pytester: pytest.Pytester) -> None:
    """The launches are listed in order, with workers asked for as well, and none is made."""
    options = install(pytester.path)
    result = pytester.runpytest_inprocess(
        *GATES, *options, *SETTINGS, "--h2o-plan", "-n", "2", "-k", "full_strict and lossy"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["1 *bench-p512_g128x1-full-r1 *not known", "at least 1 launch*"])
    assert launches(pytester.path) == []
    assert not list(pytester.path.glob("h2o-runs/*"))


def test_a_budget_is_kept_and_told(pytester: pytest.Pytester) -> None:
    """What there is time for, by earlier sessions, comes first and is told before; what there was
    none for is told after, and taken up by a session that goes on.
    """
    options = install(pytester.path)
    chosen = ["-m", "runtime", "-k", "full_strict and (lossy or fallback or memory_peak)"]
    limits = ["--h2o-set", "MAX_MEMORY_INCREASE=9", "--h2o-set", "LOSSY_TARGET=2"]
    few = [*GATES, *options, *SETTINGS, *limits, *chosen]
    unknown = pytester.runpytest_inprocess(*few, "--h2o-budget", "1h")
    unknown.stdout.fnmatch_lines(["h2o: how many of 3 gates 1h are enough for is not known"])
    for path in pytester.path.glob("h2o-runs/2*/launches/*/launch.json"):
        record = json.loads(path.read_text())
        if "-baseline-" in path.parent.name:
            path.write_text(json.dumps(record | {"seconds": 1e6}))
    before = len(launches(pytester.path))
    short = pytester.runpytest_inprocess(*few, "--h2o-budget", "30m")
    short.stdout.fnmatch_lines(
        [
            "h2o: at least 1 launch planned, about * s",
            "h2o: 30m are enough for 2 of 3 gates, not for test_memory_peak[[]full_strict[]]",
            "FAIL: the time of H2O_BUDGET=30m was used up*",
            "not everything was judged; to go on, add --h2o-resume *",
            "undecided for want of time: 1 gates: memory_peak[[]full_strict[]]",
        ]
    )
    short.assert_outcomes(passed=2, failed=1, deselected=short.parseoutcomes()["deselected"])
    assert len(launches(pytester.path)) == before + 1
    enough = pytester.runpytest_inprocess(
        *few, "--h2o-budget", "1000d", "--h2o-resume", "h2o-runs/latest"
    )
    enough.stdout.fnmatch_lines(
        ["h2o: 1000d are enough for all 3 gates*", "launches taken over *: 1"]
    )
    assert len(launches(pytester.path)) == before + 2


def test_a_plan_is_the_order_of_the_launches(pytester: pytest.Pytester) -> None:
    """Launches are made in the order in which the plan lists them, whatever a study adds."""
    options = install(pytester.path)
    chosen = "(m3 and lossy) or bucket_decode or (full_strict and decode) or store_memory or again"
    words = [*GATES, *options, *SETTINGS, "-k", chosen, "--h2o-set", "DECODE_MAX_PAIRS=6"]
    listed = pytester.runpytest_inprocess(*words, "--h2o-plan").outlines
    planned = [line.split()[1] for line in listed if re.match(r"\d+ +(bench|demo)-", line)]
    pytester.runpytest_inprocess(*words, "-q")
    made = [Path(directory).name for _, _, directory, _ in launches(pytester.path)]
    assert len(planned) > 8
    assert [name for name in made if name in planned] == planned


def test_last_lines_and_github(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below everything else stand outcome, report and command; GitHub gets one summary, though
    workers ran the gates; a program that crashed is told once, with its output and command.
    """
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    options = install(pytester.path, "print('no such model', flush=True); os.abort()")
    chosen = ["-m", "runtime", "-k", "full_strict and (lossy or fallback or queue)", "-n", "2"]
    result = pytester.runpytest_subprocess(*GATES, *options, *SETTINGS, *chosen)
    result.stdout.fnmatch_lines(
        [
            "*2 more gates need this*",
            "*last output of *",
            "no such model",
            "*by hand*",
            "cd * && *llm_bench*",
            "FAIL: llm_bench: ended by signal 6 (SIGABRT): no such model",
            "Not accepted: 3 of 3 gates failed (1 cause)",
            "::error title=FAIL*",
            "report */report.html",
            "rerun pytest *",
            "=*3 failed*",
        ]
    )
    text = result.stdout.str()
    assert text.count("  launched  bench") == 1
    assert "[1 of about 1]" in text
    assert "FAILED after" in text
    assert (pytester.path / "step.md").read_text().count("## Not accepted") == 1
    [badge] = pytester.path.glob("h2o-runs/2*/badge.json")
    assert json.loads(badge.read_text())["message"] == "3 of 3 gates failed"


def test_quiet_sessions_say_the_outcome(pytester: pytest.Pytester) -> None:
    """With -q the gates that passed have no row, launches no line, and the outcome is said."""
    options = install(pytester.path)
    chosen = ["-q", "-k", "full_strict and fallback"]
    result = pytester.runpytest_inprocess(*GATES, *options, *SETTINGS, *chosen)
    text = result.stdout.str()
    assert "bench-p512" not in text
    assert "pass  fallback" not in text
    result.stdout.fnmatch_lines(["No acceptance: 1 of * gates of final judged, none failed"])
