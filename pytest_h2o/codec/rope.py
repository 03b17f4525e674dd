"""Rotary position embedding as the row codecs undo and redo it: which channels form a pair, and by
how much a pair turns from one position to the next.

A decoder must find the same float32 values bit for bit, so the order of operations is part of the
format: frequencies are rounded to float32, angles are exact products in float64, cosine and sine
are rounded to float32, and a turn takes two products and one sum for each value, never a fused one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.planes import Words

Floats32: TypeAlias = npt.NDArray[np.float32]
Positions: TypeAlias = npt.NDArray[np.int64]

LAYOUTS = ("half", "interleaved")
MAX_POSITION = 1 << 28
_TABLE = 1 << 13  # positions whose turns are kept


@dataclass(frozen=True, slots=True)
class Rope:
    """The embedding of a model: its base, and how heads are laid out.

    ``half`` pairs channel k of a head with k + head_dim / 2, ``interleaved`` 2k with 2k + 1.
    ValueError on another layout or a base that is not above 1.
    """

    base: float = 10000.0
    layout: str = "half"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"RoPE layout {self.layout!r} is not one of {', '.join(LAYOUTS)}")
        if not 1 < self.base < 1e30:
            raise ValueError(f"RoPE base {self.base} is not a number above 1")

    def to_pairs(self, words: Words) -> Words:
        """``words`` [rows, heads, head_dim] with the first of all pairs before the second of all,
        flat [rows, channels].
        """
        rows, heads, dim = words.shape
        if self.layout == "interleaved":
            words = words.reshape(rows, heads, dim // 2, 2).swapaxes(2, 3)
        return words.reshape(rows, heads * dim)

    def from_pairs(self, words: Words, heads: int) -> Words:
        """The inverse of :meth:`to_pairs`."""
        rows, channels = words.shape
        dim = channels // heads
        if self.layout == "interleaved":
            words = words.reshape(rows, heads, 2, dim // 2).swapaxes(2, 3)
        return words.reshape(rows, heads, dim)


@dataclass(frozen=True, slots=True)
class Rotation:
    """That rows of keys were rotated: by which embedding, and the position of each row."""

    rope: Rope
    positions: Positions


class PairedRows(NamedTuple):
    """Words [rows, channels] of ``heads`` heads; if they are rotated, in pairs, and the position of
    each row.
    """

    words: Words
    heads: int
    rope: Rope | None
    positions: Positions


class Turn(NamedTuple):
    """Cosines and sines [rows, head_dim / 2] of the angles that rows turn by."""

    cos: Floats32
    sin: Floats32


def turn(rope: Rope, dim: int, positions: Positions) -> Turn:
    """By what ``positions`` (differences of positions, too) turn each pair of a head of ``dim``."""
    if positions.size and positions.min() >= 0 and positions.max() < _TABLE:
        cos, sin = _table(rope.base, dim)
        return Turn(cos[positions], sin[positions])
    return _turn(rope.base, dim, positions)


@lru_cache(maxsize=8)
def _table(base: float, dim: int) -> Turn:
    return _turn(base, dim, np.arange(_TABLE))


def _turn(base: float, dim: int, positions: Positions) -> Turn:
    half = dim // 2
    exponents = np.arange(half, dtype=np.float64) * 2 / dim
    frequencies = (base**-exponents).astype(np.float32)
    angles = np.multiply.outer(positions.astype(np.float64), frequencies.astype(np.float64))
    return Turn(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


def rotate(values: Floats32, heads: int, by: Turn) -> Floats32:
    """Rows of ``values`` [rows, channels], in pairs, turned: (a cos - b sin, b cos + a sin)."""
    rows, channels = values.shape
    # Whole rows at a time: heads are too short for numpy to be fast.
    cos = np.tile(by.cos, 2 * heads)
    sin = np.tile(np.concatenate([-by.sin, by.sin], axis=1), heads)
    turned: Floats32 = values * cos
    pairs = values.reshape(rows, heads, 2, channels // heads // 2)
    other = pairs[:, :, ::-1].copy().reshape(rows, channels)
    other *= sin
    turned += other
    return turned


def back(by: Turn) -> Turn:
    """The opposite turn."""
    return Turn(by.cos, -by.sin)


def pack_positions(positions: Positions) -> bytes:
    """Positions as runs: ``varint runs``, then of each run its first position (less the end of the
    run before, zigzag) and its rows.
    """
    edges = (np.flatnonzero(np.diff(positions) != 1) + 1).tolist()
    bounds = [0, *edges, len(positions)]
    packed = _varint(len(bounds) - 1)
    end = 0
    for start, stop in pairwise(bounds):
        first = int(positions[start])
        step = first - end
        packed += _varint(2 * step if step >= 0 else -2 * step - 1) + _varint(stop - start)
        end = first + stop - start
    return packed


def unpack_positions(body: bytes, at: int, rows: int) -> tuple[Positions, int]:
    """The positions of ``rows`` rows that are packed at byte ``at``, and where they end."""
    count, at = _read_varint(body, at)
    if count > rows:
        raise CodecError(f"{count} runs of positions for {rows} rows")
    runs: list[Positions] = []
    end = held = 0
    for _ in range(count):
        step, at = _read_varint(body, at)
        length, at = _read_varint(body, at)
        begin = end + (step >> 1 ^ -(step & 1))
        end, held = begin + length, held + length
        if held > rows or not 0 <= begin <= end <= MAX_POSITION:
            raise CodecError(f"a run of {length} positions from {begin} on is out of range")
        runs.append(np.arange(begin, end))
    if held != rows:
        raise CodecError(f"positions of {held} rows, expected {rows}")
    return np.concatenate(runs), at


def _varint(number: int) -> bytes:
    """Seven bits a byte, least significant first; the top bit says that more follow."""
    packed = bytearray()
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 35:
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise CodecError("a frame ends inside its positions")
