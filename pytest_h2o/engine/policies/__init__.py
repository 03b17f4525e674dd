"""Eviction policies: what makes a token worth keeping. One file each, found by its name.

A policy module holds ``update(scores, attention, alpha)``. It is called for every decoded token of
a layer and changes in place the ``scores`` [kv_heads, tokens] of the tokens in the cache, oldest
first; a new token starts at zero, and ``alpha`` is the weight of history. The blocks whose tokens
have the highest sums stay.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias, cast

from pytest_h2o.engine.kv_cache import Attention, Floats

Update: TypeAlias = Callable[[Floats, Attention, float], None]


def names() -> list[str]:
    """All policies."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Update:
    """The ``update`` of policy ``name``."""
    module = import_module(f"{__name__}.{name}")
    return cast(Update, module.update)
