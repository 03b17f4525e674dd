"""A model that copies, with positions as they are and with wrong ones."""

from __future__ import annotations

import pytest
from copying_model import copying_model
from staging import Judge, Stage

# A prompt in which no other passage goes on like the one that is repeated.
SETTINGS = ("DECODE_TOKENS=48", "RELATION_TOKENS=48", "THREADS=1", "UNSEEN_SEED=3")


@pytest.mark.parametrize(
    ("fault", "outcome"), [("honest", "pass"), ("renumbers_positions", "fail")]
)
def test_passages_are_recalled(fault: str, outcome: str, stage: Stage, judge: Judge) -> None:
    """What is kept is continued under eviction, and not where positions are wrong."""
    words = stage.faulty(fault, SETTINGS, 1, plain=True)
    config = words.index("--model-config") + 1
    words[config] = str(copying_model(stage.directory / "copying"))
    judged = judge(words, "passages_are_recalled")
    [(found, reason)] = judged.gates.values()
    assert found == outcome, reason
