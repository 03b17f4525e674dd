"""The KV cache: per layer one block of memory holding keys and values, and exact accounts of the
bytes it holds.

Values are rounded to the KV precision (fp16 unless the config asks for fp32) when written;
attention reads an fp32 working copy of them. Accounts count *values held* at the KV precision, so
the working copy itself is not in them.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Bits: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
Ranges: TypeAlias = Sequence[tuple[int, int]]  # (begin, length), ordered, not overlapping


class Attention(NamedTuple):
    """What a layer's attention paid to every cached token: weights [G, L, R T] over totals [G, R
    T].
    """

    weights: Floats
    totals: Floats


@dataclass(slots=True)
class Account:
    """Bytes held now and at most."""

    held: int = 0
    peak: int = 0

    def add(self, count: int) -> None:
        """Take ``count`` bytes, or give them back when negative."""
        self.held += count
        self.peak = max(self.peak, self.held)


@dataclass(frozen=True)
class KVShape:
    """What one token costs in one layer."""

    heads: int
    head_dim: int
    dtype: np.dtype[Any]
    quantised: int = 0  # 1: keys are int8 with one scale per head, 2: values too

    @cached_property
    def token_bytes(self) -> int:
        """Bytes of one token's K and V."""
        plain = self.head_dim * self.dtype.itemsize
        int8 = self.head_dim + self.dtype.itemsize  # with its scale
        return self.heads * (self.quantised * int8 + (2 - self.quantised) * plain)


class LayerCache:
    """Keys and values of one layer, tokens in cache order; ``length`` of them are live."""

    def __init__(self, shape: KVShape, capacity: int, account: Account) -> None:
        self.shape, self.capacity, self.account = shape, capacity, account
        self.length = 0
        self.epoch = 0  # counts compactions: positions of one mean nothing in another
        self._positions = np.zeros(capacity, np.int64)
        self._next = 0  # position of the next token
        self._row = 4 * shape.head_dim
        # With a multiple of these rows every head begins a page.
        rows = math.lcm(self._row, mmap.PAGESIZE) // self._row
        tokens = -(-capacity // rows) * rows
        planes = (2, shape.heads, tokens, shape.head_dim)  # K and V; a head's tokens in one piece
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, 4 * math.prod(planes), flags=private)
        self._data: Floats = np.frombuffer(self._memory, np.float32).reshape(planes)

    def read(self) -> tuple[Floats, Floats]:
        """Keys after RoPE and values, each [kv_heads, length, head_dim]."""
        return self.first(self.length)

    def first(self, tokens: int) -> tuple[Floats, Floats]:
        """Keys and values of the first ``tokens``."""
        data = self._data[:, :, :tokens]
        return data[0], data[1]

    def append(self, kv: Floats) -> None:
        """Add K and V of new tokens ``kv`` [tokens, 2 * kv_heads * head_dim], rounded to the KV
        precision.
        """
        begin, shape = self.length, self.shape
        self.length = end = begin + len(kv)
        self._positions[begin:end] = np.arange(self._next, self._next + len(kv))
        self._next += len(kv)
        rounded = kv.astype(shape.dtype, copy=False).reshape(-1, 2, shape.heads, shape.head_dim)
        if shape.quantised:
            rounded[:, : shape.quantised] = _int8_grid(rounded[:, : shape.quantised])
        if len(kv) == 1:  # the same, faster
            self._data[:, :, begin] = rounded[0]
        else:
            self._data[:, :, begin:end] = rounded.transpose(1, 2, 0, 3)
        self.account.add(len(kv) * shape.token_bytes)

    def keep(self, ranges: Ranges) -> None:
        """Move the tokens of ``ranges`` down to the front, in order, and forget the others."""
        before, end = self.length, 0
        for begin, length in ranges:
            if begin != end:
                there = self._positions[begin : begin + length].copy()
                self._positions[end : end + length] = there
                self._data[:, :, end : end + length] = self._data[:, :, begin : begin + length]
            end += length
        self.length = end
        self.epoch += 1
        self.account.add((end - before) * self.shape.token_bytes)
        self._give_back(end, before)

    def positions(self, begin: int, count: int) -> npt.NDArray[np.int64]:
        """The absolute positions of a span, by which its keys were rotated."""
        return self._positions[begin : begin + count].copy()

    def copy(self, begin: int, count: int) -> Floats:
        """K and V of a span [2, kv_heads, count, head_dim]."""
        return self._data[:, :, begin : begin + count].copy()

    def drop(self, begin: int, count: int) -> None:
        """Lose the values of a span: whole pages go back to the system, the rest is poisoned."""
        end = begin + count
        first, last = self._give_back(begin, end)
        self._data[:, :, begin:first] = np.nan
        if last < end:
            self._data[:, :, last:end] = np.nan

    def fill(self, values: Floats) -> None:
        """Hold exactly what :meth:`copy` gave."""
        self.clear()
        self.length = self._next = values.shape[2]
        self._positions[: self.length] = np.arange(self.length)
        self._data[:, :, : self.length] = values
        self.account.add(self.length * self.shape.token_bytes)

    def restore(self, begin: int, values: Floats) -> None:
        """Write the values of a dropped span [2, kv_heads, count, head_dim] back."""
        self._data[:, :, begin : begin + values.shape[2]] = values

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self.account.add(-self.length * self.shape.token_bytes)
        self._give_back(0, self.length)
        self.length = self._next = 0

    def _give_back(self, begin: int, end: int) -> tuple[int, int]:
        """Return the pages that lie wholly inside tokens [begin, end) of every head.

        The tokens that are lost with them are first to last of what this returns; (end, end) if
        there are none.
        """
        page, row = mmap.PAGESIZE, self._row
        first = -(-begin * row // page) * page
        last = end * row // page * page
        if first >= last or not hasattr(mmap, "MADV_DONTNEED"):
            return end, end
        for plane in range(0, len(self._memory), self._data.strides[1]):
            self._memory.madvise(mmap.MADV_DONTNEED, plane + first, last - first)
        return -(-first // row), last // row


def to_bits(values: Floats, dtype: np.dtype[Any]) -> Bits:
    """Bit patterns of ``values`` in the KV precision."""
    return values.astype(dtype).view(f"u{dtype.itemsize}")


def from_bits(bits: Bits) -> Floats:
    """The fp32 values that fp16 or fp32 ``bits`` stand for."""
    if bits.itemsize == 4:
        return bits.view(np.float32)
    if not bits.size or (bits & 0x7FFF).max() >= 0x7C00:  # an infinity or NaN
        return bits.view(np.float16).astype(np.float32)
    # A finite fp16 number shifted to the place of an fp32 one lacks only the larger exponent bias.
    # Three times faster.
    words = bits.view(np.int16).astype(np.int32)  # extends the sign
    words <<= 13
    words &= np.int32(-0x70000001)  # clears the copies of the sign
    values: Floats = words.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def _int8_grid(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``values`` [..., head_dim] rounded to 255 steps of the largest magnitude in each vector."""
    scale = np.abs(values).max(axis=-1, keepdims=True).astype(np.float32) / 127
    steps = np.round(values / np.maximum(scale, np.finfo(np.float32).tiny))
    rounded: npt.NDArray[Any] = steps * scale
    return rounded


class KVCache:
    """The caches of all layers. ``position`` is the absolute position of the next token, whatever
    was evicted.
    """

    def __init__(self, shape: KVShape, layers: int, capacity: int) -> None:
        self.shape, self.capacity = shape, capacity
        self.position = 0
        self.account = Account()
        self.turn = threading.Condition()  # of forward passes that run side by side
        self.broken = False  # one of them has failed
        self.layers: Sequence[LayerCache] = [
            LayerCache(shape, capacity, self.account) for _ in range(layers)
        ]

    def window(self, begin: int, end: int) -> CacheWindow:
        """What the forward pass of prompt tokens [begin, end) sees while others run beside it."""
        windows = [LayerWindow(self, layer, begin, end) for layer in self.layers]
        return CacheWindow(windows, begin)

    def give_up(self) -> None:
        """A forward pass has failed: let none wait for it."""
        with self.turn:
            self.broken = True
            self.turn.notify_all()

    def save(self) -> list[Floats]:
        """All keys and values, for :meth:`load`; nothing has been evicted yet."""
        return [layer.copy(0, layer.length) for layer in self.layers]

    def load(self, saved: Sequence[Floats]) -> None:
        """Go back to what was saved."""
        for layer, values in zip(self.layers, saved, strict=True):
            layer.fill(values)
        self.position = self.layers[0].length

    def clear(self) -> None:
        """Start a response with nothing cached."""
        for layer in self.layers:
            layer.clear()
        self.position, self.broken = 0, False
        self.account = Account()
        for layer in self.layers:
            layer.account = self.account


@dataclass(slots=True)
class CacheWindow:
    """A cache that ends at some token; the counterpart of :class:`KVCache` for one chunk of a
    prompt.
    """

    layers: Sequence[LayerWindow]
    position: int


@dataclass(frozen=True, slots=True)
class LayerWindow:
    """One layer up to token ``end``; :meth:`append` waits until everything before ``begin`` is
    there.
    """

    cache: KVCache
    layer: LayerCache
    begin: int
    end: int

    def append(self, kv: Floats) -> None:
        """As :meth:`LayerCache.append`, in turn. RuntimeError if the chunk before has failed."""
        with self.cache.turn:
            self.cache.turn.wait_for(lambda: self.layer.length == self.begin or self.cache.broken)
            if self.cache.broken:
                raise RuntimeError("an earlier part of the prompt failed")
            self.layer.append(kv)
            self.cache.turn.notify_all()

    def read(self) -> tuple[Floats, Floats]:
        """As :meth:`LayerCache.read`."""
        return self.layer.first(self.end)
