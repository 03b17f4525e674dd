"""The default codec: predictors along the flat stream, each tried with run lengths and with zstd."""

from __future__ import annotations

from pytest_h2o.codec.frames import FrameCoder
from pytest_h2o.codec.payload import RLE, ZSTD

_CODER = FrameCoder(axis=None, payloads=(RLE, ZSTD))
encode, decode = _CODER.encode, _CODER.decode
