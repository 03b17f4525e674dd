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
from pytest_h2o.codec.payload import zstd_compress, zstd_decompress, zstd_sizes
from pytest_h2o.codec.planes import Plane, Words, bitshuffle, bitunshuffle, entropies, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS, Predictor

_HEADER = struct.Struct("<HHI")
_STREAM = struct.Struct("<II")
_SHUFFLED = 1 << 31

_SHORT = 1024  # up to this many bytes comparing is cheaper than compressing twice
_STRETCH_BYTES = 1 << 20  # of a plane are tried at a time, because all candidates of it are held at once
_SAMPLED_ROWS, _SAMPLED_COLUMNS = 12, 32
_CLEAR_GAIN, _CERTAIN_GAIN = 0.1, 1.0  # bits per byte

MAX_WIDTH = 0xFFFF  # kv_heads and head_dim
MAX_ROWS = _SHUFFLED - 1


@dataclass(frozen=True, slots=True)
class PlaneCoding:
    """How to code one plane: the candidate predictors of each block of ``block_rows`` rows (0: a single block), or of
    all blocks alike (``uniform``).
    """

    predictors: tuple[str, ...]
    block_rows: int
    level: int = 3
    shuffle: bool = False
    uniform: bool = False


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
    predictors = [PREDICTORS[name] for name in coding.predictors]
    alike = coding.uniform or len(plane) <= rows or len(predictors) == 1
    chosen, payload = (_try_planes if alike else _try_stretches)(plane, rows, predictors, coding)
    return EncodedPlane(bytes(predictors[index].mode for index in chosen), rows, coding.shuffle, payload)


def _try_planes(
    plane: Plane, rows: int, predictors: Sequence[Predictor], coding: PlaneCoding
) -> tuple[list[int], bytes]:
    """Index of the predictor that is best for the whole plane, for each block, and the frame of the residuals."""
    streams = [_residual(plane, rows, predictor, coding) for predictor in predictors]
    best, payload = _smallest(streams, coding.level)
    return [best] * len(_blocks(plane, rows)), payload


def _try_stretches(
    plane: Plane, rows: int, predictors: Sequence[Predictor], coding: PlaneCoding
) -> tuple[list[int], bytes]:
    """Index of the predictor of each block by trial, and the frame of the residuals."""
    step = rows * max(1, _STRETCH_BYTES // (rows * prod(plane.shape[1:])))
    stretches = [_try_blocks(plane[at : at + step], rows, predictors, coding) for at in range(0, len(plane), step)]
    chosen = [index for indexes, _ in stretches for index in indexes]
    return chosen, zstd_compress(np.concatenate([residual for _, residual in stretches]), coding.level)


def _try_blocks(
    plane: Plane, rows: int, predictors: Sequence[Predictor], coding: PlaneCoding
) -> tuple[list[int], Plane]:
    """Index of the predictor of each block by trial, and the residuals."""
    streams = [_residual(plane, rows, predictor, coding) for predictor in predictors]
    blocks = _blocks(plane, rows)
    chosen: list[int] = zstd_sizes(streams, blocks, coding.level).argmin(axis=0).tolist()
    return chosen, np.concatenate([streams[index][at] for index, at in zip(chosen, blocks, strict=True)])


def contenders(plane: Plane, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the predictors ``names`` worth compressing ``plane`` [seq, kv_heads, head_dim] with: the first, or the
    one whose residual has the least entropy in a sample of the rows if it is clearly less. Both where there is room for
    doubt, and where rows repeat: the residuals of equal rows may differ.
    """
    if not plane.size:
        return (names[0],)
    first = np.arange(_SAMPLED_ROWS) * (len(plane) - 1) // _SAMPLED_ROWS
    pairs = plane[np.minimum(first[:, None] + (0, 1), len(plane) - 1)]
    bits = entropies(np.stack([PREDICTORS[name].encode(pairs, 1)[:, 1].reshape(-1) for name in names]))
    best = int(bits.argmin())
    gain = bits[0] - bits[best]
    if gain <= _CLEAR_GAIN:
        return (names[0],)
    return (names[best],) if gain > _CERTAIN_GAIN and not _repeats(plane) else (names[0], names[best])


def _repeats(plane: Plane) -> bool:
    """Whether more than one row in 16 equals another, going by a sample of the columns."""
    table = plane.reshape(len(plane), -1)
    sample = np.ascontiguousarray(table[:, :: -(-table.shape[1] // _SAMPLED_COLUMNS)])
    distinct = set(sample.view(f"V{sample.shape[1]}").ravel().tolist())
    return len(distinct) < len(plane) * 15 / 16


def _blocks(plane: Plane, rows: int) -> list[slice]:
    """Where each block of ``rows`` rows lies in the flat plane."""
    size = rows * prod(plane.shape[1:])
    return [slice(at, min(at + size, plane.size)) for at in range(0, plane.size, size)]


def _residual(plane: Plane, rows: int, predictor: Predictor, coding: PlaneCoding) -> Plane:
    """Flat residual of ``plane``, the state starting anew at each block, as it is to be compressed."""
    residual = predictor.encode(plane, 0)
    if residual is not plane:
        residual[::rows] = predictor.encode(plane[::rows, None], 1)[:, 0]
    flat = residual.reshape(-1)
    if coding.shuffle:
        flat = np.concatenate([flat[:0], *(bitshuffle(flat[at]) for at in _blocks(plane, rows))])
    return flat


def _smallest(streams: Sequence[Plane], level: int) -> tuple[int, bytes]:
    """Index and frame of the stream that compresses best, the first on a tie; equal short streams are tried once."""
    indexes: Sequence[int] = range(len(streams))
    if streams[0].size <= _SHORT:
        indexes = sorted({streams[index].tobytes(): index for index in reversed(indexes)}.values())
    frames = {index: zstd_compress(streams[index], level) for index in indexes}
    best = min(frames, key=lambda index: len(frames[index]))
    return best, frames[best]


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
