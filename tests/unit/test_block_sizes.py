"""Encoded sizes that are told again, and those that are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.evidence.block_sizes import counted_sizes, repeated_sizes
from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.loglines import read_log_facts
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

SIZES = (700, 720, 741)


def lines(sizes: tuple[int, ...], counted: float = 1.0) -> str:
    """A block of each layer, encoded to these sizes, and counted as so much of them."""
    text = ""
    for layer, comp in enumerate(sizes):
        text += (
            f"[H2O-LOSSLESS] layer={layer} kv=520 start=16 tokens=128 raw=1000 attempt_comp={comp}"
            f" eff_comp={min(1000, int(counted * comp))} updates=1 mode=1\n"
        )
    return text


def look(folder: Path, text: str) -> Look:
    """A bench launch that printed ``text``."""
    (folder / "stdout").write_text(text)
    spec = LaunchSpec(
        program="llm_bench", arm="full", replicate=1, config={}, gen_tokens=64, repeat=1, threads=1,
        prompt_tokens=512,
    )  # fmt: skip
    record = LaunchRecord(spec=spec, status="ok", reason="exit code 0", **standard_paths(folder))
    row = Row(
        kind="bench", label="p512_g64", prompt_tokens=512, decode_tokens=64, cells={}, line=1,
        samples={}, source=folder / "log.md", problems=(),
    )  # fmt: skip
    return Look(record, row, read_log_facts(folder / "stdout"))


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        (lines(SIZES) * 3, "supported"),
        (lines(SIZES) + lines(tuple(size + 8 for size in SIZES)), "supported"),
        (lines(SIZES) + lines(tuple(size + 60 for size in SIZES)), "contradicted"),
        (lines(SIZES), ""),
        (lines(SIZES[:1]) + lines((500,)), ""),
        (lines((1000, 1001)) + lines((1100, 1200)), ""),
    ],
    ids=["the same", "kv of earlier requests", "drawn", "once", "too few", "none that shrank"],
)
def test_what_is_encoded_again(tmp_path: Path, text: str, standing: str) -> None:
    """Responses to one prompt come to the same sizes, or nearly."""
    found = repeated_sizes(look(tmp_path, text))
    assert (found.standing if found else "") == standing


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        (lines(SIZES), "supported"),
        (lines((1200, 0, 900)) + lines(SIZES), "contradicted"),
        (lines(SIZES, 0.7), "contradicted"),
        (lines(SIZES, 1.2), "supported"),
        ("", ""),
    ],
    ids=["as encoded", "a failed one counted as nothing", "a part", "raw", "no lines"],
)
def test_what_is_counted(tmp_path: Path, text: str, standing: str) -> None:
    """No block is counted as fewer bytes than it came to."""
    found = counted_sizes(look(tmp_path, text))
    assert (found.standing if found else "") == standing
