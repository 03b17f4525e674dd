"""JSON, Markdown, HTML and the command."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path

import jsonschema
import pytest
from offline_dumps import kv, write_entry

from pytest_h2o.commands.offline import add_arguments, run
from pytest_h2o.offline.command import Bar
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result_json import result_schema
from pytest_h2o.offline.tables import to_markdown
from pytest_h2o.report.offline_page import offline_html

ORIGINAL_KEYS = """
    schema_version dump_dir stage scope front_n layer_start layer_end layer_ids selected_layers
    selected_entries selected_dumps entry_mode online_chunk_seq online_framing_bytes
    aggregate_by_stage aggregate_groups online_chunks codec codec_mode bitshuffle adaptive_block_seq
    k_hi_predictors k_lo_predictors v_hi_predictors v_lo_predictors zstd_level k_raw_bytes
    k_compressed_bytes v_raw_bytes v_compressed_bytes k_chunk_meta_bytes v_chunk_meta_bytes
    raw_bytes compressed_bytes k_lossless_ratio v_lossless_ratio lossless_ratio
    weighted_lossless_ratio k_hi_mode_counts k_lo_mode_counts v_hi_mode_counts v_lo_mode_counts
    scanned_entries converted_fp32_entries skipped_entries skip_reasons
"""


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Two layers, one of them with a damaged entry."""
    root = tmp_path / "dump"
    write_entry(root, kv(70, seed=1))
    write_entry(root, kv(70, seed=2), layer=1)
    write_entry(root, kv(2), layer=1, start=70, bytes_per_elem=8)
    return root


def command(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(each) for each in argv]))


def test_json_keys(dump: Path) -> None:
    """The original's keys come first, in its order, and all of it is JSON."""
    values = evaluate(dump, OfflineOptions(layer_ids=(3, 1))).to_json()
    original = ORIGINAL_KEYS.split()
    assert list(values)[: len(original)] == original
    assert (values["schema_version"], values["layer_ids"], values["selected_layers"]) == (
        3,
        [1, 3],
        [0, 1],
    )
    assert values["dump_dir"] == str(dump)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_schema(dump: Path) -> None:
    """Results match the schema that ships, which names each key and leaves no room for others."""
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    results = [
        evaluate(dump, OfflineOptions(fast=fast, layer_ids=(3,))).to_json()
        for fast in (False, True)
    ]
    empty = evaluate(dump, OfflineOptions(min_seq_len=2)).to_json() | {
        "container_ratio": None,
        "layers": [],
    }
    for values in (*results, empty):
        jsonschema.validate(values, schema)
        assert list(schema["properties"]) == schema["required"] == list(values)
    for broken in (
        {"skipped_entries": -1},
        {"evaluated_share": 2},
        {"lossless_ratio": "1"},
        {"more": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(results[0] | broken, schema)


def test_layers_add_up(dump: Path) -> None:
    """Per-layer, per-tensor and per-plane numbers sum to the totals."""
    values = evaluate(dump, OfflineOptions()).to_json()
    layers = values["layers"]
    assert [(each["layer_id"], each["tensor"]) for each in layers] == [
        (0, "k"),
        (0, "v"),
        (1, "k"),
        (1, "v"),
    ]
    for key in ("raw_bytes", "compressed_bytes", "container_bytes"):
        assert sum(each[key] for each in layers) == values[key]
    planes = [each[plane] for each in layers for plane in ("hi", "lo")]
    assert sum(plane["stream_bytes"] for plane in planes) == values["compressed_bytes"]
    assert sum(plane["raw_bytes"] for plane in planes) == values["raw_bytes"]
    assert all(0 < plane["entropy_bits_per_byte"] <= 8 for plane in planes)
    assert sum(each["lo"]["mode_counts"]["raw"] for each in layers if each["tensor"] == "v") == 4


def test_markdown(dump: Path) -> None:
    """All sections are there, ratios with four decimals, and skipped entries by name."""
    result = evaluate(dump, OfflineOptions())
    text, values = to_markdown(result), result.to_json()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["Ratios", "Bytes", "Layers", "Planes", "Predictor Usage", "Diagnostics"]
    assert f"| K+V | {values['lossless_ratio']:.4f} | {values['container_ratio']:.4f} |" in text
    assert f"| K | {values['k_raw_bytes']} | {values['k_compressed_bytes']} | 0 |" in text
    assert "| unsupported_bytes_per_elem_8 | 1 |" in text
    assert "- run/layer_1/meta_t70_72.json: unsupported_bytes_per_elem_8" in text


def test_markdown_planes(dump: Path) -> None:
    """Each plane has its row: stream bytes, bits per byte, entropy and the predictor most of its
    blocks use.
    """
    result = evaluate(dump, OfflineOptions())
    plane = result.tensors[0, "v"].lo
    bits, entropy = (plane.to_json()[key] for key in ("bits_per_byte", "entropy_bits_per_byte"))
    row = f"| 0 | V | low | {plane.stream_bytes} | {bits:.4f} | {entropy:.4f} | raw |"
    assert row in to_markdown(result).splitlines()


def test_html(dump: Path) -> None:
    """The page holds the numbers of three charts and every table, and refers to nothing outside."""
    result = evaluate(dump, OfflineOptions())
    page = offline_html(result)
    specs = re.findall(r'<script type="application/json" class="spec">(.*?)</script>', page)
    charts = [json.loads(spec) for spec in specs]
    assert [len(chart["data"]["values"]) for chart in charts] == [2 * 2, 8 * 2, 4 * 5]
    first = charts[0]["data"]["values"][0]
    assert first == {
        "layer": "layer 0", "tensor": "K", "ratio": round(result.tensors[0, "k"].ratio, 4)
    }  # fmt: skip
    tables = to_markdown(result).count("| --- |\n")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert own.count("<table") == len(charts) + tables
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not set(re.findall(r" src=|url\(|https?:", own))


def test_html_of_hostile_names(tmp_path: Path) -> None:
    """Names from a dump are text, not markup, and stay in their cell."""
    root = tmp_path / "<script>|x"
    write_entry(root, kv(3))
    write_entry(root, kv(1), run="<b>&", start=9, bytes_per_elem=1)
    page = offline_html(evaluate(root, OfflineOptions()))
    assert "<script>|x" not in page
    assert "<b>&" not in page
    assert f">{tmp_path}/&lt;script&gt;|x</td>" in page
    assert "&lt;b&gt;&amp;/layer_0/meta_t9_10.json" in page


def test_markdown_of_many_skips(tmp_path: Path) -> None:
    """A long list of skipped entries is cut, and cells cannot break the table."""
    write_entry(tmp_path, kv(3), run="a|b")
    for start in range(10, 40):
        write_entry(tmp_path, kv(1), start=start, bytes_per_elem=1, run_id="a|b")
    text = to_markdown(evaluate(tmp_path, OfflineOptions()))
    assert text.count("- run/layer_0/") == 20
    assert "- and 10 more" in text
    assert "|" not in text.partition("| dump_dir | ")[2].partition(" |\n")[0].replace(r"\|", "")


def test_command_writes_its_files(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option reaches the evaluation, the outputs hold its result, the summary is one line."""
    outputs = tmp_path / "o.json", tmp_path / "o.md", tmp_path / "o.html"
    files = ["--out-json", outputs[0], "--out-md", outputs[1], "--out-html", outputs[2]]
    settings = [
        "--entry-mode",
        "chunked",
        "--online-chunk-seq",
        32,
        "--k-hi-predictors",
        " xor_seq,raw,",
        "--bitshuffle",
    ]
    assert command(dump, *files, *settings) == 0
    options = OfflineOptions(
        entry_mode="chunked",
        online_chunk_seq=32,
        k_hi_predictors=("xor_seq", "raw"),
        bitshuffle=True,
    )
    expected = evaluate(dump, options)
    assert json.loads(outputs[0].read_text()) == expected.to_json()
    assert outputs[1].read_text() == to_markdown(expected)
    assert outputs[2].read_text() == offline_html(expected)
    out = capsys.readouterr().out
    assert out.startswith(f"lossless ratio {expected.to_json()['lossless_ratio']:.4f} ")
    assert "decoded and compared; 1 skipped" in out


def test_command_prints_the_report(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--verbose prints the Markdown."""
    assert command(dump, "--verbose", "--scope", "layer_ids", "--layer-ids", "1") == 0
    assert "| selected_layers | [1] |" in capsys.readouterr().out


def test_existing_output_is_kept(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An existing output is an error unless --overwrite is given."""
    output = tmp_path / "o.json"
    output.write_text("mine")
    assert command(dump, "--out-json", output) == 1
    assert output.read_text() == "mine"
    assert "o.json exists; give another name or --overwrite" in capsys.readouterr().err
    assert command(dump, "--out-json", output, "--overwrite") == 0
    assert json.loads(output.read_text())["schema_version"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--front-n", "0"], "front_n: expected more than 0"),
        (["--v-hi-predictors", "raw,x"], "v_hi_predictors: unknown predictor 'x'"),
        (["--scope", "layer_ids", "--layer-ids", "9"], "none of 3 entries"),
        (["--out-json", "/nonexistent/o.json"], "No such file or directory"),
    ],
)
def test_command_errors(
    dump: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failures are one line on stderr and exit code 1."""
    assert command(dump, *arguments) == 1
    assert message in capsys.readouterr().err


def test_command_fails_when_nothing_could_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dump of damaged entries only is a failure, with its result written all the same."""
    meta = write_entry(tmp_path / "dump", kv(3))
    (meta.parent / "k_t0_3.bin").write_bytes(b"")
    output = tmp_path / "o.json"
    assert command(tmp_path / "dump", "--out-json", output) == 1
    assert "nothing could be evaluated: {'size_mismatch': 1}" in capsys.readouterr().err
    assert json.loads(output.read_text())["lossless_ratio"] == 0


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line shows share, rate and remaining time, and is not redrawn for every entry."""
    clock = iter([100.0, 100.01, 102.0, 102.1, 104.0])
    monkeypatch.setattr("pytest_h2o.offline.command.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    bar = Bar(stream)
    for done in (1, 10_000_000, 11_000_000, 20_000_000):
        bar(done, 20_000_000)
    shown = [line.strip() for line in stream.getvalue().split("\r")[1:]]
    assert shown[-2:] == ["50% of 20 MB, 5.0 MB/s, 2 s left", "100% of 20 MB, 5.0 MB/s, 0 s left"]
    assert len(shown) == 3
