"""Answers of two builds to the same prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.evidence.second_build import text_evidence_of_builds
from pytest_h2o.evidence.written_texts import Written
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

TEXT = "a text of some forty letters, more or less"
LATE, EARLY = f"{TEXT[:30]} and another end", "no word is the same in this"


def written(text: str) -> Written:
    spec = LaunchSpec(
        program="llm_demo", arm="full", replicate=1, config={}, gen_tokens=9,
        prompt_file=Path("prompt.txt"),
    )  # fmt: skip
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(Path()))  # type: ignore[arg-type]
    return Written(record, text, 9)


def answers(*own: str) -> list[tuple[Written, Written]]:
    """What the second build wrote, which is always the same, and the build under test."""
    return [(written(TEXT), written(each)) for each in own]


@pytest.mark.parametrize(
    ("own", "plain", "standing"),
    [
        ([TEXT] * 4, [], "supported"),
        ([LATE] * 4, [], "doubtful"),
        ([EARLY] * 4, [], "contradicted"),
        ([LATE] * 4, [TEXT] * 4, "contradicted"),
        ([LATE] * 4, [TEXT, TEXT, TEXT, LATE], "doubtful"),
        ([LATE, TEXT, TEXT, LATE], [TEXT] * 4, "doubtful"),
        ([LATE] * 3, [TEXT] * 3, "doubtful"),
    ],
    ids=["same", "late", "early", "plain same", "plain parts as well", "half", "few"],
)
def test_answers(own: list[str], plain: list[str], standing: str) -> None:
    """Rounding parts some answers late, with H2O off as well; other tokens part most."""
    found = text_evidence_of_builds(answers(*own), 0.4, "", answers(*plain))
    assert found.standing == standing


def test_drawn_answers() -> None:
    """What is drawn at random tells nothing."""
    found = text_evidence_of_builds(answers(*[EARLY] * 4), 0.4, "drawn", answers(*[TEXT] * 4))
    assert found.standing == "doubtful"
