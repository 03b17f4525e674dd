"""Eviction policies: what makes a block worth keeping. One file each, found by its name.

A policy module holds ``update(scores, current, alpha)``: the new scores of a layer's blocks from the old ones and from
the softmax mass each block has just drawn, all of one length, oldest block first. The highest scores stay.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias, cast

from pytest_h2o.engine.kv_cache import Floats

Update: TypeAlias = Callable[[Floats, Floats, float], Floats]


def names() -> list[str]:
    """All policies."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Update:
    """The ``update`` of policy ``name``."""
    return cast(Update, import_module(f"{__name__}.{name}").update)
