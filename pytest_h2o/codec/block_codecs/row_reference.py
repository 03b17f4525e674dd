"""Rows predicted from earlier rows of the block, keys with their rotation undone."""

from __future__ import annotations

from pytest_h2o.codec.row_blocks import RowCoder

_CODER = RowCoder("row_reference")
encode, decode = _CODER.encode, _CODER.decode
encode_keys, decode_keys = _CODER.encode_keys, _CODER.decode_keys
