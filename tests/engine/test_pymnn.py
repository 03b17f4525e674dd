"""Stock MNN from its wheel on the project's own weights: what its programs print, and the engine
of this package as its oracle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pytest_h2o.engine.config import SHIPPED, H2OSettings, load_config
from pytest_h2o.engine.generate import Engine, Trial
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.demo_output import read_demo
from pytest_h2o.parsers.held_out import read_kv_report

pytestmark = pytest.mark.skipif(
    find_spec("MNN") is None, reason="the wheel MNN is not installed: there is none for this system"
)
MODEL = Path(__file__).parents[1] / "data" / "mnn" / "config.json"
CHATTER = ("The device supports", "load_vocab", "[MNNLLM]", "cost time")


def launch(program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One process, as a session starts it."""
    argv = [sys.executable, "-m", f"pytest_h2o.runtimes.pymnn.wheel_{program}", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def agreement(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Tokens of the held-out text, the wheel's logits of them, and what it does four times."""
    path = tmp_path_factory.mktemp("pymnn") / "wheel.npz"
    script = Path(__file__).with_name("drive_wheel.py")
    subprocess.run([sys.executable, str(script), str(MODEL), str(path)], check=True)
    return dict(np.load(path))


def test_tokenizer(agreement: dict[str, np.ndarray]) -> None:
    """Ids are those of the SentencePiece model."""
    assert agreement["sentence"].tolist() == [1, 344, 585, 499, 300]


def test_responses_begin_with_an_empty_cache(agreement: dict[str, np.ndarray]) -> None:
    """Four responses in one process are equal, whether answered or forced; a cache that is left in
    place would change the words, and hold more tokens each time.
    """
    for name in ("answers", "forced"):
        assert (agreement[name] == agreement[name][0]).all()
    assert agreement["held"].tolist() == [agreement["forced_tokens"].size] * 4


def test_both_engines_predict_the_same(agreement: dict[str, np.ndarray]) -> None:
    """Next-token logits on held-out text differ by what weights in 8 bits allow: in the root mean
    square by 0.04 of their spread, and the likeliest token is the same in 95 of 100 places.

    Measured were 0.016, and the same token in all 128 places.
    """
    tokens = agreement["tokens"].tolist()
    engine = Engine(load_config(SHIPPED / "h2o.json"), threads=1)
    half = len(tokens) // 2
    off = H2OSettings(enable=False)
    ours = np.array(next(engine.force(tokens[:half], [Trial(tokens[half:], off)])))
    theirs = agreement["logits"][half - 1 : half - 1 + len(ours)]
    assert rms(ours - theirs) <= 0.04 * rms(ours - ours.mean())
    assert same(ours, theirs) >= 0.95


def test_both_engines_write_the_same(agreement: dict[str, np.ndarray]) -> None:
    """Greedy answers are alike for 16 tokens at least; where two tokens are nearly as likely they
    may part later.
    """
    engine = Engine(load_config(SHIPPED / "h2o.json"), threads=1)
    expected = agreement["answers"][0].tolist()
    ours = list(engine.respond(agreement["prompt"].tolist(), len(expected)).tokens)
    alike = 0
    while alike < len(expected) and ours[alike] == expected[alike]:
        alike += 1
    assert alike >= 16


def test_bench(tmp_path: Path) -> None:
    """The table, and nothing else, on standard output; the quantised column where KV is."""
    words = ("-kv", "true", "-p", "32", "-n", "8", "-rep", "2", "-qatten", "2", "-t", "1")
    ended = launch("bench", "-m", str(MODEL), *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [line[0] for line in ended.stdout.splitlines()] == ["|"] * 3
    (tmp_path / "log.md").write_text(ended.stdout)
    (table,) = read_tables(tmp_path / "log.md", 2)
    (row,) = table.rows
    assert (row.label, row.problems, row.cells["quantKv"]) == ("p32_g8", (), "2")
    assert {"prefill_tps", "decode_tps", "peak_memory_mb"} <= row.samples.keys()
    assert not any(name.startswith("h2o_") for name in row.cells)


def test_demo(tmp_path: Path) -> None:
    """A real prompt with a record that agrees with the summary; no chatter in the text."""
    (tmp_path / "prompt.txt").write_text("def read(path):\n    return open(path).read()\n")
    words = (
        str(MODEL),
        "prompt.txt",
        "12",
        "--metrics-jsonl",
        "m.jsonl",
        "--prompt-file-mode=whole",
    )
    ended = launch("demo", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert not any(word in ended.stdout for word in CHATTER)
    (tmp_path / "stdout").write_text(ended.stdout)
    row = read_demo(tmp_path / "stdout", tmp_path / "m.jsonl", "demo")
    assert row.problems == ()
    record = json.loads((tmp_path / "m.jsonl").read_text())
    assert len(record["tokens"]) == row.decode_tokens
    assert row.samples["peak_memory_mb"].mean > 10


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("bench", ("-m", "absent.json"), "absent.json"),
        ("bench", ("-m", str(MODEL), "-a", "opencl"), "not on opencl"),
        ("bench", ("--no-such-option",), "invalid parameter"),
        ("demo", ("absent.json", "prompt.txt"), "absent.json"),
        ("demo", (str(MODEL), "absent.txt"), "absent.txt"),
    ],
)
def test_wrong_usage(tmp_path: Path, program: str, words: tuple[str, ...], said: str) -> None:
    """What is missing is named; nothing is measured, and no traceback is shown."""
    ended = launch(program, *words, cwd=tmp_path)
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "|" not in ended.stdout


def test_a_missing_weight_file_is_named(tmp_path: Path) -> None:
    """Where stock programs print a full table of nothing."""
    (tmp_path / "config.json").write_bytes(MODEL.read_bytes())
    ended = launch("bench", "-m", "config.json", "-kv", "true", cwd=tmp_path)
    assert ended.returncode == 1
    assert "llm.mnn is missing" in ended.stderr


def test_quantised_kv(tmp_path: Path) -> None:
    """On this model int8 costs nothing, for K and for both; TQ4 ruins it and saves most memory."""
    script = Path(__file__).with_name("quantise_kv.py")
    subprocess.run([sys.executable, str(script), str(MODEL), str(tmp_path)], check=True)
    keys, int8, tq4 = (read_kv_report(tmp_path / name) for name in ("1", "2", "6"))
    plain = json.loads((tmp_path / "2").read_text())["kv_quality"][0]["perplexity"]
    assert int8.perplexity < 1.05 * plain
    assert int8.divergence is not None
    assert int8.divergence < 0.01
    assert tq4.perplexity > 2 * plain
    assert keys.perplexity != int8.perplexity
    if keys.kv_bytes and int8.kv_bytes and tq4.kv_bytes:  # glibc alone tells, and not exactly
        assert keys.kv_bytes > 1.2 * int8.kv_bytes
        assert int8.kv_bytes > 1.5 * tq4.kv_bytes


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values.astype(np.float64) ** 2).mean()))


def same(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean())
