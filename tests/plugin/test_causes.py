"""The cause of a verdict: failures with one root share it, in the record of a whole session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stand_in import ROOT, install


def causes(pytester: pytest.Pytester, *arguments: str) -> dict[str, set[str]]:
    """What failed for each cause in a session of all suites, judged over few launches."""
    few = ["PROMPTS=512", "REPEAT=1", "PROMPT_PATTERN=prompt_128_1.txt", "FULL_RUNS=1", "OUT=out"]
    settings = [word for setting in few for word in ("--h2o-set", setting)]
    result = pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", *settings, *arguments
    )
    assert result.ret == 1
    found: dict[str, set[str]] = {}
    for gate in json.loads((pytester.path / "out" / "summary.json").read_text())["gates"]:
        if gate["outcome"] == "fail":
            found.setdefault(gate["cause"], set()).add(gate["gate"])
    return found


@pytest.fixture(autouse=True)
def lock(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine lock of its own: nothing is measured here."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(pytester.path))


def test_an_empty_prompt_directory(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Every gate on real prompts, and on the KV of them, fails for the one reason that there are
    none.
    """
    empty = tmp_path / "empty"
    empty.mkdir()
    chosen = [
        "-m",
        "llm_demo or offline or full_eval",
        "-k",
        "test_llm_demo or test_offline or test_full_eval",
    ]
    found = causes(pytester, *chosen, "--h2o-set", f"PROMPT_DIR={empty}")
    [(cause, gates)] = found.items()
    assert cause == f"{empty}: holds no file that matches prompt_128_1.txt"
    assert {"prompts", "launches", "decode_drop", "bucket_decode", "offline_verified"} < gates


def test_nothing_was_evicted(pytester: pytest.Pytester) -> None:
    """Where H2O never triggered, all that misses its target since has that for a cause."""
    recorded = ROOT / "tests" / "data" / "runs" / "bench_never_triggered"
    found = causes(pytester, "-m", "runtime and not offline", f"--h2o-replay={recorded}")
    [gates] = [gates for cause, gates in found.items() if cause.startswith("H2O never triggered")]
    active = {"lossless_active", "lossless_accounted", "decompression_active"}
    assert gates == {"lossy", "keep_feasible", *active}


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("os.kill(os.getpid(), 11)", "ended by signal 11 (SIGSEGV)"),
        ("sys.exit('error: no such model')", "exit code 1: error: no such model"),
    ],
)
def test_programs_that_crash(
    pytester: pytest.Pytester, tmp_path: Path, body: str, ending: str
) -> None:
    """All gates fail by how their program ended, whichever launches, cases, studies or prompts they
    look at; causes name no launch.
    """
    options = install(tmp_path / "build", body)
    found = causes(pytester, *options, "-m", "final")
    assert set(found) == {f"llm_bench: {ending}", f"llm_demo: {ending}"}
    assert {"lossy", "decode_drop", "settings", "metric_columns"} < found[f"llm_bench: {ending}"]
    assert {"bucket_decode", "offline_verified", "greedy_agreement"} < found[f"llm_demo: {ending}"]
