"""Frames of the row codecs: what goes in comes out, damage is refused, a second decoder agrees."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_rows import Slow

from pytest_h2o.codec import K_PREDICTORS, ROW_CODECS, V_PREDICTORS, CodecError
from pytest_h2o.codec.rope import Rope, Rotation, pack_positions, unpack_positions
from pytest_h2o.codec.row_frames import HEAD, decode_frames, encode_frame
from pytest_h2o.codec.row_symbols import class_masses
from pytest_h2o.codec.tensors import PlaneCoding, encode_tensors

GOLDEN = Path(__file__).parents[1] / "data" / "codec"
ROPE = Rope()
Array = npt.NDArray[Any]


def rotated(values: Array, positions: Array, rope: Rope) -> Array:
    """RoPE of ``values`` [rows, heads, dim], by complex numbers."""
    dim = values.shape[2]
    pairs = np.arange(dim).reshape(-1, 2)
    if rope.layout == "half":
        pairs = np.arange(dim).reshape(2, -1).T
    turns = np.exp(1j * np.outer(positions, rope.base ** (-np.arange(0, dim, 2) / dim)))
    turned = (values[..., pairs[:, 0]] + 1j * values[..., pairs[:, 1]]) * turns[:, None]
    out = np.empty(values.shape)
    out[..., pairs[:, 0]], out[..., pairs[:, 1]] = turned.real, turned.imag
    return out


def repeating(
    rows: int, heads: int, dim: int, seed: int, rope: Rope | None = None
) -> tuple[Array, Array]:
    """Words of rows that repeat twenty tokens, some but for noise, and their positions."""
    rng = np.random.default_rng([seed, rows, heads, dim])
    table = rng.normal(size=(20, heads, dim)) * rng.lognormal(size=(heads, dim))
    table += rng.normal(size=(heads, dim)) * 3
    values = table[rng.integers(0, 20, rows)]
    values = values + 0.2 * rng.normal(size=values.shape) * (rng.random(rows) < 0.4)[:, None, None]
    positions = np.cumsum(rng.choice([1, 1, 1, 1, 9], rows))
    if rope:
        values = rotated(values, positions, rope)
    return values.astype(np.float16).view(np.uint16), positions


def there_and_back(words: Array, codec: str, rotation: Rotation | None) -> bytes:
    """The frame of ``words``, which it decodes to."""
    frame = encode_frame(words, codec, rotation)
    (again,) = decode_frames([frame], ROPE if rotation is None else rotation.rope)
    assert again.dtype == np.uint16
    assert np.array_equal(again, words)
    assert len(frame) <= min(words.nbytes, planes_of(words, rotation)) + HEAD.size + 1
    return frame


def planes_of(words: Array, rotation: Rotation | None) -> int:
    """Bytes of both streams of the compatible coding."""
    coding = PlaneCoding(K_PREDICTORS if rotation else V_PREDICTORS, block_rows=64)
    (tensor,) = encode_tensors(words, [(len(words),)], coding, coding)
    return len(tensor.streams())


def structured(draw: st.DrawFn, rows: int, heads: int, dim: int) -> Array:
    """Words that some predictor or reference suits."""
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["random", "repeats", "turned", "smooth", "equal", "pairs"]))
    words = rng.integers(0, 1 << 16, (rows, heads, dim), dtype=np.uint16)
    if kind == "repeats":
        words = repeating(rows, heads, dim, seed)[0].copy()
    elif kind == "turned" and dim % 2 == 0:
        tokens = rng.normal(size=(draw(st.integers(1, 40)), heads, dim))
        values = tokens[rng.integers(0, len(tokens), rows)]
        words = rotated(values, np.arange(rows), ROPE).astype(np.float16).view(np.uint16)
    elif kind == "smooth":
        words = rng.integers(0, 3, (rows, heads, dim)).cumsum(axis=0).astype(np.uint16)
        words <<= draw(st.sampled_from([0, 4, 8]))
    elif kind == "equal":
        words[:] = words[:1]
    elif kind == "pairs":
        words[..., 1::2] = words[..., : 2 * (dim // 2) : 2]
    return words


@st.composite
def any_rows(draw: st.DrawFn) -> tuple[Array, Rotation | None]:
    """Words of any kind, rotated or not, at positions that may jump."""
    rows = draw(st.sampled_from([1, 2, 3, 17, 64, 300]))
    heads = draw(st.integers(1, 3))
    dim = draw(st.sampled_from([1, 7, 16, 32, 64, 80, 128]))
    cut = draw(st.integers(0, rows))
    first, second = structured(draw, rows, heads, dim), structured(draw, rows, heads, dim)
    words = np.concatenate([first[:cut], second[cut:]])
    rng = np.random.default_rng(cut)
    special = draw(st.lists(st.sampled_from([0x7C00, 0xFC00, 0x7E01, 0xFFFF, 1, 0x8001, 0x8000])))
    for word in special:
        words[rng.integers(rows), rng.integers(heads), rng.integers(dim)] = word
    if draw(st.booleans()):
        return words, None
    positions = np.arange(rows)
    if draw(st.booleans()):
        positions = np.abs(rng.integers(-50, 70_000, rows).cumsum())
    layout = draw(st.sampled_from(["half", "interleaved"]))
    return words, Rotation(Rope(draw(st.sampled_from([10_000.0, 5e5])), layout), positions)


@given(any_rows(), st.sampled_from(ROW_CODECS))
@settings(max_examples=150, deadline=None)
def test_identical_words(rows: tuple[Array, Rotation | None], codec: str) -> None:
    """Every frame decodes to the words it was made of, whatever they are, and none is more than a
    byte longer than its head and what is shorter, they or their byte planes.
    """
    there_and_back(rows[0], codec, rows[1])


@pytest.mark.parametrize("kind", ["ramp", "pairs", "turns"])
@pytest.mark.parametrize("seed", range(8))
def test_repeats_beside_what_planes_predict(kind: str, seed: int) -> None:
    """Where the rows that repeat nothing suit a predictor of planes, planes are tried as well."""
    rng = np.random.default_rng(seed)
    rows, heads, dim = int(rng.choice([64, 192, 300])), int(rng.integers(1, 5)), 32
    tokens = rng.normal(size=(int(rng.integers(1, 12)), heads, dim))
    values = rotated(tokens[rng.integers(0, len(tokens), rows)], np.arange(rows), ROPE)
    words = values.astype(np.float16).view(np.uint16).copy()
    cut = int(rng.uniform(0.3, 0.9) * rows)
    step, start = np.arange(rows - cut)[:, None, None], rng.integers(0, 1 << 16, (1, heads, dim))
    if kind == "ramp":
        words[cut:] = (start + step * int(rng.integers(1, 700))) % (1 << 16)
    elif kind == "pairs":
        words[cut:] = rng.integers(0, 1 << 16, (rows - cut, heads, dim))
        words[cut:, :, 1::2] = words[cut:, :, ::2]
    else:
        words[cut:] = start ^ (step & 1) * 0x5555
    there_and_back(words, "rope_row", Rotation(ROPE, np.arange(rows)))


@pytest.mark.parametrize("codec", ROW_CODECS)
@pytest.mark.parametrize("word", [0, 1, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0xFC01])
def test_constant_words(word: int, codec: str) -> None:
    """A frame of one word only, an infinity or NaN among them, takes few bytes."""
    words = np.full((192, 2, 32), word, np.uint16)
    there_and_back(words, codec, Rotation(ROPE, np.arange(192)))
    assert len(there_and_back(words, codec, None)) < 700


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_many_rows(codec: str) -> None:
    """4096 rows fit a frame, and references reach no further back than a byte says."""
    words, positions = repeating(4096, 2, 16, 3, ROPE)
    frame = there_and_back(words, codec, Rotation(ROPE, positions))
    assert len(frame) < 0.9 * words.nbytes


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_derotation_pays(codec: str, layout: str) -> None:
    """Repeated keys cost less than half as much where their rotation is known, and knowing another
    layout does not help.
    """
    rope = Rope(10_000.0, layout)
    rng = np.random.default_rng(5)
    table = rng.normal(size=(12, 4, 32))
    positions = np.arange(192)
    values = rotated(table[rng.integers(0, 12, 192)], positions, rope)
    words = values.astype(np.float16).view(np.uint16)
    known = len(there_and_back(words, codec, Rotation(rope, positions)))
    unknown = len(there_and_back(words, codec, None))
    other = Rope(10_000.0, ({"half", "interleaved"} - {layout}).pop())
    wrong = len(there_and_back(words, codec, Rotation(other, positions)))
    assert known < 0.5 * unknown
    assert known < 0.5 * wrong


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_together(codec: str) -> None:
    """Frames decode together as they do alone, different widths and kinds among them."""
    frames, sources = [], []
    for seed in range(6):
        words, positions = repeating(40 + seed, 2, 16 + 16 * (seed % 2), seed, ROPE)
        rotation = Rotation(ROPE, positions) if seed % 3 else None
        frames.append(encode_frame(words, codec, rotation))
        sources.append(words)
    random = np.random.default_rng(0).integers(0, 1 << 16, (3, 2, 16), dtype=np.uint16)
    frames.append(encode_frame(random, codec))
    sources.append(random)
    for words, again in zip(sources, decode_frames(frames, ROPE), strict=True):
        assert np.array_equal(words, again)


@pytest.mark.parametrize("codec", ROW_CODECS)
@pytest.mark.parametrize("turned", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage(codec: str, turned: bool, data: st.DataObject) -> None:
    """A frame with a changed bit, cut short or with bytes after it is refused."""
    words, positions = repeating(48, 2, 16, 7, ROPE)
    frame = bytearray(encode_frame(words, codec, Rotation(ROPE, positions) if turned else None))
    place = data.draw(st.integers(0, len(frame) - 1))
    kind = data.draw(st.sampled_from(["bit", "cut", "longer"]))
    if kind == "bit":
        frame[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del frame[place:]
    else:
        frame += bytes(1 + place % 9)
    with pytest.raises(CodecError):
        decode_frames([bytes(frame)], ROPE)


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_another_shape(codec: str) -> None:
    """A head that declares as many words in another shape is refused."""
    words, positions = repeating(48, 2, 16, 7, ROPE)
    random = np.random.default_rng(0).integers(0, 1 << 16, (48, 2, 16), dtype=np.uint16)
    for source, rotation in ((words, None), (words, Rotation(ROPE, positions)), (random, None)):
        frame = encode_frame(source, codec, rotation)
        for rows, heads, dim in ((48, 16, 2), (96, 1, 16), (24, 4, 16), (48, 1, 32)):
            damaged = frame[:4] + struct.pack("<HBB", rows - 1, heads - 1, dim - 1) + frame[8:]
            with pytest.raises(CodecError):
                decode_frames([damaged], ROPE)


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_planes_instead(codec: str) -> None:
    """Words that no row predicts, but a byte plane's predictor does, still take few bytes."""
    steps = np.random.default_rng(0).integers(0, 2, (192, 2, 16)).cumsum(axis=0)
    words = ((steps % 256) << 8).astype(np.uint16)
    assert len(there_and_back(words, codec, None)) < 0.15 * words.nbytes


def test_wrong_embedding() -> None:
    """Keys are refused without the model's embedding, and with another one."""
    words, positions = repeating(48, 2, 16, 7, ROPE)
    frame = encode_frame(words, "row_reference", Rotation(ROPE, positions))
    with pytest.raises(CodecError, match="RoPE base"):
        decode_frames([frame])
    with pytest.raises(CodecError):
        decode_frames([frame], Rope(500_000.0))
    with pytest.raises(CodecError, match="more than 100"):
        decode_frames([frame], ROPE, max_bytes=100)


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        (np.zeros((0, 1, 2), np.uint16), None),
        (np.zeros((2, 1, 2), np.uint32), None),
        (np.zeros((2, 257, 2), np.uint16), None),
        (np.zeros((2, 1, 2), np.uint16), np.arange(3)),
        (np.zeros((2, 1, 2), np.uint16), np.array([-1, 0])),
    ],
)
def test_not_codable(words: Array, positions: Array | None) -> None:
    """What no frame can hold is refused before it is coded."""
    rotation = None if positions is None else Rotation(ROPE, positions)
    with pytest.raises(CodecError):
        encode_frame(words, "rope_row", rotation)
    with pytest.raises(ValueError, match="known: rope_row, row_reference"):
        encode_frame(words, "deflate")


@given(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=50))
def test_positions(numbers: list[int]) -> None:
    """Positions come back from their runs."""
    positions = np.array(numbers)
    packed = pack_positions(positions)
    again, end = unpack_positions(packed, 0, len(numbers))
    assert again.tolist() == numbers
    assert end == len(packed)


def test_ranks_are_settled() -> None:
    """No library's last bit decides a rank: rounded masses are far from where rounding turns."""
    for masses in class_masses():
        scaled = masses * 2.0**30
        assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6


@pytest.mark.parametrize("name", ["keys", "keys_interleaved", "values", "repeated_keys", "planes"])
def test_golden_frame(name: str) -> None:
    """The frame in the tests' data is of the encoder's format: both decoders read it alike."""
    about = json.loads((GOLDEN / "frames.json").read_text())[name]
    frame = (GOLDEN / f"{name}.frame").read_bytes()
    words = np.fromfile(GOLDEN / f"{name}.words", "<u2").reshape(about["shape"])
    (decoded,) = decode_frames([frame], Rope(about["rope_theta"], about["layout"]))
    assert np.array_equal(decoded, words)
    slow = Slow(frame, about["rope_theta"], about["layout"] == "interleaved").decode()
    assert np.array_equal(np.array(slow), words.reshape(len(words), -1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_slow_decoder_agrees(seed: int, layout: str) -> None:
    """Frames of every kind made now decode alike, one value at a time in plain Python."""
    rope = Rope(10_000.0, layout)
    words, positions = repeating(80, 2, 16, seed, rope)
    words[3, 0, :3] = 0x7C00, 0xFE01, 0x8000
    smooth = (np.arange(80)[:, None, None] * 256 + words % 256).astype(np.uint16)
    random = np.random.default_rng(seed).integers(0, 1 << 16, words.shape, dtype=np.uint16)
    turned = Rotation(rope, positions)
    frames = [
        (0, random, encode_frame(random, "rope_row", turned)),
        (1, smooth, encode_frame(smooth, "row_reference")),
        (2 | 128, words, encode_frame(words, "rope_row", turned)),
        (3, words, encode_frame(words, "row_reference")),
        (3 | 128, words, encode_frame(words, "row_reference", turned)),
    ]
    for kind, source, frame in frames:
        assert frame[HEAD.size] == kind
        slow = Slow(frame, rope.base, layout == "interleaved")
        assert np.array_equal(np.array(slow.decode()), source.reshape(80, 32))
