"""Encoded sizes that are told again, and those of several prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.evidence.block_sizes import repeated_sizes, sizes_of_prompts
from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.loglines import read_log_facts
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

SIZES = (700, 720, 741, 763, 785)


def lines(sizes: tuple[int, ...]) -> str:
    """A block of each layer, encoded to these sizes."""
    text = ""
    for layer, comp in enumerate(sizes):
        text += (
            f"[H2O-LOSSLESS] layer={layer} kv=520 start=16 tokens=128 raw=1000 attempt_comp={comp}"
            f" eff_comp={comp} updates=1 mode=1\n"
        )
    return text


def look(folder: Path, text: str, prompt: Path | None = None) -> Look:
    """A launch that printed ``text``, of the bench or over a real prompt."""
    folder.mkdir(exist_ok=True)
    (folder / "stdout").write_text(text)
    program, length = ("llm_demo", None) if prompt else ("llm_bench", 512)
    spec = LaunchSpec(
        program=program, arm="full", replicate=1, config={}, gen_tokens=64, repeat=1, threads=1,
        prompt_tokens=length, prompt_file=prompt,
    )  # fmt: skip
    record = LaunchRecord(spec=spec, status="ok", reason="exit code 0", **standard_paths(folder))
    row = Row(
        kind="bench", label=folder.name, prompt_tokens=512, decode_tokens=64, cells={}, line=1,
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
        (lines(SIZES[:3]) + lines((500, 500, 500)), ""),
    ],
    ids=["the same", "kv of earlier requests", "drawn", "once", "too few"],
)
def test_what_is_encoded_again(tmp_path: Path, text: str, standing: str) -> None:
    """Responses to one prompt come to the same sizes, or nearly."""
    found = repeated_sizes(look(tmp_path / "bench", text))
    assert (found.standing if found else "") == standing


@pytest.mark.parametrize(
    ("sizes", "prompt", "standings"),
    [
        (tuple(size + 1 for size in SIZES), "Other words", ["supported"]),
        (SIZES, "Other words", ["contradicted"]),
        (SIZES, "One prompt", []),
        ((1000, 1001, 1002, 1003, 1004), "Other words", []),
    ],
    ids=["own", "of the other", "prompts that begin alike", "none that shrank"],
)
def test_sizes_of_two_prompts(
    tmp_path: Path, sizes: tuple[int, ...], prompt: str, standings: list[str]
) -> None:
    """Blocks of other values have other sizes."""
    paths = tmp_path / "one.txt", tmp_path / "other.txt"
    paths[0].write_text("One prompt")
    paths[1].write_text(prompt)
    one = look(tmp_path / "one", lines(SIZES), paths[0])
    other = look(tmp_path / "other", lines(sizes), paths[1])
    assert [each.standing for each in sizes_of_prompts([one, other])] == standings
    assert list(sizes_of_prompts([one, replace(one)])) == []
