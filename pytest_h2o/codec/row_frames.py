"""Frames of the row codecs: the rows of K or V of some tokens, readable without any other frame.

Little endian: ``u32 checksum, u16 rows - 1, u8 heads - 1, u8 head_dim - 1``, then the body: ``u8
kind`` and what that kind holds. The checksum is the CRC-32 of all that follows it and of the
decoded words, token by token, so that neither damage nor another order of float operations goes
unnoticed.
The top bit of the kind says that rows were rotated; the embedding is the reader's to know. A frame
takes the smallest of its codec's body, the streams of a container's byte planes, and the words as
they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from zlib import crc32

import numpy as np

from pytest_h2o.codec import K_PREDICTORS, V_PREDICTORS, CodecError, rope_row, row_reference
from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.rope import MAX_POSITION, PairedRows, Rope, Rotation
from pytest_h2o.codec.tensors import EncodedTensor, PlaneCoding, decode_tensors, encode_tensors

HEAD = struct.Struct("<IHBB")
_CHECKSUM = struct.Struct("<I")
_SHAPE = struct.Struct("<HBB")
MAX_ROWS, MAX_WIDTH = 1 << 16, 1 << 8
BLOCK_ROWS = 64
_ROTATED = 0x80
_CLEARLY = 0.75  # of what planes seem to take
_WORDS, _PLANES, _ROPE_ROW, _ROW_REFERENCE = range(4)

Body = tuple[int, bytes]  # its kind, and what it holds
# Of each frame the body, if any, and the bytes that planes seem to take; 0 where only trying tells.
Encode = Callable[[Sequence[PairedRows]], list[tuple[bytes | None, float]]]

_CODECS: dict[str, tuple[int, Encode]] = {
    "rope_row": (_ROPE_ROW, rope_row.encode_rows),
    "row_reference": (_ROW_REFERENCE, row_reference.encode_rows),
}


@dataclass(frozen=True, slots=True)
class FrameRows:
    """Words [rows, heads, head_dim] (uint16, the bits of fp16 numbers) for a frame, and how they
    are rotated, if they are keys. Where heads have an odd width they are taken as they are.
    """

    words: Words
    rotation: Rotation | None = None

    def check(self) -> None:
        """CodecError on words that no frame can hold."""
        words = self.words
        if words.dtype != np.uint16 or words.ndim != 3 or not words.size:
            raise CodecError(f"a frame takes rows of uint16 words, got {words.dtype}{words.shape}")
        if words.shape[0] > MAX_ROWS or max(words.shape[1:]) > MAX_WIDTH:
            raise CodecError(
                f"a frame cannot hold {words.shape}: at most 65536 rows, 256 heads of 256"
            )
        if self.rotation is None:
            return
        positions = self.rotation.positions
        if positions.shape != words.shape[:1]:
            raise CodecError(f"{positions.shape} positions for {words.shape[0]} rows")
        if positions.min() < 0 or positions.max() >= MAX_POSITION:
            raise CodecError(f"positions {positions.min()} to {positions.max()} are out of range")

    def paired(self) -> PairedRows:
        """The rows as codecs take them."""
        rows, heads, dim = self.words.shape
        if self.rotation is None or dim % 2:
            return PairedRows(self.words.reshape(rows, -1), heads, None, np.zeros(0, np.int64))
        rope, positions = self.rotation.rope, self.rotation.positions
        return PairedRows(rope.to_pairs(self.words), heads, rope, positions)

    def frame(self, bodies: Sequence[Body]) -> bytes:
        """The frame with the smallest of ``bodies``, or with the words as they are."""
        rows, heads, dim = self.words.shape
        source = np.ascontiguousarray(self.words, "<u2").data
        kind, body = min(bodies, key=lambda each: len(each[1]))
        if len(body) > source.nbytes:
            kind, body = _WORDS, source.tobytes()
        head = _SHAPE.pack(rows - 1, heads - 1, dim - 1) + bytes([kind])
        checksum = crc32(source, crc32(body, crc32(head)))
        return b"".join((_CHECKSUM.pack(checksum), head, body))


def encode_frame(words: Words, codec: str, rotation: Rotation | None = None) -> bytes:
    """A frame of ``words``, beside the planes that keys or values are tried with by default."""
    predictors: tuple[str, ...] = V_PREDICTORS
    if rotation is not None:
        predictors = K_PREDICTORS
    coding = PlaneCoding(predictors, BLOCK_ROWS)
    (frame,) = encode_frames([FrameRows(words, rotation)], codec, coding, coding)
    return frame


def encode_frames(
    rows: Sequence[FrameRows], codec: str, hi: PlaneCoding, lo: PlaneCoding
) -> list[bytes]:
    """A frame of each of ``rows``; many at once are faster than one by one.

    ``hi`` and ``lo`` are how byte planes are coded. No frame is more than a byte longer than their
    streams and :data:`HEAD`, but that ``rope_row`` tries no planes for keys that take less than
    three quarters of what planes seem to take. CodecError on words that no frame can hold,
    ValueError on an unknown codec.
    """
    if codec not in _CODECS:
        raise ValueError(f"unknown row codec {codec!r}; known: {', '.join(_CODECS)}")
    for each in rows:
        each.check()
    kind, encode = _CODECS[codec]
    paired = [each.paired() for each in rows]
    bodies: list[list[Body]] = []
    unsure: list[int] = []
    for index, (coded, planes) in enumerate(encode(paired)):
        bodies.append([])
        if coded is not None:
            rotated = _ROTATED * (paired[index].rope is not None)
            bodies[index].append((kind | rotated, coded))
        if coded is None or len(coded) > _CLEARLY * planes:
            unsure.append(index)
    tried = _encode_planes([rows[index].words for index in unsure], hi, lo)
    for index, body in zip(unsure, tried, strict=True):
        bodies[index].append((_PLANES, body))
    return [each.frame(bodies[index]) for index, each in enumerate(rows)]


def _encode_planes(words: Sequence[Words], hi: PlaneCoding, lo: PlaneCoding) -> list[bytes]:
    """The streams of each of ``words``."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, each in enumerate(words):
        alike.setdefault(each.shape[1:], []).append(index)
    bodies = [b""] * len(words)
    for indices in alike.values():
        stacked = np.concatenate([words[index] for index in indices])
        parts = [(len(words[index]),) for index in indices]
        for index, tensor in zip(indices, encode_tensors(stacked, parts, hi, lo), strict=True):
            bodies[index] = tensor.streams()
    return bodies


def _decode_planes(body: bytes, shape: tuple[int, int, int]) -> Words:
    tensor = EncodedTensor.from_streams(shape[1:], shape[:1], body)
    return decode_tensors([tensor], 2 * prod(shape))


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
    known = kind == _ROW_REFERENCE or rotated == (kind == _ROPE_ROW)
    if kind > _ROW_REFERENCE or not known or (rotated and dim % 2 == 0):
        raise CodecError(f"unknown kind of frame: {blob[HEAD.size]}")
    if rotated and rope is None:
        raise CodecError("a frame holds rotated keys: give the RoPE base and layout of the model")
    shape = rows + 1, heads + 1, dim + 1
    return _Frame(checksum, shape, kind, rope if rotated else None, blob)


def _decode_alone(frame: _Frame) -> Words:
    if frame.kind == _PLANES:
        return _decode_planes(frame.body, frame.shape)
    if frame.kind == _ROPE_ROW and frame.rope:
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
    source = np.ascontiguousarray(words, "<u2")
    if crc32(source.data, crc32(frame.blob[_CHECKSUM.size :])) != frame.checksum:
        raise CodecError("a frame does not match its checksum")
    return words
