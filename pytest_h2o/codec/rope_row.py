"""Keys that repeat an earlier row but for their turn, and byte planes of the others: the body of a
``rope_row`` frame.

``positions``, ``u32`` bytes of each of the following zstd frames but the last: how far back the
reference of each row lies (0: none), the low and the high bytes of rows without reference, and
those of the residuals of the others. A residual is the zigzag of how many fp16 numbers lie between
a value and its turned reference. References are to rows without one.

Rows that are not rotated have no such body: the byte planes' zstd finds those that repeat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import IntArray, zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Plane, Words, entropies, join, split
from pytest_h2o.codec.predictors import PREDICTORS
from pytest_h2o.codec.rope import (
    PairedRows,
    Positions,
    Rope,
    pack_positions,
    rotate,
    turn,
    unpack_positions,
)
from pytest_h2o.codec.row_reference import finite
from pytest_h2o.codec.row_search import first_alike

Residuals: TypeAlias = npt.NDArray[np.int16]
Floats64: TypeAlias = npt.NDArray[np.float64]
# The body, if any, and what byte planes seem to take instead.
Coded: TypeAlias = tuple[bytes | None, float]

_LENGTH = struct.Struct("<I")
_TOGETHER = 8  # frames; more leave the cache
_SEARCHED_CHANNELS = 32
_ALIKE = 2e-6  # squared relative distance of rows that are the same but for rounding
_CLOSE = 16  # fp16 numbers between a value and its turned reference
_UNTURNED = 0.25  # of the words of a row that are those of its reference
_LARGEST = np.float32(65504)
_SAMPLED_ROWS = 6


@dataclass(frozen=True, slots=True)
class _Keys:
    """Words [rows, channels] of rotated keys, in pairs, and the position of each row."""

    words: Words
    positions: Positions
    heads: int
    rope: Rope

    def turned(self, targets: IntArray, referring: IntArray) -> Residuals:
        """Rows ``targets`` turned to the places of rows ``referring``, as ordered codes."""
        dim = self.words.shape[1] // self.heads
        by = turn(self.rope, dim, self.positions[referring] - self.positions[targets])
        values = rotate(finite(self.words[targets]), self.heads, by)
        np.clip(values, -_LARGEST, _LARGEST, out=values)
        return _ordered(values.astype(np.float16).view(np.uint16))

    def alike(self, starts: IntArray) -> IntArray:
        """How far back the first row lies that seems the same but for its turn (0: none), in frames
        that begin at ``starts``.

        A turn leaves the length of each pair as it is. Rows that repeat do so in every head, so
        that a few of them tell.
        """
        rows, channels = self.words.shape
        dim = channels // self.heads
        heads = min(self.heads, -(-_SEARCHED_CHANNELS // dim))
        values = finite(self.words[:, : heads * dim]).reshape(rows, heads, 2, dim // 2)
        lengths = np.einsum("rhpc,rhpc->rhc", values, values).reshape(rows, -1)
        frames = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((lengths.sum(axis=1), frames))
        lengths = lengths[order]
        steps = np.diff(lengths, axis=0)
        moved = np.einsum("rc,rc->r", steps, steps)
        bound = np.float32(_ALIKE) * np.einsum("rc,rc->r", lengths[1:], lengths[1:])
        return first_alike(order, (moved > bound) | (np.diff(frames) > 0))


def encode_rows(frames: Sequence[PairedRows]) -> list[Coded]:
    """The body of a frame of each of ``frames``; None where rows are not rotated, or none repeats
    another. Also what byte planes of it seem to take; 0 where only trying tells.
    """
    alike: dict[tuple[Rope, int, int], list[int]] = {}
    for index, each in enumerate(frames):
        if each.rope:
            alike.setdefault((each.rope, each.heads, each.words.shape[1]), []).append(index)
    coded: list[Coded] = [(None, 0.0)] * len(frames)
    for (rope, heads, _), indices in alike.items():
        for begin in range(0, len(indices), _TOGETHER):
            some = indices[begin : begin + _TOGETHER]
            keys = _Keys(
                np.concatenate([frames[index].words for index in some]),
                np.concatenate([frames[index].positions for index in some]),
                heads,
                rope,
            )
            starts = np.append(0, np.cumsum([len(frames[index].words) for index in some]))
            for index, found in zip(some, _encode(keys, starts), strict=True):
                coded[index] = found
    return coded


def _encode(keys: _Keys, starts: IntArray) -> Iterator[Coded]:
    """The same of frames of ``keys`` that begin at ``starts``."""
    distances = keys.alike(starts)
    referring = np.flatnonzero(distances)
    residuals = _ordered(keys.words[referring])
    residuals -= keys.turned(referring - distances[referring], referring)
    close = np.count_nonzero(np.abs(residuals) < _CLOSE, axis=1) * 2 > residuals.shape[1]
    distances[referring[~close]] = 0
    referring = referring[close]
    if not referring.size:
        yield from [(None, 0.0)] * (len(starts) - 1)
        return
    unturned = keys.words[referring] == keys.words[referring - distances[referring]]
    visible = unturned.mean(axis=1)
    repeated = split(_zigzag(residuals[close]))
    before = np.append(0, np.cumsum(distances > 0))[starts]
    low, high = _shares(keys.words[distances == 0], starts - before)
    for at, (begin, end) in enumerate(pairwise(starts)):
        first, last = before[at], before[at + 1]
        if first == last:
            yield None, 0.0
            continue
        new = distances[begin:end] == 0
        streams = [distances[begin:end].astype(np.uint8), *split(keys.words[begin:end][new])]
        streams.extend(plane[first:last] for plane in repeated)
        packed = [zstd_compress(stream.reshape(-1)) for stream in streams]
        lengths = [_LENGTH.pack(len(each)) for each in packed[:-1]]
        body = pack_positions(keys.positions[begin:end]) + b"".join(lengths + packed)
        planes = 0.0
        if visible[first:last].mean() < _UNTURNED:
            fresh = len(packed[1]) * low[at] + len(packed[2]) * high[at]
            planes = float(fresh / new.mean())
        yield body, planes


def _shares(words: Words, starts: IntArray) -> Floats64:
    """What a predictor seems to leave of the low and of the high plane of each frame [2, frames],
    by the entropy of a sample of ``words`` [rows, channels]; frames begin at ``starts``.
    """
    rows = np.diff(starts)[:, None] - 1
    first = starts[:-1, None] + np.arange(_SAMPLED_ROWS) * rows // _SAMPLED_ROWS
    after = np.minimum(first + 1, starts[1:, None] - 1)
    planes = np.stack(split(words[np.stack([first, after])]))  # [2 planes, 2 rows, frames, n, C]
    raw, before = planes[:, 1], planes[:, 0]
    residuals = np.stack([raw, raw - before, PREDICTORS["pair_delta"].encode(raw, 0)])
    bits = entropies(residuals.reshape(6 * len(rows), -1)).reshape(3, 2, -1)
    shares: Floats64 = bits.min(axis=0) / np.maximum(bits[0], 1.0)
    return shares


def _ordered(words: Words) -> Residuals:
    """fp16 words as integers in the order of their values; negative ones give their word back."""
    signed = words.view(np.int16)
    return (signed >> 15 & 0x7FFF) ^ signed


def _zigzag(residuals: Residuals) -> Words:
    """Residuals, modulo 2^16, small ones of either sign as small words."""
    return ((residuals << 1) ^ (residuals >> 15)).view(np.uint16)


def _unzigzag(words: Words) -> Residuals:
    return (words >> 1).view(np.int16) ^ -(words & 1).view(np.int16)


def decode_rows(body: bytes, rows: int, heads: int, dim: int, rope: Rope) -> Words:
    """The words [rows, channels] of a body; CodecError on damage."""
    positions, at = unpack_positions(body, 0, rows)
    packed = _read_streams(body, at, 5)
    distances = zstd_decompress(packed[0], rows).astype(np.intp)
    referring = np.flatnonzero(distances)
    targets = referring - distances[referring]
    if targets.size and (targets.min() < 0 or distances[targets].any()):
        raise CodecError("a reference leads out of its frame, or to a row that has one")
    channels = heads * dim
    words = np.zeros((rows, channels), np.uint16)
    words[distances == 0] = _read_words(packed[1:3], rows - len(referring), channels)
    turned = _Keys(words, positions, heads, rope).turned(targets, referring)
    residuals = _unzigzag(_read_words(packed[3:], len(referring), channels))
    words[referring] = _ordered((turned + residuals).view(np.uint16)).view(np.uint16)
    return words


def _read_streams(body: bytes, at: int, count: int) -> list[bytes]:
    begin = at + _LENGTH.size * (count - 1)
    if begin > len(body):
        raise CodecError("a frame ends inside its lengths")
    streams = []
    for (length,) in _LENGTH.iter_unpack(body[at:begin]):
        end = begin + length
        streams.append(body[begin:end])
        begin = end
    if begin > len(body):
        raise CodecError(f"a frame of {len(body)} bytes declares {begin}")
    streams.append(body[begin:])
    return streams


def _read_words(packed: list[bytes], rows: int, channels: int) -> Words:
    planes: list[Plane] = []
    for each in packed:
        planes.append(zstd_decompress(each, rows * channels).reshape(rows, channels))
    return join(planes)
