"""Words of a block as one frame per byte plane, each with its own predictor and payload codec.

A blob is ``u32 word count`` followed by the frames, least significant plane first: ``u8 predictor
mode, u8 payload codec, u32 raw length, u32 payload length, payload`` (little endian).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import PAYLOADS, PayloadCodec
from pytest_h2o.codec.planes import Plane, Words, entropy, histogram, join, split
from pytest_h2o.codec.predictors import BY_MODE, PREDICTORS, Predictor, check_predictors

_COUNT = struct.Struct("<I")
_FRAME = struct.Struct("<BBII")
_Shape = tuple[int, int, int]  # kv_heads, tokens, head_dim


@dataclass(frozen=True, slots=True)
class FrameCoder:
    """How planes are coded.

    ``axis`` is the one predictors run along, None means the flat stream. Unless ``ranked``, every
    predictor is tried with every payload codec; otherwise only the one whose residual has the least
    entropy (estimated on a third of it).
    """

    axis: int | None
    payloads: tuple[PayloadCodec, ...]
    ranked: bool = False

    def encode(self, words: Words, predictors: Sequence[str]) -> bytes:
        """Each plane by the smallest of all predictors (in mode order, ``raw`` when none is named)
        and payload codecs; the first wins a tie. ValueError on an unknown predictor.
        """
        chosen = sorted(
            (PREDICTORS[name] for name in check_predictors(predictors or ("raw",))),
            key=lambda p: p.mode,
        )
        frames = (self._encode_plane(plane, chosen) for plane in split(words))
        return b"".join((_COUNT.pack(words.size), *frames))

    def decode(self, blob: bytes, shape: _Shape, elem_bytes: int) -> Words:
        """Words of ``shape``, exactly as they were encoded; CodecError when ``blob`` does not hold
        them.
        """
        if len(blob) < _COUNT.size or _COUNT.unpack_from(blob)[0] != prod(shape):
            raise CodecError(f"tensor blob does not hold {prod(shape)} words")
        position, planes = _COUNT.size, []
        for _ in range(elem_bytes):
            plane, position = self._decode_plane(blob, position, shape)
            planes.append(plane)
        if position != len(blob):
            raise CodecError(f"{len(blob) - position} bytes after the last plane")
        return join(planes)

    def _view(self, plane: Plane) -> tuple[Plane, int]:
        """``plane`` in the shape predictors see, and their axis."""
        return (plane.reshape(-1), 0) if self.axis is None else (plane, self.axis)

    def _encode_plane(self, plane: Plane, predictors: Sequence[Predictor]) -> bytes:
        source, axis = self._view(plane)
        residuals = {
            predictor.mode: predictor.encode(source, axis).reshape(-1) for predictor in predictors
        }
        if self.ranked and len(residuals) > 1:
            mode = min(residuals, key=lambda mode: entropy(histogram(residuals[mode][::3])))
            residuals = {mode: residuals[mode]}
        return _smallest_frame(residuals, self.payloads)

    def _decode_plane(self, blob: bytes, position: int, shape: _Shape) -> tuple[Plane, int]:
        """The plane whose frame begins at ``position``, and where the next one begins."""
        if position + _FRAME.size > len(blob):
            raise CodecError("tensor blob ends inside a frame header")
        mode, number, size, stored = _FRAME.unpack_from(blob, position)
        begin = position + _FRAME.size
        end = begin + stored
        if mode not in BY_MODE or number not in PAYLOADS or size != prod(shape) or end > len(blob):
            raise CodecError(
                f"bad frame: mode {mode}, codec {number}, {size} raw bytes, {stored} payload bytes"
            )
        residual, axis = self._view(PAYLOADS[number].decode(blob[begin:end], size).reshape(shape))
        return BY_MODE[mode].decode(residual, axis).reshape(shape), end


def _smallest_frame(residuals: Mapping[int, Plane], payloads: Sequence[PayloadCodec]) -> bytes:
    best, limit = b"", float("inf")
    for mode, residual in reversed(
        list(residuals.items())
    ):  # backwards, so that the first wins a tie ...
        for payload in reversed(
            payloads
        ):  # ... and RLE, seldom the best, knows early what it has to beat
            blob = payload.encode(residual, limit)
            if blob is not None:
                limit = len(blob)
                best = _FRAME.pack(mode, payload.number, residual.size, limit) + blob
    return best
