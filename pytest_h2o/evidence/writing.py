"""What a written text shows of itself: whether it says one thing over and over, and of what
characters it is made.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise

# Pieces of so many characters at most, so often at least, are one thing over and over.
LONGEST_PIECE, PIECES, LEAST_REPEATED = 12, 4, 8
# A text loops where so few of its stretches of six characters are new.
STRETCH = 6
# An end that says the same so often repeats itself.
TIMES = 3
END_CHARS = 1 << 15
_OVER_AND_OVER = re.compile(rf"(.{{1,{LONGEST_PIECE}}}?)\1{{{LEAST_REPEATED - 1},}}", re.DOTALL)


def is_one_thing(text: str) -> bool:
    """Whether a text is one short piece over and over."""
    text = text.strip()
    for period in range(1, LONGEST_PIECE + 1):
        if len(text) >= max(LEAST_REPEATED, PIECES * period) and text[period:] == text[:-period]:
            return True
    return False


def novelty(text: str) -> float:
    """The share of stretches of :data:`STRETCH` characters that are different ones."""
    count = max(1, len(text) - STRETCH + 1)
    return len({text[at : at + STRETCH] for at in range(count)}) / count


def longest_repeat(text: str) -> str:
    """The longest stretch that is one short piece over and over, of letters or signs; empty without
    one.
    """
    found = [match[0] for match in _OVER_AND_OVER.finditer(text[-END_CHARS:])]
    return max((stretch for stretch in found if not stretch.isspace()), key=len, default="")


def repeated_end(text: str) -> int:
    """How many characters at the end say the same :data:`TIMES` times or more."""
    backwards = text.rstrip()[-END_CHARS:][::-1]
    longest = 0
    # How much of what has been read is also what it begins with (the prefix function).
    same = [0] * len(backwards)
    for at in range(1, len(backwards)):
        length = same[at - 1]
        while length and backwards[at] != backwards[length]:
            length = same[length - 1]
        same[at] = length + (backwards[at] == backwards[length])
        size = at + 1
        if size >= TIMES * (size - same[at]):
            longest = size
    return longest


def kinds_of(text: str) -> dict[str, float]:
    """The share of each kind of character, without blanks: letters by script, digits, signs."""
    counts = Counter(_kind(character) for character in text if not character.isspace())
    total = counts.total()
    return {kind: count / total for kind, count in counts.most_common()}


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "LM":
        script = unicodedata.name(character, "other").partition(" ")[0]
        if script != "CJK":
            script = script.capitalize()
        return f"{script} letters"
    return "digits" if category[0] == "N" else "signs"


def surprises(reference: str, text: str) -> tuple[float, float]:
    """Bits per character, given the one before, of ``reference`` by what else it holds, and of
    ``text`` by ``reference``.
    """
    pairs, characters = Counter(pairwise(reference)), Counter(reference)
    distinct = len({*reference, *text})

    def bits(written: str, own: int) -> float:
        total = 0.0
        for pair in pairwise(written):
            times, base = pairs[pair] - own, characters[pair[0]] - own
            total -= math.log2((times + 0.1) / (base + 0.1 * distinct + 1))
        return total / max(1, len(written) - 1)

    return bits(reference, 1), bits(text, 0)
