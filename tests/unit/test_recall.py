"""A repeated passage: how it is asked for, and what the answers of both sides say."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_functions import RELATIONS, judge

from pytest_h2o.evidence.written_texts import Written, alike
from pytest_h2o.lab.recall import judged
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.relations import PASSAGE_TOKENS, recalled
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.unseen import CUE, PASSAGE, continuation, recalling
from pytest_h2o.runs.records import LaunchRecord, standard_paths

TEXT = " ".join(f"word{number}" for number in range(100))
EXPECTED = continuation(recalling(TEXT))


def wrote(count: int) -> Written:
    """An answer that goes on with so many words of the passage, then with others."""
    spec = LaunchSpec(
        program="llm_demo", arm="candidate", replicate=1, config={}, gen_tokens=64,
        prompt_file=Path("recall_prompt.txt"),
    )  # fmt: skip
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(Path("launch")))
    return Written(record, " ".join([*EXPECTED[:count], "and", "something", "else"]))


def test_prompt_ends_as_its_last_passage_begins() -> None:
    """It has as many words as before, and what follows is what followed the first time."""
    prompt = recalling(TEXT).split()
    assert len(prompt) == len(TEXT.split())
    first = prompt.index(prompt[-CUE])
    assert prompt[first : first + CUE] == prompt[-CUE:]
    assert prompt[first + CUE : first + PASSAGE] == EXPECTED
    assert recalling("too few words") == ""


@pytest.mark.parametrize(
    ("baseline", "candidate", "outcome"),
    [
        (16, 16, "pass"),
        (16, 12, "pass"),
        (16, 11, "fail"),
        (16, 0, "fail"),
        (8, 16, "pass"),
        (8, 3, "fail"),
        (7, 0, "skipped"),
    ],
)
def test_passage_is_continued_as_far_as_without_eviction(
    baseline: int, candidate: int, outcome: str
) -> None:
    """A quarter of the words may be lost; a model that copies less than half tells nothing."""
    found = judged(EXPECTED, wrote(baseline), wrote(candidate), 0.25)
    verdict = judge(
        RELATIONS.test_passages_are_recalled, resolve((), suite="final"), recalled_passage=found
    )
    assert verdict.outcome == outcome


def test_evidence_that_is_required_and_cannot_be_had() -> None:
    """What a model cannot show is off, and a failure where evidence is asked for."""
    found = judged(EXPECTED, wrote(0), wrote(0), 0.25)
    verdict = judge(
        RELATIONS.test_passages_are_recalled,
        resolve((), suite="final"),
        require_evidence=True,
        recalled_passage=found,
    )
    assert verdict.outcome == "fail"
    assert "does not copy" in verdict.reason


def test_only_words_one_after_the_other_count() -> None:
    """A word that is another one ends the passage."""
    assert alike(["a", "b", "c"], ["a", "x", "c"]) == 1
    assert alike(["a", "b"], ["a", "b", "c"]) == 2


def test_passage_is_recent() -> None:
    """Settings that protect fewer tokens than the passage has would lose it honestly."""
    for asked, protected in ((32, PASSAGE_TOKENS), (200, 200)):
        candidate = LaunchSpec(
            program="llm_demo", arm="candidate", replicate=1, gen_tokens=64,
            config={"kv_h2o_enable": True, "kv_h2o_recent_tokens": asked},
        )  # fmt: skip
        pair = recalled(candidate, Path("recall_prompt.txt"), 32)
        assert pair.other.spec.config["kv_h2o_recent_tokens"] == protected
        assert "kv_h2o_recent_tokens" not in pair.expected.spec.config
