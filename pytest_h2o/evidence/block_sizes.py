"""Do encoded sizes come from the values that are encoded? What is encoded again has the size that
it had, and the size that is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.loglines import LogFacts
from pytest_h2o.verdict import Evidence

SIZES = "encoded sizes come from the values"
COUNTED_SIZES = "encoded sizes are counted as they are"
SAME_VALUES = "with H2O off the values of front layers are the same"
LEAST_PLACES = 2
# Responses to one prompt are encoded to sizes that differ by 1.5 % at most, in real builds that
# keep KV of earlier requests.
SPREAD = 0.02
ROUNDED = 0.99


class BlockPlace(NamedTuple):
    """Where a block lies; ``number`` counts a layer's blocks in a response."""

    layer: int
    start: int
    tokens: int
    number: int | None


def repeated_sizes(look: Look) -> Evidence | None:
    """Needs lines of a bench launch with several responses, which all read one prompt."""
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


def counted_sizes(look: Look) -> Evidence | None:
    """Needs ``attempt_comp=`` beside ``eff_comp=``: the bytes that encoding came to, or the raw
    ones where those are fewer.
    """
    counted, least = look.facts.comp_bytes, 0
    for block, times in look.facts.repeats.blocks.items():
        encoded = block.raw
        if 0 < block.comp < block.raw:
            encoded = block.comp
        least += encoded * times
    if not least or look.facts.repeats.cut:
        return None
    text = f"blocks of {least} encoded bytes are counted as {counted}"
    return look.says(COUNTED_SIZES, counted >= ROUNDED * least, text)


def first_sizes(facts: LogFacts, layers: int) -> dict[BlockPlace, int]:
    """The encoded size of the first block of a response, layer by layer below ``layers``."""
    found: dict[BlockPlace, int] = {}
    for block in facts.repeats.blocks:
        if block.layer < layers and block.number == 1 and 0 < block.comp < block.raw:
            place = BlockPlace(block.layer, block.start, block.tokens, block.number)
            found.setdefault(place, block.comp)
    return found


def same_first_blocks(
    one: Mapping[BlockPlace, int], other: Mapping[BlockPlace, int], where: str
) -> Evidence | None:
    """Needs first blocks at the same places in two launches over one prompt, one of them with H2O
    off: nothing is evicted in layers before those of H2O, so their values are the same.
    """
    common = sorted(one.keys() & other.keys())
    if not common:
        return None
    for place in common:
        sizes = one[place], other[place]
        if min(sizes) < (1 - SPREAD) * max(sizes):
            text = f"{where}: the first block of layer {place.layer} has {sizes[1]} bytes"
            return Evidence.of(SAME_VALUES, False, f"{text}, {sizes[0]} with H2O on")
    text = f"{where}: {len(common)} first blocks are as large as with H2O on"
    return Evidence.of(SAME_VALUES, True, text)


def _sizes(look: Look) -> Mapping[BlockPlace, Mapping[int, int]]:
    """How often a block of each place came to each size; those that did not shrink tell nothing."""
    found = defaultdict[BlockPlace, dict[int, int]](dict)
    for block, times in look.facts.repeats.blocks.items():
        if 0 < block.comp < block.raw:
            sizes = found[BlockPlace(block.layer, block.start, block.tokens, block.number)]
            sizes[block.comp] = sizes.get(block.comp, 0) + times
    return found
