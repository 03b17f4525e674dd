"""What baseline and candidate wrote to the same prompt, cut at the first difference, with the
stretch that repeats itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_h2o.evidence.text import Answer, answers
from pytest_h2o.report.frames import beside
from pytest_h2o.runs.records import LaunchRecord

MAX_TEXTS, MAX_CHARS = 24, 4000
LEAST_LOOP, LOOP_TIMES, LONGEST_PERIOD = 60, 3, 200


@dataclass(frozen=True)
class Side:
    """A text in the parts that are marked differently: what both share, what differs, and the loop
    at its end.
    """

    same: str
    other: str
    loop: str
    left_out: int

    @property
    def is_looping(self) -> bool:
        """Whether the text ends in a stretch that repeats itself."""
        return bool(self.loop)


@dataclass(frozen=True)
class SideBySide:
    """The two texts of a prompt; ``agreement`` is a share of characters."""

    label: str
    prompt: str
    agreement: float
    baseline: Side
    candidate: Side


def side_by_side(records: Sequence[LaunchRecord]) -> list[SideBySide]:
    """The texts of each prompt that both sides answered."""
    found = answers(beside(records))
    return [_compared(answer) for answer in found[:MAX_TEXTS]]


def _compared(answer: Answer) -> SideBySide:
    before, after = _plain(answer.baseline), _plain(answer.candidate)
    same = common_length(before, after)
    return SideBySide(
        answer.label, answer.prompt[-600:], answer.agreement, _side(before, same), _side(after, same)
    )  # fmt: skip


def common_length(one: str, other: str) -> int:
    """How many characters are equal from the beginning."""
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return min(len(one), len(other))


def _side(text: str, same: int) -> Side:
    shown = text[:MAX_CHARS]
    at = len(shown)
    # Of a text that is longer only the beginning is shown, which does not loop yet.
    if len(text) <= MAX_CHARS:
        at = loop_start(text)
    return Side(shown[: min(same, at)], shown[same:at], shown[at:], len(text) - len(shown))


def loop_start(text: str) -> int:
    """Where the end of ``text`` begins to repeat itself, at least three times over 60 characters;
    its length if it does not.
    """
    for period in range(1, min(LONGEST_PERIOD, len(text) // LOOP_TIMES) + 1):
        at = len(text) - period
        while at > 0 and text[at - 1] == text[at - 1 + period]:
            at -= 1
        if len(text) - at >= max(LEAST_LOOP, LOOP_TIMES * period):
            return at
    return len(text)


def _plain(text: str) -> str:
    """Without control characters but line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
