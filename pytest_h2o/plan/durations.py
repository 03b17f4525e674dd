"""Durations as people write them."""

from __future__ import annotations

import re

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")


def seconds_of(text: str) -> float:
    """The seconds of ``90s``, ``30m``, ``1h 30m``, ``2d``; raises ValueError for anything else."""
    found = WRITTEN.findall(text)
    rest = WRITTEN.sub("", text).strip()
    if not found or rest:
        raise ValueError(f"{text!r} is no time; write it as 90s, 30m, 1h30m or 2d")
    return sum(float(number) * UNITS[unit] for number, unit in found)
