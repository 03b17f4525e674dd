"""Numbers as the programs print them, and nothing else."""

from __future__ import annotations

import re

from pytest_h2o.metrics import Sample

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# Some C libraries print "nan(ind)" and the like.
_SPECIAL = re.compile(r"([+-]?(?:nan|inf(?:inity)?))(?:\([a-z0-9_]*\))?", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,15}")


def parse_number(text: str) -> float | None:
    """The number that is the whole of ``text``, ``nan`` and ``inf`` included; anything else is
    None.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    special = _SPECIAL.fullmatch(text)
    return float(special[1]) if special else None


def parse_count(text: str) -> int | None:
    """The non-negative integer that is the whole of ``text``, or None."""
    text = text.strip()  # int() takes fewer characters for blanks than str.strip() does
    return int(text) if _COUNT.fullmatch(text) else None


def parse_sample(text: str, n: int | None = None) -> Sample | None:
    """``mean ± std`` or a lone ``mean`` over ``n`` repeats; None unless every part is a number."""
    mean_text, plus_minus, std_text = text.partition("±")
    mean, std = parse_number(mean_text), parse_number(std_text)
    if mean is None or (plus_minus and std is None):
        return None
    return Sample(mean, std, n)
