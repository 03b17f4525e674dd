"""Decode baselines in whole sessions: spread over workers, over several sessions, and judged again
from a record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pytest_h2o.session import session

ROOT = Path(__file__).parents[2]
# Extension modules cannot be imported twice in one process, and the others need not be.
PRELOADED = (np, pd, session)
GOLDEN = ROOT / "tests" / "data" / "runs"
# Prints a recorded row that decodes at the speed in the file ``speed``, with H2O off at 100
# tokens/s.
PROGRAM = """#!{python}
import json, pathlib, re, sys
here = pathlib.Path(__file__).parent
argv = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with (here / "launches.txt").open("a") as file:
    file.write("x")
h2o = json.loads(pathlib.Path(argv["-m"]).read_text())["kv_h2o_enable"]
speed = float((here / "speed").read_text()) if h2o else 100.0
speeds = "%.2f ± 1.00<br>%.2f ± 0.10" % (500 + int(argv["-p"]), speed)
lengths = "prompt=" + argv["-p"] + "<br>decode=" + argv["-n"]
run = pathlib.Path({golden!r}, "bench_full" if h2o else "bench_baseline")
table = (run / "logs" / "run_0002_p1024_g128.log").read_text("utf-8")
table = table.replace("prompt=1024<br>decode=128", lengths)
table = re.sub("[0-9.]+ ± [0-9.]+<br>[0-9.]+ ± [0-9.]+", speeds, table)
pathlib.Path(argv["-fp"]).write_text(table, encoding="utf-8")
"""


@pytest.fixture
def here(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program and its model, and a lock of its own, since nothing here is timed."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(pytester.path))
    for name in (
        "llm.mnn",
        "llm.mnn.weight",
        "llm_config.json",
        "tokenizer.txt",
        "embeddings_bf16.bin",
    ):
        pytester.path.joinpath(name).write_text("{}")
    pytester.path.joinpath("config.json").write_text(
        json.dumps({"llm_model": "llm.mnn", "llm_weight": "llm.mnn.weight"})
    )
    program = pytester.path / "llm_bench"
    program.write_text(PROGRAM.format(python=sys.executable, golden=str(GOLDEN)))
    program.chmod(0o755)
    return pytester.path


def decode(pytester: pytest.Pytester, mode: str, speed: float, *arguments: str) -> tuple[str, str]:
    """Outcome of the decode gate of one session at this speed, and the baseline or the reason."""
    pytester.path.joinpath("speed").write_text(str(speed))
    before = set(pytester.path.glob("h2o-runs/[0-9]*/summary.json"))
    pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-m", "runtime",
        "-k", "full_strict", "--llm-bench", "llm_bench", "--model-config", "config.json",
        "--h2o-set", f"DECODE_BASELINE_MODE={mode}", "--h2o-set", "PROMPTS=8,16",
        "--h2o-set", "GENS=1", "--h2o-set", "REPEAT=1", "--h2o-set", "THREADS=2", *arguments,
    )  # fmt: skip
    [summary] = set(pytester.path.glob("h2o-runs/[0-9]*/summary.json")) - before
    [verdict] = [
        gate for gate in json.loads(summary.read_text())["gates"] if gate["gate"] == "decode_drop"
    ]
    return verdict["outcome"], verdict["evidence"] or verdict["reason"]


def history(path: Path) -> list[dict[str, object]]:
    """The entries of the history."""
    file = path / "h2o-runs" / "decode_baseline_history.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_same_batch(pytester: pytest.Pytester, here: Path, workers: Sequence[str]) -> None:
    """Candidate and baseline run in one session, each length once, and a passing session enters the
    history once.
    """
    outcome, baseline = decode(pytester, "same_batch", 96.0, *workers)
    assert (outcome, "100 tok/s (same_batch, each of 2 lengths on its own)" in baseline) == (
        "pass",
        True,
    )
    assert here.joinpath("launches.txt").read_text() == "x" * 4
    [entry] = history(here)
    assert (entry["decode_best"], entry["overall_pass"], entry["case"]) == (
        96.0,
        True,
        "full_strict",
    )
    assert decode(pytester, "same_batch", 94.0, *workers)[0] == "fail"
    assert len(history(here)) == 1


def test_rolling_over_sessions_and_in_a_replay(pytester: pytest.Pytester, here: Path) -> None:
    """The median of three sessions is the baseline of the next; a failure and a replay leave the
    history as it was.
    """
    assert "has 0 of 3 samples" in decode(pytester, "rolling", 96.0)[1]
    for speed in (96.0, 97.0, 98.0):
        assert decode(pytester, "same_batch", speed)[0] == "pass"
    assert decode(pytester, "rolling", 80.0)[0] == "fail"
    outcome, baseline = decode(pytester, "rolling", 95.0)
    assert (outcome, "97 tok/s (rolling_median, 3 samples)" in baseline) == ("pass", True)
    assert [entry["decode_best"] for entry in history(here)] == [96.0, 97.0, 98.0, 95.0]
    recorded = max(here.glob("h2o-runs/[0-9]*/launches")).parent
    outcome, baseline = decode(pytester, "rolling", 1.0, "--h2o-replay", str(recorded))
    assert (outcome, "4 samples" in baseline) == ("pass", True)
    assert (
        decode(
            pytester,
            "fixed",
            1.0,
            "--h2o-replay",
            str(recorded),
            "--h2o-set",
            "DECODE_BASELINE=101",
        )[0]
        == "fail"
    )
    assert len(history(here)) == 4


def test_fixed_without_a_number(pytester: pytest.Pytester, here: Path) -> None:
    """No constant of another machine stands in: the session ends before anything is launched."""
    result = pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider",
        "--llm-bench",
        "llm_bench",
        "--model-config",
        "config.json",
        "--h2o-set",
        "DECODE_BASELINE_MODE=fixed",
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: DECODE_BASELINE_MODE=fixed needs DECODE_BASELINE=*measured on this machine"]
    )
    assert not here.joinpath("launches.txt").exists()
