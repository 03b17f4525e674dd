"""Lossless coding at run time: the schedule, bit-exact restore, honest accounts."""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import H2O, LOSSLESS

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.blocks import EncodedBlock, decode_block, encode_block
from pytest_h2o.codec.predictors import PREDICTORS
from pytest_h2o.engine import block_coder
from pytest_h2o.engine.config import LosslessSettings
from pytest_h2o.engine.encode_schedule import (
    EncodeSchedule,
    Span,
    cold_region,
    covered_tokens,
    is_covered,
)
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Attention
from pytest_h2o.engine.lossless_store import LosslessStore
from pytest_h2o.engine.response import Metrics
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.options import OfflineOptions

GATE = LosslessSettings(scope="front_n_and_h2o_kept", runtime_mode="full")
STORE = replace(GATE, runtime_mode="store")
TIMES = dict.fromkeys(
    (
        "evict_us",
        "codec_us",
        "comp_us",
        "decomp_us",
        "async_wait_us",
        "encode_overlap",
        "decode_cost",
    ),
    0.0,
)


@pytest.mark.parametrize(
    ("settings", "schedule", "tokens", "token", "span", "watermark"),
    [
        (GATE, EncodeSchedule(), 513, 1, Span(129, 128), 257),
        (GATE, EncodeSchedule(), 390, 1, Span(16, 118), 134),
        (GATE, EncodeSchedule(), 383, 1, None, 0),  # grown by less than a block
        (GATE, EncodeSchedule(1, 257, 1), 640, 128, None, 257),
        (GATE, EncodeSchedule(1, 257, 1), 641, 129, Span(257, 128), 385),
        (GATE, EncodeSchedule(1, 257, 1), 700, 16, None, 257),  # the interval has not passed
        (STORE, EncodeSchedule(), 513, 1, Span(225, 32), 257),
        (replace(STORE, store_bootstrap_tokens=0), EncodeSchedule(), 513, 1, Span(193, 64), 257),
        (STORE, EncodeSchedule(1, 257, 1), 736, 224, None, 257),
        (STORE, EncodeSchedule(1, 257, 1), 737, 225, Span(225, 256), 481),
        (
            replace(STORE, store_grouped_step_tokens=0),
            EncodeSchedule(1, 257, 1),
            849,
            337,
            Span(209, 384),
            593,
        ),
        (replace(GATE, runtime_mode="probe"), EncodeSchedule(), 513, 1, Span(16, 32), 257),
    ],
)
def test_spans(  # noqa: PLR0913, PLR0917 - one row of the table each
    settings: LosslessSettings,
    schedule: EncodeSchedule,
    tokens: int,
    token: int,
    span: Span | None,
    watermark: int,
) -> None:
    """Bootstrap and periodic spans per mode, at the default gate's lengths and at the edges."""
    due = schedule.next_span(tokens, token, 16, settings)
    assert tokens >= schedule.due_length(settings) or due is None
    assert (due[0], due[1].watermark) == (span, watermark) if due else span is None


@given(
    mode=st.sampled_from(["probe", "full", "store"]),
    schedule=st.builds(EncodeSchedule, st.integers(0, 3), st.integers(0, 300), st.integers(0, 50)),
    sink=st.integers(0, 40),
    recent=st.integers(0, 300),
    block=st.integers(1, 140),
    token=st.integers(1, 100),
)
def test_due_length_misses_nothing(
    mode: str, schedule: EncodeSchedule, token: int, **sizes: int
) -> None:
    """Below the length at which a span can be due none is due, and at some token from there on one
    is.
    """
    settings = LosslessSettings(
        runtime_mode=mode,
        hot_sink_tokens=sizes["sink"],
        hot_recent_tokens=sizes["recent"],
        block_tokens=sizes["block"],
    )
    due = schedule.due_length(settings)
    assert all(
        schedule.next_span(tokens, token, 16, settings) is None
        for tokens in range(max(0, due - 40), due)
    )
    assert schedule.next_span(due, schedule.last + 16, 16, settings) is not None


@pytest.mark.parametrize(
    ("settings", "token", "layers"),
    [
        (replace(GATE, scope="none"), 1, []),
        (replace(GATE, scope="front_n"), 1, [0, 1]),
        (replace(GATE, scope="h2o_kept"), 1, [2]),
        (GATE, 1, [0, 1, 2]),
        (replace(GATE, scope="front_n+h2o_kept"), 1, [0, 1, 2]),
        (replace(GATE, front_n=0), 1, [2]),
        (replace(GATE, kept_sample_layers=0), 1, [0, 1, 2, 3, 4, 5]),
        (replace(GATE, kept_sample_token_interval=2), 2, [0, 1]),
        (replace(GATE, kept_sample_token_interval=2), 3, [0, 1, 2]),
        (replace(GATE, front_sample_token_interval=3), 2, [2]),
        (replace(GATE, front_n=4, front_sample_token_interval=3), 2, []),
        (replace(STORE, kept_sample_token_interval=2), 2, [0, 1, 2, 3, 4, 5]),
        (replace(STORE, store_disable_front=True), 1, [2, 3, 4, 5]),
        (replace(STORE, scope="front_n", store_disable_front=True), 1, []),
        (replace(STORE, front_n=3, store_disable_front=True), 1, [2, 3, 4, 5]),
        (replace(GATE, runtime_mode="probe"), 1, [0, 2]),
        (replace(GATE, runtime_mode="probe", scope="h2o_kept"), 1, [2]),
        (replace(GATE, runtime_mode="probe", scope="front_n"), 1, [0]),
        (replace(GATE, runtime_mode="probe", front_n=0), 1, [2]),
    ],
)
def test_scope(settings: LosslessSettings, token: int, layers: list[int]) -> None:
    """Which of six layers, of which 2 to 5 are H2O layers, encode at a token."""
    assert [
        layer for layer in range(6) if is_covered(layer, token, range(2, 6), settings)
    ] == layers


@given(
    spans=st.lists(st.builds(Span, st.integers(0, 50), st.integers(0, 20)), max_size=6),
    within=st.builds(Span, st.integers(0, 50), st.integers(0, 40)),
)
def test_covered_tokens(spans: list[Span], within: Span) -> None:
    """Overlapping spans count each token once."""
    tokens = {token for span in spans for token in range(span.begin, span.end)}
    assert covered_tokens(spans, within) == len(tokens & set(range(within.begin, within.end)))


@pytest.mark.parametrize("h2o", [{}, H2O], ids=["keep_all", "evict"])
@pytest.mark.parametrize("mode", ["probe", "full", "store"])
@pytest.mark.parametrize("threads", [0, 1, 2])
@pytest.mark.parametrize("cached", [0, 1, 64])
def test_coding_changes_no_token(  # noqa: PLR0913, PLR0917 - a product of settings
    make_engine: Callable[..., Engine],
    prompt: list[int],
    h2o: dict,
    mode: str,
    threads: int,
    cached: int,
) -> None:
    """In every mode, with any pool and any decode cache, the output is that of a run without
    lossless coding.
    """
    knobs = {"kv_lossless_async_threads": threads, "kv_lossless_decode_cache_blocks": cached}
    response = make_engine(LOSSLESS, h2o, knobs, kv_lossless_runtime_mode=mode).respond(prompt, 48)
    assert response.tokens == make_engine(h2o).respond(prompt, 48).tokens
    metrics = response.metrics
    assert metrics.roundtrips == metrics.blocks > 0
    assert metrics.fallback == metrics.backpressure_skip == 0
    assert metrics.decomp_us > 0
    assert metrics.raw_bytes > metrics.comp_bytes > 0
    assert (metrics.cache_hit + metrics.cache_miss > 0) == (cached > 0)
    assert (metrics.async_queue_peak > 0) == (threads > 0 and mode != "probe")


def test_pool_sizes_give_identical_bytes(
    make_engine: Callable[..., Engine], prompt: list[int]
) -> None:
    """What is encoded, and to which bytes, does not depend on the number of workers."""

    def encoded(threads: int, monkeypatch: pytest.MonkeyPatch) -> set[tuple]:
        blocks = set()

        def spy(k: np.ndarray, v: np.ndarray, **settings: object) -> EncodedBlock:
            block = encode_block(k, v, **settings)
            blocks.add((block.shape, block.k, block.v))
            return block

        monkeypatch.setattr(block_coder, "encode_block", spy)
        make_engine(LOSSLESS, H2O, kv_lossless_async_threads=threads).respond(prompt, 64)
        return blocks

    with pytest.MonkeyPatch.context() as monkeypatch:
        inline = encoded(0, monkeypatch)
        assert len(inline) > 4
        assert all(encoded(threads, monkeypatch) == inline for threads in (1, 2, 4))


def decode_step(
    engine: Engine, store: LosslessStore, attend: Callable[[int], None] = lambda layer: None
) -> None:
    """One decode token through the store alone; ``attend`` looks at a layer while its raw values
    must be whole.
    """
    shape = engine.cache.shape
    for index, layer in enumerate(engine.cache.layers):
        store.before_attention(index)
        layer.append(
            np.random.default_rng(layer.length).normal(size=(1, 2 * shape.heads * shape.head_dim))
        )
        attend(index)
        store.after_attention(index, Attention(np.zeros(0), np.zeros(0)))
    store._pool.drain()


def prepared_store(engine: Engine) -> tuple[LosslessStore, list[np.ndarray]]:
    """A store over 600 random tokens in every layer, and what they are."""
    shape, rng, truth = engine.cache.shape, np.random.default_rng(0), []
    for layer in engine.cache.layers:
        layer.append(rng.normal(size=(600, 2 * shape.heads * shape.head_dim)).astype(np.float32))
        truth.append(np.array(layer.read()))
    return LosslessStore(engine.config, engine.cache, engine._pool, Metrics(), print), truth


@pytest.mark.parametrize("cached", [0, 64])
def test_store_drops_and_restores(make_engine: Callable[..., Engine], cached: int) -> None:
    """Raw values of stored spans are gone between the steps of a layer, bit-identical while it
    attends.
    """
    engine = make_engine(
        LOSSLESS, kv_lossless_runtime_mode="store", kv_lossless_decode_cache_blocks=cached
    )
    shape, (store, truth) = engine.cache.shape, prepared_store(engine)

    def check(index: int) -> None:
        np.testing.assert_array_equal(
            np.array(engine.cache.layers[index].read())[:, :, :600], truth[index]
        )

    for _ in range(40):
        decode_step(engine, store, check)
    for layer, state in zip(engine.cache.layers, store._states, strict=True):
        assert len(state.blocks) > 1
        for stored in state.blocks:
            values = np.array(layer.read())[:, :, stored.span.begin : stored.span.end]
            assert np.all(np.isnan(values) | (values == 0))
    held = sum(
        layer.length - state.dropped
        for layer, state in zip(engine.cache.layers, store._states, strict=True)
    )
    encoded = sum(stored.block.nbytes for state in store._states for stored in state.blocks)
    decoded = (
        sum(stored.block.raw_bytes for state in store._states for stored in state.blocks)
        if cached
        else 0
    )
    assert engine.cache.account.held == held * shape.token_bytes + encoded + decoded
    assert engine.cache.account.peak > engine.cache.account.held


def test_store_holds_less_memory(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """Without a decode cache, store mode ends with less KV than a run without lossless coding, full
    mode with more.
    """
    knobs = LOSSLESS | {"kv_lossless_decode_cache_blocks": 0}
    plain = make_engine().respond(prompt, 60).metrics
    store = make_engine(knobs, kv_lossless_runtime_mode="store").respond(prompt, 60).metrics
    full = make_engine(knobs).respond(prompt, 60).metrics
    assert store.kv_resident_bytes < plain.kv_resident_bytes < full.kv_resident_bytes
    assert plain.kv_resident_bytes == 220 * 4 * 2 * 2 * 8 * 2
    assert full.kv_resident_bytes - plain.kv_resident_bytes == full.comp_bytes


def test_restores_are_prefetched(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a layer is served, workers decode the blocks of the next one: it needs no decoder any
    more.
    """
    engine = make_engine(
        LOSSLESS, kv_lossless_runtime_mode="store", kv_lossless_decode_cache_blocks=0
    )
    store, truth = prepared_store(engine)
    for _ in range(3):
        decode_step(engine, store)
    store.before_attention(0)
    store._pool.drain()
    monkeypatch.setattr(block_coder, "decode_block", failing)
    store.before_attention(1)
    np.testing.assert_array_equal(np.array(engine.cache.layers[1].read())[:, :, :600], truth[1])
    store._pool.drain()
    with pytest.raises(CodecError):
        store.before_attention(3)  # layer 2 was announced, layer 3 was not


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_are_those_of_the_offline_evaluator(
    make_engine: Callable[..., Engine], prompt: list[int], name: str
) -> None:
    """Every predictor that there is codes blocks at run time and is an option offline."""
    knobs = {"kv_lossless_predictors_k": name, "kv_lossless_predictors_v": name}
    metrics = make_engine(LOSSLESS, knobs).respond(prompt, 2).metrics
    assert (metrics.blocks, metrics.fallback) == (4, 0)
    assert OfflineOptions(k_hi_predictors=(name,), v_lo_predictors=(name,)).k_hi_predictors == (
        name,
    )
    with pytest.raises(OfflineError, match="k_hi_predictors"):
        OfflineOptions(k_hi_predictors=(f"{name}x",))


def failing(*args: object, **settings: object) -> EncodedBlock:
    """An encoder that never works."""
    raise CodecError("no")


def wrong(block: EncodedBlock) -> tuple[np.ndarray, np.ndarray]:
    """A decoder that gets one bit wrong."""
    k, v = (words.copy() for words in decode_block(block))
    v.flat[-1] ^= 1
    return k, v


@pytest.mark.parametrize("mode", ["full", "store"])
@pytest.mark.parametrize(
    ("function", "broken"), [("encode_block", failing), ("decode_block", wrong)]
)
def test_broken_codec_is_a_counted_fallback(  # noqa: PLR0913, PLR0917 - a product of settings
    make_engine: Callable[..., Engine],
    prompt: list[int],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    function: str,
    broken: Callable,
) -> None:
    """A codec that fails or does not give the input back costs a fallback per block, never a wrong
    token.
    """
    monkeypatch.setattr(block_coder, function, broken)
    response = make_engine(LOSSLESS, kv_lossless_runtime_mode=mode).respond(prompt, 40)
    metrics = response.metrics
    assert metrics.fallback > 0
    assert metrics.roundtrips == 0
    assert metrics.blocks == (0 if function == "encode_block" else metrics.fallback)
    assert metrics.comp_bytes == metrics.raw_bytes > 0
    assert response.tokens == make_engine().respond(prompt, 40).tokens


def test_no_gain_keeps_raw(
    make_engine: Callable[..., Engine], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that does not shrink counts as its raw size, is not kept and is no fallback."""

    def inflated(k: np.ndarray, v: np.ndarray, **settings: object) -> EncodedBlock:
        return replace(encode_block(k, v, **settings), k=bytes(k.nbytes), v=bytes(v.nbytes))

    monkeypatch.setattr(block_coder, "encode_block", inflated)
    metrics = make_engine(LOSSLESS).respond(prompt, 40).metrics
    assert (metrics.fallback, metrics.roundtrips, metrics.lossless) == (0, 0, 1)
    assert metrics.blocks > 0
    assert metrics.comp_bytes == metrics.raw_bytes > 0


def test_backpressure_is_counted_and_made_up_for(
    make_engine: Callable[..., Engine], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the queue is full spans are skipped and counted; they are encoded when there is
    room.
    """
    gate, seen = threading.Event(), []

    def slow(*args: np.ndarray, **settings: object) -> EncodedBlock:
        gate.wait(10)
        return encode_block(*args, **settings)

    def emit(token: int) -> None:
        seen.append(token)
        if len(seen) > 5:
            gate.set()
            engine._pool.drain()

    monkeypatch.setattr(block_coder, "encode_block", slow)
    engine = make_engine(LOSSLESS, kv_lossless_max_queue=1)
    metrics = engine.respond(prompt, 40, emit=emit).metrics
    assert metrics.backpressure_skip >= 3 * 5
    assert (metrics.async_queue_peak, metrics.fallback) == (1, 0)
    assert metrics.blocks >= 4


def test_counters_start_afresh(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """A second identical response measures the same: nothing, the decode cache included, outlives a
    response.
    """
    engine = make_engine(LOSSLESS, H2O, kv_lossless_async_threads=0)
    first, second = (replace(engine.respond(prompt, 40).metrics, **TIMES) for _ in range(2))
    assert first == second
    assert first.cache_miss > 0


def test_cold_share(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """The cold share is what encoded blocks cover of the cold regions in scope."""
    settings = {
        "kv_lossless_scope": "front_n",
        "kv_lossless_front_n": 2,
        "kv_lossless_async_threads": 0,
    }
    metrics = make_engine(LOSSLESS, settings).respond(prompt, 40).metrics
    cold = cold_region(200, LosslessSettings(hot_recent_tokens=24, hot_sink_tokens=2))
    assert metrics.blocks == 2 * (1 + (40 - 1) // 32)
    assert metrics.cold_share == pytest.approx(metrics.blocks * 32 / (2 * cold.size))


def test_update_line(
    make_engine: Callable[..., Engine], prompt: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every applied block prints the original's line."""
    engine = make_engine(LOSSLESS, kv_h2o_log_stats=True, kv_lossless_async_threads=0)
    metrics = engine.respond(prompt, 4).metrics
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("[H2O-LOSSLESS] ")
    ]
    assert len(lines) == 4
    pairs = [dict(pair.split("=") for pair in line.split()[1:]) for line in lines]
    names = (
        "layer kv start tokens raw attempt_comp eff_comp attempt_ratio eff_ratio comp_us "
        "decomp_us updates fallback"
        " backpressure queue async_q_peak async_wait_us mode zstd"
    )
    assert " ".join(pairs[0]) == names
    assert [int(pair["raw"]) for pair in pairs] == [32 * 64] * 4
    assert sum(int(pair["eff_comp"]) for pair in pairs) == metrics.comp_bytes
    assert [(pair["layer"], pair["start"], pair["tokens"]) for pair in pairs] == [
        (str(i), "105", "32") for i in range(4)
    ]
