"""Repeated rows by reference, keys with their rotation undone, the rest as byte planes."""

from __future__ import annotations

from pytest_h2o.codec.row_blocks import RowCoder

_CODER = RowCoder("rope_row")
encode, decode = _CODER.encode, _CODER.decode
encode_keys, decode_keys = _CODER.encode_keys, _CODER.decode_keys
