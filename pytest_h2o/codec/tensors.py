"""Container of a K or V tensor [seq, kv_heads, head_dim] of 16-bit words, coded along the sequence
axis.

Little endian: ``u16 kv_heads, u16 head_dim, u32 parts, u32 rows of each part``, then one stream for
the high and one for the low byte plane: ``u32 payload length, u32 rows per block, u8 predictor mode
of each block, zstd frame``. The top bit of the rows per block says that the residuals were
bit-shuffled, each block by itself. A part is a stretch of rows that the reader can tell apart, such
as one dump entry in a group.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from math import prod
from typing import TypeAlias

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import Frame, IntArray, zstd_decompress, zstd_frames
from pytest_h2o.codec.planes import Plane, Words, bitshuffle, bitunshuffle, entropies, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS, Predictor

_HEADER = struct.Struct("<HHI")
_STREAM = struct.Struct("<II")
_SHUFFLED = 1 << 31
_RAW = PREDICTORS["raw"].mode

# So much of a plane is tried at a time, because all candidates of it are held at once.
_STRETCH_BYTES = 1 << 20
_SAMPLED_ROWS = 12
_CLEAR_GAIN = 0.1  # bits per byte

MAX_WIDTH = 0xFFFF  # kv_heads and head_dim
MAX_ROWS = _SHUFFLED - 1

# Index of the predictor of each block, frame of each tensor.
Choice: TypeAlias = tuple[IntArray, list[Frame]]


@dataclass(frozen=True, slots=True)
class PlaneCoding:
    """How to code one plane: the candidate predictors of each block of ``block_rows`` rows (0: a
    single block).

    Each block takes the candidate that compresses best. If ``ranked``, all of a stack take the
    same, chosen by samples.
    """

    predictors: tuple[str, ...]
    block_rows: int
    level: int = 3
    shuffle: bool = False
    ranked: bool = False


@dataclass(frozen=True, slots=True)
class EncodedPlane:
    """A coded plane: the predictor mode of each block, the rows of a block, and one zstd frame of
    all residuals.
    """

    modes: bytes
    block_rows: int
    shuffled: bool
    payload: bytes

    def pieces(self) -> tuple[bytes, bytes, bytes]:
        """The stream as it stands in a container, to be joined."""
        rows = self.block_rows
        if self.shuffled:
            rows |= _SHUFFLED
        return _STREAM.pack(len(self.payload), rows), self.modes, self.payload


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A coded tensor: its width (kv_heads, head_dim), the rows of its parts, and its two planes."""

    width: tuple[int, int]
    parts: tuple[int, ...]
    hi: EncodedPlane
    lo: EncodedPlane

    def to_bytes(self) -> bytes:
        """The container."""
        heads, dim = self.width
        header = _HEADER.pack(heads, dim, len(self.parts))
        parts = np.array(self.parts, "<u4").tobytes()
        return header + parts + self.streams()

    def streams(self) -> bytes:
        """What a container holds behind its header."""
        return b"".join(chain(self.hi.pieces(), self.lo.pieces()))

    @classmethod
    def from_bytes(cls, blob: bytes) -> "EncodedTensor":
        """The tensor of a container; CodecError when it is damaged. Payloads are not looked
        into.
        """
        if len(blob) < _HEADER.size:
            raise CodecError("tensor container ends inside its header")
        heads, dim, count = _HEADER.unpack_from(blob)
        position = _HEADER.size + 4 * count
        if position > len(blob):
            raise CodecError(f"tensor container ends inside its list of {count} parts")
        parts = struct.unpack_from(f"<{count}I", blob, _HEADER.size)
        if not heads or not dim or not sum(parts):
            raise CodecError(
                f"tensor container declares {sum(parts)} rows of {heads} heads of {dim}"
            )
        return cls.from_streams((heads, dim), parts, blob[position:])

    @classmethod
    def from_streams(
        cls, width: tuple[int, int], parts: tuple[int, ...], blob: bytes
    ) -> "EncodedTensor":
        """The tensor of what :meth:`streams` made; CodecError when it is damaged."""
        hi, position = _read_plane(blob, 0, sum(parts))
        lo, position = _read_plane(blob, position, sum(parts))
        if position != len(blob):
            raise CodecError(f"{len(blob) - position} bytes after the last stream")
        return cls(width, parts, hi, lo)


def _read_plane(blob: bytes, position: int, tensor_rows: int) -> tuple[EncodedPlane, int]:
    if position + _STREAM.size > len(blob):
        raise CodecError("tensor container ends inside a stream header")
    stored, rows = _STREAM.unpack_from(blob, position)
    rows, shuffled = rows & ~_SHUFFLED, bool(rows & _SHUFFLED)
    begin = position + _STREAM.size - (-tensor_rows // max(1, rows))
    end = begin + stored
    modes = blob[position + _STREAM.size : begin]
    if rows == 0 or end > len(blob) or not BY_MODE.keys() >= set(modes):
        raise CodecError(f"bad stream: {rows} rows per block, {stored} payload bytes")
    return EncodedPlane(modes, rows, shuffled, blob[begin:end]), end


@dataclass(frozen=True, slots=True)
class _Stack:
    """Where stacked tensors lie, and their blocks: the row that each of ``tensors`` and of
    ``blocks`` begins at, the index of each tensor's ``first`` block, and in all three the end.
    """

    tensors: IntArray
    blocks: IntArray
    first: IntArray


@lru_cache(maxsize=8)
def _stack(lengths: tuple[int, ...], block_rows: tuple[int, ...]) -> _Stack:
    """The stack of tensors of ``lengths`` rows, in blocks of ``block_rows`` each; the planes of a
    batch share it.
    """
    rows = np.array(block_rows, np.intp)
    counts = -(-np.array(lengths, np.intp) // rows)
    tensors = np.append(0, np.cumsum(lengths))
    first = np.append(0, np.cumsum(counts))
    index = np.arange(first[-1]) - np.repeat(first[:-1], counts)  # of each block in its tensor
    begin = np.repeat(tensors[:-1], counts) + index * np.repeat(rows, counts)
    return _Stack(tensors, np.append(begin, tensors[-1]), first)


def encode_tensors(
    words: Words, parts: Sequence[Sequence[int]], hi: PlaneCoding, lo: PlaneCoding
) -> list[EncodedTensor]:
    """Code tensors that are stacked along the sequence in ``words`` [seq, kv_heads, head_dim]
    (uint16), one for each of ``parts``, the rows of its parts. A container does not depend on the
    tensors beside it unless a coding is ranked.
    """
    lengths = tuple(map(sum, parts))
    _check_codable(words, lengths)
    low, high = split(words)
    low_planes = _encode_planes(low, lengths, lo)
    high_planes = _encode_planes(high, lengths, hi)
    width = (words.shape[1], words.shape[2])
    tensors = []
    for rows, high_plane, low_plane in zip(parts, high_planes, low_planes, strict=True):
        tensors.append(EncodedTensor(width, tuple(rows), high_plane, low_plane))
    return tensors


def _check_codable(words: Words, lengths: Sequence[int]) -> None:
    rows, heads, dim = words.shape
    fits = 0 < min(lengths, default=0) <= max(lengths, default=0) <= MAX_ROWS
    if words.dtype != np.uint16 or sum(lengths) != rows or not fits:
        raise CodecError(
            f"cannot code {words.dtype}{words.shape} as {len(lengths)} tensors of {sum(lengths)} "
            f"rows"
        )
    if min(heads, dim) <= 0 or max(heads, dim) > MAX_WIDTH:
        raise CodecError(f"cannot code {heads} heads of {dim}")


def _encode_planes(
    plane: Plane, lengths: tuple[int, ...], coding: PlaneCoding
) -> list[EncodedPlane]:
    """Code the planes of ``lengths`` rows that are stacked in ``plane`` [seq, kv_heads,
    head_dim].
    """
    block_rows = tuple(coding.block_rows or length for length in lengths)
    stack = _stack(lengths, block_rows)
    names = coding.predictors
    if coding.ranked:
        names = _likeliest(plane, coding)
    predictors = [PREDICTORS[name] for name in names]
    if len(names) == 1 or len(stack.blocks) == len(stack.tensors):
        chosen, frames = _try_tensors(plane, stack, predictors, coding)
    else:
        chosen, frames = _try_blocks(plane, stack, predictors, coding)
    modes = bytes(predictors[index].mode for index in chosen)
    planes = []
    for at, (first, last) in enumerate(pairwise(stack.first)):
        payload = frames[at].tobytes()
        planes.append(EncodedPlane(modes[first:last], block_rows[at], coding.shuffle, payload))
    return planes


def _try_tensors(
    plane: Plane, stack: _Stack, predictors: Sequence[Predictor], coding: PlaneCoding
) -> Choice:
    """Give all blocks of a tensor the predictor that is best for it, the first on a tie."""
    streams = [_residual(plane, stack.blocks, predictor, coding) for predictor in predictors]
    frames = zstd_frames(streams, stack.tensors, coding.level)
    best = _smallest(frames)
    smallest = [frames[index][at] for at, index in enumerate(best)]
    return np.repeat(best, np.diff(stack.first)), smallest


def _try_blocks(
    plane: Plane, stack: _Stack, predictors: Sequence[Predictor], coding: PlaneCoding
) -> Choice:
    """Give each block the predictor that compresses it best alone, the first on a tie."""
    chosen, residuals = [], []
    for blocks in _stretches(stack.blocks, _STRETCH_BYTES // prod(plane.shape[1:])):
        stretch, bounds = plane[blocks[0] : blocks[-1]], blocks - blocks[0]
        streams = [_residual(stretch, bounds, predictor, coding) for predictor in predictors]
        best = _smallest(zstd_frames(streams, bounds, coding.level))
        chosen.append(best)
        residuals.append(_pick(streams, np.repeat(best, np.diff(bounds))))
    (frames,) = zstd_frames([np.concatenate(residuals)], stack.tensors, coding.level)
    return np.concatenate(chosen), frames


def _stretches(blocks: IntArray, rows: int) -> Iterator[IntArray]:
    """``blocks`` in runs of at most ``rows`` rows, or of a single block; a run ends where the next
    begins.
    """
    first = 0
    while first < len(blocks) - 1:
        last = max(first + 1, int(np.searchsorted(blocks, blocks[first] + rows, "right")) - 1)
        yield blocks[first : last + 1]
        first = last


def _residual(plane: Plane, blocks: IntArray, predictor: Predictor, coding: PlaneCoding) -> Plane:
    """What is to be compressed of ``plane``, [seq, kv_heads * head_dim]; the state starts anew at
    each block.
    """
    residual = predictor.encode(plane, 0)
    if residual is not plane:
        starts = blocks[:-1]
        residual[starts] = predictor.encode(plane[starts][:, None], 1)[:, 0]
    if coding.shuffle:
        pieces = np.split(residual, blocks[1:-1])
        residual = np.concatenate([bitshuffle(piece) for piece in pieces])
    return residual.reshape(len(plane), -1)


def _smallest(frames: Sequence[Sequence[Frame]]) -> IntArray:
    """Index of the stream with the smallest frame for each part, the first on a tie."""
    sizes = [list(map(len, each)) for each in frames]
    best: IntArray = np.array(sizes).argmin(axis=0)
    return best


def _pick(streams: Sequence[Plane], index: IntArray) -> Plane:
    """Each row from the stream that ``index`` names for it."""
    picked = streams[0].copy()
    for at, stream in enumerate(streams[1:], start=1):
        rows = index == at
        picked[rows] = stream[rows]
    return picked


def _likeliest(plane: Plane, coding: PlaneCoding) -> tuple[str, ...]:
    """The candidate to code all of ``plane`` with: the first, or that whose residual has the least
    entropy in a sample of the rows if it is clearly less and a block in the middle compresses
    better with it. It may not: what repeats compresses well whatever its entropy, and residuals of
    equal rows may differ.
    """
    names = coding.predictors
    first = np.arange(_SAMPLED_ROWS) * (len(plane) - 1) // _SAMPLED_ROWS
    pairs = plane[np.minimum(first[:, None] + (0, 1), len(plane) - 1)]
    residuals = [PREDICTORS[name].encode(pairs, 1)[:, 1].reshape(-1) for name in names]
    bits = entropies(np.stack(residuals))
    best = int(bits.argmin())
    if bits[0] - bits[best] <= _CLEAR_GAIN:
        return names[:1]
    rows = min(len(plane), coding.block_rows or len(plane))
    block = plane[(len(plane) - rows) // 2 :][:rows]
    pair = [PREDICTORS[names[0]], PREDICTORS[names[best]]]
    choice, _ = _try_tensors(block, _stack((rows,), (rows,)), pair, coding)
    if choice[0]:
        return (names[best],)
    return names[:1]


def decode_tensors(tensors: Sequence[EncodedTensor], max_bytes: int) -> Words:
    """Words [seq, kv_heads, head_dim] of ``tensors`` of one width, stacked along the sequence;
    CodecError on damage or when they declare more than ``max_bytes``.
    """
    widths = {tensor.width for tensor in tensors}
    if len(widths) > 1:
        raise CodecError(f"tensors have different widths: {widths}")
    width = tensors[0].width
    lengths = tuple(sum(tensor.parts) for tensor in tensors)
    nbytes = 2 * sum(lengths) * prod(width)
    if nbytes > max_bytes:
        raise CodecError(f"tensors declare {nbytes} bytes, more than {max_bytes}")
    low = _decode_planes([tensor.lo for tensor in tensors], lengths, width)
    high = _decode_planes([tensor.hi for tensor in tensors], lengths, width)
    return join([low, high])


def _decode_planes(
    planes: Sequence[EncodedPlane], lengths: tuple[int, ...], width: tuple[int, int]
) -> Plane:
    """The planes of ``lengths`` rows, stacked along the sequence."""
    stack = _stack(lengths, tuple(plane.block_rows for plane in planes))
    residuals = []
    for encoded, rows in zip(planes, lengths, strict=True):
        residuals.append(_decompress(encoded, rows, prod(width)))
    heads, dim = width
    plane = np.concatenate(residuals).reshape(-1, heads, dim)
    modes = b"".join(each.modes for each in planes)
    alike: dict[tuple[int, int], list[int]] = {}
    for mode, (start, end) in zip(modes, pairwise(stack.blocks.tolist()), strict=True):
        alike.setdefault((mode, end - start), []).append(start)
    for (mode, rows), starts in alike.items():
        if mode != _RAW:
            index = np.add.outer(starts, np.arange(rows))
            plane[index] = BY_MODE[mode].decode(plane[index], 1)
    return plane


def _decompress(plane: EncodedPlane, rows: int, width: int) -> Plane:
    """The flat residual of ``plane``."""
    residual = zstd_decompress(plane.payload, rows * width)
    if not plane.shuffled:
        return residual
    size = plane.block_rows * width
    blocks = [residual[at : at + size] for at in range(0, residual.size, size)]
    return np.concatenate([bitunshuffle(block) for block in blocks])
