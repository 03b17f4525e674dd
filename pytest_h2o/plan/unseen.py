"""Prompts that nobody has seen: shipped or own texts with other numbers and in another order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_PIECES = re.compile(r".+?(?:[.!?;:](?=\s)|[。！？；]|$)", re.DOTALL)
# Words of a passage, and of its beginning that is repeated; both are recent to any policy.
PASSAGE, CUE = 24, 8
_DIGITS = re.compile(r"\d")
LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")


def made_anew(text: str, seed: int) -> str:
    """``text`` as one line, its sentences in another order and each digit another one.

    Its words stay, so that its length in tokens nearly does. One line can be a prompt among others
    in a file.
    """
    draw = random.Random(seed)
    digits = {digit: str(draw.randrange(1, 10)) for digit in "123456789"}
    pieces = list(_sentences(text))
    draw.shuffle(pieces)
    joined = " ".join(pieces).lstrip("# ")
    return _DIGITS.sub(lambda found: digits.get(found[0], found[0]), joined)


def reordered(text: str, seed: int) -> str:
    """A text of one line with its later sentences in another order, which takes as many tokens.

    A prompt of the same length that begins alike is one that a cache may take for the other.
    """
    pieces = list(_sentences(text))
    first = max(1, len(pieces) // 4)
    later = pieces[first:]
    random.Random(seed).shuffle(later)
    if later == pieces[first:]:
        later.reverse()
    return " ".join(pieces[:first] + later)


def with_one_opening(texts: Sequence[str]) -> list[str]:
    """The texts with the words that the first begins with in place of their own first ones, as many
    characters as a quarter of the shortest has.

    Prompts that begin alike are those that a cache may take for one another.
    """
    size = min(map(len, texts), default=0) // 4
    opening = texts[0][:size].rpartition(" ")[0] if texts else ""
    if not opening:
        return list(texts)
    found = [texts[0]]
    for text in texts[1:]:
        found.append(f"{opening} {text[len(opening) :].partition(' ')[2]}")
    return found


def recalling(text: str) -> str:
    """The text without its first words, and at its end those that its last passage begins with, so
    that it has as many; empty if it is too short.

    A model that copies goes on with the passage.
    """
    words = text.split()
    if len(words) < 2 * PASSAGE:
        return ""
    return " ".join(words[CUE:] + words[-PASSAGE:][:CUE])


def continuation(text: str) -> list[str]:
    """The words that follow where a text of :func:`recalling` goes on as it did before."""
    return text.split()[-PASSAGE:-CUE]


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a text, each in one line."""
    for line in LINE_BREAKS.split(text.strip()):
        for found in _PIECES.finditer(line):
            if piece := found[0].strip():
                yield piece
