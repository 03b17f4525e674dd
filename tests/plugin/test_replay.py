"""Recorded output of real programs, replayed: every golden run gets the verdicts that it
deserves.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stand_in import install

from pytest_h2o.cli import main
from pytest_h2o.session import session

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "runs"
# Extension modules cannot be imported twice in one process, and the others need not be.
PRELOADED = (np, pd, session)
ACTIVE = ["lossy", "keep_feasible", "lossless_active", "lossless_accounted", "decompression_active"]
LIMITS = ["decompression_budget", "queue_peak", "fallback"]
MEMORY = ["memory_peak", "memory_growth"]
EVERY = [*ACTIVE, *LIMITS, *MEMORY, "metric_columns", "settings", "block_spans"]
PROMPT_GATES = [
    "settings",
    "launches",
    "eviction_active",
    "decompression_active",
    "fallback",
    "prompt_memory",
]
# What a result meets whose evaluator decodes nothing: that is not evidenced.
RATIO = {"online_sim_lossless", "offline_complete", "offline_verified"}
IGNORED = "0 prompt tokens*prompt_128_1*"


def verdicts(
    pytester: pytest.Pytester, recording: Path, *arguments: str, by: str = "gate"
) -> dict[str, dict[str, object]]:
    """The verdicts of a replay by gate; gates that a knob turns off are left out."""
    pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-p", "no:xdist",
        "--h2o-replay", str(recording), "--h2o-out", "runs", *arguments,
    )  # fmt: skip
    [summary] = pytester.path.glob("runs/[0-9]*/summary.json")
    gates = json.loads(summary.read_text())["gates"]
    return {gate[by]: gate for gate in gates if gate["outcome"] != "skipped"}


@pytest.mark.parametrize(
    ("run", "failing", "reason"),
    [
        ("bench_full", [], ""),
        ("bench_full_coverage", [], ""),
        ("bench_store", [], ""),
        ("bench_probe", [], ""),
        ("bench_json", [], ""),
        ("bench_appended", [], ""),
        ("bench_claims_without_eviction", ["lossy"], "*248 of 256 eviction plans*stale*"),
        ("bench_baseline", ACTIVE, "*is not >*"),
        ("bench_never_triggered", ACTIVE, "*is not >*"),
        ("bench_stdout_table", ACTIVE, "*is not >*"),
        ("bench_columns_varied", ACTIVE, "*is not >*"),
        (
            "bench_prefill_decode_table",
            [*ACTIVE, *LIMITS, "metric_columns"],
            "the program has no H2O*",
        ),
        ("fail_bad_flag", EVERY, "*exit code 255*--no-such-flag*"),
        ("fail_missing_config", EVERY, "*signal 11 (SIGSEGV)*Unable to open config*"),
        ("fail_missing_weights", EVERY, "*signal 11 (SIGSEGV)*"),
        ("fail_killed_midway", EVERY, "*signal 9 (SIGKILL)*"),
        ("fail_incompatible_model", EVERY, "*not a number: Error for compute*"),
    ],
)
def test_golden_bench_runs(
    pytester: pytest.Pytester, run: str, failing: list[str], reason: str
) -> None:
    """Every gate but those named passes, and those fail with the reason that is in the
    recording.
    """
    found = verdicts(
        pytester,
        GOLDEN / run,
        "-m",
        "runtime",
        "-k",
        "not decode_drop and not offline and not store_memory",
    )
    assert {gate for gate, verdict in found.items() if verdict["outcome"] == "fail"} == set(failing)
    assert set(found) == set(EVERY)
    for gate in failing:
        pytest.LineMatcher([str(found[gate]["reason"]).replace("\n", " ")]).fnmatch_lines([reason])


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("demo_baseline", IGNORED),
        ("demo_full", IGNORED),
        ("demo_store", IGNORED),
        ("fail_demo_missing_weights", "*signal 11 (SIGSEGV)*"),
        ("fail_demo_missing_prompt", "exit code 1*demo-none-*"),
        ("fail_demo_empty_prompt", "exit code 1*demo-null-*"),
    ],
)
def test_golden_demo_runs(pytester: pytest.Pytester, run: str, reason: str) -> None:
    """An ignored or crashed prompt fails every gate on real prompts and is named; it is no zero in
    an average.
    """
    found = verdicts(
        pytester,
        GOLDEN / run,
        "-m",
        "llm_demo",
        "-k",
        "not decode_drop and not bucket and not greedy",
    )
    assert set(found) == {"prompts", *PROMPT_GATES}
    for gate in PROMPT_GATES:
        assert found[gate]["outcome"] == "fail"
        pytest.LineMatcher([str(found[gate]["reason"]).replace("\n", " ")]).fnmatch_lines(
            [f"*{reason}"]
        )


def test_without_the_ignored_prompt(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """The other prompts of the same recording meet the gates."""
    recording = Path(shutil.copytree(GOLDEN / "demo_full", tmp_path / "demo"))
    entries = json.loads((recording / "launches.json").read_text())
    kept = [entry for entry in entries if "prompt_128_1" not in entry["argv"][2]]
    (recording / "launches.json").write_text(json.dumps(kept))
    found = verdicts(
        pytester, recording, "-m", "llm_demo", "-k", "not decode_drop and not bucket and not greedy"
    )
    assert {verdict["outcome"] for verdict in found.values()} == {"pass"}


def test_a_bucket_is_judged_on_its_own_prompts(pytester: pytest.Pytester) -> None:
    """The ignored prompt of 128 tokens decides nothing about longer ones; the launch at fault is
    the file to open.
    """
    arguments = [
        "-m",
        "llm_demo",
        "-k",
        "bucket",
        "--h2o-replay-baseline",
        str(GOLDEN / "demo_baseline"),
    ]
    found = verdicts(pytester, GOLDEN / "demo_full", *arguments, by="case")
    assert {case: verdict["outcome"] for case, verdict in found.items()} == {
        "128": "fail",
        "512": "fail",
        "2048": "pass",
    }
    assert str(found["128"]["reason"]).count("prompt_128_1.stdout") == 1
    assert str(found["128"]["source"]).endswith("prompt_128_1.stdout")
    assert "is not <=" in str(found["512"]["reason"])


def test_lengths_that_the_program_skips(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A prompt or generation length of 0 makes no row, and none is missed."""
    recording = Path(shutil.copytree(GOLDEN / "bench_full", tmp_path / "run"))
    entries = json.loads((recording / "launches.json").read_text())
    for argv in (entry["argv"] for entry in entries):
        argv[argv.index("-p") + 1] = "0," + argv[argv.index("-p") + 1]
        argv[argv.index("-n") + 1] += ",0"
    (recording / "launches.json").write_text(json.dumps(entries))
    found = verdicts(pytester, recording, "-m", "runtime", "-k", "lossy or settings")
    assert {verdict["outcome"] for verdict in found.values()} == {"pass"}


def test_output_of_sweep(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `pytest-h2o sweep` left is one recorded case, and with its preset the combinations one
    by one.
    """
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    options = install(tmp_path / "build")
    preset, out = tmp_path / "preset.json", tmp_path / "out"
    preset.write_text(
        json.dumps({"prompts": [512], "gens": [128], "h2o_target_lossy_ratios": [2.5, 3]})
    )
    bench = [options[0], options[1], *options[4:]]
    assert main(["sweep", "--preset", str(preset), "--out", str(out), *bench]) == 0
    found = verdicts(pytester, out, "-m", "runtime", "-k", "lossy")
    assert (found["lossy"]["case"], found["lossy"]["value"]) == ("out", 2.71)
    shutil.rmtree(pytester.path / "runs")
    found = verdicts(
        pytester, out, "-m", "sweep", "-k", "lossy", "--h2o-preset", str(preset), *options
    )
    assert (found["lossy"]["case"], found["lossy"]["value"]) == (
        "run_0002_p512_g128_k0.5_b64_lr3.0",
        2.71,
    )
    shutil.rmtree(pytester.path / "runs")
    found = verdicts(pytester, out, "-m", "m3", "-k", "usable", "--h2o-preset", str(preset))
    assert f"no such launch in {out}" in str(found["every_launch_usable"]["reason"])
    assert "see " not in str(found["every_launch_usable"]["reason"])


@pytest.mark.parametrize(
    ("select", "shown"), [(["-m", "runtime"], "-m runtime "), (["-k", "test_lossy"], "")]
)
def test_rerun_line_names_the_suite(
    pytester: pytest.Pytester, select: list[str], shown: str
) -> None:
    """A suite has defaults and knobs of its own: without its name the rerun would judge in another
    way.
    """
    failing = ["-k", "test_lossy", "--h2o-set", "LOSSY_TARGET=9"]
    found = verdicts(pytester, GOLDEN / "bench_full", *select, *failing)
    assert f"::test_lossy[bench_full]' {shown}--h2o-set=LOSSY_TARGET=9" in str(
        found["lossy"]["rerun"]
    )


def test_full_eval_of_a_recording(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """What `run_full_eval.sh` did: the recorded table is judged, and a KV dump in v5's chunks."""
    with tarfile.open(ROOT / "tests" / "data" / "offline" / "kv_dump.tar.gz") as dump:
        dump.extractall(tmp_path, filter="data")
    found = verdicts(
        pytester, GOLDEN / "bench_full", "-m", "full_eval", "-k", "lossless or lossy or offline",
        "--h2o-set", f"DUMP_DIR={tmp_path / 'kv_dump'}",
    )  # fmt: skip
    assert {verdict["outcome"] for verdict in found.values()} == {"pass"}
    assert {"online_sim_lossless", "offline_complete", "lossy"} <= found.keys()
    [result] = pytester.path.glob("runs/[0-9]*/offline_lossless_full_eval.json")
    assert json.loads(result.read_text())["online_chunk_seq"] == 128


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (
            "bench_full",
            "31.8% of the cache are kept for H2O_TARGET_LOSSY_RATIO*by H2O_BLOCK_TOKENS*protect "
            "22.8%",
        ),
        (
            "bench_never_triggered",
            "H2O_RECENT_TOKENS and H2O_SINK_TOKENS*or H2O_TRIGGER_MIN was not reached",
        ),
    ],
)
def test_what_limits_the_lossy_ratio(pytester: pytest.Pytester, run: str, reason: str) -> None:
    """A target out of reach names the settings that put it there, with their shares of the
    cache.
    """
    found = verdicts(
        pytester,
        GOLDEN / run,
        "-m",
        "runtime",
        "-k",
        "keep_feasible",
        "--h2o-set",
        "LOSSY_TARGET=9",
    )
    pytest.LineMatcher([str(found["keep_feasible"]["reason"])]).fnmatch_lines(
        [f"*is not >= 9: {reason}"]
    )


def test_thresholds_change_the_verdict(pytester: pytest.Pytester) -> None:
    """A replay holds the recorded numbers against today's knobs."""
    found = verdicts(
        pytester,
        GOLDEN / "bench_full",
        "-k",
        "lossy",
        "-m",
        "runtime",
        "--h2o-set",
        "LOSSY_TARGET=3.2",
    )
    assert found["lossy"]["outcome"] == "fail"
    assert found["lossy"]["value"] == 3.14


@pytest.mark.parametrize(
    ("baseline", "reason"),
    [
        (None, "*--h2o-replay-baseline*"),
        ("bench_store", "*bench_store was run with H2O on"),
        ("bench_prefill_decode_table", "*holds no row of p512_g128, p1024_g128"),
        ("fail_killed_midway", "baseline: *signal 9*"),
    ],
)
def test_decode_needs_a_usable_baseline(
    pytester: pytest.Pytester, baseline: str | None, reason: str
) -> None:
    """A recorded decode speed is compared with an H2O-off recording of the same rows, and with
    nothing else.
    """
    arguments = ["--h2o-replay-baseline", str(GOLDEN / baseline)] if baseline else []
    found = verdicts(
        pytester, GOLDEN / "bench_full", "-m", "runtime", "-k", "decode_drop", *arguments
    )
    assert found["decode_drop"]["outcome"] == "fail"
    pytest.LineMatcher([str(found["decode_drop"]["reason"]).replace("\n", " ")]).fnmatch_lines(
        [reason]
    )


def test_decode_beside_a_baseline(pytester: pytest.Pytester) -> None:
    """The candidate decoded faster than its baseline, but over KV of earlier repeats: the verdict
    warns of it.
    """
    found = verdicts(
        pytester, GOLDEN / "bench_full", "-m", "runtime", "-k", "decode_drop",
        "--h2o-replay-baseline", str(GOLDEN / "bench_baseline"),
    )  # fmt: skip
    value = found["decode_drop"]["value"]
    assert isinstance(value, float)
    assert value < 0
    assert found["decode_drop"]["standing"] == "doubtful"
    assert "kv= reaches 2440 in a request of 640 tokens" in str(found["decode_drop"]["warning"])


def test_bare_folder_of_logs(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Tables alone can be judged; what they claim has no evidence, and the verdict says so."""
    for path in (GOLDEN / "bench_full" / "logs").glob("*.log"):
        shutil.copy(path, tmp_path / path.name)
    found = verdicts(pytester, tmp_path, "-m", "runtime", "-k", "lossy or fallback")
    assert {verdict["outcome"] for verdict in found.values()} == {"pass"}
    assert found["lossy"]["standing"] == "not evidenced"


def test_layout_of_the_original_sweep(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """`manifest.json` says which rows were planned and how each launch ended."""
    run = Path(shutil.copytree(GOLDEN / "bench_full", tmp_path / "run"))
    (run / "launches.json").unlink()
    names = ("run_0001_p512_g128", "run_0002_p1024_g128")
    entries = [
        {"run_id": name, "prompt_len": 512, "gen_len": 128, "return_code": 0} for name in names
    ]
    entries[1]["return_code"] = 1
    (run / "manifest.json").write_text(json.dumps(entries))
    reason = str(verdicts(pytester, run, "-m", "runtime", "-k", "fallback")["fallback"]["reason"])
    assert "exit code 1" in reason
    entries[1]["return_code"] = 0
    (run / "manifest.json").write_text(json.dumps(entries))
    shutil.rmtree(pytester.path / "runs")
    reason = str(verdicts(pytester, run, "-m", "runtime", "-k", "fallback")["fallback"]["reason"])
    assert "the row is p1024_g128, launched was p512_g128" in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "*holds none of launches/, launches.json*"),
        ({"launches.json": "[{"}, "*launches.json*Invalid JSON*"),
        ({"launches.json": '[{"argv": "x"}]'}, "*launches.json: 0.argv*"),
        ({"manifest.json": '[{"run_id": 1}]'}, "*manifest.json: 0.run_id*"),
    ],
)
def test_nothing_to_replay(
    pytester: pytest.Pytester, tmp_path: Path, content: dict[str, str], message: str
) -> None:
    """A directory that cannot be replayed is a usage error naming the file and the fault."""
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    result = pytester.runpytest_subprocess(
        str(ROOT / "gates"),
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        "--h2o-replay",
        str(tmp_path),
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


COMPLETE = {
    "entry_mode": "chunked_grouped", "raw_bytes": 1400, "compressed_bytes": 1000,
    "lossless_ratio": 1.4, "skipped_entries": 0, "skip_reasons": {}, "selected_entries": 8,
    "aggregate_groups": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "passing"),
    [
        ("online_grouped", {}, RATIO),
        ("online", {"entry_mode": "chunked"}, RATIO),
        ("upper", {"entry_mode": "aggregate"}, {"upper_bound_lossless"}),
        ("online", {"entry_mode": "per_meta"}, set()),
        (
            "online",
            {"skipped_entries": 2, "skip_reasons": {"missing_k_or_v_file": 2}},
            RATIO - {"offline_complete"},
        ),
        ("online", {"skipped_entries": 1, "skip_reasons": {"compression_failed": 1}}, set()),
        ("online", {"lossless_ratio": 1.9}, set()),
        (
            "online",
            {"compressed_bytes": 1200, "lossless_ratio": 1.1667},
            RATIO - {"online_sim_lossless"},
        ),
        ("online", {"raw_bytes": 0, "compressed_bytes": 0, "lossless_ratio": 0}, set()),
        ("online", {"skipped_entries": None}, set()),
        ("online", {"k_lossless_ratio": "abc"}, set()),
        (
            "online",
            {"evaluated_share": None, "verified": None},
            RATIO,
        ),
        (
            "online",
            {"evaluated_share": 0.5, "evaluated_byte_share": 1},
            RATIO - {"offline_complete"},
        ),
        (
            "online",
            {"k_lossless_ratio": 1.2, "v_lossless_ratio": 1.7},
            RATIO | {"tensor_lossless"},
        ),
        (
            "online_sim",
            {"verified": False, "lossless": True},
            {"online_sim_lossless", "offline_complete"},
        ),
        (
            "online_sim",
            {"verified": True, "lossless": True},
            {"online_sim_lossless", "offline_complete", "offline_verified"},
        ),
    ],
)
def test_offline_results_in_the_directory(
    pytester: pytest.Pytester,
    tmp_path: Path,
    name: str,
    change: dict[str, object],
    passing: set[str],
) -> None:
    """An offline result beside the logs is judged: its ratio, and whether it stands for the whole
    dump.
    """
    recording = Path(shutil.copytree(GOLDEN / "bench_full", tmp_path / "run"))
    (recording / f"offline_lossless_{name}.json").write_text(json.dumps(COMPLETE | change))
    found = verdicts(pytester, recording, "-m", "offline")
    assert {gate for gate, verdict in found.items() if verdict["outcome"] == "pass"} == passing
