"""Byte planes of rows that repeat no earlier row, and of what is left of those that do: the body of
a ``rope_row`` frame.

``positions`` (of rotated rows only), ``u32`` bytes of each of the following zstd frames but the
last: how far back the reference of each row lies (0: none), the low and the high bytes of rows
without reference, and of rotated rows those of the residuals of the others. A residual is the
zigzag of how many fp16 numbers lie between a value and its turned reference. Unrotated rows repeat
their reference exactly. References are to rows without one.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import IntArray, zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Plane, Words, join, split
from pytest_h2o.codec.rope import (
    Floats32,
    Positions,
    Rope,
    back,
    pack_positions,
    rotate,
    turn,
    unpack_positions,
)
from pytest_h2o.codec.row_reference import finite
from pytest_h2o.codec.row_search import REACH, mean_of, measure_channels, nearest, repeats, size_of

_LENGTH = struct.Struct("<I")
_SEARCHED_CHANNELS = 32
_CLOSE = 16  # fp16 numbers between a value and its turned reference
_LARGEST = np.float32(65504)


def encode_rows(
    words: Words, heads: int, rope: Rope | None, positions: Positions | None
) -> bytes | None:
    """The body of a frame of ``words`` [rows, channels]; rotated ones are in pairs. None where no
    row repeats another: planes of all are smaller then.
    """
    body, residuals = b"", None
    if rope is None or positions is None:
        distances = repeats(words)
    else:
        body = pack_positions(positions)
        distances, residuals = _turned_repeats(words, heads, rope, positions)
    if not distances.any():
        return None
    streams = [distances.astype(np.uint8), *split(words[distances == 0])]
    if residuals is not None:
        streams += split(_zigzag(residuals))
    packed = [zstd_compress(stream.reshape(-1)) for stream in streams]
    for each in packed[:-1]:
        body += _LENGTH.pack(len(each))
    return body + b"".join(packed)


def _turned_repeats(
    words: Words, heads: int, rope: Rope, positions: Positions
) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """How far back the row lies that is the same but for its turn and rounding (0: none), and what
    is left of the rows that have one.
    """
    dim = words.shape[1] // heads
    # Rows that repeat do so in every head: a few of them are searched, then all are looked at.
    searched = min(heads, -(-_SEARCHED_CHANNELS // dim))
    distances = _search(words[:, : searched * dim], searched, rope, positions)
    referring = np.flatnonzero(distances)
    predicted = _predict(words, referring, distances, heads, rope, positions)
    residuals = _ordered(words[referring]) - predicted
    same = np.count_nonzero(np.abs(residuals) < _CLOSE, axis=1) * 2 > words.shape[1]
    distances[referring[~same]] = 0
    return distances, residuals[same]


def _search(words: Words, heads: int, rope: Rope, positions: Positions) -> IntArray:
    """How far back the row lies that seems the same but for its turn; 0: none."""
    half = words.shape[1] // heads // 2
    values = rotate(finite(words), heads, back(turn(rope, 2 * half, positions)))
    channels = measure_channels(values, half)
    values -= mean_of(channels)
    values /= size_of(channels.sizes)
    distances, exact = nearest(values)
    distances[~exact] = 0
    for index in np.flatnonzero(distances):
        onward = distances[index] + distances[index - distances[index]]
        if onward <= REACH:
            distances[index] = onward
    # Only rows without a reference are referred to.
    distances[distances[np.arange(len(distances)) - distances] > 0] = 0
    return distances


def _predict(  # noqa: PLR0913, PLR0917 - the rows, and how they turned
    words: Words,
    referring: IntArray,
    distances: IntArray,
    heads: int,
    rope: Rope,
    positions: Positions,
) -> npt.NDArray[np.int32]:
    """The turned references of rows, as ordered codes."""
    targets = referring - distances[referring]
    by = turn(rope, words.shape[1] // heads, positions[referring] - positions[targets])
    turned: Floats32 = rotate(finite(words[targets]), heads, by)
    halves = np.clip(turned, -_LARGEST, _LARGEST).astype(np.float16)
    return _ordered(halves.view(np.uint16))


def _ordered(words: Words) -> npt.NDArray[np.int32]:
    """fp16 words as integers in the order of their values."""
    signed = words.astype(np.int32)
    return (signed & 0x7FFF) ^ -(signed >> 15)


def _zigzag(residuals: npt.NDArray[np.int32]) -> Words:
    """Residuals, modulo 2^16, small ones of either sign as small words."""
    wrapped = residuals.astype(np.int16)
    return ((wrapped << 1) ^ (wrapped >> 15)).view(np.uint16)


def _unzigzag(words: Words) -> npt.NDArray[np.int32]:
    signed = words.astype(np.int32)
    return (signed >> 1) ^ -(signed & 1)


def decode_rows(body: bytes, rows: int, heads: int, dim: int, rope: Rope | None) -> Words:
    """The words [rows, channels] of a body; CodecError on damage."""
    at = 0
    positions = np.zeros(0, np.int64)
    count = 3
    if rope:
        positions, at = unpack_positions(body, at, rows)
        count = 5
    packed = _read_streams(body, at, count)
    distances = zstd_decompress(packed[0], rows).astype(np.intp)
    referring = np.flatnonzero(distances)
    targets = referring - distances[referring]
    if targets.size and (targets.min() < 0 or distances[targets].any()):
        raise CodecError("a reference leads out of its frame, or to a row that has one")
    channels = heads * dim
    words = np.zeros((rows, channels), np.uint16)
    words[distances == 0] = _read_words(packed[1:3], rows - len(referring), channels)
    if not rope:
        words[referring] = words[targets]
        return words
    predicted = _predict(words, referring, distances, heads, rope, positions)
    residuals = _unzigzag(_read_words(packed[3:], len(referring), channels))
    ordered = (predicted + residuals).astype(np.int16)
    words[referring] = (ordered ^ (ordered >> 15 & 0x7FFF)).view(np.uint16)
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
    return [*streams, body[begin:]]


def _read_words(packed: list[bytes], rows: int, channels: int) -> Words:
    planes: list[Plane] = []
    for each in packed:
        planes.append(zstd_decompress(each, rows * channels).reshape(rows, channels))
    return join(planes)
