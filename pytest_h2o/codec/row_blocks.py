"""Blocks of the runtime's lossless store as frames of the row codecs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import RLE, ZSTD
from pytest_h2o.codec.plane_frames import FrameCoder
from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.predictors import check_predictors
from pytest_h2o.codec.rope import Rope, Rotation
from pytest_h2o.codec.row_frames import (
    BLOCK_ROWS,
    MAX_ROWS,
    MAX_WIDTH,
    FrameRows,
    decode_frames,
    encode_frames,
)
from pytest_h2o.codec.tensors import PlaneCoding

# For what a frame cannot hold: words of 32 bits, or very wide heads.
_PLANES = FrameCoder(axis=1, payloads=(RLE, ZSTD), ranked=True)
_Shape = tuple[int, int, int]  # kv_heads, tokens, head_dim


@dataclass(frozen=True, slots=True)
class RowCoder:
    """A block codec that makes one frame of ``codec`` of a block."""

    codec: str

    def encode(self, words: Words, predictors: Sequence[str]) -> bytes:
        """``words`` [kv_heads, tokens, head_dim] as they are."""
        return self.encode_keys(words, predictors, None)

    def decode(self, blob: bytes, shape: _Shape, elem_bytes: int) -> Words:
        """The words again; CodecError on damage."""
        return self.decode_keys(blob, shape, elem_bytes, None)

    def encode_keys(
        self, words: Words, predictors: Sequence[str], rotation: Rotation | None
    ) -> bytes:
        """``words`` that are rotated; ``predictors`` are those of planes, along the tokens."""
        if not _fits(words.shape, words.itemsize):
            return _PLANES.encode(words, predictors)
        coding = PlaneCoding(check_predictors(predictors or ("raw",)), BLOCK_ROWS)
        rows = FrameRows(words.swapaxes(0, 1), rotation)
        (frame,) = encode_frames([rows], self.codec, coding, coding)
        return frame

    def decode_keys(self, blob: bytes, shape: _Shape, elem_bytes: int, rope: Rope | None) -> Words:
        """Words that are rotated by ``rope``; CodecError on damage."""
        if not _fits(shape, elem_bytes):
            return _PLANES.decode(blob, shape, elem_bytes)
        (words,) = decode_frames([blob], rope)
        if words.shape != (shape[1], shape[0], shape[2]):
            raise CodecError(f"a frame of {words.shape} for a block of {shape}")
        return np.ascontiguousarray(words.swapaxes(0, 1))


def _fits(shape: tuple[int, ...], elem_bytes: int) -> bool:
    heads, tokens, dim = shape
    narrow = 0 < min(heads, dim) <= max(heads, dim) <= MAX_WIDTH
    return elem_bytes == 2 and narrow and 0 < tokens <= MAX_ROWS
