"""Engines whose numbers are right and whose text is not: each breaks the relation that is about
it.
"""

from __future__ import annotations

import pytest
from staging import Judge, Stage

RELATIONS = "test_relations.py"
LONGER = ("DECODE_TOKENS=64", "RELATION_TOKENS=64")  # what stays is a share of the text


@pytest.mark.parametrize(
    ("defect", "gate", "settings", "words"),
    [
        ("rounded_blocks", "lossless_is_lossless", (), "store"),
        ("renumbered_positions", "more_eviction_keeps_less", LONGER, "stays the baseline's"),
        ("lightest_tokens", "more_eviction_keeps_less", LONGER, "stays the baseline's"),
        ("remembered_requests", "requests_are_strangers", ("RELATION_PROMPTS=2",), "alone"),
        ("drawn_tokens", "repeated_launches_agree", (), "candidate-again beside candidate"),
    ],
)
def test_spoiled_writer_is_caught(  # noqa: PLR0913, PLR0917  a fixture each
    defect: str, gate: str, settings: tuple[str, ...], words: str, stage: Stage, judge: Judge
) -> None:
    """The relation fails, and its reason names what differs."""
    options = stage.spoiled_writer(defect)
    for setting in settings:
        options += ["--h2o-set", setting]
    judged = judge(options, gate, RELATIONS)
    [(outcome, reason)] = judged.gates.values()
    assert outcome == "fail", reason
    assert words in reason


def test_honest_writer_is_accepted(stage: Stage, judge: Judge) -> None:
    """The engine as it is keeps all relations."""
    judged = judge(
        stage.spoiled_writer("honest"), "test_relations and not unseen and not slower", RELATIONS
    )
    assert (judged.failed, len(judged.gates)) == ({}, 7)
