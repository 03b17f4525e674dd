"""Run-length and zstd payloads."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.payload import (
    RLE,
    ZSTD,
    PayloadCodec,
    zstd_compress,
    zstd_decompress,
    zstd_frames,
)

pieces = st.one_of(
    st.binary(max_size=150),
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(1, 600)),
)
streams = st.lists(pieces, max_size=8).map(b"".join)


def rle_by_the_book(data: bytes) -> bytes:
    """The encoder as its description reads, one byte at a time."""
    out, at = bytearray(), 0

    def run(start: int) -> int:
        end = start
        while end < len(data) and data[end] == data[start] and end - start < 131:
            end += 1
        return end - start

    while at < len(data):
        if (length := run(at)) >= 4:
            out += bytes([128 + length - 4, data[at]])
            at += length
            continue
        start = at
        while at < len(data) and at - start < 128 and run(at) < 4:
            at += 1
        out += bytes([at - start - 1]) + data[start:at]
    return bytes(out)


@given(streams)
@example(b"")
@example(bytes(131 + 3))
@example(bytes(131 + 4))
@example(b"abc" + bytes(2 * 131 + 3) + b"d" * 3 + b"xyz")
def test_rle_matches_its_description(data: bytes) -> None:
    """The vectorised encoder writes the same bytes as the loop, and they decode to the input."""
    blob = RLE.encode(np.frombuffer(data, np.uint8), float("inf"))
    assert blob == rle_by_the_book(data)
    assert RLE.decode(blob, len(data)).tobytes() == data


@given(streams)
@pytest.mark.parametrize("codec", [RLE, ZSTD], ids=lambda codec: codec.name)
def test_limit_is_exact(codec: PayloadCodec, data: bytes) -> None:
    """A result of exactly the limit is given, one byte more is refused."""
    plane = np.frombuffer(data, np.uint8)
    blob = codec.encode(plane, float("inf"))
    assert blob is not None
    assert codec.encode(plane, len(blob)) == blob
    assert codec.encode(plane, len(blob) - 1) is None


@given(st.binary(max_size=60), st.integers(0, 3000))
@pytest.mark.parametrize("codec", [RLE, ZSTD], ids=lambda codec: codec.name)
def test_decoders_survive_anything(codec: PayloadCodec, blob: bytes, size: int) -> None:
    """Arbitrary bytes decode to the expected size or raise CodecError."""
    with contextlib.suppress(CodecError):
        assert codec.decode(blob, size).size == size


def test_rle_bomb_is_refused_before_it_grows() -> None:
    """A payload that stands for more bytes than expected is an error, not an allocation."""
    with pytest.raises(CodecError, match="holds 131000000 bytes, expected 10"):
        RLE.decode(b"\xff\x00" * 1_000_000, 10)


@given(streams, st.integers(1, 5))
def test_zstd_round_trip(data: bytes, level: int) -> None:
    """Frames decode to their source and carry its size, no checksum."""
    blob = zstd_compress(np.frombuffer(data, np.uint8), level)
    assert zstd_decompress(blob, len(data)).tobytes() == data
    parameters = zstandard.get_frame_parameters(blob)
    assert (parameters.content_size, parameters.has_checksum) == (len(data), False)


def test_zstd_frame_with_another_size() -> None:
    """A frame of another size, of unknown size, followed by more, or claiming a terabyte is
    refused.
    """
    data = np.zeros(100, np.uint8)
    blob = zstd_compress(data)
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(data.tobytes())
    claims_much = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    assert zstandard.frame_content_size(claims_much) == 1 << 40
    for bad, size in (
        (blob, 99),
        (unknown, 100),
        (blob + b"x", 100),
        (blob[:-1], 100),
        (claims_much, 100),
    ):
        with pytest.raises(CodecError):
            zstd_decompress(bad, size)


@given(
    st.lists(st.lists(pieces, min_size=1, max_size=3), min_size=2, max_size=2), st.integers(1, 5)
)
def test_zstd_frames(streams: list[list[bytes]], level: int) -> None:
    """Frames of many parts at once are those of compressing them one by one, byte for byte, empty
    parts included.
    """
    size = min(len(b"".join(parts)) for parts in streams) + 1
    planes = [
        np.frombuffer(b"".join(parts).ljust(size, b"\0")[:size], np.uint8).reshape(-1, 1)
        for parts in streams
    ]
    bounds = np.minimum(np.cumsum([0, *map(len, streams[0]), 1]), size)
    expected = [[zstd_compress(plane[a:b], level) for a, b in pairwise(bounds)] for plane in planes]
    assert [
        [frame.tobytes() for frame in frames] for frames in zstd_frames(planes, bounds, level)
    ] == expected


@pytest.mark.parametrize("level", [1, 3, 9, 19])
def test_long_zstd_frames(level: int) -> None:
    """The same for parts of several zstd blocks, where the encoder takes other paths."""
    plane = np.random.default_rng(0).normal(size=(700, 300)).astype(np.float16).view(np.uint8)
    bounds = np.array([0, 3, 250, 700])
    (frames,) = zstd_frames([plane], bounds, level)
    assert [frame.tobytes() for frame in frames] == [
        zstd_compress(plane[a:b], level) for a, b in pairwise(bounds)
    ]
