"""Engines whose numbers are right and whose text is not: each breaks the relation that is about
it.
"""

from __future__ import annotations

import pytest
from staging import Judge, Stage

RELATIONS = "test_relations.py"


@pytest.mark.parametrize(
    ("defect", "gate", "prompts", "words"),
    [
        ("rounded_blocks", "lossless_is_lossless", 1, "store"),
        ("renumbered_positions", "more_eviction_keeps_less", 1, "mild_agreement"),
        ("remembered_requests", "requests_are_strangers", 2, "alone"),
        ("drawn_tokens", "greedy_is_greedy", 1, "candidate-again beside candidate"),
    ],
)
def test_spoiled_writer_is_caught(  # noqa: PLR0913, PLR0917  a fixture each
    defect: str, gate: str, prompts: int, words: str, stage: Stage, judge: Judge
) -> None:
    """The relation fails, and its reason names what differs."""
    options = [*stage.spoiled_writer(defect), "--h2o-set", f"RELATION_PROMPTS={prompts}"]
    judged = judge(options, gate, RELATIONS)
    [(outcome, reason)] = judged.gates.values()
    assert outcome == "fail", reason
    assert words in reason


def test_honest_writer_is_accepted(stage: Stage, judge: Judge) -> None:
    """The engine as it is keeps all relations."""
    options = [*stage.spoiled_writer("honest"), "--h2o-set", "RELATION_PROMPTS=1"]
    judged = judge(options, "test_relations and not unseen", RELATIONS)
    assert (judged.failed, len(judged.gates)) == ({}, 5)
