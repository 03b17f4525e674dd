"""Framing of encoded KV blocks, against an encoder written from the description alone."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_h2o.codec import CodecError, block_codecs
from pytest_h2o.codec.blocks import EncodedBlock, decode_block, encode_block, hash64
from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.predictors import PREDICTORS

CODECS = block_codecs.names()
V3, SEQ = "fp16_gear_predictive_v3", "fp16_gear_seq_v1"
names = st.lists(st.sampled_from(list(PREDICTORS)), max_size=5)
shapes = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 6))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Words, Words]:
    """K and V of any bit pattern (NaN payloads, infinities, signed zeros), any shape, often
    repetitive.
    """
    kind, shape = draw(st.sampled_from([np.uint16, np.uint32])), draw(shapes)
    top = np.iinfo(kind).max
    values = draw(
        st.sampled_from(
            [st.integers(0, top), st.sampled_from([0, 1, top]), st.integers(0x7C00, 0x7E01)]
        )
    )
    k, v = (draw(arrays.arrays(kind, shape, elements=values)) for _ in "kv")
    return k, v


def rle_size(data: bytes) -> int:
    size, at, literals = 0, 0, 0
    while at < len(data):
        run = 1
        while run < 131 and data[at + run : at + run + 1] == data[at : at + 1]:
            run += 1
        if run >= 4:
            size, at, literals = size + 2, at + run, 0
        else:
            size, at, literals = size + 1 + (literals % 128 == 0), at + 1, literals + 1
    return size


def chosen_by_the_book(data: bytes, predictors: Sequence[str]) -> tuple[int, int, int]:
    """(size, mode, codec) the runtime chooses for a stream: raw, delta, xor in turn, RLE before
    zstd.
    """
    zstd = zstandard.ZstdCompressor(level=3)
    sizes = []
    for mode, name in enumerate(["raw", "delta_seq", "xor_seq"]):
        if name in predictors:
            previous = b"\0" + data[:-1]
            pairs = list(zip(data, previous, strict=False))
            by_mode = [data, bytes((x - p) % 256 for x, p in pairs), bytes(x ^ p for x, p in pairs)]
            sizes += [
                (rle_size(by_mode[mode]), mode, 0),
                (len(zstd.compress(by_mode[mode])), mode, 1),
            ]
    return min(sizes, key=lambda each: each[0])


def frames(blob: bytes) -> list[tuple[int, int, int, int]]:
    """(mode, codec, raw length, payload length) of each frame; the frames fill the blob."""
    found, at = [], 4
    while at < len(blob):
        found.append(struct.unpack_from("<BBII", blob, at))
        at += 10 + found[-1][3]
    assert at == len(blob)
    return found


def equal(decoded: tuple[Words, Words], *source: Words) -> None:
    for got, expected in zip(decoded, source, strict=True):
        np.testing.assert_array_equal(got, expected, strict=True)


@given(blocks(), names, names, st.sampled_from(CODECS), st.booleans())
def test_round_trip(
    block: tuple[Words, Words], for_k: list[str], for_v: list[str], codec: str, strict: bool
) -> None:
    """Every block decodes to its input bit for bit, and its fields describe it."""
    k, v = block
    encoded = encode_block(
        k, v, predictors_k=for_k, predictors_v=for_v, codec=codec, hash_raw=strict
    )
    equal(decode_block(encoded), k, v)
    assert (encoded.raw_bytes, encoded.shape, encoded.elem_bytes) == (
        k.nbytes + v.nbytes,
        k.shape,
        k.itemsize,
    )
    assert (encoded.tokens, encoded.nbytes) == (k.shape[1], len(encoded.k) + len(encoded.v))
    assert encoded.raw_hash == (hash64(k.tobytes() + v.tobytes()) if strict else None)


@given(blocks(), st.sets(st.sampled_from(["raw", "delta_seq", "xor_seq"]), min_size=1))
def test_v3_chooses_like_the_runtime(block: tuple[Words, Words], predictors: set[str]) -> None:
    """Sizes, modes and payload codecs of each plane are those of the description, ties included."""
    k, _ = block
    encoded = encode_block(k, k, predictors_k=sorted(predictors), predictors_v=["raw"])
    assert struct.unpack_from("<I", encoded.k)[0] == k.size
    streams = [k.tobytes()[lane :: k.itemsize] for lane in range(k.itemsize)]
    assert frames(encoded.k) == [
        (mode, codec, len(stream), size)
        for stream in streams
        for size, mode, codec in [chosen_by_the_book(stream, sorted(predictors))]
    ]


def smooth_block() -> tuple[Words, Words]:
    """K and V that drift slowly from token to token and differ from dimension to dimension."""
    rng = np.random.default_rng(3)
    drift = rng.integers(0, 3, (2, 4, 128, 32)).cumsum(axis=2)
    k, v = (rng.integers(0, 1 << 16, (2, 4, 1, 32)) + drift).astype(np.uint16)
    return k, v


def test_sequence_codec_pays_off_on_smooth_sequences() -> None:
    """Deltas along the tokens find what deltas along the flat stream cannot."""
    k, v = smooth_block()
    sizes = [
        encode_block(
            k, v, predictors_k=list(PREDICTORS), predictors_v=list(PREDICTORS), codec=codec
        ).nbytes
        for codec in (SEQ, V3)
    ]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("codec", CODECS)
def test_same_bytes_from_every_thread(codec: str) -> None:
    """Encoders share nothing that matters: concurrent encodes give the bytes of a lone one."""
    k, v = smooth_block()

    def encode(_: int) -> EncodedBlock:
        return encode_block(
            k, v, predictors_k=["raw", "delta_seq"], predictors_v=["raw", "xor_seq"], codec=codec
        )

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(encode, range(16))) == {encode(0)}


def rehashed(block: EncodedBlock, k: bytes) -> EncodedBlock:
    """``block`` with another K blob that its hash does not give away."""
    return replace(block, k=k, blob_hash=hash64(k, block.v))


@given(blocks(), st.data(), st.sampled_from(CODECS))
def test_any_damage_is_noticed(block: tuple[Words, Words], data: st.DataObject, codec: str) -> None:
    """A changed, cut or extended blob raises CodecError."""
    encoded = encode_block(*block, predictors_k=["delta_seq"], predictors_v=["raw"], codec=codec)
    at = data.draw(st.integers(0, len(encoded.k) - 1))
    flipped = bytes([encoded.k[at] ^ data.draw(st.integers(1, 255))])
    for blob in (encoded.k[:at], encoded.k[:at] + flipped + encoded.k[at + 1 :], encoded.k + b"\0"):
        with pytest.raises(CodecError):
            decode_block(replace(encoded, k=blob))


@given(blocks(), st.data(), st.sampled_from(CODECS))
def test_parsing_survives_damage_the_hash_misses(
    block: tuple[Words, Words], data: st.DataObject, codec: str
) -> None:
    """With a matching hash, a damaged blob still gives CodecError or a block of the right shape,
    nothing else.
    """
    encoded = encode_block(*block, predictors_k=["xor_seq"], predictors_v=["raw"], codec=codec)
    blob = bytearray(encoded.k)
    for at in data.draw(st.lists(st.integers(0, len(blob) - 1), max_size=3)):
        blob[at] = data.draw(st.integers(0, 255))
    for bad in (bytes(blob), bytes(blob)[: data.draw(st.integers(0, len(blob)))]):
        with contextlib.suppress(CodecError):
            assert decode_block(rehashed(encoded, bad))[0].shape == encoded.shape


@given(st.binary(max_size=80))
def test_parsing_survives_anything(blob: bytes) -> None:
    """Arbitrary bytes with a matching hash are an error or a block."""
    k = np.zeros((1, 2, 2), np.uint16)
    encoded = encode_block(k, k, predictors_k=[], predictors_v=[])
    with contextlib.suppress(CodecError):
        assert decode_block(rehashed(encoded, blob))[0].shape == k.shape


def test_declared_sizes_are_not_believed() -> None:
    """Frames that declare gigabytes are refused by the block's own shape before anything is
    allocated.
    """
    k = np.zeros((1, 2, 2), np.uint16)
    encoded = encode_block(k, k, predictors_k=[], predictors_v=[])
    huge = 1 << 31
    frame = struct.pack("<BBII", 0, 0, huge, 2) + b"\xff\0"
    for blob in (struct.pack("<I", huge) + frame * 2, struct.pack("<I", 4) + frame * 2):
        with pytest.raises(CodecError):
            decode_block(rehashed(encoded, blob))
        with pytest.raises(CodecError):
            decode_block(replace(rehashed(encoded, blob), shape=(1, 1 << 20, 1 << 20)))


def test_strict_hash() -> None:
    """A block that decodes to something else than its source is caught when the source was
    hashed.
    """
    k = np.arange(8, dtype=np.uint16).reshape(1, 4, 2)
    encoded = encode_block(k, k, predictors_k=["raw"], predictors_v=["raw"], hash_raw=True)
    other = encode_block(k + np.uint16(1), k, predictors_k=["raw"], predictors_v=["raw"])
    with pytest.raises(CodecError, match="source"):
        decode_block(rehashed(encoded, other.k))


def test_arguments() -> None:
    """Other shapes, types, predictors and codecs are refused by name."""
    k = np.zeros((1, 2, 2), np.uint16)
    for bad in (k[:, :1], k[0], k.astype(np.uint32), k.astype(np.float16)):
        with pytest.raises(CodecError, match="two 3-D uint16 or uint32 arrays"):
            encode_block(k, bad, predictors_k=[], predictors_v=[])
    with pytest.raises(ValueError, match="unknown predictor 'x'"):
        encode_block(k, k, predictors_k=["x"], predictors_v=[])
    with pytest.raises(ValueError, match="unknown block codec 'x'"):
        encode_block(k, k, predictors_k=[], predictors_v=[], codec="x")
