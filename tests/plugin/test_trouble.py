"""Programs that crash, hang, lie or print garbage: one clear failure each, nothing launched twice,
nothing lost.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "runs"
PROGRAM = """#!{python}
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with (here / "launches.txt").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
argv = dict(zip(sys.argv[1::2], sys.argv[2::2]))
table = pathlib.Path(argv["-fp"])
golden = next(pathlib.Path({golden!r}).glob("logs/*_p512_g*.log")).read_bytes()
{body}
"""
BODIES = {
    "honest": "table.write_bytes(golden)",
    "in the way": "table.write_bytes(golden); "
    "pathlib.Path.cwd().parents[1].joinpath('summary.json').mkdir()",
    "crash": "print('Unable to open config file: x', flush=True); os.kill(os.getpid(), 11)",
    "hang": "print('loading', flush=True); time.sleep(600)",
    "garbage": "table.write_bytes(bytes(range(256)) * 400); "
    "sys.stdout.buffer.write(bytes(range(256)) * 400)",
    "no table": "print('done')",
    "cut": "table.write_bytes(golden[:-300])",
    "no columns": "table.write_bytes(golden.replace(b'h2o_lossless_queue_peak', "
    "b'h2o_lossless_queue_pork'))",
    "not a number": "table.write_bytes(golden.replace(b'1.00 ', b'-nan '))",
    "wrong row": "table.write_bytes(golden.replace(b'prompt=512', b'prompt=64'))",
}


@pytest.fixture
def setup(pytester: pytest.Pytester) -> Path:
    """A folder with a model config and its files."""
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
    return pytester.path


def run(pytester: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    """The fallback, queue and lossy gates of full_strict on a program that behaves as ``body``
    says.
    """
    program = pytester.path / "llm_bench"
    program.write_text(
        PROGRAM.format(python=sys.executable, golden=str(GOLDEN / "bench_full"), body=BODIES[body])
    )
    program.chmod(0o755)
    select = "full_strict and (fallback or queue or columns)"
    return pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-k", select,
        "--junitxml=report.xml", "--llm-bench", str(program), "--model-config", "config.json",
        "--h2o-set", "PROMPTS=512", *arguments,
    )  # fmt: skip


def launches(path: Path) -> int:
    return len(path.joinpath("launches.txt").read_text().splitlines())


def test_honest_output_passes(pytester: pytest.Pytester, setup: Path) -> None:
    """Recorded output of a real binary meets these gates, after one launch."""
    result = run(pytester, "honest")
    result.assert_outcomes(passed=3, deselected=result.parseoutcomes()["deselected"])
    assert launches(setup) == 1


def test_a_gate_that_breaks_is_no_acceptance(pytester: pytest.Pytester, setup: Path) -> None:
    """Where something else broke a gate before it had a verdict, the record does not say that all
    passed.
    """
    pytester.makepyfile(
        broken="def pytest_runtest_setup(item):\n    assert 'fallback' not in item.name"
    )
    result = run(pytester, "honest", "-p", "broken")
    assert (result.parseoutcomes()["passed"], result.parseoutcomes()["errors"]) == (2, 1)
    [summary] = setup.glob("h2o-runs/[0-9]*/summary.json")
    assert json.loads(summary.read_text())["overall_pass"] is False


def test_reports_that_cannot_be_written(pytester: pytest.Pytester, setup: Path) -> None:
    """The session ends in order, says so, and is not green."""
    result = run(pytester, "in the way")
    assert (result.ret, result.parseoutcomes()["passed"]) == (pytest.ExitCode.TESTS_FAILED, 3)
    result.stdout.fnmatch_lines(
        ["NOT ALL REPORTS ARE WRITTEN: Is a directory", "No acceptance: *", "report *"]
    )
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("body", "arguments", "reason"),
    [
        (
            "crash",
            [],
            "llm_bench: ended by signal 11 (SIGSEGV): Unable to open config file: x\n"
            "  launched  bench-*\n"
            "  try *by hand*",
        ),
        (
            "hang",
            ["--h2o-set", "LAUNCH_TIMEOUT_S=1"],
            "llm_bench: did not end within 1 s and was stopped (LAUNCH_TIMEOUT_S sets the limit)*\n"
            "  try *--h2o-set LAUNCH_TIMEOUT_S=... (now 1)*",
        ),
        ("garbage", [], "*printed no table*"),
        ("no table", [], "*printed no table: done\n  launched  bench-*\n  open *h2o-runs/*/stdout"),
        ("cut", [], "*full_strict*"),
        ("wrong row", [], "*the row is p64_g128, launched was p512_g128*"),
    ],
)
def test_trouble_fails_every_gate_with_its_reason(
    pytester: pytest.Pytester, setup: Path, body: str, arguments: list[str], reason: str
) -> None:
    """Each gate fails, none errors or is skipped; the reason is on the screen, the launch is made
    once and kept.
    """
    result = run(pytester, body, *arguments)
    outcomes = result.parseoutcomes()
    assert (outcomes.get("failed"), outcomes.get("errors"), outcomes.get("passed")) == (
        3,
        None,
        None,
    )
    result.stdout.fnmatch_lines(reason.split("\n"))
    assert launches(setup) == 1
    (kept,) = setup.glob("h2o-runs/[0-9]*/launches/bench-p512_g128x3-full-r1")
    assert kept.joinpath("stdout").exists()
    assert kept.joinpath("launch.json").exists()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "no columns",
            "*no value for h2o_lossless_queue_peak in p512_g128; the binary may be older*",
        ),
        ("not a number", "*h2o_lossless_queue_peak is nan ± 0 in p512_g128, not a number*"),
    ],
)
def test_bad_column_fails_only_who_reads_it(
    pytester: pytest.Pytester, setup: Path, body: str, reason: str
) -> None:
    """A column that is absent or NaN fails its gate and the column gate, and they name it."""
    result = run(pytester, body)
    outcomes = result.parseoutcomes()
    assert (outcomes.get("failed"), outcomes.get("passed")) == (2, 1)
    result.stdout.fnmatch_lines([reason])


@pytest.mark.parametrize("workers", ["1", "4"])
def test_workers_share_launches(pytester: pytest.Pytester, setup: Path, workers: str) -> None:
    """With several workers each launch still happens once, and the controller reports for all."""
    result = run(
        pytester,
        "honest",
        "-n",
        workers,
        "-k",
        "full_strict and (fallback or queue or columns or cache_act)",
    )
    assert result.parseoutcomes()["passed"] == 3
    assert launches(setup) == 1
    (directory,) = setup.glob("h2o-runs/[0-9]*")
    assert setup.joinpath("h2o-runs/latest").readlink() == Path(directory.name)
    summary = json.loads(directory.joinpath("summary.json").read_text())
    assert summary["overall_pass"] is False
    assert {
        f"gates/test_runtime.py::test_{name}[full_strict]" for name in ("lossy", "queue_peak")
    } & {*summary["not_judged"]} == {"gates/test_runtime.py::test_lossy[full_strict]"}
    assert directory.joinpath("summary.md").read_text().startswith("# No acceptance: 4 of ")
    assert {gate["gate"] for gate in summary["gates"]} == {
        "fallback",
        "queue_peak",
        "metric_columns",
        "decode_cache_activity",
    }
    assert directory.joinpath("metrics.csv").exists()


def test_prompt_directory_without_prompts(pytester: pytest.Pytester, setup: Path) -> None:
    """An empty prompt directory fails the prompt gates and names the directory; nothing is
    launched.
    """
    setup.joinpath("nothing").mkdir()
    arguments = [
        "-k",
        "test_prompts or bucket",
        "--prompt-dir",
        "nothing",
        "--llm-demo",
        str(setup / "llm_bench"),
    ]
    result = run(pytester, "honest", *arguments)
    assert result.parseoutcomes()["failed"] == 2
    result.stdout.fnmatch_lines(["*nothing*"])
    assert not setup.joinpath("launches.txt").exists()


@pytest.mark.parametrize("gate", ["launches", "settings", "eviction_active", "decode_drop"])
def test_no_prompt_fails_every_prompt_gate(
    pytester: pytest.Pytester, setup: Path, gate: str
) -> None:
    """Without a launch no prompt gate passes, and each names the directory and what is wrong with
    it.
    """
    arguments = ["-m", "llm_demo", "-k", f"test_{gate}", "--prompt-dir", "absent"]
    result = run(pytester, "honest", *arguments, "--llm-demo", str(setup / "llm_bench"))
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        ["*no prompt to run: */absent: cannot be read: No such file or directory*"]
    )


def test_ini_file_that_pytest_passes_over(pytester: pytest.Pytester, setup: Path) -> None:
    """Gates that lie elsewhere make pytest pass over the ini file here; a setting in it is not lost
    in silence.
    """
    setup.joinpath("pytest.ini").write_text("[pytest]\nllm_bench = mine\n")
    result = pytester.runpytest_subprocess(
        str(ROOT / "gates"), "-m", "runtime", "-k", "lossy", "--co"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: */pytest.ini sets llm_bench, but pytest read */pyproject.toml,* add -c *"]
    )


def test_latest_can_be_judged_again_and_again(pytester: pytest.Pytester, setup: Path) -> None:
    """A replay is no session that could be judged again, so `latest` stays on the one that
    launched.
    """
    run(pytester, "honest")
    (launched,) = setup.glob("h2o-runs/[0-9]*")
    for peak in (8, 0):
        result = run(
            pytester,
            "honest",
            "--h2o-replay",
            "h2o-runs/latest",
            "--h2o-set",
            f"MAX_LOSSLESS_QUEUE_PEAK={peak}",
        )
        assert result.parseoutcomes().get("failed", 0) == (peak == 0)
        result.stdout.fnmatch_lines([f"h2o: replay of {launched}"])
    result.stdout.fnmatch_lines(
        ["h2o_lossless_queue_peak 1 is not <= 0 blocks", f"*open*{launched.relative_to(setup)}/*"]
    )


def test_replay_of_a_run_directory(pytester: pytest.Pytester, setup: Path) -> None:
    """An earlier run directory is judged again with other thresholds, launching nothing."""
    run(pytester, "honest")
    (directory,) = setup.glob("h2o-runs/[0-9]*")
    recorded = shutil.move(directory, setup / "recorded")
    result = run(
        pytester, "honest", "--h2o-replay", str(recorded), "--h2o-set", "MAX_LOSSLESS_QUEUE_PEAK=0"
    )
    assert (result.parseoutcomes()["failed"], result.parseoutcomes()["passed"]) == (1, 2)
    assert launches(setup) == 1
