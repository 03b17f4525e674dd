"""The container of a whole tensor."""

from __future__ import annotations

import contextlib
import struct

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
from pytest_h2o.codec.tensors import PlaneCoding, decode_tensor, encode_tensor

tensors = arrays.arrays(np.uint16, st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(1, 5)))
codings = st.builds(
    PlaneCoding,
    st.lists(st.sampled_from(list(PREDICTORS)), min_size=1, unique=True).map(tuple),
    st.integers(0, 4),
    st.just(3),
    st.booleans(),
    st.booleans(),
)
RAW = PlaneCoding(("raw",), 2)


@given(tensors, codings, codings, st.data())
def test_round_trip(words: Words, hi: PlaneCoding, lo: PlaneCoding, data: st.DataObject) -> None:
    """A container gives back the words and the rows of the parts."""
    cut = data.draw(st.integers(0, len(words)))
    container = encode_tensor(words, (cut, len(words) - cut), hi, lo).to_bytes()
    decoded, parts = decode_tensor(container, words.nbytes)
    np.testing.assert_array_equal(decoded, words, strict=True)
    assert parts == (cut, len(words) - cut)


@given(tensors, codings, st.data())
def test_damage(words: Words, coding: PlaneCoding, data: st.DataObject) -> None:
    """Cut and altered containers raise CodecError or give words within the limit, nothing else."""
    container = bytearray(encode_tensor(words, (len(words),), coding, RAW).to_bytes())
    with pytest.raises(CodecError):
        decode_tensor(bytes(container[: data.draw(st.integers(0, len(container) - 1))]), words.nbytes)
    with pytest.raises(CodecError):
        decode_tensor(bytes(container) + b"\0", words.nbytes)
    for at in data.draw(st.lists(st.integers(0, len(container) - 1), min_size=1, max_size=3)):
        container[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        assert decode_tensor(bytes(container), words.nbytes)[0].nbytes <= words.nbytes


@given(st.binary(max_size=100))
def test_anything(blob: bytes) -> None:
    """Arbitrary bytes are an error or a small tensor."""
    with contextlib.suppress(CodecError):
        assert decode_tensor(blob, 1000)[0].nbytes <= 1000


def test_limit_comes_before_allocation() -> None:
    """A header that declares terabytes is refused."""
    header = struct.pack("<HHII", 0xFFFF, 0xFFFF, 1, 0xFFFFFFFF)
    with pytest.raises(CodecError, match="more than 1000"):
        decode_tensor(header + bytes(100), 1000)
    with pytest.raises(CodecError, match="4294967295 parts"):
        decode_tensor(struct.pack("<HHI", 1, 1, 0xFFFFFFFF), 1000)


def test_best_predictor_of_each_block() -> None:
    """Each block takes its own best predictor, and the first one on a tie."""
    ramp = np.add.outer(np.arange(64), np.arange(0, 256, 2)).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 256, (64, 128)).astype(np.uint16)
    words = np.concatenate([ramp, noise, np.zeros_like(ramp)]).reshape(192, 4, 32)
    encoded = encode_tensor(words, (192,), RAW, PlaneCoding(("raw", "delta_seq", "xor_seq"), 64))
    assert list(encoded.lo.modes) == [1, 0, 0]
    swapped = encode_tensor(words, (192,), RAW, PlaneCoding(("xor_seq", "raw"), 64))
    assert list(swapped.lo.modes)[1:] == [2, 2]


def test_long_planes_are_tried_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many blocks are tried at a time, to bound memory, changes nothing in the container."""
    words = np.random.default_rng(0).normal(size=(50, 2, 8)).astype(np.float16).view(np.uint16)
    coding = PlaneCoding(tuple(PREDICTORS), 4)
    whole = encode_tensor(words, (50,), coding, coding).to_bytes()
    for limit in (1, 130, 200):
        monkeypatch.setattr(tensors_module, "_STRETCH_BYTES", limit)
        assert encode_tensor(words, (50,), coding, coding).to_bytes() == whole


def test_payload_is_one_frame_of_the_residuals() -> None:
    """Blocks are chosen apart but compressed together."""
    words = np.arange(6 * 2, dtype=np.uint16).reshape(6, 2, 1)
    encoded = encode_tensor(words, (6,), RAW, PlaneCoding(("delta_seq",), 3))
    assert zstandard.decompress(encoded.lo.payload) == bytes([0, 1, 2, 2, 2, 2, 6, 7, 2, 2, 2, 2])
    assert encoded.lo.modes == b"\1\1"


def test_arguments() -> None:
    """Other word sizes and parts that do not add up are refused."""
    with pytest.raises(CodecError, match="uint32"):
        encode_tensor(np.zeros((1, 1, 1), np.uint32), (1,), RAW, RAW)
    with pytest.raises(CodecError, match="of 3 rows"):
        encode_tensor(np.zeros((1, 1, 1), np.uint16), (1, 2), RAW, RAW)
