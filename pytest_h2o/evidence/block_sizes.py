"""Do encoded sizes come from the values that are encoded? The same values have one size, and others
have others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.verdict import Evidence

SIZES = "encoded sizes come from the values"
LEAST_PLACES = 4
# Responses to one prompt are encoded to sizes that differ by 1 % at most, in real builds that keep
# KV of earlier requests.
SPREAD = 0.03
# So much of the blocks of two prompts may have the same size by chance.
BY_CHANCE = 0.5
PROMPT_BYTES = 1 << 16
# Prompts that begin alike have blocks that are alike.
SAME_BEGINNING = 32


class BlockPlace(NamedTuple):
    """Where a block lies; ``number`` counts a layer's blocks in a response."""

    layer: int
    start: int
    tokens: int
    number: int | None


def repeated_sizes(look: Look) -> Evidence | None:
    """Needs lines of a bench launch with several responses, which all read one prompt: what is
    encoded again has the size that it had.
    """
    if look.spec.work != "lengths" or not look.alone or look.facts.repeats.cut:
        return None
    spreads: list[float] = []
    for place, sizes in _sizes(look).items():
        if place.number is not None and sum(sizes.values()) > 1:
            spreads.append(1 - min(sizes) / max(sizes))
    if len(spreads) < LEAST_PLACES:
        return None
    typical = median(spreads)
    text = f"{len(spreads)} blocks are encoded again, to sizes that differ by {typical:.1%}"
    return look.says(SIZES, typical <= SPREAD, text)


def sizes_of_prompts(looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs lines of launches over prompts that begin otherwise: their blocks are not as large as
    each other's, place by place.
    """
    told = [look for look in looks if look.spec.prompt_file and look.alone]
    for one, other in pairwise(told):
        if one.spec.prompt_file == other.spec.prompt_file or not _begin_otherwise(one, other):
            continue
        before, after = _sizes(one), _sizes(other)
        common = before.keys() & after.keys()
        if len(common) < LEAST_PLACES:
            continue
        alike = sum(1 for place in common if before[place].keys() == after[place].keys())
        text = f"{alike} of {len(common)} encoded sizes are those of {one.row.label}"
        yield other.says(SIZES, alike <= BY_CHANCE * len(common), text)


def _sizes(look: Look) -> Mapping[BlockPlace, Mapping[int, int]]:
    """How often a block of each place came to each size; those that did not shrink tell nothing."""
    found = defaultdict[BlockPlace, dict[int, int]](dict)
    for block, times in look.facts.repeats.blocks.items():
        if block.comp < block.raw:
            sizes = found[BlockPlace(block.layer, block.start, block.tokens, block.number)]
            sizes[block.comp] = sizes.get(block.comp, 0) + times
    return found


def _begin_otherwise(one: Look, other: Look) -> bool:
    begin, other_begin = _prompt(one)[:SAME_BEGINNING], _prompt(other)[:SAME_BEGINNING]
    return bool(begin and other_begin) and begin != other_begin


def _prompt(look: Look) -> str:
    try:
        with open(look.spec.prompt_file or "", "rb") as file:  # noqa: PTH123
            return decoded(file.read(PROMPT_BYTES)).strip()
    except OSError:
        return ""
