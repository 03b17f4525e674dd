"""Coding a batch: its containers, that they decode to their source, and the sums of their sizes."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.planes import Plane, Words, histogram, split
from pytest_h2o.codec.predictors import BY_MODE
from pytest_h2o.codec.tensors import (
    EncodedPlane,
    EncodedTensor,
    PlaneCoding,
    decode_tensors,
    encode_tensors,
)
from pytest_h2o.offline.batches import Batch, Unit
from pytest_h2o.offline.dump import Skip
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result import HISTOGRAM_STEP, PlaneTally, TensorTally

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
    return TensorTally(words.nbytes, compressed, meta, sum(map(len, containers)), hi, lo)


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
