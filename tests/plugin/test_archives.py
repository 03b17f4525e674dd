"""Whole output directories of the original kit, and whatever else a recording may be called: every
launch and row is judged, or named.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pytest_h2o.session import reporter, session

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
RUNTIME = DATA / "archives" / "runtime"
DEMO = DATA / "archives" / "llm_demo"
# Extension modules cannot be imported twice in one process, and the others need not be.
PRELOADED = (np, pd, session)


class Judgement:
    """What a replay left: its exit status, its summary, its JUnit file and its screen."""

    def __init__(self, pytester: pytest.Pytester, recording: Path, *arguments: str) -> None:
        junit = pytester.path / "junit.xml"
        result = pytester.runpytest_inprocess(
            str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider",
            "-p", "no:xdist", "--h2o-replay", str(recording), "--h2o-out", "runs",
            f"--junitxml={junit}", *arguments,
        )  # fmt: skip
        self.status = result.ret
        self.screen = result.stdout.str()
        self.cases = [case.get("name", "") for case in ElementTree.parse(junit).iter("testcase")]
        found = sorted(pytester.path.glob("runs/[0-9]*/summary.json"))
        self.summary = json.loads(found[-1].read_text("utf-8")) if found else {}
        self.gates = self.summary.get("gates", [])

    def outcome(self, gate: str, case: str) -> tuple[str, str]:
        """The outcome of one gate for one case, and why."""
        [found] = [each for each in self.gates if (each["gate"], each["case"]) == (gate, case)]
        return found["outcome"], found["reason"]

    def failing(self) -> set[tuple[str, str]]:
        """Gate and case of all that failed."""
        return {(each["gate"], each["case"]) for each in self.gates if each["outcome"] == "fail"}


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def make_m3(root: Path) -> Path:
    for name in ("joint_full_run01", "joint_full_run02", "joint_store_run01"):
        copy(RUNTIME, root / name)
    return root


def test_an_honest_runtime_directory(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Tables, transcript, baseline and offline results are all used, and the case is accepted; what
    nothing evidences is refused where evidence is required.
    """
    archive = copy(RUNTIME, tmp_path / "night run")
    found = Judgement(pytester, archive, "-m", "runtime")
    assert (found.failing(), found.status, found.summary["overall_pass"]) == (set(), 0, True)
    assert found.outcome("decode_drop", "night run")[0] == "pass"
    strict = Judgement(pytester, archive, "-m", "runtime", "--h2o-require-evidence")
    assert ("offline_verified", "offline") in strict.failing()


def test_evictions_that_the_transcript_denies(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A launch whose part of the transcript drops every plan as stale has evicted nothing, whatever
    its table says.
    """
    archive = copy(RUNTIME, tmp_path / "run")
    path = archive / "bench_stdout.log"
    lines = path.read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if "run_0002" in line)
    claims = DATA / "runs" / "bench_claims_without_eviction" / "logs"
    (printed,) = claims.glob("*p1024*.stdout")
    kept = [lines[start], *printed.read_text().splitlines(keepends=True)]
    path.write_text("".join(lines[:start] + kept))
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "lossy")
    outcome, reason = found.outcome("lossy", "run")
    assert (outcome, "dropped as stale" in reason) == ("fail", True)


def test_a_transcript_that_belongs_to_nobody(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Lines above the first ``Running:`` cannot be told apart, and are not left out silently."""
    archive = copy(RUNTIME, tmp_path / "run")
    path = archive / "bench_stdout.log"
    path.write_text(re.sub(r"(?m)^Running: .*\n", "", path.read_text()))
    result = pytester.runpytest_inprocess(
        str(ROOT / "gates"), "-m", "runtime", "-p", "no:xdist", "-p", "no:cacheprovider",
        "--h2o-replay", str(archive),
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*bench_stdout.log*which launch printed it*"])


@pytest.mark.parametrize("cut", ["manifest", "log"])
def test_a_launch_more_than_the_manifest_names(
    pytester: pytest.Pytester, tmp_path: Path, cut: str
) -> None:
    """A launch that only the transcript, or only a log, knows is judged with the others."""
    archive = copy(RUNTIME, tmp_path / "run")
    entries = json.loads((archive / "manifest.json").read_text())
    (archive / "manifest.json").write_text(json.dumps(entries[:1]))
    if cut == "log":
        text = (archive / "bench_stdout.log").read_text()
        (archive / "bench_stdout.log").write_text("Running:" + text.split("Running:")[1])
    rewrite(archive / "logs" / f"{entries[1]['run_id']}.log", ("3.140 ± 0.006", "1.000 ± 0.000"))
    settings = ["--h2o-set", "REQUIRE_ALL_ROWS=1", "--h2o-set", "LOSSY_TARGET=2"]
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "lossy", *settings)
    assert found.outcome("lossy", "run")[0] == "fail"


def test_m3_by_its_own_names(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Each repeated run is a case of its own, and a bad one fails by its name."""
    archive = make_m3(tmp_path / "m3")
    (log,) = (archive / "joint_full_run02" / "logs").glob("run_0002*")
    log.write_text("")
    found = Judgement(pytester, archive, "-m", "m3")
    names = {each["case"] for each in found.gates}
    assert names == {
        "joint_full", "joint_store", "joint_full-1", "joint_full-2", "joint_store-1"
    }  # fmt: skip
    assert {case for _, case in found.failing()} == {"joint_full-2", "joint_full"}


def test_a_final_that_broke_off(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """What is there is judged; what is missing fails by name, with what the console said last."""
    archive = tmp_path / "final"
    copy(RUNTIME, archive / "runtime_full_strict")
    broken = copy(RUNTIME, archive / "runtime_store_tuned")
    shutil.rmtree(broken / "baseline_batch")
    for name in ("summary.md", "offline_lossless_upper.json"):
        (broken / name).unlink()
    (archive / "runtime_store_tuned.console.log").write_text("==== Step 5 ====\nkilled in step 5\n")
    (archive / "console.txt").write_text("FAIL: no space left\n")
    found = Judgement(pytester, archive, "-m", "runtime")
    assert found.outcome("decode_drop", "full_strict")[0] == "pass"
    assert found.outcome("lossy", "store_tuned")[0] == "pass"
    outcome, reason = found.outcome("decode_drop", "store_tuned")
    assert outcome == "fail"
    assert "killed in step 5" in reason
    outcome, reason = found.outcome("upper_bound_lossless", "offline")
    assert outcome == "fail"
    assert reason.startswith("store_tuned: ")
    assert "no result of the kind upper_bound" in reason
    outcome, reason = found.outcome("lossy", "full_coverage")
    assert outcome == "fail"
    assert "runtime_full_coverage is missing" in reason
    assert "no space left" in reason


# What v6 added to the manifest and to the table.
LATER_KEYS = {"disable_h2o", "disable_lossless", "kv_h2o_enable"}
LATER_COLUMNS = {
    "h2o_lossless_backpressure_skip", "h2o_lossless_async_queue_peak", "h2o_lossless_async_wait_us",
    "h2o_lossless_decode_cache_hit", "h2o_lossless_decode_cache_miss",
}  # fmt: skip


def make_v5(target: Path) -> Path:
    """A runtime directory as v5 left it, made of one of v6: the columns and keys of then, and a
    fixed baseline in the summary in place of launches.
    """
    copy(RUNTIME, target)
    shutil.rmtree(target / "baseline_batch")
    (target / "baseline_batch_stdout.log").unlink()
    entries: list[dict[str, object]] = json.loads((target / "manifest.json").read_text())
    for entry in entries:
        for key in LATER_KEYS:
            del entry[key]
    (target / "manifest.json").write_text(json.dumps(entries))
    for log in (target / "logs").iterdir():
        lines = [line.strip("|").split("|") for line in log.read_text().splitlines()]
        kept = [at for at, name in enumerate(lines[0]) if name.strip() not in LATER_COLUMNS]
        rows = ["|".join(cells[at] for at in kept) for cells in lines]
        log.write_text("".join(f"|{row}|\n" for row in rows))
    gate = "- quality_status: PASS\n- overall_pass: true\n- decode_baseline: 6.6000\n"
    (target / "summary.md").write_text(f"# Summary\n\n## Quality Gate\n\n{gate}")
    return target


def test_a_runtime_directory_of_v5(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """It is judged by the rules of v5, against the speed that its summary names; by those of v6
    it lacks columns.
    """
    archive = make_v5(tmp_path / "run")
    found = Judgement(pytester, archive, "-m", "runtime", "--h2o-kit", "v5")
    assert (found.failing(), found.status) == (set(), 0)
    [drop] = [each for each in found.gates if each["gate"] == "decode_drop"]
    assert "6.6" in str(drop["baseline"])
    newer = Judgement(pytester, archive, "-m", "runtime")
    assert newer.failing() == {("metric_columns", "run")}


def test_a_final_of_v5(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """It has no real prompts, and nobody misses them; a part that it lacks is missed."""
    archive = tmp_path / "final"
    for name in ("full_strict", "store_tuned", "full_coverage"):
        make_v5(archive / f"runtime_{name}")
    make_v5(archive / "joint_full_run01")
    options = ["-m", "final", "-k", "lossy or every_launch", "--h2o-kit", "v5"]
    found = Judgement(pytester, archive, *options)
    assert {case for _, case in found.failing()} == {"joint_store", "joint_store-1"}
    make_v5(archive / "joint_store_run01")
    assert Judgement(pytester, archive, *options).failing() == set()


def test_workers_judge_an_archive_as_one_does(tmp_path: Path) -> None:
    """Joint cases and their repeats, whichever worker meets them; a bad run fails as by one."""
    archive = make_m3(tmp_path / "m3")
    (log,) = (archive / "joint_full_run02" / "logs").glob("run_0002*")
    log.write_text("")
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "gates"), "-n", "2", "-m", "m3",
        "-k", "every_launch or lossy", "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
        "--h2o-replay", str(archive), "--h2o-out", "runs", f"--rootdir={ROOT}",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    (summary,) = tmp_path.glob("runs/[0-9]*/summary.json")
    found = json.loads(summary.read_text("utf-8"))
    assert {(each["gate"], each["case"], each["outcome"]) for each in found["gates"]} == {
        ("every_launch_usable", "joint_full", "fail"),
        ("every_launch_usable", "joint_store", "pass"),
        ("lossy", "joint_full-1", "pass"),
        ("lossy", "joint_full-2", "fail"),
        ("lossy", "joint_store-1", "pass"),
    }
    assert not [text for text in found["not_judged"] if text.startswith("launch ")]


def test_all_in_one(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Packs in a pack are judged with it, and equal names and prompts are told apart."""
    archive = tmp_path / "all"
    copy(RUNTIME, archive / "runtime_same_batch")
    make_m3(archive / "final" / "m3")
    second = make_m3(archive / "m3")
    (log,) = (second / "joint_full_run02" / "logs").glob("run_0002*")
    log.write_text("")
    copy(DEMO, archive / "llm_demo")
    copy(DEMO, archive / "final" / "llm_demo")
    found = Judgement(pytester, archive, "-k", "lossy or launches or every_launch")
    cases = {each["case"] for each in found.gates if each["gate"] == "lossy"}
    assert {"runtime_same_batch", "joint_full-2", "joint_full-2.m3"} <= cases
    assert found.outcome("every_launch_usable", "joint_full")[0] == "fail"
    assert found.summary["not_judged"] == [
        text for text in found.summary["not_judged"] if not text.startswith("launch ")
    ]


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_llm_demo_finds_its_sides(pytester: pytest.Pytester, tmp_path: Path, side: str) -> None:
    """Both sides are found; a prompt that one of them lacks is named."""
    archive = copy(DEMO, tmp_path / "pack")
    settings = ["--h2o-set", "LLM_DEMO_DECODE_DROP_TARGET=0.9"]
    found = Judgement(pytester, archive, "-m", "llm_demo", *settings)
    assert (found.failing(), found.status) == (set(), 0)
    assert {"128", "2048"} <= {each["case"] for each in found.gates}
    for path in (archive / side).rglob(f"*{side}_prompt_2048_1*"):
        path.unlink()
    lines = (archive / side / f"{side}_runs.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "prompt_2048_1" not in line]
    (archive / side / f"{side}_runs.jsonl").write_text("".join(kept))
    found = Judgement(pytester, archive, "-m", "llm_demo", *settings)
    outcome, reason = found.outcome("bucket_decode", "2048")
    assert outcome == "fail"
    assert "prompt_2048_1" in reason


def test_decode_at_each_length(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A drop at one length fails beside a gain at another, unless the fastest row alone counts."""
    archive = copy(RUNTIME, tmp_path / "run")
    (log,) = (archive / "baseline_batch" / "logs").glob("run_0002*")
    text = re.sub(r"<br>[\d.]+ ± [\d.]+ \|", "<br>900.00 ± 5.00 |", log.read_text(), count=1)
    log.write_text(text)
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "decode_drop")
    outcome, reason = found.outcome("decode_drop", "run")
    assert (outcome, "32." in reason) == ("fail", True)
    knob = ["--h2o-set", "DECODE_FASTEST_ROW=1"]
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "decode_drop", *knob)
    assert found.outcome("decode_drop", "run")[0] == "pass"


def test_a_config_without_what_the_manifest_says(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A key that is misspelt in a config did not reach the program, whatever the manifest says."""
    archive = copy(RUNTIME, tmp_path / "run")
    (config,) = (archive / "configs").glob("run_0001*")
    rewrite(config, ('"kv_h2o_enable"', '"kv_h2o_enabel"'))
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "settings")
    outcome, reason = found.outcome("settings", "run")
    assert (outcome, "kv_h2o_enable" in reason) == ("fail", True)


def test_launches_without_argv(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """``launches.json`` without argv finds the table of a launch as ``logs/<run_id>.log``."""
    archive = copy(RUNTIME, tmp_path / "run")
    entries = json.loads((archive / "manifest.json").read_text())
    listed = [{"run_id": entry["run_id"], "returncode": 0} for entry in entries]
    (archive / "launches.json").write_text(json.dumps(listed))
    (archive / "manifest.json").unlink()
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "lossy")
    assert found.outcome("lossy", "run")[0] == "pass"


@pytest.mark.parametrize(
    "name",
    ["candidate", "baseline", "joint_full-1", "joint_full", "offline", "512", "k", "a[b]", "x::y",
     "with blanks", "ünï中"],
)  # fmt: skip
def test_names_that_mean_something_else(
    pytester: pytest.Pytester, tmp_path: Path, name: str
) -> None:
    """Whatever a directory is called, its launches are judged, and fail as they deserve."""
    archive = copy(DATA / "runs" / "bench_claims_without_eviction", tmp_path / "in" / name)
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "test_lossy")
    assert [each["outcome"] for each in found.gates] == ["fail"]
    assert found.status == 1
    assert found.summary["overall_pass"] is False
    assert any("test_lossy[" in case for case in found.cases)


def test_a_name_that_is_no_text(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """The byte is escaped; verdict, reports and JUnit file are there."""
    name = os.fsdecode(b"rec\xff")
    archive = copy(DATA / "runs" / "bench_full", tmp_path / name)
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "test_lossy")
    assert found.status == 0
    assert found.outcome("lossy", "rec\\xff")[0] == "pass"
    assert "NOT ALL REPORTS" not in found.screen
    # The line that repeats it can be typed.
    assert f"--h2o-replay $'{tmp_path}/rec\\xff'" in found.screen


def test_two_directories_of_one_name(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Each is a case of its own, so that neither hides the other."""
    copy(DATA / "runs" / "bench_full", tmp_path / "all" / "a" / "run")
    copy(DATA / "runs" / "bench_claims_without_eviction", tmp_path / "all" / "b" / "run")
    found = Judgement(pytester, tmp_path / "all", "-m", "runtime", "-k", "test_lossy")
    outcomes = {each["case"]: each["outcome"] for each in found.gates}
    assert outcomes == {"run": "pass", "run.b": "fail"}


def test_two_prompts_of_one_stem(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Each has a label of its own, and each is compared with its own baseline."""
    for folder in ("a", "b"):
        copy(DEMO, tmp_path / "all" / folder)
    empty = tmp_path / "all" / "b" / "candidate" / "logs" / "candidate_prompt_128_2.stdout.log"
    empty.write_text("")
    found = Judgement(pytester, tmp_path / "all", "-m", "llm_demo", "-k", "launches")
    outcome, reason = found.outcome("launches", "llm_demo")
    assert (outcome, "prompt_128_2~2" in reason) == ("fail", True)


def test_a_launch_that_no_gate_judged(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """It is named, and the session is not accepted, though every gate that ran passed."""
    copy(RUNTIME, tmp_path / "all" / "bench")
    copy(DEMO, tmp_path / "all" / "demo")
    found = Judgement(pytester, tmp_path / "all", "-m", "runtime")
    assert found.failing() == set()
    assert (found.status, found.summary["overall_pass"]) == (1, False)
    left = [text for text in found.summary["not_judged"] if text.startswith("launch ")]
    assert len(left) == 2
    assert "NOT JUDGED: launch prompt_128_2 of candidate" in found.screen


def test_launches_of_a_session_that_no_case_asks_for(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    """An earlier session launched another length than those that are judged: it is named, and
    nothing is accepted.
    """
    launches = DATA / "session" / "launches"
    for arm in ("baseline", "full", "coverage", "store"):
        for path in launches.glob(f"bench-p512_g48-{arm}-r*"):
            copy(path, tmp_path / "run" / "launches" / path.name)
    lengths = ["--h2o-set", "PROMPTS=512", "--h2o-set", "GENS=48", "--h2o-set", "THREADS=2"]
    lengths += ["--h2o-set", "REPEAT=1", "--h2o-set", "LOSSY_TARGET=1"]
    run = tmp_path / "run"
    found = Judgement(pytester, run, "-m", "runtime", "-k", "test_lossy and full_strict", *lengths)
    assert (found.status, found.outcome("lossy", "full_strict")[0]) == (0, "pass")
    other = copy(launches / "bench-p512_g48-full-r1", run / "launches" / "other")
    rewrite(other / "launch.json", ('"prompt_tokens": 512', '"prompt_tokens": 1024'))
    found = Judgement(pytester, run, "-m", "runtime", "-k", "test_lossy and full_strict", *lengths)
    assert (found.status, found.outcome("lossy", "full_strict")[0]) == (1, "pass")
    left = [text for text in found.summary["not_judged"] if text.startswith("launch ")]
    assert [text.endswith("launches/other") for text in left] == [True]


def test_a_gate_that_is_off_judges_no_launch(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Where all selected gates are turned off, nobody looked at what was recorded."""
    archive = copy(DATA / "runs" / "bench_full", tmp_path / "run")
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "decode_cache_hit")
    assert {each["outcome"] for each in found.gates} == {"skipped"}
    assert (found.status, "NOT JUDGED: launch" in found.screen) == (1, True)


@pytest.mark.parametrize("error", [RuntimeError("odd"), UnicodeEncodeError("x", "y", 0, 1, "z")])
def test_reports_that_cannot_be_written(
    pytester: pytest.Pytester,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Whatever goes wrong, JUnit file and verdicts are there, and the session fails."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("pytest_h2o.session.reporter.write_reports", broken)
    archive = copy(DATA / "runs" / "bench_full", tmp_path / "run")
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "test_lossy")
    assert (found.status, len(found.cases)) == (1, 1)
    assert "NOT ALL REPORTS ARE WRITTEN" in found.screen
    assert "pass  lossy" in found.screen


def test_the_line_that_runs_a_command_again(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as it was typed, without the options that the command adds."""
    archive = copy(DATA / "runs" / "bench_full", tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["/bin/pytest-h2o", "runtime", "-k", "test_lossy"])
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "test_lossy")
    assert "rerun pytest-h2o runtime -k test_lossy" in found.screen.splitlines()


def test_warnings_that_a_user_makes_errors(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that makes errors of warnings is for tests: a library that warns while reports are
    written costs none of them.
    """
    write = reporter.write_reports

    def warning(*arguments: Any) -> None:
        warnings.warn("a library will need another one", DeprecationWarning, stacklevel=1)
        write(*arguments)

    monkeypatch.setattr("pytest_h2o.session.reporter.write_reports", warning)
    archive = copy(DATA / "runs" / "bench_full", tmp_path / "run")
    found = Judgement(pytester, archive, "-m", "runtime", "-k", "test_lossy", "-W", "error")
    assert (found.status, found.outcome("lossy", "run")[0]) == (0, "pass")


def test_reports_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """In a locale that lacks the micro sign all files are UTF-8, and commands print what they
    can.
    """
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [
        "-m", "pytest", str(ROOT / "gates"), "-m", "runtime", "-k", "decompression_budget",
        "-p", "no:cacheprovider", "-p", "no:xdist", "--h2o-out", "runs", "--junitxml=j.xml",
        "--h2o-replay", str(DATA / "runs" / "bench_full"),
    ]  # fmt: skip
    report = ["-m", "pytest_h2o.cli", "report", "runs/latest"]
    for arguments in (words, report):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | locale,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert b"Traceback" not in done.stdout + done.stderr
        if arguments is words:
            assert (done.returncode, (tmp_path / "j.xml").is_file()) == (0, True)
            (run,) = (tmp_path / "runs").glob("[0-9]*")
            report[-1] = str(run)
    (summary,) = run.glob("summary.md")
    assert "µs" in summary.read_text("utf-8")
    json.loads((run / "summary.json").read_text("utf-8"))
