"""Do words stand in the order of a text? Neighbours that known texts have as well, against how
many there would be if the same words stood in any order.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise, product

MOST_WORDS = 512
_WORD = re.compile(r"\w+|[^\w\s]")
Neighbours = set[tuple[str, str]]


def words_of(text: str) -> list[str]:
    """The first words and signs of a text; one in a script without blanks has few."""
    found = (match[0].lower() for match in _WORD.finditer(text))
    return [word for word, _ in zip(found, range(MOST_WORDS), strict=False)]


def neighbours(texts: Iterable[str]) -> Neighbours:
    """All pairs of words that follow each other somewhere in texts of any length."""
    found: Neighbours = set()
    for text in texts:
        found.update(pairwise(match[0].lower() for match in _WORD.finditer(text)))
    return found


def order(texts: Sequence[Sequence[str]], known: Neighbours) -> float:
    """By how many standard deviations more neighbours of ``texts`` are known than if their words
    were shuffled.
    """
    seen = expected = 0.0
    for words in texts:
        seen += sum(pair in known for pair in pairwise(words))
        expected += _by_chance(Counter(words), known)
    return (seen - expected) / math.sqrt(expected + 1)


def _by_chance(counts: Counter[str], known: Neighbours) -> float:
    """How many known pairs a text of such words has on average, in any order."""
    ways = 0
    for first, second in product(counts, counts):
        if (first, second) in known:
            same = first == second
            ways += counts[first] * (counts[second] - same)
    return ways / max(1, counts.total())
