"""The predictors against their definitions, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_h2o.codec.planes import Plane
from pytest_h2o.codec.predictors import PREDICTORS, check_predictors, parse_predictors

planes = arrays.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 5)))


def delta(rows: list[list[int]]) -> list[list[int]]:
    return [
        [(b - (rows[s - 1][i] if s else 0)) % 256 for i, b in enumerate(row)]
        for s, row in enumerate(rows)
    ]


def xor(rows: list[list[int]]) -> list[list[int]]:
    return [
        [b ^ (rows[s - 1][i] if s else 0) for i, b in enumerate(row)] for s, row in enumerate(rows)
    ]


def pair(rows: list[list[int]], dim: int) -> list[list[int]]:
    return [
        [(b - (row[i - 1] if i % dim % 2 else 0)) % 256 for i, b in enumerate(row)] for row in rows
    ]


def expected_residual(name: str, rows: list[list[int]], dim: int) -> list[list[int]]:
    """``rows`` are flattened over (head, dim); the text of the definitions, one value at a time."""
    match name:
        case "raw":
            return rows
        case "delta_seq":
            return delta(rows)
        case "xor_seq":
            return xor(rows)
        case "pair_delta":
            return pair(rows, dim)
    return delta(pair(rows, dim))


@pytest.mark.parametrize("name", PREDICTORS)
@given(plane=planes)
def test_along_the_sequence(name: str, plane: Plane) -> None:
    """Axis 0 of [seq, heads, dim]: residuals as defined, and decoding gives the plane back."""
    residual = PREDICTORS[name].encode(plane, 0)
    flat = plane.reshape(len(plane), plane.shape[1] * plane.shape[2])
    assert residual.reshape(flat.shape).tolist() == expected_residual(
        name, flat.tolist(), plane.shape[2]
    )
    np.testing.assert_array_equal(PREDICTORS[name].decode(residual, 0), plane)


@pytest.mark.parametrize("name", PREDICTORS)
@given(plane=planes)
def test_along_an_inner_axis(name: str, plane: Plane) -> None:
    """Axis 1 of [heads, tokens, dim] is axis 0 of the transposed plane."""
    residual = PREDICTORS[name].encode(plane, 1)
    swapped = np.ascontiguousarray(plane.swapaxes(0, 1))
    np.testing.assert_array_equal(residual, PREDICTORS[name].encode(swapped, 0).swapaxes(0, 1))
    np.testing.assert_array_equal(PREDICTORS[name].decode(residual, 1), plane)


@pytest.mark.parametrize("name", PREDICTORS)
@given(data=st.binary(max_size=40))
def test_along_a_flat_stream(name: str, data: bytes) -> None:
    """The runtime's streams: the previous byte starts at 0, pairs are neighbours of the stream."""
    plane = np.frombuffer(data, np.uint8)
    paired = [byte - (data[i - 1] if i % 2 else 0) for i, byte in enumerate(data)]
    previous = {"raw": data, "delta_seq": data, "xor_seq": data}.get(name, paired)
    combine = {
        "delta_seq": int.__sub__,
        "pair_delta_delta_seq": int.__sub__,
        "xor_seq": int.__xor__,
    }.get(name)
    expected = [
        (combine(b, previous[i - 1] if i else 0) if combine else b) % 256
        for i, b in enumerate(previous)
    ]
    residual = PREDICTORS[name].encode(plane, 0)
    assert residual.tolist() == expected
    np.testing.assert_array_equal(PREDICTORS[name].decode(residual, 0), plane)


def test_mode_numbers_are_fixed() -> None:
    """Encoded data holds these numbers: 0 to 2 as in the original runtime."""
    modes = {"raw": 0, "delta_seq": 1, "xor_seq": 2, "pair_delta": 3, "pair_delta_delta_seq": 4}
    assert {name: predictor.mode for name, predictor in PREDICTORS.items()} == modes


def test_parse_predictors() -> None:
    """Blanks and duplicates vanish, the order stays, an unknown name is named."""
    assert parse_predictors(" xor_seq, raw ,, xor_seq") == ("xor_seq", "raw")
    assert parse_predictors(" ") == ()
    assert check_predictors(["raw", "raw"]) == ("raw",)
    with pytest.raises(ValueError, match=r"'pair_dleta'.*pair_delta"):
        parse_predictors("raw,pair_dleta")
