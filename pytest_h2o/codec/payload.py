"""Payload codecs: a flat byte stream to fewer bytes and back.

Both directions are vectorised or run in C, so worker threads overlap. Decoders are told the size to
expect and never allocate more.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.planes import Plane

IntArray: TypeAlias = npt.NDArray[np.intp]
Frame: TypeAlias = zstandard.BufferSegment
Spans: TypeAlias = tuple[IntArray, IntArray]  # starts and lengths

_MIN_RUN, _MAX_RUN, _MAX_LITERAL = 4, 131, 128


@dataclass(frozen=True, slots=True)
class PayloadCodec:
    """One codec: name, number in encoded data, ``encode(plane, limit)`` and ``decode(blob, size)``.

    ``encode`` returns None when the result would be larger than ``limit`` bytes. ``decode`` raises
    CodecError.
    """

    name: str
    number: int
    encode: Callable[[Plane, float], bytes | None]
    decode: Callable[[bytes, int], Plane]


class _Contexts(threading.local):
    """zstd contexts are costly to make and not thread-safe: one set per thread."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self._compressors:
            self._compressors[level] = zstandard.ZstdCompressor(
                level, write_content_size=True, write_checksum=False
            )
        return self._compressors[level]


_contexts = _Contexts()


def zstd_compress(plane: Plane, level: int = 3) -> bytes:
    """One zstd frame with content size and without checksum; ``plane`` must be contiguous."""
    return _contexts.compressor(level).compress(plane.data)


def zstd_frames(streams: Sequence[Plane], bounds: IntArray, level: int = 3) -> list[list[Frame]]:
    """What :func:`zstd_compress` makes of each part of each of the equally shaped ``streams``
    [rows, width]; parts lie between consecutive rows of ``bounds``. One call for all, because
    threads that give up and regain the interpreter for each part spend much of their time waiting
    for it.
    """
    places = bounds * streams[0].shape[1]
    segments = np.stack([places[:-1], np.diff(places)], axis=1).astype(np.uint64).tobytes()
    sources = [zstandard.BufferWithSegments(stream.data, segments) for stream in streams]
    collection = zstandard.BufferWithSegmentsCollection(*sources)  # type: ignore[no-untyped-call]
    compressed = _contexts.compressor(level).multi_compress_to_buffer(collection)
    frames = [compressed[index] for index in range(len(compressed))]
    parts = len(bounds) - 1
    return [frames[first : first + parts] for first in range(0, len(frames), parts)]


def zstd_decompress(blob: bytes, size: int) -> Plane:
    """Content of a single zstd frame that declares exactly ``size`` bytes; CodecError otherwise."""
    try:
        if zstandard.frame_content_size(blob) != size:
            raise CodecError(f"zstd frame does not declare {size} bytes")
        data = _contexts.decompressor.decompress(blob, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"zstd payload: {error}") from error
    return np.frombuffer(data, np.uint8)


def _zstd_encode(plane: Plane, limit: float) -> bytes | None:
    blob = zstd_compress(plane)
    if len(blob) > limit:
        return None
    return blob


def _cut(spans: Spans, longest: int) -> Spans:
    """``spans`` cut into pieces of at most ``longest``."""
    starts, lengths = spans
    count = -(-lengths // longest)
    index = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    cut = np.repeat(starts, count) + index * longest
    return cut, np.minimum(np.repeat(starts + lengths, count) - cut, longest)


def _repeats(inside: npt.NDArray[np.bool_]) -> Spans:
    """What the encoder repeats; ``inside[i]`` says that bytes i to i+3 are equal."""
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, lengths = _cut((edges[::2], edges[1::2] - edges[::2] + _MIN_RUN - 1), _MAX_RUN)
    enough = lengths >= _MIN_RUN  # the rest of a long run may be too short to repeat
    return starts[enough], lengths[enough]


def _literals(repeats: Spans, size: int) -> Spans:
    """What lies between the repeats."""
    starts = np.append(0, repeats[0] + repeats[1])
    return _cut((starts, np.append(repeats[0], size) - starts), _MAX_LITERAL)


def _rle_encode(plane: Plane, limit: float) -> bytes | None:
    """Control c < 128: c+1 literals follow; otherwise the next byte stands for c-128+4 equal
    ones.
    """
    same = plane[1:] == plane[:-1]
    inside = same[:-2] & same[1:-1] & same[2:]
    # No run saves more than its `inside` count plus one.
    if plane.size - 2 * np.count_nonzero(inside) > limit:
        return None
    repeats = _repeats(inside)
    literals = _literals(repeats, plane.size)
    if 2 * repeats[0].size + literals[0].size + literals[1].sum() > limit:
        return None
    starts = np.concatenate([repeats[0], literals[0]])
    order = np.argsort(starts)
    controls = np.concatenate([repeats[1] - _MIN_RUN + 128, literals[1] - 1])[order]
    carried = np.concatenate([np.ones_like(repeats[1]), literals[1]])[order]
    return _interleave(controls, carried, plane, starts[order])


def _interleave(controls: IntArray, carried: IntArray, plane: Plane, starts: IntArray) -> bytes:
    """Each control byte followed by ``carried`` bytes of ``plane`` from ``starts`` on."""
    after = np.cumsum(carried)
    is_control = np.zeros(carried.sum() + controls.size, np.bool_)
    is_control[after - carried + np.arange(controls.size)] = True
    out = np.empty(is_control.size, np.uint8)
    out[is_control] = controls
    sources = np.repeat(starts - after + carried, carried) + np.arange(carried.sum())
    out[~is_control] = plane[sources]
    return out.tobytes()


def _rle_decode(blob: bytes, size: int) -> Plane:
    data = np.frombuffer(blob, np.uint8)
    controls, position = [], 0
    while position < len(blob):
        controls.append(position)
        literals = blob[position] + 1
        if blob[position] >= 128:
            literals = 1
        position += 1 + literals
    counts = np.ones(len(blob), np.intp)
    at = np.array(controls, np.intp)
    repeats = at[data[at] >= 128]
    if position != len(blob):
        raise CodecError("run-length payload ends inside a token")
    counts[at] = 0
    counts[repeats + 1] = data[repeats].astype(np.intp) - 128 + _MIN_RUN
    if counts.sum() != size:
        raise CodecError(f"run-length payload holds {counts.sum()} bytes, expected {size}")
    return np.repeat(data, counts)


RLE = PayloadCodec("rle", 0, _rle_encode, _rle_decode)
ZSTD = PayloadCodec("zstd", 1, _zstd_encode, zstd_decompress)
PAYLOADS = {codec.number: codec for codec in (RLE, ZSTD)}
