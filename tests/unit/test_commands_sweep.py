"""`pytest-h2o sweep` with a program that counts its launches: what is launched, kept, compared and
returned.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.cli import main
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.report.pareto import front

# Prints a table as llm_bench does, slower with small blocks. A lossy ratio of 7 to 9 means trouble.
PROGRAM = """#!{python} -IS
import json, os, signal, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = json.load(open(options["-m"]))
lossy = config["kv_h2o_target_lossy_ratio"]
speed = 60 / lossy - (config["kv_h2o_block_tokens"] < 64)
launched = [options["-p"], lossy, options["-t"], options["-a"]]
open({launched!r}, "a").write(json.dumps(launched) + "\\n")
if lossy == 8.0:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
if lossy == 9.0:
    sys.exit("Error: no memory for \\x1b[31mKV\\x07")
with open(options["-fp"], "a") as table:
    table.write("| model | llm_demo | speed(tok/s) | h2o_lossy | h2o_lossless |\\n")
    table.write("| --- | --- | --- | --- | --- |\\n")
    lengths = f"prompt={{options['-p']}}<br>decode={{options['-n']}}"
    row = f"{{lengths}} | 100.0 ± 1.0<br>{{speed}} ± 0.5 | {{lossy}} ± 0.0"
    table.write("" if lossy == 7.0 else f"| tiny | {{row}} | 1.5 ± 0.0 |\\n")
"""
MANIFEST = (
    "run_id, prompt_len, gen_len, keep_ratio, block_tokens, sink_tokens, recent_tokens, "
    "ema_alpha, update_interval, "
    "trigger_min_tokens, h2o_layer_start, h2o_layer_end, h2o_target_mode, "
    "h2o_target_lossy_ratio, disable_h2o, "
    "disable_lossless, kv_h2o_enable, kv_lossless_enable, kv_lossless_scope, "
    "kv_lossless_front_n, kv_lossless_codec, "
    "kv_lossless_runtime_enable, kv_lossless_runtime_mode, kv_lossless_block_tokens, "
    "kv_lossless_hot_recent_tokens, "
    "kv_lossless_hot_sink_tokens, kv_lossless_kept_sample_layers, "
    "kv_lossless_kept_sample_token_interval, "
    "kv_lossless_front_sample_token_interval, kv_lossless_store_disable_front, "
    "kv_lossless_store_bootstrap_tokens, "
    "kv_lossless_store_grouped_step_tokens, kv_lossless_codec_runtime, kv_lossless_predictors_k, "
    "kv_lossless_predictors_v, kv_lossless_async_threads, kv_lossless_max_queue, "
    "kv_lossless_decode_cache_blocks, "
    "kv_lossless_strict_roundtrip_check, config, log, return_code"
)
SMALL = {
    "prompts": [64],
    "gens": [8],
    "repeat": 1,
    "kv_lossless_enable": True,
    "kv_lossless_codec": "gear_delta",
}


class Kit:
    """A build with a counting llm_bench, a model, and a preset."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.launched_file = root / "launched"
        for name in ("llm.mnn", "llm.mnn.weight", "tokenizer.txt"):
            (root / name).write_text(name)
        (root / "config.json").write_text('{"llm_model": "llm.mnn"}')
        self.program = root / "llm_bench"
        self.program.write_text(
            PROGRAM.format(python=sys.executable, launched=str(self.launched_file))
        )
        self.program.chmod(0o755)

    def arguments(self, *more: str, **preset: object) -> list[str]:
        """The command line of a sweep over ``preset``."""
        path = self.root / "mine.json"
        path.write_text(json.dumps({**SMALL, **preset}))
        named = ["--llm-bench", str(self.program), "--model-config", str(self.root / "config.json")]
        out = [] if "--out" in more else ["--out", str(self.out)]
        return ["sweep", "--preset", str(path), *named, *out, *more]

    def sweep(self, *more: str, **preset: object) -> int:
        """Run it; the exit code."""
        return main(self.arguments(*more, **preset))

    @property
    def launched(self) -> list[list[object]]:
        """Prompt length, lossy ratio, threads and backend of every launch so far."""
        lines = self.launched_file.read_text().splitlines() if self.launched_file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def manifest(self) -> list[dict[str, object]]:
        """The manifest's entries."""
        entries: list[dict[str, object]] = json.loads((self.out / "manifest.json").read_text())
        return entries

    @property
    def csv(self) -> list[dict[str, str]]:
        """The rows of the CSV."""
        with (self.out / "h2o_metrics.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A build in a directory of its own, with a machine lock of its own, and nothing in the
    environment.
    """
    for name in ("THREADS", "BACKEND", "LLM_BENCH", "MODEL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "lock").mkdir()
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path / "lock"))
    monkeypatch.chdir(tmp_path)
    return Kit(tmp_path)


def test_each_distinct_combination_is_launched_once(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    """In adaptive mode the keep ratio changes nothing: four combinations are two launches."""
    assert (
        kit.sweep("--threads", "2", h2o_keep_ratios=[0.3, 0.5], h2o_target_lossy_ratios=[3.0, 4])
        == 0
    )
    assert kit.launched == [["64", 3.0, "2", "cpu"], ["64", 4.0, "2", "cpu"]]
    names = ["run_0001_p64_g8_k0.3_b64_lr3.0", "run_0002_p64_g8_k0.3_b64_lr4.0"]
    repeats = ["run_0003_p64_g8_k0.5_b64_lr3.0", "run_0004_p64_g8_k0.5_b64_lr4.0"]
    assert [entry["run_id"] for entry in kit.manifest] == names + repeats
    assert [entry["log"] for entry in kit.manifest] == [
        str(kit.out / "logs" / f"{name}.log") for name in names * 2
    ]
    assert [entry["return_code"] for entry in kit.manifest] == [0] * 4
    assert [Path(row["log_file"]).stem for row in kit.csv] == names
    progress = [line for line in capsys.readouterr().err.splitlines() if "tok/s" in line]
    assert [line.split(":")[0] for line in progress] == [f"[1/2] {names[0]}", f"[2/2] {names[1]}"]
    assert "decode 20 tok/s, lossy 3, lossless 1.5" in progress[0]


def test_manifest_is_the_originals(kit: Kit) -> None:
    """Keys, their order and their values are the original's; each config is what its launch got."""
    assert kit.sweep(h2o_target_lossy_ratios=[3.5], kv_lossless_max_queue=7) == 0
    [entry] = kit.manifest
    assert ", ".join(entry) == MANIFEST
    values = {
        "prompt_len": 64,
        "gen_len": 8,
        "keep_ratio": 0.5,
        "h2o_target_lossy_ratio": 3.5,
        "h2o_layer_end": -1,
    }
    values |= {
        "kv_lossless_max_queue": 7,
        "disable_h2o": False,
        "kv_h2o_enable": True,
        "trigger_min_tokens": 512,
    }
    assert {key: entry[key] for key in values} == values
    [launched] = kit.out.glob("launches/*/config.json")
    assert Path(str(entry["config"])).read_text() == launched.read_text()


def test_comparison(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    """For each length the smallest KV comes first, then the fastest; what nothing of that length
    beats is marked.
    """
    assert (
        kit.sweep(prompts=[64, 32], h2o_block_tokens=[8, 64], h2o_target_lossy_ratios=[2, 3]) == 0
    )
    header, *lines = capsys.readouterr().out.splitlines()[:9]
    assert header.split() == [
        "run",
        "lengths",
        "decode",
        "tok/s",
        "lossy",
        "lossless",
        "lossy",
        "x",
        "lossless",
    ]
    rows = [
        ["20", "3", "1.5", "4.5"],
        ["19", "3", "1.5", "4.5"],
        ["30", "2", "1.5", "3"],
        ["29", "2", "1.5", "3"],
    ]
    assert [line.split()[-5:] for line in lines] == [
        [length, *row] for length in ("p64_g8", "p32_g8") for row in rows
    ]
    assert [line[0] for line in lines] == ["*", " ", "*", " "] * 2


@pytest.mark.parametrize(
    ("lossy", "reason", "return_code"), [(9, "no memory", 1), (7, "0 rows where 1", 0)]
)
def test_failed_launches(
    kit: Kit, lossy: int, reason: str, return_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that crashes, or exits well without a row, is named with its reason; the others are
    kept; code 1.
    """
    assert kit.sweep(h2o_target_lossy_ratios=[3, lossy, 4]) == 1
    assert len(kit.launched) == 3
    assert [entry["return_code"] for entry in kit.manifest] == [0, return_code, 0]
    assert [row["h2o_lossy"] for row in kit.csv] == ["3.0 ± 0.0", "4.0 ± 0.0"]
    out, err = capsys.readouterr()
    assert "2 of 3 launches ended well" in out
    assert f"failed: run_0002_p64_g8_k0.5_b64_lr{lossy}.0: " in out
    for text in (out, err):
        assert reason in text
        assert all(c.isprintable() or c == "\n" for c in text)
    page = (kit.out / "sweep.html").read_text("utf-8")
    assert reason in unescape(page)
    assert 'id="chart-compression"' in page


def test_dry_run(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    """Every combination gets a config and a line in the manifest; nothing is launched, no binary is
    needed.
    """
    kit.program.unlink()
    assert kit.sweep("--dry-run", h2o_keep_ratios=[0.3, 0.5], h2o_target_lossy_ratios=[3, 4]) == 0
    assert kit.launched == []
    assert "4 combinations, 2 of them distinct" in capsys.readouterr().out
    assert sorted(path.name for path in kit.out.iterdir()) == ["configs", "logs", "manifest.json"]
    for entry in kit.manifest:
        config = json.loads(Path(str(entry["config"])).read_text())
        assert (config["kv_h2o_target_keep_ratio"], config["kv_h2o_target_lossy_ratio"]) == (
            entry["keep_ratio"],
            entry["h2o_target_lossy_ratio"],
        )
        assert config["base_dir"] == f"{kit.root}/"
        assert (entry["log"], entry["return_code"]) == (None, None)
    with pytest.raises(RecordingError, match=r"manifest\.json is a plan, nothing was launched"):
        read_recording(kit.out)


def test_dry_run_then_run(kit: Kit) -> None:
    """A planned directory can be launched into; one with launches cannot, so that old numbers are
    not taken for new.
    """
    assert kit.sweep("--dry-run") == 0
    assert kit.sweep() == 0
    assert kit.sweep() == 2
    assert len(kit.launched) == 1


def test_resume(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier sweep finished is taken over; what failed there is launched again."""
    assert kit.sweep(h2o_target_lossy_ratios=[3, 9]) == 1
    assert (
        kit.sweep("--out", "second", "--resume", str(kit.out), h2o_target_lossy_ratios=[3, 9, 4])
        == 1
    )
    assert [launch[1] for launch in kit.launched] == [3.0, 9.0, 9.0, 4.0]
    assert "(from " in capsys.readouterr().err
    assert len(list(Path("second").glob("logs/*.log"))) == 2


def test_interrupt_keeps_what_is_finished(kit: Kit) -> None:
    """Ctrl-C in the second launch: the first one is in manifest, CSV and table; the third is not
    started.
    """
    command = [
        sys.executable,
        "-m",
        "pytest_h2o.cli",
        *kit.arguments(h2o_target_lossy_ratios=[3, 8, 4]),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert result.returncode == 130
    assert "interrupted after 1 of 3 launches" in result.stderr
    assert "Traceback" not in result.stderr
    assert [launch[1] for launch in kit.launched] == [3.0, 8.0]
    assert [entry["return_code"] for entry in kit.manifest] == [0]
    assert len(kit.csv) == 1
    assert "1 of 3 launches ended well" in result.stdout


@pytest.mark.parametrize(
    ("option", "off"),
    [
        ("--disable-h2o", (False, False, "none", "none")),
        ("--disable-lossless", (True, False, "none", "none")),
    ],
)
def test_disabled_parts(kit: Kit, option: str, off: tuple[object, ...]) -> None:
    """A part that is switched off is off in the config and in the manifest."""
    assert kit.sweep(option, "--dry-run", h2o_target_lossy_ratios=[3]) == 0
    [entry] = kit.manifest
    keys = ("kv_h2o_enable", "kv_lossless_enable", "kv_lossless_scope", "kv_lossless_codec")
    config = json.loads(Path(str(entry["config"])).read_text())
    assert tuple(entry[key] for key in keys) == tuple(config[key] for key in keys) == off
    assert entry["disable_h2o"] == (option == "--disable-h2o")
    assert entry["disable_lossless"] == (option == "--disable-lossless")


def test_without_h2o_only_lengths_count(kit: Kit) -> None:
    """With H2O off all H2O settings are one launch for each pair of lengths."""
    assert (
        kit.sweep(
            "--disable-h2o", prompts=[64, 32], h2o_keep_ratios=[0.3, 0.5], h2o_block_tokens=[8, 16]
        )
        == 0
    )
    assert [launch[0] for launch in kit.launched] == ["64", "32"]


@pytest.mark.parametrize(
    ("more", "preset", "message"),
    [
        (
            [],
            {"prompts": [], "h2o_ema_alphas": []},
            "Empty sweep dimension: prompts, h2o_ema_alphas",
        ),
        (["--threads", "0"], {}, "THREADS='0': expected an integer at least 1"),
        (["--attention-option", "7"], {}, "ATTENTION_OPTION='7': expected an integer at least 0"),
        (["--llm-bench", "nowhere"], {}, "nowhere does not exist"),
        (["--model-config", "nowhere.json", "--dry-run"], {}, "nowhere.json does not exist"),
        (["--resume", "nowhere"], {}, "nowhere: holds no launches"),
        (["--out", "config.json"], {}, "config.json/configs: Not a directory"),
    ],
)
def test_wrong_usage(
    kit: Kit,
    more: list[str],
    preset: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong is named before anything is launched or written; code 2."""
    before = set(kit.root.rglob("*")) | {kit.root / "mine.json"}
    assert kit.sweep(*more, **preset) == 2
    assert message in capsys.readouterr().err
    assert kit.launched == []
    assert set(kit.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("llm_bench = mine", "/mine does not exist"),
        ("h2o_set = THREADZ=1", "unknown knob THREADZ; did you mean THREADS?"),
    ],
)
def test_the_ini_file_counts(
    kit: Kit, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program or a knob in the ini file is what gates take; no other is launched in its place."""
    kit.root.joinpath("pytest.ini").write_text(f"[pytest]\n{line}\n")
    assert (
        main(
            [
                "bench",
                "--prompts",
                "64",
                "--gens",
                "8",
                "--repeat",
                "1",
                "--model-config",
                "config.json",
            ]
        )
        == 2
    )
    assert message in capsys.readouterr().err
    assert kit.launched == []


def test_default_directory(kit: Kit) -> None:
    """Without --out the sweep has a new directory, which the link `latest` names, also while that
    one is resumed.
    """
    arguments = kit.arguments(h2o_target_lossy_ratios=[3])
    place = arguments.index("--out")
    del arguments[place : place + 2]
    assert main(arguments) == 0
    assert main([*arguments, "--resume", "h2o-runs/latest"]) == 0
    assert len(kit.launched) == 1
    assert len([path for path in Path("h2o-runs").iterdir() if not path.is_symlink()]) == 2


numbers = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(numbers, numbers)))
def test_front(points: list[tuple[float, float]]) -> None:
    """The front is exactly the points that no other point equals or beats in both numbers."""
    beaten = {p for p in points for q in points if p != q and q[0] >= p[0] and q[1] >= p[1]}
    assert front(points) == set(points) - beaten
