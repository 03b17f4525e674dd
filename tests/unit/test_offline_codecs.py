"""Row codecs in the offline evaluation: their columns, and where the embedding comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from offline_dumps import kv, write_entry

from pytest_h2o.cli import main
from pytest_h2o.lab.offline import Evaluation
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import ROW_CODECS, OfflineOptions
from pytest_h2o.offline.result_json import result_schema
from pytest_h2o.offline.tables import to_markdown

OPTIONS = OfflineOptions(
    entry_mode="chunked_grouped", online_chunk_seq=64, online_framing_bytes=8, codecs=ROW_CODECS
)


def repeated(rows: int) -> np.ndarray:
    """K and V of eight tokens that recur in a row; K turns with its position."""
    values = np.resize(kv(8, dim=16).astype(np.float64), (2, rows, 2, 16))
    angles = np.outer(np.arange(rows), 10_000.0 ** (-np.arange(8) / 8))[:, None]
    a, b = values[0, ..., :8].copy(), values[0, ..., 8:].copy()
    values[0, ..., :8] = a * np.cos(angles) - b * np.sin(angles)
    values[0, ..., 8:] = b * np.cos(angles) + a * np.sin(angles)
    return values.astype("<f2")


def test_embedding_of_the_dump_or_given(tmp_path: Path) -> None:
    """Keys are derotated by what meta files name or by what is given; without either the report
    says that they were not.
    """
    write_entry(tmp_path / "named", repeated(150), rope_theta=10000.0, rope_layout="half")
    write_entry(tmp_path / "silent", repeated(150))
    named = evaluate(tmp_path / "named", OPTIONS)
    silent = evaluate(tmp_path / "silent", OPTIONS)
    given = evaluate(tmp_path / "silent", replace(OPTIONS, rope_base=10_000.0))
    for codec in ROW_CODECS:
        ratios = [each.tally("k").row_ratio(codec) for each in (named, given, silent)]
        assert ratios[0] == ratios[1]
        assert ratios[0] > 1.3 * ratios[2]
    assert "without derotation" in to_markdown(silent)
    assert "without derotation" not in to_markdown(named)
    assert [each["derotated"] for each in silent.to_json()["codecs"]] == [False, False]


def test_compatible_numbers_stay(tmp_path: Path) -> None:
    """Measuring other codecs changes nothing of what the compatible one reports."""
    write_entry(tmp_path, repeated(150), rope_theta=10000.0)
    values = evaluate(tmp_path, OPTIONS).to_json()
    plain = evaluate(tmp_path, replace(OPTIONS, codecs=()))
    for key, value in plain.to_json().items():
        if key not in ("codecs", "layers"):
            assert values[key] == value


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_codec_mode(codec: str, tmp_path: Path) -> None:
    """As a codec mode a row codec gives the ratios that it has beside the compatible mode."""
    write_entry(tmp_path, repeated(150), rope_theta=10000.0)
    beside = evaluate(tmp_path, replace(OPTIONS, codecs=(codec,)))
    judged = evaluate(tmp_path, replace(OPTIONS, codecs=(), codec_mode=codec)).to_json()
    assert judged["codec_mode"] == codec
    assert judged["lossless_ratio"] == beside.tally().row_ratio(codec)
    assert judged["k_lossless_ratio"] == beside.tally("k").row_ratio(codec)
    assert judged["lossless_ratio"] > beside.tally().ratio
    assert judged["container_bytes"] == beside.tally().container_bytes
    jsonschema.validate(judged, result_schema())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a column for each codec, and names the known ones if asked for another."""
    write_entry(tmp_path / "dump", repeated(150))
    out = tmp_path / "report.md"
    asked = ["offline", str(tmp_path / "dump"), "--codec", "row_reference", "--rope-base", "10000"]
    assert main([*asked, "--out-md", str(out), "--out-json", str(tmp_path / "r.json")]) == 0
    assert "| row_reference |" in out.read_text()
    assert "; row_reference " in capsys.readouterr().out
    codecs = json.loads((tmp_path / "r.json").read_text())["codecs"]
    in_mode = [*asked[:2], "--codec-mode", "row_reference", "--rope-base", "10000"]
    assert main(in_mode) == 0
    assert f"lossless ratio {codecs[0]['lossless_ratio']:.4f}" in capsys.readouterr().out
    assert [each["codec"] for each in codecs] == ["row_reference"]
    with pytest.raises(OfflineError, match="codec: expected of rope_row, row_reference"):
        OfflineOptions(codecs=("deflate",))


def test_judged_codec() -> None:
    """The compatible ratio is judged unless another codec is named; one that failed or was not
    measured has no value.
    """
    codecs = [
        {"codec": "row_reference", "lossless_ratio": 1.7, "error": ""},
        {"codec": "rope_row", "lossless_ratio": None, "error": "too wide"},
    ]
    found = Evaluation({"lossless_ratio": 1.3, "codecs": codecs})
    assert found.ratio().value == 1.3
    assert "lossless_ratio by row_reference" in [row.label for row in found.ratio().rows]
    assert found.ratio("row_reference").value == 1.7
    assert "too wide" in found.ratio("rope_row").missing
    assert "says nothing" in Evaluation({"lossless_ratio": 1.3}).ratio("rope_row").missing
