"""Values as ranks: what a prediction ``m`` with spread ``s`` makes of an fp16 word, and back.

A value's class tells which symbols are likely; its rank among them is one byte, and what the symbol
leaves open are raw bits. All is integer arithmetic on the bits of the float32 numbers m and s, but
for one product and one quotient. A prediction below zero flips the sign of the word first.
"""

from __future__ import annotations

from functools import cache
from math import erf, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec.payload import IntArray
from pytest_h2o.codec.planes import Plane
from pytest_h2o.codec.rope import Floats32

Ints: TypeAlias = npt.NDArray[np.int32]

ESCAPE = 255
ESCAPE_BITS = 16
_NEAR = 24  # quarters of s that |m| is below in a near class
_NEAR_CLASSES = 4 * _NEAR
_FAR_CLASSES = 29
_FAR_CENTRE = 64
_LARGEST = np.float32(65504)
_LEAST_MASS = 1 / 6000
_SYMBOLS = 1024

# Raw bits by quarters of s: 8 below 1.5 s, 7 below 3 s, 6 below 6 s.
_NEAR_BITS = np.repeat(np.array([8, 7, 6, 6], np.int32), [6, 6, 12, 1])
# Quarter octave of a mantissa, by its top seven bits.
_QUARTERS = np.repeat(np.arange(4, dtype=np.int32), [24, 29, 34, 41])


class Classes(NamedTuple):
    """Of each value: its class, raw bits, whether the class is near, and the offset of symbols."""

    number: Ints
    bits: Ints
    near: npt.NDArray[np.bool_]
    offset: Ints
    negative: npt.NDArray[np.bool_]


class Ranked(NamedTuple):
    """Of each value: its rank, and ``bits`` raw bits ``raw``."""

    ranks: Plane
    raw: Ints
    bits: Ints


def classify(m: Floats32, s: Floats32) -> Classes:
    """The classes of values with predictions ``m`` and spreads ``s`` (above 0), of one shape."""
    magnitude = np.minimum(np.abs(m), _LARGEST)
    quarters = np.minimum(np.float32(4) * magnitude / s, np.float32(_NEAR)).astype(np.int32)
    near = quarters < _NEAR
    spread = s.view(np.int32)
    exponent = (spread >> 23) - 127
    code = magnitude.astype(np.float16).view(np.uint16).astype(np.int32)
    # The exponent of s in ulps of m; the mantissa stays.
    octave = exponent + 25 - np.maximum(code >> 10, 1)
    far_bits = np.maximum(octave - 2, 0)
    near_bits = _NEAR_BITS[quarters]
    bits = np.where(near, near_bits, far_bits)
    near_class = 4 * quarters + (spread >> 21 & 3)
    far_class = 4 * (octave - far_bits) + 17 + _QUARTERS[spread >> 16 & 127]
    far_class = np.maximum(far_class, 0) + _NEAR_CLASSES
    number = np.where(near, near_class, far_class)
    near_offset = (exponent + 5) << (10 - near_bits)
    far_offset = code - (1 << far_bits >> 1)
    offset = np.where(near, near_offset, far_offset)
    return Classes(number, bits, near, offset, m < 0)


def rank(words: npt.NDArray[np.uint16], classes: Classes) -> Ranked:
    """``words`` (of the shape of ``classes``) as ranks and raw bits."""
    number, bits, near, offset, negative = classes
    word = words.astype(np.int32) ^ (negative.astype(np.int32) << 15)
    magnitude = word & 0x7FFF
    sign = word >> 15
    ordered = magnitude ^ -sign
    distance = ordered - offset
    raw = np.where(near, magnitude, distance) & ((1 << bits) - 1)
    near_symbol = ((magnitude >> bits) - offset) & ((0x8000 >> bits) - 1)
    near_symbol |= sign << (15 - bits)
    far_symbol = (distance >> bits) + _FAR_CENTRE
    symbol = np.where(near, near_symbol, far_symbol)
    outside = symbol.view(np.uint32) >= _SYMBOLS
    symbol[outside] = _SYMBOLS - 1
    ranks = rank_table()[number * _SYMBOLS + symbol]
    escaped = (ranks == ESCAPE) | outside
    ranks[escaped] = ESCAPE
    raw[escaped] = word[escaped]
    return Ranked(ranks, raw, np.where(escaped, ESCAPE_BITS, bits))


def unrank(ranks: Plane, raw: Ints, classes: Classes) -> npt.NDArray[np.uint16]:
    """The words again; where a rank is an escape, ``raw`` is the word."""
    number, bits, near, offset, negative = classes
    symbol = symbol_table()[number * 256 + ranks]
    mask = (0x8000 >> bits) - 1
    near_word = (((symbol + offset) & mask) << bits) | raw
    near_word |= (symbol > mask).astype(np.int32) << 15
    ordered = ((symbol - _FAR_CENTRE) << bits) + raw + offset
    far_word = ordered ^ (ordered >> 31 & 0x7FFF)
    word = np.where(near, near_word, far_word)
    word = np.where(ranks == ESCAPE, raw, word)
    word ^= negative.astype(np.int32) << 15
    return word.astype(np.uint16)


def pack_bits(raw: Ints, bits: Ints) -> bytes:
    """``raw`` in as many ``bits`` each (at most 16), least significant first."""
    ends = np.cumsum(bits, dtype=np.int64)
    if not ends.size:
        return b""
    starts = ends - bits
    shifted = raw.astype(np.int64) << (starts & 15)
    place = starts >> 4
    size = int(ends[-1] >> 4) + 2
    # No two share a bit, so that sums are unions.
    halves = np.bincount(place, shifted & 0xFFFF, size)
    halves += np.bincount(place + 1, shifted >> 16, size)
    return halves.astype("<u2").tobytes()[: int(ends[-1] + 7) // 8]


def bit_windows(data: bytes) -> npt.NDArray[np.int32]:
    """The 24 bits from each byte of ``data`` on; zeros follow the end."""
    padded = np.zeros(len(data) + 3, np.int32)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return padded[:-2] | padded[1:-1] << 8 | padded[2:] << 16


def take_bits(windows: npt.NDArray[np.int32], starts: IntArray, bits: Ints) -> Ints:
    """So many ``bits`` (at most 16) from bit ``starts`` on."""
    taken: Ints = windows[starts >> 3] >> (starts & 7).astype(np.int32)
    taken &= (1 << bits) - 1
    return taken


@cache
def symbol_table() -> Ints:
    """The symbol of each class and rank, flat [classes, 256]; 0 where there is none."""
    table = np.zeros((_NEAR_CLASSES + _FAR_CLASSES, 256), np.int32)
    for number, symbols in enumerate(_likely_symbols()):
        table[number, : len(symbols)] = symbols
    return table.reshape(-1)


@cache
def rank_table() -> Plane:
    """The rank of each class and symbol, flat [classes, 1024]; ESCAPE where there is none."""
    table = np.full((_NEAR_CLASSES + _FAR_CLASSES, _SYMBOLS), ESCAPE, np.uint8)
    for number, symbols in enumerate(_likely_symbols()):
        table[number, symbols] = np.arange(len(symbols))
    return table.reshape(-1)


@cache
def _likely_symbols() -> list[IntArray]:
    """Of each class the symbols that are likely enough, the likeliest first, the least on a tie."""
    found = []
    for masses in class_masses():
        # Rounded, so that a tie is one whatever the last bit of a library's erf.
        whole = np.round(masses * 2.0**30)
        order = np.lexsort((np.arange(len(whole)), -whole))
        likely = order[whole[order] > _LEAST_MASS * 2.0**30]
        found.append(likely[:ESCAPE])
    return found


def class_masses() -> list[npt.NDArray[np.float64]]:
    """Of each class the probabilities of its symbols."""
    masses = []
    for number in range(_NEAR_CLASSES):
        masses.append(_near_masses(number >> 2, number & 3))
    for number in range(_FAR_CLASSES):
        ulps = 2.0 ** ((number - 16.5) / 4)
        edges = np.arange(129) - _FAR_CENTRE - 0.5
        masses.append(np.diff(_cumulative(edges / ulps)))
    return masses


def _near_masses(quarters: int, top: int) -> npt.NDArray[np.float64]:
    bits = int(_NEAR_BITS[quarters])
    spread = 1 + (top + 0.5) / 4
    mean = (quarters + 0.5) / 4 * spread
    steps = 1 << (10 - bits)
    codes = np.arange((0x8000 >> bits) + 1)
    edges = 2.0 ** (codes // steps - 10) * (1 + codes % steps / steps)
    above = np.diff(_cumulative((edges - mean) / spread))
    below = -np.diff(_cumulative((-edges - mean) / spread))
    return np.concatenate([above, below])


def _cumulative(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of .96 N(0, 1) + .04 N(0, 2.2²)."""
    narrow = [erf(value / sqrt(2)) for value in x.tolist()]
    wide = [erf(value / 2.2 / sqrt(2)) for value in x.tolist()]
    total: npt.NDArray[np.float64] = 0.48 * np.array(narrow) + 0.02 * np.array(wide) + 0.5
    return total
