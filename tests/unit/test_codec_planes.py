"""Byte planes, entropy and the bit-plane transpose."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_h2o.codec.planes import (
    Plane,
    Words,
    bitshuffle,
    bitunshuffle,
    entropies,
    entropy,
    histogram,
    join,
    split,
)

shapes = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))
planes = arrays.arrays(np.uint8, st.integers(0, 40))


@given(st.sampled_from([np.uint16, np.uint32]).flatmap(lambda kind: arrays.arrays(kind, shapes)))
def test_planes_are_the_bytes_of_the_words(words: Words) -> None:
    """Plane i holds byte i of each word, low byte first, and joining gives the words back."""
    parts = split(words)
    memory = words.astype(words.dtype.newbyteorder("<")).tobytes()
    assert [part.tobytes() for part in parts] == [
        memory[lane :: words.itemsize] for lane in range(words.itemsize)
    ]
    assert all(part.flags.c_contiguous for part in parts)
    np.testing.assert_array_equal(join(parts), words, strict=True)


def test_split_of_a_strided_view() -> None:
    """Planes are contiguous even when the words are every second row of something else."""
    words = np.arange(4 * 2 * 3 * 2, dtype=np.uint16).reshape(4, 2, 3, 2)[:, 1]
    low, high = split(words)
    assert low.flags.c_contiguous
    np.testing.assert_array_equal(join([low, high]), words)


@given(planes)
def test_bitshuffle_collects_equal_bits(plane: Plane) -> None:
    """Bit n of the result is bit n // size of byte n % size, and the inverse undoes it."""
    shuffled = bitshuffle(plane)
    bits = [(byte >> bit) & 1 for bit in range(8) for byte in plane.tolist()]
    expected = [
        sum(bit << n for n, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)
    ]
    assert shuffled.tolist() == expected
    np.testing.assert_array_equal(bitunshuffle(shuffled), plane)


@given(planes)
def test_entropy(plane: Plane) -> None:
    """Entropy is the mean information of a byte drawn from the plane."""
    counts = Counter(plane.tolist())
    expected = -sum(n / plane.size * math.log2(n / plane.size) for n in counts.values())
    assert entropy(histogram(plane)) == pytest.approx(expected, abs=1e-9)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 40))))
def test_entropies(rows: Plane) -> None:
    """Many entropies at once are those of the rows one by one."""
    assert entropies(rows) == pytest.approx([entropy(histogram(row)) for row in rows], abs=1e-9)
