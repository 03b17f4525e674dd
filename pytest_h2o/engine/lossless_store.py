"""Lossless coding of cold KV while decoding: which blocks, when, what becomes of the raw values.

:func:`cold_region`, :func:`is_covered` and :meth:`EncodeSchedule.next_span` are the schedule and
pure. :class:`LosslessStore` carries it out: in ``full`` and ``probe`` mode blocks are encoded and
checked beside the raw values; in ``store`` mode the raw values of an encoded block are dropped
whenever its layer does not attend, and restored before it does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np

from pytest_h2o.codec.blocks import EncodedBlock, decode_block, encode_block
from pytest_h2o.codec.predictors import parse_predictors
from pytest_h2o.codec.rope import Positions, Rope, Rotation
from pytest_h2o.engine.config import Config, LosslessSettings
from pytest_h2o.engine.decode_cache import DecodeCache
from pytest_h2o.engine.encode_pool import EncodePool, Interval, Job, overlap_share, total_time
from pytest_h2o.engine.kv_cache import Attention, Bits, Floats, KVCache, from_bits, to_bits
from pytest_h2o.engine.response import Metrics

MODES = {"probe": 0, "full": 1, "store": 2}
PROBE_SPAN = 32


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Tokens [begin, begin + size) of a layer's cache."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """First token after the span."""
        return self.begin + self.size


def cold_region(tokens: int, settings: LosslessSettings) -> Span:
    """What lies between the hot sink and the hot recent tokens of a layer that holds ``tokens``."""
    begin = min(tokens, settings.hot_sink_tokens)
    return Span(begin, max(0, tokens - settings.hot_recent_tokens - begin))


@dataclass(frozen=True, slots=True)
class EncodeSchedule:
    """How far the encoding of one layer has come. ``watermark``: tokens before it are done or
    passed over.
    """

    updates: int = 0
    watermark: int = 0
    last: int = 0  # token of the last update

    def due_length(self, settings: LosslessSettings) -> int:
        """The least number of tokens at which a layer can have a next span; a cheap test before
        :meth:`next_span`.
        """
        sizes = _span_sizes(settings)
        growth = sizes.bootstrap
        if self.updates:
            growth = sizes.step - sizes.overlap
        cold_end = max(self.watermark + growth, settings.hot_sink_tokens + 1)
        return cold_end + settings.hot_recent_tokens

    def next_span(
        self, tokens: int, token: int, interval: int, settings: LosslessSettings
    ) -> tuple[Span, EncodeSchedule] | None:
        """The span to encode at decode token ``token`` of a layer holding ``tokens``, and the
        schedule after it.
        """
        cold = cold_region(tokens, settings)
        growth = cold.end - self.watermark
        sizes = _span_sizes(settings)
        if not cold.size:
            return None
        if not self.updates:
            if growth < sizes.bootstrap:
                return None
            return self._bootstrap(cold, token, sizes.bootstrap, settings)
        if token - self.last < interval or growth + sizes.overlap < sizes.step:
            return None
        begin = max(max(self.watermark, cold.begin) - sizes.overlap, cold.begin)
        span = Span(begin, min(sizes.step, cold.end - begin))
        return span, EncodeSchedule(self.updates + 1, span.end, token)

    def _bootstrap(
        self, cold: Span, token: int, size: int, settings: LosslessSettings
    ) -> tuple[Span, EncodeSchedule]:
        count = min(size, cold.size)
        if settings.runtime_mode == "probe":
            return Span(cold.begin, count), EncodeSchedule(1, cold.end, token)
        span = Span(max(cold.begin, cold.end - size), count)
        return span, EncodeSchedule(1, span.end, token)

    def compacted(self, tokens: int, settings: LosslessSettings) -> EncodeSchedule:
        """The schedule after an eviction left the layer with ``tokens``."""
        end = cold_region(tokens, settings).end
        if end >= self.watermark:
            return self
        return replace(self, watermark=end, last=0)


class _Sizes(NamedTuple):
    bootstrap: int
    step: int
    overlap: int


def _span_sizes(settings: LosslessSettings) -> _Sizes:
    block = settings.block_tokens
    if settings.runtime_mode == "probe":
        return _Sizes(bootstrap=min(block, PROBE_SPAN), step=block, overlap=0)
    if settings.runtime_mode == "full":
        return _Sizes(bootstrap=block, step=block, overlap=0)
    bootstrap, step = settings.store_bootstrap_tokens, settings.store_grouped_step_tokens
    if bootstrap <= 0:
        bootstrap = max(16, block // 2)
    if step <= 0:
        step = 3 * block
    return _Sizes(bootstrap, step, overlap=step // 8)


def is_covered(layer: int, token: int, kept_layers: range, settings: LosslessSettings) -> bool:
    """Whether scope, mode and sampling let ``layer`` encode at decode token ``token``."""
    front = settings.front_scope and layer < settings.front_n
    kept = settings.kept_scope and layer in kept_layers
    if settings.runtime_mode == "probe":
        return (front and layer == 0) or (kept and layer == kept_layers.start)
    if settings.runtime_mode == "store" and settings.store_disable_front:
        front = False
    if front:
        return _sampled(token, settings.front_sample_token_interval)
    if kept and settings.runtime_mode == "full":
        sampled_layers = settings.kept_sample_layers or len(kept_layers)
        if layer - kept_layers.start >= sampled_layers:
            return False
        return _sampled(token, settings.kept_sample_token_interval)
    return kept


def _sampled(token: int, interval: int) -> bool:
    return interval <= 1 or (token - 1) % interval == 0


def joined(spans: Iterable[Span]) -> list[Span]:
    """The tokens of ``spans`` in as few spans as possible, in order."""
    pieces: list[Span] = []
    for span in sorted(spans):
        if pieces and span.begin <= pieces[-1].end:
            begin = pieces[-1].begin
            pieces[-1] = Span(begin, max(pieces[-1].end, span.end) - begin)
        else:
            pieces.append(span)
    return pieces


def covered_tokens(spans: Iterable[Span], within: Span) -> int:
    """Tokens of ``within`` that lie in at least one of ``spans``."""
    covered = 0
    for span in joined(spans):
        begin, end = max(span.begin, within.begin), min(span.end, within.end)
        covered += max(0, end - begin)
    return covered


class Stored(NamedTuple):
    """An encoded block and the span it holds."""

    span: Span
    block: EncodedBlock


@dataclass(slots=True)
class Encoded:
    """What encoding one span brought; ``verified`` tells that decoding gave the raw values back."""

    layer: int
    epoch: int
    updates: int
    span: Span
    raw_bytes: int
    block: EncodedBlock | None = None
    verified: bool = False
    encode_us: float = 0.0
    decode_us: float = 0.0
    error: Exception | None = None

    @property
    def gain(self) -> bool:
        """Whether the block is smaller than what it encodes."""
        return self.block is not None and self.block.nbytes < self.raw_bytes

    @property
    def failed(self) -> bool:
        """Whether encoding raised, or decoding did not give the raw values back."""
        return self.error is not None or (self.gain and not self.verified)

    @property
    def accounted_bytes(self) -> int:
        """What the span takes: the raw bytes unless the block is of use."""
        if self.block is None or self.failed or not self.gain:
            return self.raw_bytes
        return self.block.nbytes


@dataclass(slots=True)
class _LayerBlocks:
    tokens: int = 0  # decode tokens seen
    epoch: int = 0  # compactions of the layer's cache seen
    schedule: EncodeSchedule = field(default_factory=EncodeSchedule)
    blocks: list[Stored] = field(default_factory=list)
    covered: list[Span] = field(default_factory=list)  # what the blocks hold, joined
    dropped: int = 0  # tokens whose raw values are gone
    due: float = 0  # length of the cache below which nothing can be due
    decode_us: float = 0.0
    prefetched: dict[Span, Job[Floats]] = field(default_factory=dict)


class LosslessStore:
    """The hook that encodes; one per response. Results are applied on the decode thread only."""

    def __init__(
        self,
        config: Config,
        cache: KVCache,
        pool: EncodePool,
        metrics: Metrics,
        log: Callable[[str], None],
    ) -> None:
        settings = config.lossless
        self._settings, self._cache, self._pool = settings, cache, pool
        self._metrics, self._log = metrics, log
        self._interval, self._trigger = config.h2o.update_interval, config.h2o.trigger_min_tokens
        self._kept_layers = config.h2o.layers(len(cache.layers))
        self._predictors_k = parse_predictors(settings.predictors_k)
        self._predictors_v = parse_predictors(settings.predictors_v)
        self._rope = Rope(config.architecture.rope_theta)
        self._states = [_LayerBlocks(epoch=layer.epoch) for layer in cache.layers]
        self._decoded = DecodeCache(settings.decode_cache_blocks)
        self._finished: deque[Job[Encoded]] = deque()
        self._in_flight = 0
        self._work: list[Interval] = []
        self._waits: list[Interval] = []
        self._charged = 0  # bytes of the decode cache that are in the account
        self._storing = settings.runtime_mode == "store"
        pool.peak = 0
        for layer in range(len(cache.layers)):
            self._set_schedule(layer, EncodeSchedule())

    def after_prompt(self, layer: int, attention: Attention) -> None:
        """Nothing to do."""

    def before_attention(self, layer: int) -> None:
        """Make the layer's raw values whole, and begin to decode what the next layer will need."""
        if self._storing:
            if self._states[layer].blocks:
                self._restore(layer)
            self._prefetch((layer + 1) % len(self._states))

    def after_attention(self, layer: int, attention: Attention) -> None:
        """Schedule the layer's next span, apply what the workers have finished, drop raw values
        again.
        """
        state, cache = self._states[layer], self._cache.layers[layer]
        state.tokens += 1
        if state.epoch != cache.epoch:
            self._forget(state)
            state.epoch = cache.epoch
            self._set_schedule(layer, state.schedule.compacted(cache.length, self._settings))
        if cache.length >= state.due:
            self._schedule(layer, state)
        if self._finished:
            self._apply_finished()
        if self._storing and state.blocks:
            self._drop(layer)

    def finish(self) -> None:
        """Wait for what is in flight and publish the numbers of the whole response."""
        self._waits.append(self._pool.drain())
        self._apply_finished()
        metrics = self._metrics
        metrics.async_queue_peak = self._pool.peak
        if self._pool.threads:
            metrics.async_wait_us = total_time(self._waits) / 1e3
            metrics.encode_overlap = overlap_share(self._work, self._waits)
        metrics.cache_hit, metrics.cache_miss = self._decoded.hits, self._decoded.misses
        metrics.cold_share = self._cold_share()

    def _cold_share(self) -> float:
        held = cold = 0
        for layer, state in enumerate(self._states):
            front = self._settings.front_scope and layer < self._settings.front_n
            if front or (self._settings.kept_scope and layer in self._kept_layers):
                region = cold_region(self._cache.layers[layer].length, self._settings)
                spans = [stored.span for stored in state.blocks]
                held += covered_tokens(spans, region)
                cold += region.size
        return held / max(1, cold)

    def _set_schedule(self, layer: int, schedule: EncodeSchedule) -> None:
        """Also work out when to look at the layer again: never, if no token's sampling covers
        it.
        """
        state = self._states[layer]
        state.schedule = schedule
        state.due = math.inf
        if is_covered(layer, 1, self._kept_layers, self._settings):
            state.due = max(self._trigger, schedule.due_length(self._settings))

    def _schedule(self, layer: int, state: _LayerBlocks) -> None:
        """Submit the span that is due, if any; a full queue leaves it due."""
        cache = self._cache.layers[layer]
        if not is_covered(layer, state.tokens, self._kept_layers, self._settings):
            return
        due = state.schedule.next_span(cache.length, state.tokens, self._interval, self._settings)
        if due is None:
            return
        span, schedule = due
        values = cache.copy(span.begin, span.size)
        raw_bytes = span.size * cache.shape.token_bytes
        task = Encoded(layer, state.epoch, schedule.updates, span, raw_bytes)
        positions = cache.positions(span.begin, span.size)
        job = Job(lambda: self._encode(task, values, positions))
        if not self._pool.submit(job, self._finished.append):
            self._metrics.backpressure_skip += 1
            return
        self._set_schedule(layer, schedule)
        self._in_flight += 1
        self._metrics.queue_peak = max(self._metrics.queue_peak, self._in_flight)

    def _encode(self, task: Encoded, values: Floats, positions: Positions) -> Encoded:
        """Encode, decode and compare. Runs on a worker; touches nothing but ``task`` and the decode
        cache.
        """
        begin = perf_counter_ns()
        try:
            bits = to_bits(values, self._cache.shape.dtype)
            task.block = self._encode_block(bits[0], bits[1], positions)
            task.encode_us = (perf_counter_ns() - begin) / 1e3
            if task.gain:
                task.verified = self._check(task.block, bits, values)
        except Exception as error:
            task.error = error
        task.decode_us = (perf_counter_ns() - begin) / 1e3 - task.encode_us
        return task

    def _encode_block(self, k: Bits, v: Bits, positions: Positions) -> EncodedBlock:
        return encode_block(
            k,
            v,
            predictors_k=self._predictors_k,
            predictors_v=self._predictors_v,
            codec=self._settings.codec_runtime,
            hash_raw=self._settings.strict_roundtrip_check,
            rotation=Rotation(self._rope, positions),
        )

    def _check(self, block: EncodedBlock, bits: Bits, values: Floats) -> bool:
        """Whether ``block`` decodes to ``bits``, unless equal bytes have before; if so, their
        values will be needed.
        """
        if self._decoded.get(block) is None:
            if not np.array_equal(decode_block(block), bits):
                return False
            self._decoded.put(block, values)
        return True

    def _decode(self, block: EncodedBlock) -> Floats:
        """Values of ``block`` [2, kv_heads, tokens, head_dim], from the decode cache if it has
        them.
        """
        decoded = self._decoded.get(block)
        if decoded is None:
            decoded = from_bits(np.stack(decode_block(block)))
            self._decoded.put(block, decoded)
        return decoded

    def _apply_finished(self) -> None:
        while self._finished:
            job = self._finished.popleft()
            self._in_flight -= 1
            self._work.append(job.interval)
            self._apply(job.value())
        cached = self._decoded.nbytes
        self._cache.account.add(cached - self._charged)
        self._charged = cached

    def _apply(self, task: Encoded) -> None:
        """Count one result; hold the block if it is of use and its span still exists."""
        metrics, state = self._metrics, self._states[task.layer]
        metrics.blocks += task.block is not None
        metrics.raw_bytes += task.raw_bytes
        metrics.comp_bytes += task.accounted_bytes
        metrics.fallback += task.failed
        metrics.codec_us = task.encode_us
        metrics.comp_us += task.encode_us
        metrics.decomp_us += task.decode_us
        state.decode_us += task.decode_us
        if task.block and task.verified:
            metrics.roundtrips += 1
            metrics.decompressed_bytes += task.raw_bytes
            if task.epoch == state.epoch:
                self._hold(task.layer, Stored(task.span, task.block))
        self._log_update(task)

    def _hold(self, layer: int, stored: Stored) -> None:
        state = self._states[layer]
        state.blocks.append(stored)
        self._cache.account.add(stored.block.nbytes)
        limit = self._settings.decode_cache_blocks
        if self._storing:
            state.covered = joined(stored.span for stored in state.blocks)
            self._drop(layer)
        elif 0 < limit < len(state.blocks):
            self._cache.account.add(-state.blocks.pop(0).block.nbytes)

    def _forget(self, state: _LayerBlocks) -> None:
        """Let go of the layer's blocks: an eviction has moved the tokens they stand for."""
        if state.blocks and self._storing:
            self._log(f"[H2O-LOSSLESS] shrink(store): discarding {len(state.blocks)} staged blocks")
        for stored in state.blocks:
            self._cache.account.add(-stored.block.nbytes)
        state.blocks.clear()
        state.covered.clear()
        state.prefetched.clear()

    def _drop(self, layer: int) -> None:
        """Give up the raw values of everything that is encoded."""
        state, cache = self._states[layer], self._cache.layers[layer]
        dropped = 0
        for span in state.covered:
            cache.drop(span.begin, span.size)
            dropped += span.size
        self._count_dropped(state, dropped)

    def _restore(self, layer: int) -> None:
        """Write all encoded spans of the layer back."""
        state, cache = self._states[layer], self._cache.layers[layer]
        begin = perf_counter_ns()
        for span, block in state.blocks:
            job = state.prefetched.pop(span, None)
            values = self._await(job) if job else self._decode(block)
            cache.restore(span.begin, values)
            self._metrics.decompressed_bytes += block.raw_bytes
        self._count_dropped(state, 0)
        microseconds = (perf_counter_ns() - begin) / 1e3
        self._metrics.decomp_us += microseconds
        state.decode_us += microseconds

    def _count_dropped(self, state: _LayerBlocks, tokens: int) -> None:
        """So many tokens of the layer have no raw values from here on."""
        self._cache.account.add((state.dropped - tokens) * self._cache.shape.token_bytes)
        state.dropped = tokens

    def _prefetch(self, layer: int) -> None:
        """Let the workers decode what the layer will need and the decode cache does not hold."""
        if not self._pool.threads:
            return
        state = self._states[layer]
        for stored in state.blocks:
            if stored.block not in self._decoded and stored.span not in state.prefetched:
                job = Job(partial(self._decode, stored.block))
                if self._pool.submit(job, lambda _: None):
                    state.prefetched[stored.span] = job

    def _await(self, job: Job[Floats]) -> Floats:
        begin = perf_counter_ns()
        decoded = job.value()
        self._waits.append((begin, perf_counter_ns()))
        return decoded

    def _log_update(self, task: Encoded) -> None:
        attempt, attempt_ratio = 0, 0.0
        if task.block:
            attempt = task.block.nbytes
            attempt_ratio = task.raw_bytes / attempt
        state = self._states[task.layer]
        self._log(
            f"[H2O-LOSSLESS] layer={task.layer} kv={self._cache.layers[task.layer].length}"
            f" start={task.span.begin} tokens={task.span.size}"
            f" raw={task.raw_bytes} attempt_comp={attempt} eff_comp={task.accounted_bytes}"
            f" attempt_ratio={attempt_ratio:.4f}"
            f" eff_ratio={task.raw_bytes / task.accounted_bytes:.4f}"
            f" comp_us={task.encode_us:.0f} decomp_us={state.decode_us:.0f} updates={task.updates}"
            f" fallback={task.failed:d} backpressure=0 queue={self._in_flight}"
            f" async_q_peak={self._pool.peak} async_wait_us={total_time(self._waits) // 1000}"
            f" mode={MODES[self._settings.runtime_mode]} zstd=1"
        )
