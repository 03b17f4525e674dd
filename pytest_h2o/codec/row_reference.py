"""Rows predicted from earlier rows of their frame, keys with their rotation undone: the body of a
``row_reference`` frame.

``positions`` (of rotated rows only), ``u32 bytes of the side, u32 bytes of the ranks, u32 bytes of
the ranks of exact rows``, the three as zstd frames, and the raw bits. The side holds a byte of each
channel three times (size, mean, how much smaller than expected residuals are), then the levels of
all rows, and how far back the reference of each row with one lies. Ranks and raw bits are in order
of depth, the number of references to a row without one, then of rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import zstandard

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import IntArray, zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Plane, Words
from pytest_h2o.codec.rope import (
    Floats32,
    PairedRows,
    Positions,
    Rope,
    Turn,
    back,
    pack_positions,
    rotate,
    turn,
    unpack_positions,
)
from pytest_h2o.codec.row_search import (
    EXACT,
    LEVELS,
    MAX_DEPTH,
    Channels,
    References,
    find_references,
    mean_of,
    measure_channels,
    nearest,
    repeats,
    size_of,
)
from pytest_h2o.codec.row_symbols import (
    ESCAPE,
    ESCAPE_BITS,
    bit_windows,
    classify,
    pack_bits,
    rank,
    take_bits,
    unrank,
)

_LENGTHS = struct.Struct("<III")
_ROUNDING = np.float32(1.1 / 12)  # a little more than the variance of an ulp's rounding
_RHO = np.array((0, *LEVELS, 1), np.float32)
_REST = np.array([1, *[np.sqrt(1 - rho * rho) for rho in LEVELS], 0], np.float32)
_KAPPA_ONE = 8


@dataclass(frozen=True, slots=True)
class SideInformation:
    """All of a frame that predictions depend on but the rows themselves. ``kappas``: quarter
    octaves of how much smaller residuals are than expected, + 8.
    """

    channels: Channels
    kappas: Plane
    references: References
    heads: int
    rope: Rope | None
    positions: Positions | None


class _Stack:
    """The sides of frames of one width, stacked row by row, and what their predictions need.

    ``values`` and ``words`` [rows, channels] are filled as rows become known; what is not finite
    counts as 0 when it is referred to.
    """

    def __init__(self, sides: Sequence[SideInformation]) -> None:
        first = sides[0]
        channels = len(first.kappas)
        levels = [side.references.levels for side in sides]
        counts = [len(each) for each in levels]
        self.heads, self.rope = first.heads, first.rope
        self.dim = channels // first.heads
        self.starts = np.append(0, np.cumsum(counts))
        self.frames = np.repeat(np.arange(len(sides)), counts)
        self.levels = np.concatenate(levels)
        self.back = np.concatenate([side.references.back for side in sides]).astype(np.intp)
        self.means = np.stack([mean_of(side.channels) for side in sides])
        self.spreads = np.stack([_spreads(side) for side in sides])
        self.words = np.zeros((len(self.levels), channels), np.uint16)
        self.values = np.zeros((len(self.levels), channels), np.float32)
        self.positions = np.zeros(len(self.levels), np.int64)
        if first.rope:
            positions = [side.positions for side in sides if side.positions is not None]
            self.positions = np.concatenate(positions)
        self.depths = _depths(self.back)

    def order(self, depth: int) -> IntArray:
        """The rows of that depth that are predicted, not copied."""
        chosen = self.depths == depth
        if not self.rope:
            chosen &= self.levels != EXACT
        return np.flatnonzero(chosen)

    def copies(self, depth: int) -> IntArray:
        """The rows of that depth that are copied."""
        if self.rope:
            return np.zeros(0, np.intp)
        return np.flatnonzero((self.depths == depth) & (self.levels == EXACT))

    def put(self, rows: IntArray, words: Words) -> None:
        """These rows are known now."""
        self.words[rows] = words
        self.values[rows] = finite(words)

    def predict(self, rows: IntArray) -> Floats32:
        """Predictions of ``rows``, which all refer to known rows or all to none."""
        levels = self.levels[rows]
        mean: Floats32 = self.means[self.frames[rows]]
        targets = rows - self.back[rows]
        referring = self.back[rows[:1]].any()
        rho = _RHO[levels][:, None]
        if not self.rope:
            if referring:
                mean += rho * (self.values[targets] - mean)
            return mean
        mean *= np.float32(1) - rho
        positions = self.positions[rows]
        predicted = rotate(mean, self.heads, turn(self.rope, self.dim, positions))
        if referring:
            by = turn(self.rope, self.dim, positions - self.positions[targets])
            predicted += rotate(rho * self.values[targets], self.heads, by)
        return predicted

    def spread(self, rows: IntArray) -> Floats32:
        """How far off the predictions of ``rows`` are expected to be."""
        levels = self.levels[rows]
        spread: Floats32 = self.spreads[self.frames[rows], levels]
        exact = levels == EXACT
        if self.rope and exact.any():
            targets = rows[exact] - self.back[rows[exact]]
            distances = self.positions[rows[exact]] - self.positions[targets]
            by = turn(self.rope, self.dim, distances)
            spread[exact] = self._rounding(self.values[targets], by)
        return spread

    def _rounding(self, values: Floats32, by: Turn) -> Floats32:
        """How far rotated ``values`` may be off, which were rounded to fp16."""
        codes = np.abs(values).astype(np.float16).view(np.uint16).astype(np.int32)
        ulps = np.ldexp(np.float32(1), np.maximum(codes >> 10, 1) - 25)
        pairs = (ulps * ulps).reshape(len(values), self.heads, 2, self.dim // 2)
        cos, sin = (by.cos * by.cos)[:, None], (by.sin * by.sin)[:, None]
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        squares = np.stack([cos * a + sin * b, cos * b + sin * a], axis=2)
        spread: Floats32 = np.sqrt(_ROUNDING * squares).reshape(values.shape)
        return spread


def finite(words: Words) -> Floats32:
    """The values of fp16 ``words``; 0 for an infinity or NaN."""
    values: Floats32 = np.take(_finite_values(), words)
    return values


@cache
def _finite_values() -> Floats32:
    """Of all words; looking them up is faster than numpy's conversion where the CPU has none."""
    words = np.arange(1 << 16, dtype=np.uint16)
    words[words & 0x7C00 == 0x7C00] = 0
    return words.view(np.float16).astype(np.float32)


def _spreads(side: SideInformation) -> Floats32:
    """Of each level and channel [16, channels]; those of exact rows are not used."""
    sigma = size_of(side.channels.sizes)
    quarters = side.kappas.astype(np.uint8) + np.uint8(64 - _KAPPA_ONE)
    narrowed = sigma * size_of(quarters)
    spreads: Floats32 = _REST[:, None] * narrowed
    spreads[0] = sigma
    spreads[EXACT] = sigma
    return spreads


def _depths(back: IntArray) -> IntArray:
    """References from each row to one without; CodecError when there are too many."""
    depths = np.zeros(len(back), np.intp)
    rows = np.flatnonzero(back)
    targets = rows - back[rows]
    for _ in range(MAX_DEPTH + 1):
        deeper = depths[targets] + 1
        if np.array_equal(deeper, depths[rows]):
            return depths
        depths[rows] = deeper
    raise CodecError(f"references hang more than {MAX_DEPTH} deep")


def find_side(frame: PairedRows) -> SideInformation:
    """What predicts the words of ``frame`` best, but for kappas."""
    words, heads, rope, positions = frame
    values = finite(words)
    half = 0
    if rope:
        half = words.shape[1] // heads // 2
        by = turn(rope, 2 * half, positions)
        values = rotate(values, heads, back(by))
    channels = measure_channels(values, half)
    z = (values - mean_of(channels)) / size_of(channels.sizes)
    if rope:
        exact_back, exact = nearest(z)
        exact_back[~exact] = 0
    else:
        exact_back = repeats(words)
    references = find_references(z, exact_back)
    kappas = np.full(words.shape[1], _KAPPA_ONE, np.uint8)
    return SideInformation(channels, kappas, references, heads, rope, positions)


def _kappas(stack: _Stack, rows: IntArray, predicted: Floats32, known: Plane) -> Plane:
    """How much smaller residuals of approximate rows are than expected with ``known``, for each
    channel.
    """
    levels = stack.levels[rows]
    approximate = (levels > 0) & (levels < EXACT)
    if not approximate.any():
        return known
    chosen = rows[approximate]
    scaled = (stack.values[chosen] - predicted[approximate]) / stack.spread(chosen)
    mean_square = np.maximum((scaled * scaled).mean(axis=0), 1e-6)
    quarters = np.round(2 * np.log2(mean_square)) + _KAPPA_ONE
    kappas: Plane = np.clip(quarters, 0, 15).astype(np.uint8)
    return kappas


def encode_rows(frames: Sequence[PairedRows]) -> list[tuple[bytes | None, float]]:
    """The body of a frame of each of ``frames``. 0: nothing is known of byte planes."""
    return [(_encode_frame(frame), 0.0) for frame in frames]


def _encode_frame(frame: PairedRows) -> bytes:
    words = frame.words
    side = find_side(frame)
    stack = _Stack([side])
    stack.put(np.arange(len(words)), words)
    alone, *deeper = [stack.order(depth) for depth in range(int(stack.depths.max()) + 1)]
    rows, predicted = alone, stack.predict(alone)
    if deeper:
        # Everything is known here, so that one step does for all depths.
        referring = np.concatenate(deeper)
        rows = np.concatenate([alone, referring])
        predicted = np.concatenate([predicted, stack.predict(referring)])
    side = replace(side, kappas=_kappas(stack, rows, predicted, side.kappas))
    stack.spreads[0] = _spreads(side)
    ranked = rank(words[rows], classify(predicted, stack.spread(rows)))
    exact = stack.levels[rows] == EXACT
    ranks = zstd_compress(ranked.ranks[~exact].reshape(-1), 1)
    exact_ranks = zstd_compress(ranked.ranks[exact].reshape(-1), 1)
    raw = pack_bits(ranked.raw.reshape(-1), ranked.bits.reshape(-1))
    packed_side = zstd_compress(_side_bytes(side), 3)
    body = b""
    if frame.rope:
        body = pack_positions(frame.positions)
    body += _LENGTHS.pack(len(packed_side), len(ranks), len(exact_ranks))
    return body + packed_side + ranks + exact_ranks + raw


def _side_bytes(side: SideInformation) -> Plane:
    distances = side.references.back
    parts = (
        side.channels.sizes,
        side.channels.means.view(np.uint8),
        side.kappas,
        side.references.levels,
        distances[distances > 0],
    )
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class RowBody:
    """A body that has been taken apart."""

    side: SideInformation
    ranks: bytes
    exact_ranks: bytes
    raw: bytes


def read_body(body: bytes, rows: int, heads: int, dim: int, rope: Rope | None) -> RowBody:
    """Take ``body`` apart; CodecError when it does not hold so many rows."""
    at = 0
    positions = None
    if rope:
        positions, at = unpack_positions(body, at, rows)
    if at + _LENGTHS.size > len(body):
        raise CodecError("a frame ends inside its lengths")
    lengths = _LENGTHS.unpack_from(body, at)
    bounds = (at + _LENGTHS.size + np.cumsum((0, *lengths), dtype=np.int64)).tolist()
    if bounds[-1] > len(body):
        raise CodecError(f"a frame of {len(body)} bytes declares {bounds[-1]}")
    packed = body[bounds[0] : bounds[1]]
    side = _read_side(packed, rows, heads, dim, rope, positions)
    ranks, exact_ranks = body[bounds[1] : bounds[2]], body[bounds[2] : bounds[3]]
    return RowBody(side, ranks, exact_ranks, body[bounds[3] :])


def _read_side(  # noqa: PLR0913, PLR0917 - what the head of a frame says
    packed: bytes,
    rows: int,
    heads: int,
    dim: int,
    rope: Rope | None,
    positions: Positions | None,
) -> SideInformation:
    channels = heads * dim
    most = 3 * channels + 2 * rows
    data = zstd_decompress(packed, _declared(packed, most))
    fixed = 3 * channels + rows
    if len(data) < fixed:
        raise CodecError(f"a side of {len(data)} bytes for {rows} rows of {channels} channels")
    sizes, means, kappas = data[: 3 * channels].reshape(3, channels)
    levels = data[3 * channels : fixed]
    distances = np.zeros(rows, np.uint8)
    referring = levels > 0
    if np.count_nonzero(referring) != len(data) - fixed:
        raise CodecError(f"{len(data) - fixed} references for {np.count_nonzero(referring)} rows")
    distances[referring] = data[fixed:]
    if levels.max() > EXACT or kappas.max() > 15 or (distances > np.arange(rows)).any():
        raise CodecError("a reference leads out of its frame, or a parameter is out of range")
    if not distances[referring].all():
        raise CodecError("a row refers to itself")
    references = References(distances, levels)
    return SideInformation(
        Channels(sizes, means.view(np.int8)), kappas, references, heads, rope, positions
    )


def _declared(packed: bytes, most: int) -> int:
    """The content size of a zstd frame that may be at most ``most``."""
    try:
        size = zstandard.frame_content_size(packed)
    except zstandard.ZstdError as error:
        raise CodecError(f"zstd payload: {error}") from error
    if not 0 <= size <= most:
        raise CodecError(f"zstd frame declares {size} bytes, at most {most} are possible")
    return size


def decode_bodies(bodies: Sequence[RowBody]) -> list[Words]:
    """Words [rows, channels] of each of ``bodies``, of one width, all rotated or none; CodecError
    on damage.
    """
    stack = _Stack([body.side for body in bodies])
    ranks = _read_ranks(bodies, stack)
    raw = _RawBits([body.raw for body in bodies])
    for depth in range(int(stack.depths.max()) + 1):
        copied = stack.copies(depth)
        stack.put(copied, stack.words[copied - stack.back[copied]])
        rows = stack.order(depth)
        if len(rows):
            classes = classify(stack.predict(rows), stack.spread(rows))
            wanted = ranks[rows]
            bits = np.where(wanted == ESCAPE, ESCAPE_BITS, classes.bits)
            stack.put(rows, unrank(wanted, raw.take(bits, stack.frames[rows]), classes))
    raw.check()
    return np.split(stack.words, stack.starts[1:-1])


def _read_ranks(bodies: Sequence[RowBody], stack: _Stack) -> Plane:
    """Ranks of all rows, [rows, channels]."""
    ranks = np.zeros(stack.words.shape, np.uint8)
    channels = ranks.shape[1]
    for index, body in enumerate(bodies):
        begin, end = stack.starts[index], stack.starts[index + 1]
        order = begin + np.argsort(stack.depths[begin:end], kind="stable")
        exact = stack.levels[order] == EXACT
        streams = [(body.ranks, order[~exact]), (body.exact_ranks, order[:0])]
        if stack.rope:
            streams[1] = (body.exact_ranks, order[exact])
        for stream, rows in streams:
            decoded = zstd_decompress(stream, len(rows) * channels)
            ranks[rows] = decoded.reshape(-1, channels)
    return ranks


class _RawBits:
    """The raw bits of frames, each read from its own place on."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._windows = bit_windows(b"".join(parts))
        lengths = np.array([len(part) for part in parts], np.int64)
        self._ends = 8 * np.cumsum(lengths)
        self._next = self._ends - 8 * lengths

    def take(self, bits: npt.NDArray[np.int32], frames: IntArray) -> npt.NDArray[np.int32]:
        """The next ``bits`` [rows, channels] of rows of ``frames``, in order."""
        totals = bits.sum(axis=1, dtype=np.int64)
        before = np.cumsum(totals) - totals
        present, first, counts = np.unique(frames, return_index=True, return_counts=True)
        shift = np.repeat(self._next[present] - before[first], counts)
        self._next += np.bincount(frames, totals, len(self._next)).astype(np.int64)
        if (self._next > self._ends).any():
            raise CodecError("a frame ends inside its raw bits")
        within = np.cumsum(bits, axis=1, dtype=np.int64) - bits
        return take_bits(self._windows, within + (before + shift)[:, None], bits)

    def check(self) -> None:
        """CodecError unless everything was read."""
        if (self._ends - self._next >= 8).any():
            raise CodecError("bytes follow the raw bits of a frame")
