"""The two commands: argv, printed formats, exit codes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import H2O, LOSSLESS

from pytest_h2o.engine import bench, demo
from pytest_h2o.engine.bench_options import (
    ArgumentsError,
    Instance,
    Options,
    instances,
    parse,
    setups,
)
from pytest_h2o.engine.bench_rows import mean_and_std
from pytest_h2o.engine.config import SHIPPED

Write = Callable[..., Path]


def words(text: str) -> list[str]:
    """The names in ``text``."""
    return text.split()


ORIGINAL_COLUMNS = words(
    "model modelSize backend threads precision llm_demo speed(tok/s) h2o_keep h2o_lossy "
    "h2o_lossless"
    " h2o_target_keep_effective h2o_floor_keep h2o_quantized_keep h2o_evict_us h2o_codec_us "
    "h2o_lossless_raw_mb"
    " h2o_lossless_comp_mb h2o_lossless_comp_us h2o_lossless_decomp_us h2o_lossless_queue_peak "
    "h2o_lossless_fallback"
    " h2o_lossless_backpressure_skip h2o_lossless_async_queue_peak h2o_lossless_async_wait_us"
    " h2o_lossless_decode_cache_hit h2o_lossless_decode_cache_miss"
)
EXTRA_COLUMNS = words(
    "h2o_evictions_planned h2o_evictions_applied h2o_evictions_dropped h2o_kv_tokens_end "
    "h2o_kv_resident_mb"
    " h2o_kv_peak_mb h2o_effective_ratio h2o_effective_ratio_mean h2o_lossless_blocks "
    "h2o_lossless_cold_share"
    " h2o_lossless_roundtrips h2o_lossless_encode_overlap decode_cost"
)
RECORD_KEYS = words(
    "prompt_index prompt_tokens decode_tokens prefill_us decode_us sample_us h2o_keep_ratio "
    "h2o_lossy_ratio"
    " h2o_lossless_ratio h2o_lossless_raw_bytes h2o_lossless_compressed_bytes "
    "h2o_lossless_decompressed_bytes"
    " h2o_lossless_compress_us h2o_lossless_decompress_us h2o_lossless_queue_depth_peak "
    "h2o_lossless_fallback_count"
    " h2o_lossless_backpressure_skip h2o_lossless_async_queue_peak h2o_lossless_async_wait_us"
    " h2o_lossless_decode_cache_hit h2o_lossless_decode_cache_miss h2o_last_evict_tokens "
    "h2o_total_evict_tokens"
)


def table(text: str) -> list[dict[str, str]]:
    """Rows of the Markdown table in ``text``."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    assert all(re.fullmatch("-+:?", cell) for cell in lines[1])
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def run_bench(*argv: object) -> int:
    """The command in this process."""
    return bench.main([str(word) for word in argv])


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-p", "64,128", "--n_prompt", "12x"], "prompts", [64, 128, 12]),
        (["-t", "1,4,2", "-t", "8"], "threads", [4, 2, 1, 8]),
        (["-pg", "4,5", "-pg", "6,7"], "pairs", [(4, 5), (6, 7)]),
        (["-rep", "x"], "repeats", [0]),
        (["-kv", "true,false"], "kv", "true"),
        (["-fp", "a", "-fp", "b,c"], "table_file", "b"),
        (["-j"], "json_file", "llm_bench.json"),
        (["-j", "out.json"], "json_file", "out.json"),
        (["-j", "-p", "3"], "prompts", [3]),
        (["-load", "true"], "load", True),
        (["-mmp", "true"], "mmap", False),
        (["--memory", "1,2", "--power", "0"], "memories", [1, 2]),
        ([], "models", [""]),
        (["-mr", "49", "-scn", "3", "-dyo", "8", "-qatten", "1"], "quantised", [1]),
        (["-p", "3", "-h", "--nonsense"], "help", True),
    ],
)
def test_options(words: list[str], field: str, value: object) -> None:
    """Flags are read as the original reads them."""
    assert getattr(parse(words), field) == value


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-flag", "1"],
        ["-p"],
        ["-pg", "1"],
        ["-pg", "1,2,3"],
        ["--mixedSme2NeonRatio", "1"],
    ],
)
def test_bad_options(words: list[str]) -> None:
    """An unknown flag, a missing value and a wrong pair name the argument."""
    with pytest.raises(ArgumentsError, match=words[0]):
        parse(words)


def test_instances() -> None:
    """Rows run in the original's order; zero lengths are skipped."""
    options = Options(prompts=[8, 0, 16], gens=[4, 0], pairs=[(0, 0), (2, 3)], threads=[2, 1])
    first, second = setups(options)
    assert (first.threads, second.threads) == (2, 1)
    assert [(i.prompt, i.gen) for i in instances(options, first)] == [
        (8, 0),
        (16, 0),
        (0, 4),
        (2, 3),
    ]
    options.kv = "true"
    assert instances(options, first) == [
        Instance(first, 8, 4, "demo"),
        Instance(first, 16, 4, "demo"),
    ]


def test_mean_and_std() -> None:
    """Arithmetic mean and sample deviation; 0 when there is nothing to take them of."""
    assert mean_and_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5))
    assert mean_and_std([5.0]) == (5.0, 0.0)
    assert mean_and_std([]) == (0.0, 0.0)


def test_bench_table(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo table has the original's columns in order, then ours; cells are numbers that fit
    together.
    """
    config = write_config(H2O, LOSSLESS)
    assert (
        run_bench(
            "-m",
            config,
            "-kv",
            "true",
            "-p",
            "96,160",
            "-n",
            32,
            "-rep",
            2,
            "-t",
            2,
            "-load",
            "true",
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.endswith("|\n\n")
    rows = table(out)
    assert list(rows[0]) == [*ORIGINAL_COLUMNS, "loadingTime(s)", *EXTRA_COLUMNS]
    assert [row["llm_demo"] for row in rows] == [
        "prompt=96<br>decode=32",
        "prompt=160<br>decode=32",
    ]
    for row in rows:
        assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d<br>\d+\.\d\d ± \d+\.\d\d", row["speed(tok/s)"])
        for name in [*ORIGINAL_COLUMNS[7:], *EXTRA_COLUMNS]:
            assert re.fullmatch(r"\d+\.\d{2,4} ± \d+\.\d{2,4}", row[name]), name
        assert row["h2o_lossless_fallback"] == "0.00 ± 0.00"
        assert float(row["h2o_lossless_decomp_us"].split()[0]) > 0
        assert float(row["h2o_lossless_async_queue_peak"].split()[0]) >= 1
        assert row["h2o_evictions_planned"] == row["h2o_evictions_applied"] != "0.00 ± 0.00"
    assert rows[0]["threads"] == "2"


def test_bench_padding(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Header, rule and cells are padded byte for byte like the original's."""
    assert run_bench("-m", write_config(), "-kv", "true", "-p", 8, "-n", 2, "-rep", 1) == 0
    header, rule, row = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    )
    assert header.startswith(
        "| model                          |  modelSize | backend    | threads | precision  | "
        "llm_demo   |"
    )
    assert rule.startswith(
        "| ------------------------------ | ---------: | ---------- | ----: | ---------- | "
        "---------- |"
    )
    assert "|     4 | Low        | prompt=8<br>decode=2 |" in row
    assert (
        "| 1.0000 ± 0.0000 | 1.000 ± 0.000 | 1.000 ± 0.000 |          1.0000 ± 0.0000 | 1.0000 ± "
        "0.0000 |" in row
    )


def test_bench_json_and_table_file(write_config: Write, tmp_path: Path) -> None:
    """The table file is appended to, the JSON file replaced, and both hold the same numbers."""
    table_file, json_file = tmp_path / "table.md", tmp_path / "out.json"
    for _ in range(2):
        argv = ["-m", write_config(H2O), "-kv", "true", "-p", 160, "-n", 16, "-rep", 2]
        assert run_bench(*argv, "-fp", table_file, "-j", json_file) == 0
    text = table_file.read_text()
    assert text.count("| model ") == 2
    row, document = table(text[text.rindex("| model ") :])[0], json.loads(json_file.read_text())
    (result,) = document["results"]
    assert result["type"] == "prefill_and_decode"
    assert (result["prompt_len"], result["generate_len"]) == (160, 16)
    assert (
        row["h2o_lossy"] == f"{result['h2o_lossy_ratio']:.3f} ± {result['h2o_lossy_ratio_std']:.3f}"
    )
    assert row["speed(tok/s)"].endswith(f"{result['decode_tps']:.2f} ± {result['decode_std']:.2f}")
    assert document["backend"] == "CPU"


def test_bench_test_columns(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -kv true prompt, decode and pair rows are measured apart, without h2o columns."""
    assert run_bench("-m", write_config(), "-p", "8,16", "-n", 4, "-pg", "8,4", "-rep", 1) == 0
    rows = table(capsys.readouterr().out)
    assert [row["test"] for row in rows] == ["pp8", "pp16", "tg4", "pp8+tg4"]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", row["t/s"]) for row in rows)
    assert "h2o_keep" not in rows[0]


def test_bench_optional_columns(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns of flags that were given appear where the original puts them; int8 attention switches
    H2O off.
    """
    argv = ["-m", write_config(H2O), "-kv", "true", "-p", 160, "-n", 16, "-rep", 1]
    assert run_bench(*argv, "-qatten", 1, "-c", "0,2", "-t", "1,2", "-mmp", 1, "-scn", 3) == 0
    rows = table(capsys.readouterr().out)
    assert list(rows[0])[:9] == [
        *ORIGINAL_COLUMNS[:5],
        "attentionOption",
        "smeCoreNum",
        "mmap",
        "llm_demo",
    ]
    assert [(row["precision"], row["threads"]) for row in rows] == [
        ("Normal", "2"), ("Normal", "1"), ("Low", "2"), ("Low", "1"),
    ]  # fmt: skip
    assert rows[0]["attentionOption"] == "Int8 Q,K"
    assert rows[0]["h2o_lossy"] == "1.000 ± 0.000"


def test_bench_nothing_to_do(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """No instance: no table, only the final newline."""
    assert run_bench("-m", write_config(), "-kv", "true", "-p", 0) == 0
    assert capsys.readouterr().out == f"{bench.BANNER}\n\n"


def test_bench_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Help ends with 0; a bad flag is named on stderr, usage follows, exit code 255."""
    assert run_bench("--help") == 0
    assert "usage: " in capsys.readouterr().out
    assert run_bench("--no-such-flag", 1) == 255
    captured = capsys.readouterr()
    assert captured.err == "error: invalid parameter for argument: --no-such-flag\n"
    assert captured.out.endswith("Parse arguments error\n")


def test_bench_context_exceeded(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """More tokens than the context are refused with both numbers."""
    assert run_bench("-m", write_config(), "-kv", "true", "-p", 1020, "-n", 8, "-rep", 1) == 1
    assert (
        "1020 prompt tokens and 8 new ones exceed the model's context of 1024"
        in capsys.readouterr().err
    )


def test_bench_process(write_config: Write, tmp_path: Path) -> None:
    """As a process: exit codes and streams of a good run and of missing files."""

    def run(*argv: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest_h2o.engine.bench", *map(str, argv)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )

    good = run("-m", write_config(), "-kv", "true", "-p", 8, "-n", 2, "-rep", 1)
    assert (good.returncode, good.stderr, len(table(good.stdout))) == (0, "", 1)
    missing = run("-m", "nowhere/config.json")
    assert missing.returncode == 1
    assert "Unable to open config file: nowhere/config.json" in missing.stderr
    no_weights = run("-m", write_config(llm_weight="nothing.safetensors"))
    assert no_weights.returncode == 1
    assert "File not exist: " in no_weights.stderr


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    """A text long enough to evict under the tiny settings."""
    path = tmp_path / "prompt_128_1.txt"
    path.write_text("The cache holds keys and values of every token.\n" * 12)
    return path


@pytest.fixture
def shipped_config(tmp_path: Path) -> Write:
    """A config on the shipped weights."""

    def write(*settings: dict[str, object], **keys: object) -> Path:
        config: dict[str, object] = {"base_dir": f"{SHIPPED}/", "llm_weight": "model.safetensors"}
        for more in (*settings, keys):
            config |= more
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        return path

    return write


def run_demo(*argv: object) -> int:
    """The command in this process."""
    return demo.main([str(word) for word in argv])


def test_demo(
    shipped_config: Write, prompt_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Text, log lines, summary and JSONL record in the original's order, with our keys last."""
    config, record_file = (
        shipped_config(H2O, LOSSLESS, kv_h2o_log_stats=True),
        tmp_path / "metrics.jsonl",
    )
    extra = ["--metrics-jsonl", record_file, "--prompt-file-mode=whole"]
    assert run_demo(config, prompt_file, 24, *extra) == 0
    out = capfd.readouterr().out
    record = json.loads(record_file.read_text())
    assert list(record) == RECORD_KEYS + EXTRA_COLUMNS
    assert 0 < record["decode_tokens"] <= 24
    assert record["h2o_evictions_applied"] == out.count("[H2O] layer=") > 0
    assert out.count("[H2O-LOSSLESS] layer=") == record["h2o_lossless_blocks"] > 0
    pattern = (
        r"(?s)The device supports: .*\nconfig path is .*\nmain, \d+, cost time: [\d.]+ ms\n"
        r"Prepare for tuning opt Begin\nPrepare for tuning opt End\nmain, \d+, cost time: [\d.]+ "
        r"ms\n"
        r"prompt file is .*\n#{33}\n"
        rf"prompt tokens num = {record['prompt_tokens']}\ndecode tokens num = "
        rf"{record['decode_tokens']}\n"
        r" vision time = 0.00 s\n pixels_mp = 0.00 MP\n  audio process time = 0.00 s\n  audio "
        r"input time = 0.00 s\n"
        r"prefill time = \d+\.\d\d s\n decode time = \d+\.\d\d s\n sample time = \d+\.\d\d s\n"
        r"prefill speed = \d+\.\d\d tok/s\n decode speed = \d+\.\d\d tok/s\n vision speed = "
        r"0.000 MP/s\n"
        r" audio RTF = -nan \n#{34}\n"
    )
    assert re.fullmatch(pattern, out)


def test_demo_lines(
    shipped_config: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Line by line: one record per prompt, prompts that begin with # are skipped, records are
    appended.
    """
    prompts, record_file = tmp_path / "prompts.txt", tmp_path / "metrics.jsonl"
    prompts.write_text("first prompt\r\n\n# a comment\nsecond prompt\n")
    for _ in range(2):
        assert run_demo(shipped_config(), prompts, 2, f"--metrics-jsonl={record_file}") == 0
    records = [json.loads(line) for line in record_file.read_text().splitlines()]
    assert [record["prompt_index"] for record in records] == [0, 2, 0, 2]
    assert records[0]["h2o_lossy_ratio"] == 1
    assert "prompt tokens num = " in capfd.readouterr().out


def test_demo_default_budget(
    shipped_config: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a budget on the command line, the config's holds."""
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("The cache holds")
    assert run_demo(shipped_config(max_new_tokens=3), prompt) == 0
    assert "\ndecode tokens num = 3\n" in capfd.readouterr().out


def test_demo_comment_file(
    shipped_config: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole file that begins with # is skipped: no record, no tokens, no speed."""
    prompt, record_file = tmp_path / "prompt.txt", tmp_path / "metrics.jsonl"
    prompt.write_text("# heading\ntext\n")
    assert (
        run_demo(
            shipped_config(),
            prompt,
            2,
            "--prompt-file-mode",
            "whole",
            "--metrics-jsonl",
            record_file,
        )
        == 0
    )
    out = capfd.readouterr().out
    assert "prompt tokens num = 0\n" in out
    assert " decode speed = -nan tok/s\n" in out
    assert not record_file.exists()


def test_demo_prefill_only(
    shipped_config: Write, prompt_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A budget of 0 reads the prompt and writes nothing."""
    assert run_demo(shipped_config(), prompt_file, 0, "--prompt-file-as-whole") == 0
    assert "decode tokens num = 0\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["c"], (None, None, False, False)),
        (["c", "p", "12x"], (12, None, False, False)),
        (["c", "p", "x"], (0, None, False, False)),
        (["c", "p", "5", "--metrics-jsonl", "m"], (5, Path("m"), False, False)),
        (["c", "p", "5", "--metrics-jsonl"], (5, None, False, True)),
        (["c", "p", "5", "--prompt-file-mode", "file"], (5, None, True, False)),
        (["c", "p", "5", "--prompt-file-mode", "lines"], (5, None, False, False)),
        (["c", "p", "5", "--prompt-file-mode=file"], (5, None, False, True)),
        (["c", "p", "5", "--no-thinking", "--prompt-file-as-whole"], (5, None, True, True)),
    ],
)
def test_demo_arguments(
    words: list[str], expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words after the config are read as the original reads them."""
    monkeypatch.delenv("LLM_DEMO_METRICS_JSONL", raising=False)
    arguments = demo.parse(words)
    assert (
        arguments.max_tokens,
        arguments.metrics,
        arguments.whole_file,
        arguments.no_thinking,
    ) == expected


def test_demo_metrics_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the metrics file unless the command line does."""
    monkeypatch.setenv("LLM_DEMO_METRICS_JSONL", "env.jsonl")
    assert demo.parse(["c", "p", "5"]).metrics == Path("env.jsonl")
    assert demo.parse(["c", "p", "5", "--metrics-jsonl", "own"]).metrics == Path("own")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file or directory"), (b"\xff", "not UTF-8")]
)
def test_text_that_cannot_be_read(
    tmp_path: Path, content: bytes | None, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The text whose perplexity was asked for is named."""
    path = tmp_path / "text"
    if content:
        path.write_bytes(content)
    assert run_bench("--quality", path) == 1
    assert capfd.readouterr().err.startswith(f"error: {path}: {message}")


def test_demo_errors(
    shipped_config: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Usage, a model that cannot be loaded and a prompt file that is missing or empty all end with
    1 and a reason.
    """
    assert run_demo() == 1
    assert "Usage: " in capfd.readouterr().out
    assert run_demo("--help") == 0
    assert "Usage: " in capfd.readouterr().out
    assert run_demo(tmp_path / "none.json", "p", 1) == 1
    captured = capfd.readouterr()
    assert "LLM init error" in captured.out
    assert "none.json" in captured.err
    assert run_demo(shipped_config(), tmp_path / "none.txt", 1) == 1
    assert "none.txt" in capfd.readouterr().err
    (tmp_path / "empty.txt").write_text("\n\n")
    assert run_demo(shipped_config(), tmp_path / "empty.txt", 1, "--prompt-file-as-whole") == 1
    assert "no prompt in it" in capfd.readouterr().err
