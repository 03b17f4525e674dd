"""Block codecs: K or V of a block to bytes and back. One file each, found by its name.

A codec module holds ``encode(words, predictors)``, which makes bytes of the bit patterns ``words``
[kv_heads, tokens, head_dim] (uint16 or uint32, C-contiguous), trying the named predictors as it
sees fit, and ``decode(blob, shape, elem_bytes)``, which gives exactly those words back or raises
CodecError. Both run on several threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from pytest_h2o.codec.planes import Words


class BlockCodec(Protocol):
    """What a codec module holds."""

    def encode(self, words: Words, predictors: Sequence[str]) -> bytes:
        """``words`` in fewer bytes."""

    def decode(self, blob: bytes, shape: tuple[int, int, int], elem_bytes: int) -> Words:
        """The words again."""


def names() -> list[str]:
    """All codecs."""
    return sorted(module.name for module in iter_modules(__path__))


@cache
def load(name: str) -> BlockCodec:
    """The codec called ``name``; ValueError if there is none."""
    if name not in names():
        raise ValueError(f"unknown block codec {name!r}; known: {', '.join(names())}")
    return cast(BlockCodec, import_module(f"{__name__}.{name}"))
