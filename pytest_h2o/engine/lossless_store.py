"""Lossless coding of cold KV while decoding: the hook that has blocks encoded, and counts them.

``full`` and ``probe`` mode encode and check blocks beside the raw values; ``store`` mode drops the
raw values of an encoded block whenever its layer does not attend, and restores them before it does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from pytest_h2o.engine.block_coder import BlockCoder, Encoded
from pytest_h2o.engine.config import Config
from pytest_h2o.engine.encode_pool import EncodePool, Interval, Job, overlap_share, total_time
from pytest_h2o.engine.encode_schedule import EncodeSchedule, is_covered, layers_in_scope
from pytest_h2o.engine.held_blocks import HeldBlocks, LayerBlocks, Stored
from pytest_h2o.engine.kv_cache import Attention, KVCache
from pytest_h2o.engine.response import Metrics

MODES = {"probe": 0, "full": 1, "store": 2}


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
        self._coder = BlockCoder(config, cache.shape.dtype)
        self._held = HeldBlocks(settings, cache, pool, self._coder, metrics)
        self._states, self._waits = self._held.layers, self._held.waits
        self._finished: deque[Job[Encoded]] = deque()
        self._in_flight = 0
        self._work: list[Interval] = []
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
                self._held.restore(layer)
            self._held.prefetch((layer + 1) % len(self._states))

    def after_attention(self, layer: int, attention: Attention) -> None:
        """Schedule the layer's next span, apply what the workers have finished, drop raw values
        again.
        """
        state, cache = self._states[layer], self._cache.layers[layer]
        state.tokens += 1
        if state.epoch != cache.epoch:
            if state.blocks and self._storing:
                count = len(state.blocks)
                self._log(f"[H2O-LOSSLESS] shrink(store): discarding {count} staged blocks")
            self._held.forget(state)
            state.epoch = cache.epoch
            self._set_schedule(layer, state.schedule.compacted(cache.length, self._settings))
        if cache.length >= state.due:
            self._schedule(layer, state)
        if self._finished:
            self._apply_finished()
        if self._storing and state.blocks:
            self._held.drop(layer)

    def finish(self) -> None:
        """Wait for what is in flight and publish the numbers of the whole response."""
        self._waits.append(self._pool.drain())
        self._apply_finished()
        metrics = self._metrics
        metrics.async_queue_peak = self._pool.peak
        if self._pool.threads:
            metrics.async_wait_us = total_time(self._waits) / 1e3
            metrics.encode_overlap = overlap_share(self._work, self._waits)
        decoded = self._coder.decoded
        metrics.cache_hit, metrics.cache_miss = decoded.hits, decoded.misses
        scope = layers_in_scope(len(self._states), self._kept_layers, self._settings)
        metrics.cold_share = self._held.cold_share(scope)

    def _set_schedule(self, layer: int, schedule: EncodeSchedule) -> None:
        """Also work out when to look at the layer again: never, if no token's sampling covers
        it.
        """
        state = self._states[layer]
        state.schedule = schedule
        state.due = math.inf
        if is_covered(layer, 1, self._kept_layers, self._settings):
            state.due = max(self._trigger, schedule.due_length(self._settings))

    def _schedule(self, layer: int, state: LayerBlocks) -> None:
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
        job = Job(lambda: self._coder.encode(task, values, positions))
        if not self._pool.submit(job, self._finished.append):
            self._metrics.backpressure_skip += 1
            return
        self._set_schedule(layer, schedule)
        self._in_flight += 1
        self._metrics.queue_peak = max(self._metrics.queue_peak, self._in_flight)

    def _apply_finished(self) -> None:
        while self._finished:
            job = self._finished.popleft()
            self._in_flight -= 1
            self._work.append(job.interval)
            self._apply(job.value())
        cached = self._coder.decoded.nbytes
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
                self._held.hold(task.layer, Stored(task.span, task.block))
        self._log_update(task)

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
