"""Coding a batch: its containers, that they decode to their source, and the sums of their sizes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.planes import Plane, Words, histogram, split
from pytest_h2o.codec.predictors import BY_MODE
from pytest_h2o.codec.rope import Rope, Rotation
from pytest_h2o.codec.row_frames import HEAD, FrameRows, decode_frames, encode_frames
from pytest_h2o.codec.tensors import (
    EncodedPlane,
    EncodedTensor,
    PlaneCoding,
    decode_tensors,
    encode_tensors,
)
from pytest_h2o.offline.batches import Batch, Unit
from pytest_h2o.offline.dump import DumpEntry, Skip
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.tallies import HISTOGRAM_STEP, PlaneTally, RowTally, TensorTally

_FRAME_ROWS = 4096  # longer units take several frames
_STREAM_HEADER_BYTES = 8  # the adaptive mode charges this per stream, and a byte per block

Outcome: TypeAlias = TensorTally | Skip
Parts: TypeAlias = list[tuple[int, ...]]


def code(batch: Batch, tensor: str, options: OfflineOptions) -> Outcome:
    """Sums over "k" or "v" of all units of ``batch``, or why at least one of them could not be
    coded.
    """
    try:
        words = batch.tensor(tensor)
        parts = [_parts(unit, options) for unit in batch.units]
        hi_coding = _coding(tensor, "hi", options)
        lo_coding = _coding(tensor, "lo", options)
        encoded = encode_tensors(words, parts, hi_coding, lo_coding)
        containers = [each.to_bytes() for each in encoded]
        if options.verify:
            _verify(containers, words, parts)
    except (CodecError, MemoryError) as error:
        return Skip("compression_failed", f"{tensor}: {error}")
    low, high = split(words[::HISTOGRAM_STEP])
    hi = _plane_tally([each.hi for each in encoded], words.size, high, options)
    lo = _plane_tally([each.lo for each in encoded], words.size, low, options)
    meta = sum(_meta_bytes(unit, options) for unit in batch.units)
    compressed = hi.stream_bytes + lo.stream_bytes + meta
    rows = {name: _code_rows(batch, tensor, name, options) for name in options.row_codecs}
    if options.codec_mode in rows:
        judged = rows[options.codec_mode]
        compressed = judged.compressed_bytes
        if judged.error:
            return Skip("compression_failed", f"{tensor}: {judged.error}")
    return TensorTally(words.nbytes, compressed, meta, sum(map(len, containers)), hi, lo, rows)


def rope_of(entry: DumpEntry, options: OfflineOptions) -> Rope | None:
    """The embedding that the keys of ``entry`` are derotated by, if any."""
    if entry.rope or not options.rope_base:
        return entry.rope
    return Rope(options.rope_base, options.rope_layout)


def _code_rows(batch: Batch, tensor: str, codec: str, options: OfflineOptions) -> RowTally:
    """What frames of ``codec`` make of a tensor of all units."""
    tally = RowTally()
    alike: dict[Rope | None, list[FrameRows]] = {}
    for unit in batch.units:
        rope = None
        if tensor == "k":
            rope = rope_of(unit.pieces[0].entry, options)
        frames = list(_frames(unit, tensor, rope))
        alike.setdefault(rope, []).extend(frames)
        tally.derotated += len(frames) * (rope is not None)
        tally.compressed_bytes += max(0, _meta_bytes(unit, options) - HEAD.size)
    try:
        for rope, rows in alike.items():
            hi, lo = _coding(tensor, "hi", options), _coding(tensor, "lo", options)
            made = encode_frames(rows, codec, hi, lo)
            tally.compressed_bytes += sum(map(len, made))
            if options.verify:
                _verify_frames(made, rows, rope)
    except (CodecError, MemoryError) as error:
        tally.error = str(error)[:500]
    return tally


def _frames(unit: Unit, tensor: str, rope: Rope | None) -> Iterator[FrameRows]:
    """The rows of a frame each."""
    words, positions = unit.tensor(tensor), unit.positions
    for begin in range(0, len(words), _FRAME_ROWS):
        there = slice(begin, begin + _FRAME_ROWS)
        rotation = None
        if rope:
            rotation = Rotation(rope, positions[there])
        yield FrameRows(words[there], rotation)


def _verify_frames(made: Sequence[bytes], rows: Sequence[FrameRows], rope: Rope | None) -> None:
    for again, each in zip(decode_frames(made, rope), rows, strict=True):
        if not np.array_equal(again, each.words):
            raise CodecError("a decoded frame differs from its source")


def _parts(unit: Unit, options: OfflineOptions) -> tuple[int, ...]:
    """Rows of the parts that a container keeps apart."""
    if options.entry_mode == "aggregate":
        return unit.lengths
    return (sum(unit.lengths),)


def _meta_bytes(unit: Unit, options: OfflineOptions) -> int:
    """What the compatible accounting charges per tensor besides its streams."""
    if options.entry_mode == "aggregate":
        return 4 + 4 * len(unit.pieces)
    if options.chunked:
        return options.online_framing_bytes
    return 0


def _coding(tensor: str, plane: str, options: OfflineOptions) -> PlaneCoding:
    """Bit-shuffled residuals are always tried: their entropy says little."""
    block_rows = options.adaptive_block_seq
    if options.codec_mode == "legacy":
        block_rows = 0
    return PlaneCoding(
        predictors=options.predictors(tensor, plane),
        block_rows=block_rows,
        level=options.zstd_level,
        shuffle=options.bitshuffle,
        ranked=options.fast and not options.bitshuffle,
    )


def _verify(containers: Sequence[bytes], words: Words, parts: Parts) -> None:
    tensors = [EncodedTensor.from_bytes(container) for container in containers]
    decoded = decode_tensors(tensors, words.nbytes)
    if [tensor.parts for tensor in tensors] != parts or not np.array_equal(decoded, words):
        raise CodecError("the decoded tensor differs from its source")


def _plane_tally(
    streams: Sequence[EncodedPlane], size: int, sample: Plane, options: OfflineOptions
) -> PlaneTally:
    stream_bytes = 0
    names: Counter[str] = Counter()
    for stream in streams:
        stream_bytes += len(stream.payload)
        if options.codec_mode != "legacy":
            stream_bytes += _STREAM_HEADER_BYTES + len(stream.modes)
        for mode, blocks in Counter(stream.modes).items():
            names[BY_MODE[mode].name] += blocks
    return PlaneTally(size, stream_bytes, names, histogram(sample))
