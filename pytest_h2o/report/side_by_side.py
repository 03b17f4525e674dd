"""What baseline and candidate wrote to the same prompt, cut where they begin to differ and where a
stretch repeats itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_h2o.evidence.answers import Answer, answers
from pytest_h2o.report.frames import beside
from pytest_h2o.runs.records import LaunchRecord

MAX_TEXTS, MAX_CHARS, PROMPT_CHARS = 24, 4000, 600
LEAST_LOOP = 60
# Three times the same.
_AGAIN = re.compile(r"(.{1,200}?)\1{2,}", re.DOTALL)
_NUMBERS = re.compile(r"([0-9]{1,9})")


@dataclass(frozen=True)
class Stretch:
    """A part of a text, and how it is marked."""

    text: str
    differs: bool
    loops: bool


@dataclass(frozen=True)
class TextSide:
    """The stretches of a text; ``left_out`` characters follow."""

    stretches: Sequence[Stretch]
    left_out: int

    @property
    def is_looping(self) -> bool:
        """Whether a stretch repeats itself."""
        return any(each.loops for each in self.stretches)


@dataclass(frozen=True)
class SideBySide:
    """The two texts of a prompt; ``agreement`` is a share of characters."""

    label: str
    prompt: str
    agreement: float
    baseline: TextSide
    candidate: TextSide

    @property
    def remark(self) -> str:
        """Which side loops."""
        sides = {"baseline": self.baseline, "candidate": self.candidate}
        looping = [name for name, side in sides.items() if side.is_looping]
        if len(looping) == 2:
            return "both loop"
        return f"the {looping[0]} loops" if looping else ""


def side_by_side(records: Sequence[LaunchRecord]) -> list[SideBySide]:
    """The texts of each prompt that both sides answered, by name, numbers in their order."""
    found = sorted(answers(beside(records)), key=lambda answer: _in_order(answer.label))
    return [_compared(answer) for answer in found[:MAX_TEXTS]]


def _in_order(label: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for part in _NUMBERS.split(label):
        if part.isdecimal():
            found.append((int(part), ""))
        else:
            found.append((-1, part))
    return found


def _compared(answer: Answer) -> SideBySide:
    before, after = _plain(answer.baseline), _plain(answer.candidate)
    same = common_length(before, after)
    prompt = _plain(answer.prompt[-PROMPT_CHARS:])
    baseline, candidate = _side(before, same), _side(after, same)
    return SideBySide(answer.label, prompt, answer.agreement, baseline, candidate)


def common_length(one: str, other: str) -> int:
    """How many characters are equal from the beginning."""
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return min(len(one), len(other))


def _side(text: str, same: int) -> TextSide:
    shown = text[:MAX_CHARS]
    return TextSide(list(stretches(shown, same)), len(text) - len(shown))


def stretches(text: str, same: int) -> Iterator[Stretch]:
    """The parts of ``text``, of which the first ``same`` characters are those of another."""
    found = loops(text)
    cuts = {0, min(same, len(text)), len(text)}
    for start, end in found:
        cuts |= {start, end}
    ordered = sorted(cuts)
    for start, end in pairwise(ordered):
        is_loop = any(first <= start < last for first, last in found)
        yield Stretch(text[start:end], start >= same, is_loop)


def loops(text: str) -> list[tuple[int, int]]:
    """Where ``text`` says the same at least three times on end, over 60 characters or more."""
    found: list[tuple[int, int]] = []
    done = 0
    match = _AGAIN.search(text)
    while match:
        period, (first, end) = len(match[1]), match.span()
        start = first
        while start > done and text[start - 1] == text[start - 1 + period]:
            start -= 1
        while end < len(text) and text[end] == text[end - period]:
            end += 1
        is_long = end - start >= LEAST_LOOP
        if is_long:
            found.append((start, end))
            done = end
        # What repeats shortly may be part of what repeats at length.
        match = _AGAIN.search(text, end if is_long else first + 1)
    return found


def _plain(text: str) -> str:
    """Without control characters but line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
