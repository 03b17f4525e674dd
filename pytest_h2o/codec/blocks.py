"""Framing of one encoded KV block, as the runtime's lossless store holds it.

A tensor blob is ``u32 word count`` followed by one frame per byte plane, least significant plane first:
``u8 predictor mode, u8 payload codec, u32 raw length, u32 payload length, payload`` (little endian).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import PAYLOADS, RLE, ZSTD, PayloadCodec
from pytest_h2o.codec.planes import Plane, Words, entropy, histogram, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS, Predictor, check_predictors

_COUNT = struct.Struct("<I")
_FRAME = struct.Struct("<BBII")


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """How the planes of a block are coded.

    ``axis`` is the one predictors run along, None means the flat stream. Unless ``ranked``, every predictor is tried
    with every payload codec; otherwise only the one whose residual has the least entropy (estimated on a third of it).
    """

    axis: int | None
    payloads: tuple[PayloadCodec, ...]
    ranked: bool = False

    def view(self, plane: Plane) -> tuple[Plane, int]:
        """``plane`` in the shape predictors see, and their axis."""
        return (plane.reshape(-1), 0) if self.axis is None else (plane, self.axis)


CODECS = {
    "fp16_gear_predictive_v3": BlockCodec(axis=None, payloads=(RLE, ZSTD)),
    "fp16_gear_seq_v1": BlockCodec(axis=1, payloads=(RLE, ZSTD), ranked=True),
}


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """Encoded K and V of a block of ``shape`` (kv_heads, tokens, head_dim); ``raw_hash`` is None unless asked for."""

    k: bytes
    v: bytes
    raw_bytes: int
    tokens: int
    shape: tuple[int, int, int]
    elem_bytes: int
    raw_hash: int | None
    blob_hash: int
    codec: str

    @property
    def nbytes(self) -> int:
        """Encoded bytes of both tensors."""
        return len(self.k) + len(self.v)


def hash64(*parts: bytes | memoryview) -> int:
    """64-bit identity of the concatenated ``parts``, the same in every process (BLAKE2b: FNV-1a would cost more than
    decoding does).
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def encode_block(  # noqa: PLR0913 - keyword-only settings of one call
    k: Words,
    v: Words,
    *,
    predictors_k: Sequence[str],
    predictors_v: Sequence[str],
    codec: str = "fp16_gear_predictive_v3",
    hash_raw: bool = False,
) -> EncodedBlock:
    """Encode the C-contiguous bit patterns ``k`` and ``v`` [kv_heads, tokens, head_dim] (uint16 or uint32).

    Each plane takes the smallest of all predictors (in mode order, ``raw`` when none is named) and payload codecs; the
    first wins a tie. Whether the result is smaller than the input is for the caller to judge. Raises CodecError on
    other shapes or types, ValueError on an unknown predictor or codec.
    """
    if k.shape != v.shape or k.ndim != 3 or k.dtype != v.dtype or k.dtype not in (np.uint16, np.uint32):
        raise CodecError(
            f"a block takes two 3-D uint16 or uint32 arrays, got {k.dtype}{k.shape} and {v.dtype}{v.shape}"
        )
    coder = _coder(codec)
    blobs = [_encode_tensor(k, predictors_k, coder), _encode_tensor(v, predictors_v, coder)]
    return EncodedBlock(
        k=blobs[0],
        v=blobs[1],
        raw_bytes=k.nbytes + v.nbytes,
        tokens=k.shape[1],
        shape=(k.shape[0], k.shape[1], k.shape[2]),
        elem_bytes=k.itemsize,
        raw_hash=hash64(k.data, v.data) if hash_raw else None,
        blob_hash=hash64(*blobs),
        codec=codec,
    )


def decode_block(block: EncodedBlock) -> tuple[Words, Words]:
    """K and V exactly as they were encoded; CodecError when the blobs are not what was encoded."""
    if hash64(block.k, block.v) != block.blob_hash:
        raise CodecError("encoded block does not match its hash")
    coder = _coder(block.codec)
    k, v = (_decode_tensor(blob, block.shape, block.elem_bytes, coder) for blob in (block.k, block.v))
    if block.raw_hash is not None and hash64(k.data, v.data) != block.raw_hash:
        raise CodecError("decoded block does not match the hash of its source")
    return k, v


def _coder(name: str) -> BlockCodec:
    if name not in CODECS:
        raise ValueError(f"unknown block codec {name!r}; known: {', '.join(CODECS)}")
    return CODECS[name]


def _encode_tensor(words: Words, names: Sequence[str], coder: BlockCodec) -> bytes:
    predictors = sorted((PREDICTORS[name] for name in check_predictors(names or ("raw",))), key=lambda p: p.mode)
    frames = (_encode_plane(plane, predictors, coder) for plane in split(words))
    return b"".join((_COUNT.pack(words.size), *frames))


def _encode_plane(plane: Plane, predictors: Sequence[Predictor], coder: BlockCodec) -> bytes:
    source, axis = coder.view(plane)
    residuals = {predictor.mode: predictor.encode(source, axis).reshape(-1) for predictor in predictors}
    if coder.ranked and len(residuals) > 1:
        mode = min(residuals, key=lambda mode: entropy(histogram(residuals[mode][::3])))
        residuals = {mode: residuals[mode]}
    return _smallest_frame(residuals, coder.payloads)


def _smallest_frame(residuals: Mapping[int, Plane], payloads: Sequence[PayloadCodec]) -> bytes:
    best, limit = b"", float("inf")
    for mode, residual in reversed(list(residuals.items())):  # backwards, so that the first wins a tie ...
        for payload in reversed(payloads):  # ... and RLE, seldom the best, knows early what it has to beat
            blob = payload.encode(residual, limit)
            if blob is not None:
                limit = len(blob)
                best = _FRAME.pack(mode, payload.number, residual.size, limit) + blob
    return best


def _decode_tensor(blob: bytes, shape: tuple[int, int, int], elem_bytes: int, coder: BlockCodec) -> Words:
    if len(blob) < _COUNT.size or _COUNT.unpack_from(blob)[0] != prod(shape):
        raise CodecError(f"tensor blob does not hold {prod(shape)} words")
    position, planes = _COUNT.size, []
    for _ in range(elem_bytes):
        plane, position = _decode_plane(blob, position, shape, coder)
        planes.append(plane)
    if position != len(blob):
        raise CodecError(f"{len(blob) - position} bytes after the last plane")
    return join(planes)


def _decode_plane(blob: bytes, position: int, shape: tuple[int, int, int], coder: BlockCodec) -> tuple[Plane, int]:
    if position + _FRAME.size > len(blob):
        raise CodecError("tensor blob ends inside a frame header")
    mode, number, size, stored = _FRAME.unpack_from(blob, position)
    begin = position + _FRAME.size
    end = begin + stored
    if mode not in BY_MODE or number not in PAYLOADS or size != prod(shape) or end > len(blob):
        raise CodecError(f"bad frame: mode {mode}, codec {number}, {size} raw bytes, {stored} payload bytes")
    residual, axis = coder.view(PAYLOADS[number].decode(blob[begin:end], size).reshape(shape))
    return BY_MODE[mode].decode(residual, axis).reshape(shape), end
