"""What an encoder looks for: the size of each channel, and for each row an earlier one like it.

Nothing here has to be repeated by a decoder, which reads what was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec.payload import IntArray
from pytest_h2o.codec.planes import Plane, Words
from pytest_h2o.codec.rope import Floats32

REACH = 255  # rows that a reference, a byte, reaches back
MAX_DEPTH = 16
EXACT = 15  # the level of a row that repeats its reference
LEVELS = tuple(
    float(np.sqrt(1 - 4.0**-bits))
    for bits in (0.1, 0.25, 0.45, 0.7, 1, 1.4, 1.85, 2.35, 2.9, 3.5, 4.1, 4.7, 5.4, 6.2)
)
_EXACT_DISTANCE = 2e-5  # a channel, in squared sizes
_BLOCK = 512  # rows compared at a time

Bytes8: TypeAlias = npt.NDArray[np.int8]


class Channels(NamedTuple):
    """Mean and size of each channel, as a frame stores them."""

    sizes: Plane  # 4 log2 of the standard deviation, + 64
    means: Bytes8  # eighths of the standard deviation


class References(NamedTuple):
    """Of each row how far back its reference lies (0: none), and how like it is: 1 to 14 by
    LEVELS, EXACT.
    """

    back: Plane
    levels: Plane


def size_of(sizes: Plane) -> Floats32:
    """Standard deviations of channels: a power of two times one of four constants."""
    quarters = sizes.astype(np.int32) - 64
    sigma: Floats32 = np.ldexp(_QUARTER_OCTAVES[quarters & 3], quarters >> 2)
    return sigma


_QUARTER_OCTAVES = np.array([1, 2**0.25, 2**0.5, 2**0.75], np.float32)


def mean_of(channels: Channels) -> Floats32:
    """Means of channels."""
    mean: Floats32 = channels.means.astype(np.float32) * np.float32(0.125)
    return mean * size_of(channels.sizes)


def measure_channels(values: Floats32, pairs: int) -> Channels:
    """Of finite ``values`` [rows, channels]; ``pairs`` channels to a pair's other one share their
    size (0: none do).
    """
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    variance = np.einsum("ij,ij->j", wide, wide) / len(wide)
    if pairs:
        halves = variance.reshape(-1, 2, pairs)
        halves[:] = halves.mean(axis=1, keepdims=True)
    size = np.maximum(np.sqrt(variance), np.abs(mean) / 15.5)
    sizes = np.round(4 * np.log2(np.maximum(size, 2.0**-16))) + 64
    stored = np.clip(sizes, 0, 255).astype(np.uint8)
    eighths = np.round(8 * mean / size_of(stored))
    return Channels(stored, np.clip(eighths, -127, 127).astype(np.int8))


def repeats(words: Words) -> IntArray:
    """How far back the first equal row of ``words`` [rows, channels] within reach lies; 0: none."""
    keys = np.ascontiguousarray(words).view(f"V{words[0].nbytes}")[:, 0].tolist()
    known: dict[bytes, int] = {}
    numbers = np.array([known.setdefault(key, len(known)) for key in keys])
    order = np.argsort(numbers, kind="stable")
    return first_alike(order, np.diff(numbers[order]) > 0)


def first_alike(order: IntArray, other: npt.NDArray[np.bool_]) -> IntArray:
    """How far back the first row within reach lies that is alike, 0: none. Rows in ``order`` are
    alike until the next is of an ``other`` kind.
    """
    begins = np.append(0, np.flatnonzero(other) + 1)
    firsts = np.minimum.reduceat(order, begins)
    distances = np.zeros(len(order), np.intp)
    distances[order] = order - np.repeat(firsts, np.diff(begins, append=len(order)))
    if distances.max() > REACH:
        return _within_reach(order, other)
    return distances


def _within_reach(order: IntArray, other: npt.NDArray[np.bool_]) -> IntArray:
    """The same where the first row may lie too far back: a later one takes its place then."""
    kinds = np.zeros(len(order), np.intp)
    kinds[order[1:]] = np.cumsum(other)
    found = np.zeros(len(order), np.intp)
    first: dict[int, int] = {}
    for index, kind in enumerate(kinds.tolist()):
        seen = first.get(kind, -REACH - 1)
        if index - seen > REACH:
            first[kind] = index
        else:
            found[index] = index - seen
    return found


def nearest(z: Floats32) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """How far back the nearest earlier row within reach lies, and whether it is the same but for
    rounding.
    """
    back = np.zeros(len(z), np.intp)
    exact = np.zeros(len(z), np.bool_)
    for begin, first, gram, size in _grams(z):
        rows = np.arange(begin, begin + len(gram))
        distance = size[first : first + gram.shape[1]] - 2 * gram
        distance += _hidden(*gram.shape, begin - first)
        best = distance.argmin(axis=1)
        least = distance[np.arange(len(rows)), best] + size[rows]
        exact[rows] = least < _EXACT_DISTANCE * z.shape[1]
        back[rows] = rows - first - best
    return back, exact


def find_references(z: Floats32, exact_back: IntArray) -> References:
    """References for rows of ``z`` [rows, channels], normal values; those in ``exact_back`` are
    exact.
    """
    rows = len(z)
    back, levels = np.zeros(rows, np.intp), np.zeros(rows, np.intp)
    for begin, first, gram, size in _grams(z):
        there = slice(begin, begin + len(gram))
        back[there], levels[there] = _best_levels(gram, size, begin, first, z.shape[1])
    exact = exact_back > 0
    back[exact], levels[exact] = exact_back[exact], EXACT
    return _limit_depth(back.tolist(), levels.tolist())


def _grams(z: Floats32) -> Iterator[tuple[int, int, Floats32, Floats32]]:
    """Blocks of rows: the first, the first within their reach, their products with all from there
    on, and the squares of all rows.
    """
    size = np.einsum("ij,ij->i", z, z)
    for begin in range(0, len(z), _BLOCK):
        first = max(0, begin - REACH)
        block = z[begin : begin + _BLOCK]
        yield begin, first, block @ z[first : begin + len(block)].T, size


@lru_cache(maxsize=4)
def _hidden(rows: int, columns: int, shift: int) -> Floats32:
    """Costs that make what is not earlier, or out of reach, too dear."""
    place = np.arange(columns) - np.arange(rows)[:, None] - shift
    costs = np.zeros((rows, columns), np.float32)
    costs[(place >= 0) | (place < -REACH)] = np.inf
    return costs


def _best_levels(
    gram: Floats32, size: Floats32, begin: int, first: int, channels: int
) -> tuple[IntArray, IntArray]:
    """How far back each row's cheapest reference lies, and its level; both 0 where none pays."""
    rows = np.arange(len(gram))
    own = size[begin : begin + len(gram)]
    earlier = size[first : first + gram.shape[1]]
    hidden = _hidden(*gram.shape, begin - first)
    rho = np.array(LEVELS, np.float32)[:, None]
    rest = 1 - rho * rho
    best = np.zeros(len(gram), np.float32)
    back, levels = np.zeros(len(gram), np.intp), np.zeros(len(gram), np.intp)
    for weight in (1.0, 0.5):
        scores = np.float32(weight * weight) * earlier - np.float32(2 * weight) * gram
        scores += hidden
        at = scores.argmin(axis=1)
        shared, other = gram[rows, at], earlier[at]
        cost = (own - 2 * rho * shared + rho * rho * other) / rest - own
        cost = 0.5 * channels * np.log2(rest) + 0.7213 * cost + np.log2(len(size))
        level = cost.argmin(axis=0)
        least = cost[level, rows]
        better = (least < best) & np.isfinite(scores[rows, at])
        best = np.where(better, least, best)
        back = np.where(better, begin + rows - first - at, back)
        levels = np.where(better, level + 1, levels)
    return back, levels


def _limit_depth(back: list[int], levels: list[int]) -> References:
    """Refer past an exact reference to its own, and give up references that hang too deep."""
    depth = [0] * len(back)
    for index, distance in enumerate(back):
        if not distance:
            continue
        target = index - distance
        while levels[target] == EXACT and index - target + back[target] <= REACH:
            target -= back[target]
        if depth[target] >= MAX_DEPTH:
            back[index] = levels[index] = 0
            continue
        back[index], depth[index] = index - target, depth[target] + 1
    return References(np.array(back, np.uint8), np.array(levels, np.uint8))
