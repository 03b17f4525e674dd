"""The container of a whole tensor."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_h2o.codec import CodecError
from pytest_h2o.codec import tensors as tensors_module
from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.predictors import PREDICTORS
from pytest_h2o.codec.tensors import EncodedTensor, PlaneCoding, decode_tensors, encode_tensors

tensors = arrays.arrays(
    np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5))
)
codings = st.builds(
    PlaneCoding,
    st.lists(st.sampled_from(list(PREDICTORS)), min_size=1, unique=True).map(tuple),
    st.integers(0, 4),
    st.just(3),
    st.booleans(),
)
RAW = PlaneCoding(("raw",), 2)


def encode(words: Words, parts: Sequence[int], hi: PlaneCoding, lo: PlaneCoding) -> EncodedTensor:
    """A tensor by itself."""
    (encoded,) = encode_tensors(words, [parts], hi, lo)
    return encoded


def decode(*blobs: bytes, limit: int) -> Words:
    """The words of containers."""
    return decode_tensors([EncodedTensor.from_bytes(blob) for blob in blobs], limit)


@st.composite
def cuts(draw: st.DrawFn, rows: int) -> list[int]:
    """Lengths of at least 1 that add up to ``rows``."""
    bounds = draw(st.sets(st.integers(1, rows - 1))) if rows > 1 else set()
    return np.diff([0, *sorted(bounds), rows]).tolist()


@given(tensors, codings, codings, st.booleans(), st.data())
def test_round_trip(
    words: Words, hi: PlaneCoding, lo: PlaneCoding, ranked: bool, data: st.DataObject
) -> None:
    """The containers of a stack give back the words and the rows of the parts, ranked or not."""
    parts = [data.draw(cuts(rows)) for rows in data.draw(cuts(len(words)))]
    if ranked:
        hi, lo = (replace(coding, shuffle=False, ranked=True) for coding in (hi, lo))
    encoded = encode_tensors(words, parts, hi, lo)
    blobs = [tensor.to_bytes() for tensor in encoded]
    assert [EncodedTensor.from_bytes(blob) for blob in blobs] == encoded
    np.testing.assert_array_equal(decode(*blobs, limit=words.nbytes), words, strict=True)
    assert [list(tensor.parts) for tensor in encoded] == parts


@given(tensors, codings, codings, st.data())
def test_neighbours_do_not_matter(
    words: Words, hi: PlaneCoding, lo: PlaneCoding, data: st.DataObject
) -> None:
    """The containers of a stack are those of its tensors one by one."""
    lengths = data.draw(cuts(len(words)))
    alone = [encode(each, [len(each)], hi, lo) for each in np.split(words, np.cumsum(lengths)[:-1])]
    assert encode_tensors(words, [[rows] for rows in lengths], hi, lo) == alone


@given(tensors, codings, st.data())
def test_damage(words: Words, coding: PlaneCoding, data: st.DataObject) -> None:
    """Cut and altered containers raise CodecError or give words within the limit, nothing else."""
    container = bytearray(encode(words, (len(words),), coding, RAW).to_bytes())
    with pytest.raises(CodecError):
        decode(
            bytes(container[: data.draw(st.integers(0, len(container) - 1))]), limit=words.nbytes
        )
    with pytest.raises(CodecError):
        decode(bytes(container) + b"\0", limit=words.nbytes)
    for at in data.draw(st.lists(st.integers(0, len(container) - 1), min_size=1, max_size=3)):
        container[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        assert decode(bytes(container), limit=words.nbytes).nbytes <= words.nbytes


@given(st.binary(max_size=100))
def test_anything(blob: bytes) -> None:
    """Arbitrary bytes are an error or a small tensor."""
    with contextlib.suppress(CodecError):
        assert decode(blob, limit=1000).nbytes <= 1000


def test_limit_comes_before_allocation() -> None:
    """Containers that declare terabytes, by themselves or together, or no width for their rows, are
    refused.
    """
    stream = struct.pack("<II", 0, (1 << 31) - 1) + bytes(3)
    for heads, dim, message in (
        (0xFFFF, 0xFFFF, "more than 1000"),
        (0, 1, "0 heads"),
        (1, 0, "heads of 0"),
    ):
        header = struct.pack("<HHII", heads, dim, 1, 0xFFFFFFFF)
        with pytest.raises(CodecError, match=message):
            decode(header + stream + stream, limit=1000)
    with pytest.raises(CodecError, match="4294967295 parts"):
        decode(struct.pack("<HHI", 1, 1, 0xFFFFFFFF), limit=1000)
    blob = encode(np.zeros((4, 1, 1), np.uint16), (4,), RAW, RAW).to_bytes()
    with pytest.raises(CodecError, match="16 bytes, more than 15"):
        decode(blob, blob, limit=15)


def test_widths_are_not_mixed() -> None:
    """Tensors that do not fit on each other are refused."""
    blobs = [encode(np.zeros((4, 1, dim), np.uint16), (4,), RAW, RAW).to_bytes() for dim in (1, 2)]
    with pytest.raises(CodecError, match="different widths"):
        decode(*blobs, limit=1000)


def test_best_predictor_of_each_block() -> None:
    """Each block takes its own best predictor, and the first one on a tie."""
    ramp = np.add.outer(np.arange(64), np.arange(0, 256, 2)).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 256, (64, 128)).astype(np.uint16)
    words = np.concatenate([ramp, noise, np.zeros_like(ramp)]).reshape(192, 4, 32)
    encoded = encode(words, (192,), RAW, PlaneCoding(("raw", "delta_seq", "xor_seq"), 64))
    assert list(encoded.lo.modes) == [1, 0, 0]
    swapped = encode(words, (192,), RAW, PlaneCoding(("xor_seq", "raw"), 64))
    assert list(swapped.lo.modes)[1:] == [2, 2]


def test_one_predictor_when_ranked() -> None:
    """A stack takes the predictor that its rows ask for: deltas on ramps, none on rows that repeat
    at a distance.
    """
    rng = np.random.default_rng(0)
    ramps = rng.integers(0, 256, (1, 4, 32)) + np.arange(256)[:, None, None]
    repeating = rng.integers(0, 4, (8, 4, 32))[rng.integers(0, 8, 256)] * 85
    for rows, expected in ((ramps, 1), (repeating, 0)):
        encoded = encode_tensors(
            (rows & 255).astype(np.uint16),
            [[96], [160]],
            RAW,
            PlaneCoding(("raw", "delta_seq"), 64, ranked=True),
        )
        assert {mode for tensor in encoded for mode in tensor.lo.modes} == {expected}


def test_long_planes_are_tried_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many blocks are tried at a time, to bound memory, changes nothing in the container."""
    words = np.random.default_rng(0).normal(size=(50, 2, 8)).astype(np.float16).view(np.uint16)
    coding = PlaneCoding(tuple(PREDICTORS), 4)
    whole = encode(words, (50,), coding, coding).to_bytes()
    for limit in (1, 130, 200):
        monkeypatch.setattr(tensors_module, "_STRETCH_BYTES", limit)
        assert encode(words, (50,), coding, coding).to_bytes() == whole


def test_payload_is_one_frame_of_the_residuals() -> None:
    """Blocks are chosen apart but compressed together."""
    words = np.arange(6 * 2, dtype=np.uint16).reshape(6, 2, 1)
    encoded = encode(words, (6,), RAW, PlaneCoding(("delta_seq",), 3))
    assert zstandard.decompress(encoded.lo.payload) == bytes([0, 1, 2, 2, 2, 2, 6, 7, 2, 2, 2, 2])
    assert encoded.lo.modes == b"\1\1"


def test_arguments() -> None:
    """Other word sizes, parts that do not add up and tensors without rows are refused."""
    words = np.zeros((2, 1, 1), np.uint16)
    with pytest.raises(CodecError, match="uint32"):
        encode_tensors(words.astype(np.uint32), [(2,)], RAW, RAW)
    for parts, message in (([(1, 2)], "of 3 rows"), ([(2,), ()], "2 tensors"), ([], "0 tensors")):
        with pytest.raises(CodecError, match=message):
            encode_tensors(words, parts, RAW, RAW)
    with pytest.raises(CodecError, match="1 heads of 0"):
        encode_tensors(words[..., :0], [(2,)], RAW, RAW)
