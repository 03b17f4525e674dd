"""Block codecs: K or V of a block to bytes and back. One file each, found by its name.

A codec module holds ``encode(words, predictors)``, which makes bytes of the bit patterns ``words``
[kv_heads, tokens, head_dim] (uint16 or uint32, C-contiguous), trying the named predictors as it
sees fit, and ``decode(blob, shape, elem_bytes)``, which gives exactly those words back or raises
CodecError. Both run on several threads at once. A codec that makes use of how keys are rotated also
holds ``encode_keys(words, predictors, rotation)`` and ``decode_keys(blob, shape, elem_bytes,
rope)``, which are then used for K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast, runtime_checkable

from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.rope import Rope, Rotation


class BlockCodec(Protocol):
    """What a codec module holds."""

    def encode(self, words: Words, predictors: Sequence[str]) -> bytes:
        """``words`` in fewer bytes."""

    def decode(self, blob: bytes, shape: tuple[int, int, int], elem_bytes: int) -> Words:
        """The words again."""


def names() -> list[str]:
    """All codecs."""
    return sorted(module.name for module in iter_modules(__path__))


@runtime_checkable
class KeyCodec(BlockCodec, Protocol):
    """What a codec module holds that undoes the rotation of keys."""

    def encode_keys(
        self, words: Words, predictors: Sequence[str], rotation: Rotation | None
    ) -> bytes:
        """Keys in fewer bytes."""

    def decode_keys(
        self, blob: bytes, shape: tuple[int, int, int], elem_bytes: int, rope: Rope | None
    ) -> Words:
        """The keys again."""


@cache
def load(name: str) -> BlockCodec:
    """The codec called ``name``; ValueError if there is none."""
    if name not in names():
        raise ValueError(f"unknown block codec {name!r}; known: {', '.join(names())}")
    return cast(BlockCodec, import_module(f"{__name__}.{name}"))
