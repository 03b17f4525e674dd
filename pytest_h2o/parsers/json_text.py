"""JSON that keeps numbers as they were written, and refuses what Python's reader would let pass."""

from __future__ import annotations

import json
from collections import Counter


class NumberText(str):
    """The text of a JSON number."""

    __slots__ = ()


def loads(text: str) -> object:
    """The JSON value of ``text`` with every number as :class:`NumberText`.

    Raises ValueError (with the character offset in its words) for malformed text, a key given
    twice, or nesting deeper than Python's stack.
    """
    try:
        return json.loads(
            text,
            parse_int=NumberText,
            parse_float=NumberText,
            parse_constant=NumberText,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 30) : error.pos + 10]
        raise ValueError(f"{error.msg} at character {error.pos}, near {near!r}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key given twice: {key[:40]!r}")
    return value
