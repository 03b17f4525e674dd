"""Predictors along the tokens, as the offline evaluator applies them; only the most promising one
is compressed.
"""

from __future__ import annotations

from pytest_h2o.codec.payload import RLE, ZSTD
from pytest_h2o.codec.plane_frames import FrameCoder

_CODER = FrameCoder(axis=1, payloads=(RLE, ZSTD), ranked=True)
encode, decode = _CODER.encode, _CODER.decode
