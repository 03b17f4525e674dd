"""Reversible transforms that leave smaller residuals in a byte plane, in one registry for online
and offline coding.

Arithmetic is modulo 256 and the state starts at zero for each array. ``axis`` is the axis
neighbours are taken along: the sequence axis of a plane, or 0 of a flattened plane. Pairs always
lie on the last axis.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pytest_h2o.codec.planes import Plane


@dataclass(frozen=True, slots=True)
class Predictor:
    """One transform: its name in options, its mode number in encoded data, and both directions."""

    name: str
    mode: int
    encode: Callable[[Plane, int], Plane]
    decode: Callable[[Plane, int], Plane]


def _raw(plane: Plane, axis: int) -> Plane:
    return plane


def _delta(plane: Plane, axis: int) -> Plane:
    residual = plane.copy()
    residual.swapaxes(0, axis)[1:] -= plane.swapaxes(0, axis)[:-1]
    return residual


def _doubling(length: int) -> Iterator[int]:
    """Steps of a running sum in log2(length) whole-array passes, which is faster than one pass down
    the columns.
    """
    step = 1
    while step < length:
        yield step
        step *= 2


def _undelta(residual: Plane, axis: int) -> Plane:
    plane = residual.copy()
    rows = plane.swapaxes(0, axis)
    for step in _doubling(len(rows)):
        rows[step:] += rows[:-step]
    return plane


def _xor(plane: Plane, axis: int) -> Plane:
    residual = plane.copy()
    residual.swapaxes(0, axis)[1:] ^= plane.swapaxes(0, axis)[:-1]
    return residual


def _unxor(residual: Plane, axis: int) -> Plane:
    plane = residual.copy()
    rows = plane.swapaxes(0, axis)
    for step in _doubling(len(rows)):
        rows[step:] ^= rows[:-step]
    return plane


def _pair(plane: Plane, axis: int) -> Plane:
    residual = plane.copy()
    residual[..., 1::2] -= plane[..., :-1:2]
    return residual


def _unpair(residual: Plane, axis: int) -> Plane:
    plane = residual.copy()
    plane[..., 1::2] += residual[..., :-1:2]
    return plane


def _pair_then_delta(plane: Plane, axis: int) -> Plane:
    return _delta(_pair(plane, axis), axis)


def _undelta_then_unpair(residual: Plane, axis: int) -> Plane:
    return _unpair(_undelta(residual, axis), axis)


_ALL = (
    Predictor("raw", 0, _raw, _raw),
    Predictor("delta_seq", 1, _delta, _undelta),
    Predictor("xor_seq", 2, _xor, _unxor),
    Predictor("pair_delta", 3, _pair, _unpair),
    Predictor("pair_delta_delta_seq", 4, _pair_then_delta, _undelta_then_unpair),
)
PREDICTORS = {predictor.name: predictor for predictor in _ALL}
BY_MODE = {predictor.mode: predictor for predictor in _ALL}


def parse_predictors(text: str) -> tuple[str, ...]:
    """Names in a comma list, blanks trimmed, duplicates dropped, order kept; ValueError on a name
    nobody registered.
    """
    parts = map(str.strip, text.split(","))
    return check_predictors(filter(None, parts))


def check_predictors(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct ``names`` in order; ValueError on an unknown one."""
    distinct = tuple(dict.fromkeys(names))
    for name in distinct:
        if name not in PREDICTORS:
            raise ValueError(f"unknown predictor {name!r}; known: {', '.join(PREDICTORS)}")
    return distinct
