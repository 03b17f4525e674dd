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
        chosen = [PREDICTORS[name] for name in check_predictors(predictors or ("raw",))]
        chosen.sort(key=lambda predictor: predictor.mode)
        blob = _COUNT.pack(words.size)
        for plane in split(words):
            blob += self._encode_plane(plane, chosen)
        return blob

    def decode(self, blob: bytes, shape: _Shape, elem_bytes: int) -> Words:
        """Words of ``shape``, exactly as they were encoded; CodecError when ``blob`` does not hold
        them.
        """
        if len(blob) < _COUNT.size or _COUNT.unpack_from(blob)[0] != prod(shape):
            raise CodecError(f"tensor blob does not hold {prod(shape)} words")
        position = _COUNT.size
        planes: list[Plane] = []
        for _ in range(elem_bytes):
            plane, position = self._decode_plane(blob, position, shape)
            planes.append(plane)
        if position != len(blob):
            raise CodecError(f"{len(blob) - position} bytes after the last plane")
        return join(planes)

    def _view(self, plane: Plane) -> tuple[Plane, int]:
        """``plane`` in the shape predictors see, and their axis."""
        if self.axis is None:
            return plane.reshape(-1), 0
        return plane, self.axis

    def _encode_plane(self, plane: Plane, predictors: Sequence[Predictor]) -> bytes:
        source, axis = self._view(plane)
        residuals: dict[int, Plane] = {}
        for predictor in predictors:
            residuals[predictor.mode] = predictor.encode(source, axis).reshape(-1)
        if self.ranked and len(residuals) > 1:
            mode = _least_entropy(residuals)
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
        payload = PAYLOADS[number].decode(blob[begin:end], size)
        residual, axis = self._view(payload.reshape(shape))
        plane = BY_MODE[mode].decode(residual, axis)
        return plane.reshape(shape), end


def _least_entropy(residuals: Mapping[int, Plane]) -> int:
    """Mode of the residual with the least entropy, the first on a tie."""
    estimates: dict[int, float] = {}
    for mode, residual in residuals.items():
        estimates[mode] = entropy(histogram(residual[::3]))
    return min(estimates, key=estimates.__getitem__)


def _smallest_frame(residuals: Mapping[int, Plane], payloads: Sequence[PayloadCodec]) -> bytes:
    best, limit = b"", float("inf")
    # Backwards, so that the first wins a tie, and RLE, seldom the best, knows early what to beat.
    for mode, residual in reversed(list(residuals.items())):
        for payload in reversed(payloads):
            blob = payload.encode(residual, limit)
            if blob is not None:
                limit = len(blob)
                best = _FRAME.pack(mode, payload.number, residual.size, limit) + blob
    return best
