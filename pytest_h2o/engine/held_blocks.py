"""The encoded blocks that are held, layer by layer, and in ``store`` mode the raw values that they
stand for: dropped while a layer does not attend, restored before it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import NamedTuple

from pytest_h2o.codec.blocks import EncodedBlock
from pytest_h2o.engine.block_coder import BlockCoder
from pytest_h2o.engine.config import LosslessSettings
from pytest_h2o.engine.encode_pool import EncodePool, Interval, Job
from pytest_h2o.engine.encode_schedule import (
    EncodeSchedule,
    Span,
    cold_region,
    covered_tokens,
    joined,
)
from pytest_h2o.engine.kv_cache import Floats, KVCache
from pytest_h2o.engine.response import Metrics


class Stored(NamedTuple):
    """An encoded block and the span it holds."""

    span: Span
    block: EncodedBlock


@dataclass(slots=True)
class LayerBlocks:
    """The blocks of one layer, and how far its encoding has come."""

    tokens: int = 0  # decode tokens seen
    epoch: int = 0  # compactions of the layer's cache seen
    schedule: EncodeSchedule = field(default_factory=EncodeSchedule)
    blocks: list[Stored] = field(default_factory=list)
    covered: list[Span] = field(default_factory=list)  # what the blocks hold, joined
    dropped: int = 0  # tokens whose raw values are gone
    due: float = 0  # length of the cache below which nothing can be due
    decode_us: float = 0.0
    prefetched: dict[Span, Job[Floats]] = field(default_factory=dict)


class HeldBlocks:
    """The blocks of a response. ``waits``: when the decode thread waited for a worker."""

    def __init__(
        self,
        settings: LosslessSettings,
        cache: KVCache,
        pool: EncodePool,
        coder: BlockCoder,
        metrics: Metrics,
    ) -> None:
        self.layers = [LayerBlocks(epoch=layer.epoch) for layer in cache.layers]
        self.waits: list[Interval] = []
        self._cache, self._pool, self._coder, self._metrics = cache, pool, coder, metrics
        self._settings = settings
        self._storing = settings.runtime_mode == "store"

    def hold(self, layer: int, stored: Stored) -> None:
        """Keep a block; where raw values stay, as many as the decode cache would."""
        state = self.layers[layer]
        state.blocks.append(stored)
        self._cache.account.add(stored.block.nbytes)
        if self._storing:
            state.covered = joined(stored.span for stored in state.blocks)
            self.drop(layer)
        elif 0 < self._settings.decode_cache_blocks < len(state.blocks):
            self._cache.account.add(-state.blocks.pop(0).block.nbytes)

    def forget(self, state: LayerBlocks) -> None:
        """Let go of the layer's blocks: an eviction has moved the tokens they stand for."""
        for stored in state.blocks:
            self._cache.account.add(-stored.block.nbytes)
        state.blocks.clear()
        state.covered.clear()
        state.prefetched.clear()

    def cold_share(self, layers: Iterable[int]) -> float:
        """The share of the layers' cold tokens that blocks hold."""
        held = cold = 0
        for layer in layers:
            region = cold_region(self._cache.layers[layer].length, self._settings)
            spans = [stored.span for stored in self.layers[layer].blocks]
            held += covered_tokens(spans, region)
            cold += region.size
        return held / max(1, cold)

    def drop(self, layer: int) -> None:
        """Give up the raw values of everything that is encoded."""
        state, cache = self.layers[layer], self._cache.layers[layer]
        dropped = 0
        for span in state.covered:
            cache.drop(span.begin, span.size)
            dropped += span.size
        self._count_dropped(state, dropped)

    def restore(self, layer: int) -> None:
        """Write all encoded spans of the layer back."""
        state, cache = self.layers[layer], self._cache.layers[layer]
        begin = perf_counter_ns()
        for span, block in state.blocks:
            job = state.prefetched.pop(span, None)
            values = self._await(job) if job else self._coder.decode(block)
            cache.restore(span.begin, values)
            self._metrics.decompressed_bytes += block.raw_bytes
        self._count_dropped(state, 0)
        microseconds = (perf_counter_ns() - begin) / 1e3
        self._metrics.decomp_us += microseconds
        state.decode_us += microseconds

    def _count_dropped(self, state: LayerBlocks, tokens: int) -> None:
        """So many tokens of the layer have no raw values from here on."""
        self._cache.account.add((state.dropped - tokens) * self._cache.shape.token_bytes)
        state.dropped = tokens

    def prefetch(self, layer: int) -> None:
        """Let the workers decode what the layer will need and the decode cache does not hold."""
        if not self._pool.threads:
            return
        state = self.layers[layer]
        for stored in state.blocks:
            if stored.block not in self._coder.decoded and stored.span not in state.prefetched:
                job = Job(partial(self._coder.decode, stored.block))
                if self._pool.submit(job, lambda _: None):
                    state.prefetched[stored.span] = job

    def _await(self, job: Job[Floats]) -> Floats:
        begin = perf_counter_ns()
        decoded = job.value()
        self.waits.append((begin, perf_counter_ns()))
        return decoded
