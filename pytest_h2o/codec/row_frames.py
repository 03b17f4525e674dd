"""Frames of the row codecs: the rows of K or V of some tokens, readable without any other frame.

Little endian: ``u32 checksum, u16 rows - 1, u8 heads - 1, u8 head_dim - 1``, then the body: ``u8
kind`` and what that kind holds. The checksum is the CRC-32 of all that follows it and of the
decoded words, token by token, so that neither damage nor another order of float operations goes
unnoticed.
The top bit of the kind says that rows were rotated; the embedding is the reader's to know. A frame
takes the smallest of its codec's body, two byte planes, and the words as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from zlib import crc32

import numpy as np

from pytest_h2o.codec import CodecError, rope_row, row_reference
from pytest_h2o.codec.payload import zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Plane, Words, entropies, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS, Predictor
from pytest_h2o.codec.rope import MAX_POSITION, Positions, Rope, Rotation

HEAD = struct.Struct("<IHBB")
_CHECKSUM = struct.Struct("<I")
_SHAPE = struct.Struct("<HBB")
MAX_ROWS, MAX_WIDTH = 1 << 16, 1 << 8
_LOW = struct.Struct("<I")
_ROTATED = 0x80
_SAMPLED_ROWS = 12
_CLEAR_GAIN = 0.1  # bits per byte
_RAW = PREDICTORS["raw"]
_WORDS, _PLANES, _ROPE_ROW, _ROW_REFERENCE = range(4)

Encode = Callable[[Words, int, Rope | None, Positions | None], bytes | None]

_CODECS: dict[str, tuple[int, Encode]] = {
    "rope_row": (_ROPE_ROW, rope_row.encode_rows),
    "row_reference": (_ROW_REFERENCE, row_reference.encode_rows),
}
ROW_CODECS = tuple(_CODECS)


def encode_frame(words: Words, codec: str, rotation: Rotation | None = None) -> bytes:
    """A frame of ``words`` [rows, heads, head_dim] (uint16, the bits of fp16 numbers).

    ``rotation`` is that of keys; without it, or where heads have an odd width, rows are taken as
    they are. CodecError on words that no frame can hold, ValueError on an unknown codec.
    """
    if codec not in _CODECS:
        raise ValueError(f"unknown row codec {codec!r}; known: {', '.join(_CODECS)}")
    _check_words(words, rotation)
    rows, heads, dim = words.shape
    rotated = rotation is not None and dim % 2 == 0
    rope, positions, flat = None, None, words.reshape(rows, -1)
    if rotation is not None and rotated:
        rope, positions = rotation.rope, rotation.positions
        flat = rope.to_pairs(words)
    kind, encode = _CODECS[codec]
    source = np.ascontiguousarray(words, "<u2").tobytes()
    bodies = [bytes([_PLANES]) + _encode_planes(words), bytes([_WORDS]) + source]
    coded = encode(flat, heads, rope, positions)
    if coded is not None:
        bodies.append(bytes([kind | _ROTATED * rotated]) + coded)
    frame = _SHAPE.pack(rows - 1, heads - 1, dim - 1) + min(bodies, key=len)
    return _CHECKSUM.pack(crc32(source, crc32(frame))) + frame


def _check_words(words: Words, rotation: Rotation | None) -> None:
    if words.dtype != np.uint16 or words.ndim != 3 or not words.size:
        raise CodecError(f"a frame takes rows of uint16 words, got {words.dtype}{words.shape}")
    if words.shape[0] > MAX_ROWS or max(words.shape[1:]) > MAX_WIDTH:
        raise CodecError(f"a frame cannot hold {words.shape}: at most 65536 rows, 256 heads of 256")
    if rotation is None:
        return
    positions = rotation.positions
    if positions.shape != words.shape[:1] or not positions.size:
        raise CodecError(f"{positions.shape} positions for {words.shape[0]} rows")
    if positions.min() < 0 or positions.max() >= MAX_POSITION:
        raise CodecError(f"positions {positions.min()} to {positions.max()} are out of range")


def _encode_planes(words: Words) -> bytes:
    """Both planes: ``u32`` bytes of the low one, then of each ``u8`` predictor mode, zstd frame."""
    low, high = split(words)
    predictor = _likeliest(high)
    low_part, high_part = _encode_plane(low, predictor), _encode_plane(high, predictor)
    return _LOW.pack(len(low_part)) + low_part + high_part


def _encode_plane(plane: Plane, predictor: Predictor) -> bytes:
    """The smaller of the plane as it is, and as ``predictor`` makes it."""
    coded = [bytes([_RAW.mode]) + zstd_compress(plane.reshape(-1))]
    if predictor is not _RAW:
        residual = predictor.encode(plane, 0)
        coded.append(bytes([predictor.mode]) + zstd_compress(residual.reshape(-1)))
    return min(coded, key=len)


def _likeliest(plane: Plane) -> Predictor:
    """The predictor whose residual clearly has the least entropy in a sample of the rows."""
    first = np.arange(_SAMPLED_ROWS) * (len(plane) - 1) // _SAMPLED_ROWS
    after = np.minimum(first + 1, len(plane) - 1)
    before, sample = plane[first].reshape(-1), plane[after].reshape(-1)
    raw, delta, xor = entropies(np.stack([sample, sample - before, sample ^ before])).tolist()
    if raw - min(delta, xor) < _CLEAR_GAIN:
        return _RAW
    if delta <= xor:
        return PREDICTORS["delta_seq"]
    return PREDICTORS["xor_seq"]


def _decode_planes(body: bytes, shape: tuple[int, int, int]) -> Words:
    if len(body) < _LOW.size:
        raise CodecError("a frame ends inside its lengths")
    end = _LOW.size + _LOW.unpack_from(body)[0]
    planes = []
    for part in (body[_LOW.size : end], body[end:]):
        if not part or part[0] not in BY_MODE:
            raise CodecError("a plane of a frame names no predictor")
        residual = zstd_decompress(part[1:], prod(shape)).reshape(shape)
        planes.append(BY_MODE[part[0]].decode(residual, 0))
    return join(planes)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame's head, its kind, and the rest of its body."""

    checksum: int
    shape: tuple[int, int, int]
    kind: int
    rope: Rope | None
    blob: bytes

    @property
    def body(self) -> bytes:
        return self.blob[HEAD.size + 1 :]


def decode_frames(
    blobs: Sequence[bytes], rope: Rope | None = None, max_bytes: int = 1 << 31
) -> list[Words]:
    """Words [rows, heads, head_dim] of each of ``blobs``; many at once are faster than one by one.

    ``rope`` is the embedding of the model. CodecError when a frame is damaged, needs an embedding
    that is not given, or all declare more than ``max_bytes``.
    """
    frames = [_read_head(blob, rope) for blob in blobs]
    declared = sum(2 * prod(frame.shape) for frame in frames)
    if declared > max_bytes:
        raise CodecError(f"frames declare {declared} bytes, more than {max_bytes}")
    decoded: dict[int, Words] = {}
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        if frame.kind == _ROW_REFERENCE:
            alike.setdefault((frame.shape[1:], frame.rope), []).append(index)
        else:
            decoded[index] = _decode_alone(frame)
    for indices in alike.values():
        chosen = [frames[index] for index in indices]
        decoded.update(zip(indices, _decode_together(chosen), strict=True))
    return [_checked(frame, decoded[index]) for index, frame in enumerate(frames)]


def _read_head(blob: bytes, rope: Rope | None) -> _Frame:
    if len(blob) <= HEAD.size:
        raise CodecError(f"a frame of {len(blob)} bytes ends inside its head")
    checksum, rows, heads, dim = HEAD.unpack_from(blob)
    kind = blob[HEAD.size]
    rotated = kind >= _ROTATED
    kind &= ~_ROTATED
    if kind > _ROW_REFERENCE or (rotated and (kind < _ROPE_ROW or dim % 2 == 0)):
        raise CodecError(f"unknown kind of frame: {blob[HEAD.size]}")
    if rotated and rope is None:
        raise CodecError("a frame holds rotated keys: give the RoPE base and layout of the model")
    shape = rows + 1, heads + 1, dim + 1
    return _Frame(checksum, shape, kind, rope if rotated else None, blob)


def _decode_alone(frame: _Frame) -> Words:
    if frame.kind == _PLANES:
        return _decode_planes(frame.body, frame.shape)
    if frame.kind == _ROPE_ROW:
        flat = rope_row.decode_rows(frame.body, *frame.shape, frame.rope)
        return _unflattened(frame, flat)
    if len(frame.body) != 2 * prod(frame.shape):
        raise CodecError(f"{len(frame.body)} bytes for {prod(frame.shape)} words")
    return np.frombuffer(frame.body, "<u2").astype(np.uint16).reshape(frame.shape)


def _decode_together(frames: Sequence[_Frame]) -> list[Words]:
    bodies = [row_reference.read_body(each.body, *each.shape, each.rope) for each in frames]
    decoded = row_reference.decode_bodies(bodies)
    return [_unflattened(frame, flat) for frame, flat in zip(frames, decoded, strict=True)]


def _unflattened(frame: _Frame, flat: Words) -> Words:
    if frame.rope:
        return frame.rope.from_pairs(flat, frame.shape[1])
    return flat.reshape(frame.shape)


def _checked(frame: _Frame, words: Words) -> Words:
    source = np.ascontiguousarray(words, "<u2").tobytes()
    if crc32(source, crc32(frame.blob[_CHECKSUM.size :])) != frame.checksum:
        raise CodecError("a frame does not match its checksum")
    return words
