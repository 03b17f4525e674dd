"""Byte planes of words, their entropy, and the bit-plane transpose of a plane."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]


def split(words: Words) -> list[Plane]:
    """Byte planes of ``words``, least significant first, each C-contiguous and of the same
    shape.
    """
    planes = [np.empty(words.shape, np.uint8) for _ in range(words.itemsize)]
    for lane, plane in enumerate(planes):
        np.right_shift(words, 8 * lane, out=plane, casting="unsafe")
    return planes


def join(planes: Sequence[Plane]) -> Words:
    """Words whose byte planes are ``planes``; the inverse of :func:`split`."""
    words: Words = planes[-1].astype(f"<u{len(planes)}")
    for plane in reversed(planes[:-1]):
        words <<= 8
        words |= plane
    return words


def histogram(plane: Plane) -> npt.NDArray[np.intp]:
    """How often each of the 256 byte values occurs."""
    return np.bincount(plane.reshape(-1), minlength=256)


def entropy(counts: npt.NDArray[np.intp]) -> float:
    """Order-0 entropy in bits per byte of a histogram; 0 for an empty one."""
    present = counts[counts > 0]
    total = present.sum()
    if not total:
        return 0.0
    return float((present * np.log2(total / present)).sum() / total)


def entropies(rows: Plane) -> npt.NDArray[np.float64]:
    """Order-0 entropy in bits per byte of each of ``rows`` [n, bytes], at least one byte."""
    count, size = rows.shape
    places = rows + np.arange(0, 256 * count, 256)[:, None]
    counts = np.bincount(places.reshape(-1), minlength=256 * count).reshape(count, 256)
    bits: npt.NDArray[np.float64] = np.log2(size) - _information(size)[counts].sum(axis=1) / size
    return bits


@lru_cache(maxsize=16)
def _information(size: int) -> npt.NDArray[np.float64]:
    """n log2 n for n from 0 to ``size``."""
    counts = np.arange(size + 1, dtype=np.float64)
    return counts * np.log2(np.maximum(counts, 1))


def bitshuffle(plane: Plane) -> Plane:
    """Bit-plane transpose: all bits 0 of the plane, then all bits 1, ... (little bit order), as a
    flat plane.
    """
    bits = np.unpackbits(plane.reshape(-1, 1), axis=1, bitorder="little")
    return np.packbits(bits.T, bitorder="little")


def bitunshuffle(shuffled: Plane) -> Plane:
    """Inverse of :func:`bitshuffle`, as a flat plane."""
    bits = np.unpackbits(shuffled, bitorder="little").reshape(8, -1)
    return np.packbits(bits.T, axis=1, bitorder="little").reshape(-1)
