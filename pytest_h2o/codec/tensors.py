"""Container of a K or V tensor [seq, kv_heads, head_dim] of 16-bit words, coded along the sequence axis.

Little endian: ``u16 kv_heads, u16 head_dim, u32 parts, u32 rows of each part``, then one stream for the high and one
for the low byte plane: ``u32 payload length, u32 rows per block, u8 predictor mode of each block, zstd frame``. The top
bit of the rows per block says that the residuals were bit-shuffled, each block by itself. A part is a stretch of rows
that the reader can tell apart, such as one dump entry in a group.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Plane, Words, bitshuffle, bitunshuffle, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS

_HEADER = struct.Struct("<HHI")
_STREAM = struct.Struct("<II")
_SHUFFLED = 1 << 31

MAX_WIDTH = 0xFFFF  # kv_heads and head_dim
MAX_ROWS = _SHUFFLED - 1


@dataclass(frozen=True, slots=True)
class PlaneCoding:
    """How to code one plane: the candidate predictors of each block of ``block_rows`` rows (0: a single block)."""

    predictors: tuple[str, ...]
    block_rows: int
    level: int = 3
    shuffle: bool = False


@dataclass(frozen=True, slots=True)
class EncodedPlane:
    """A coded plane: the predictor mode of each block, the rows of a block, and one zstd frame of all residuals."""

    modes: bytes
    block_rows: int
    shuffled: bool
    payload: bytes

    def to_bytes(self) -> bytes:
        """The stream as it stands in a container."""
        rows = self.block_rows | (_SHUFFLED if self.shuffled else 0)
        return _STREAM.pack(len(self.payload), rows) + self.modes + self.payload


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A coded tensor: its width (kv_heads, head_dim), the rows of its parts, and its two planes."""

    width: tuple[int, int]
    parts: tuple[int, ...]
    hi: EncodedPlane
    lo: EncodedPlane

    def to_bytes(self) -> bytes:
        """The container."""
        header = _HEADER.pack(*self.width, len(self.parts)) + struct.pack(f"<{len(self.parts)}I", *self.parts)
        return header + self.hi.to_bytes() + self.lo.to_bytes()


def encode_tensor(words: Words, parts: Sequence[int], hi: PlaneCoding, lo: PlaneCoding) -> EncodedTensor:
    """Code ``words`` [seq, kv_heads, head_dim] (uint16), whose rows are the concatenated ``parts``."""
    rows, heads, dim = words.shape
    if words.dtype != np.uint16 or max(heads, dim) > MAX_WIDTH or rows > MAX_ROWS or sum(parts) != rows:
        raise CodecError(f"cannot code {words.dtype}{words.shape} in {len(parts)} parts of {sum(parts)} rows")
    low, high = split(words)
    return EncodedTensor((heads, dim), tuple(parts), encode_plane(high, hi), encode_plane(low, lo))


def encode_plane(plane: Plane, coding: PlaneCoding) -> EncodedPlane:
    """Code ``plane`` [seq, kv_heads, head_dim]: per block the predictor whose residual compresses best alone (the first
    wins a tie), then all residuals in one zstd frame.
    """
    rows = max(1, coding.block_rows or len(plane))
    blocks = [_choose(plane[at : at + rows], coding) for at in range(0, len(plane), rows)]
    residuals = np.concatenate([plane[:0].reshape(-1), *(residual for _, residual in blocks)])
    modes = bytes(mode for mode, _ in blocks)
    return EncodedPlane(modes, rows, coding.shuffle, zstd_compress(residuals, coding.level))


def _choose(block: Plane, coding: PlaneCoding) -> tuple[int, Plane]:
    """Mode of the best predictor and the flat residual, as it is to be compressed."""
    residuals: dict[int, Plane] = {}
    for predictor in (PREDICTORS[name] for name in coding.predictors):
        residual = predictor.encode(block, 0)
        residuals[predictor.mode] = bitshuffle(residual) if coding.shuffle else residual.reshape(-1)
    if len(residuals) == 1:
        return residuals.popitem()
    mode = min(residuals, key=lambda mode: len(zstd_compress(residuals[mode], coding.level)))
    return mode, residuals[mode]


def decode_tensor(blob: bytes, max_bytes: int) -> tuple[Words, tuple[int, ...]]:
    """Words [seq, kv_heads, head_dim] and the rows of each part; CodecError on damage or beyond ``max_bytes``."""
    if len(blob) < _HEADER.size:
        raise CodecError("tensor container ends inside its header")
    heads, dim, count = _HEADER.unpack_from(blob)
    position = _HEADER.size + 4 * count
    if position > len(blob):
        raise CodecError(f"tensor container ends inside its list of {count} parts")
    parts = struct.unpack_from(f"<{count}I", blob, _HEADER.size)
    shape = (sum(parts), heads, dim)
    if 2 * prod(shape) > max_bytes:
        raise CodecError(f"tensor container declares {2 * prod(shape)} bytes, more than {max_bytes}")
    high, position = _decode_plane(blob, position, shape)
    low, position = _decode_plane(blob, position, shape)
    if position != len(blob):
        raise CodecError(f"{len(blob) - position} bytes after the last stream")
    return join([low, high]), parts


def _decode_plane(blob: bytes, position: int, shape: tuple[int, int, int]) -> tuple[Plane, int]:
    if position + _STREAM.size > len(blob):
        raise CodecError("tensor container ends inside a stream header")
    stored, rows = _STREAM.unpack_from(blob, position)
    rows, shuffled = rows & ~_SHUFFLED, rows & _SHUFFLED
    count = -(-shape[0] // max(1, rows))
    begin = position + _STREAM.size + count
    end = begin + stored
    modes = blob[begin - count : begin]
    if rows == 0 or end > len(blob) or not BY_MODE.keys() >= set(modes):
        raise CodecError(f"bad stream: {rows} rows per block, {stored} payload bytes")
    residual = zstd_decompress(blob[begin:end], prod(shape)).reshape(shape)
    blocks = (residual[at : at + rows] for at in range(0, len(residual), rows))
    if shuffled:
        blocks = (bitunshuffle(block.reshape(-1)).reshape(block.shape) for block in blocks)
    decoded = [BY_MODE[mode].decode(block, 0) for mode, block in zip(modes, blocks, strict=True)]
    return np.concatenate([residual[:0], *decoded]), end
