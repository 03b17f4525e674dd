"""The default codec: predictors along the flat stream, with run lengths or zstd, as is smaller."""

from __future__ import annotations

from pytest_h2o.codec.payload import RLE, ZSTD
from pytest_h2o.codec.plane_frames import FrameCoder

_CODER = FrameCoder(axis=None, payloads=(RLE, ZSTD))
encode, decode = _CODER.encode, _CODER.decode
