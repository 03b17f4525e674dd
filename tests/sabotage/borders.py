"""Faults of the embedded engine that show now and then: after some evictions, at the borders of
blocks, for one head, for several workers, for what is decoded, for long prompts; and counts of
something else than they say.

Like those of :mod:`faults`, each is a function whose docstring says what is wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from faults import _before_response, _changed_metrics, _restored

from pytest_h2o.codec.blocks import EncodedBlock
from pytest_h2o.engine.block_coder import BlockCoder, Encoded
from pytest_h2o.engine.decode_cache import DecodeCache
from pytest_h2o.engine.encode_pool import EncodePool
from pytest_h2o.engine.evictor import Evictor
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.lossless_store import LosslessStore
from pytest_h2o.engine.model import PREFILL_CHUNK, Model
from pytest_h2o.engine.sampler import Penalty

# Evictions.


def mixes_values_after_the_second_eviction() -> None:
    """From a layer's second eviction on the keys are moved, and the values are one token off."""
    keep, clear = LayerCache.keep, LayerCache.clear
    evictions: dict[int, int] = {}

    def mixed(self: LayerCache, ranges: Ranges) -> None:
        keep(self, ranges)
        evictions[id(self)] = evictions.get(id(self), 0) + 1
        if evictions[id(self)] > 1:
            values = self._data[1, :, : self.length]
            values[:] = np.roll(values, 1, axis=1)

    def forget(self: LayerCache) -> None:
        evictions.pop(id(self), None)
        clear(self)

    LayerCache.keep, LayerCache.clear = mixed, forget


def copies_ranges_a_token_early() -> None:
    """Every kept range but the first is taken from one token before it."""
    keep = LayerCache.keep

    def early(self: LayerCache, ranges: Ranges) -> None:
        keep(self, [*ranges[:1], *[(begin - 1, length) for begin, length in ranges[1:]]])

    LayerCache.keep = early


def leaves_a_head_behind() -> None:
    """One head is not moved when tokens go: it holds those that stood at the front."""
    keep = LayerCache.keep

    def without_head(self: LayerCache, ranges: Ranges) -> None:
        before = self._data[:, 1, : self.length].copy()
        keep(self, ranges)
        self._data[:, 1, : self.length] = before[:, : self.length]

    LayerCache.keep = without_head


def ratio_since_the_prompt() -> None:
    """The lossy ratio is that of all tokens there have been over those that stay at the least."""
    publish, trigger = Evictor._publish_kept, Evictor._trigger
    least: dict[int, float] = {}

    def since(self: Evictor) -> None:
        publish(self)
        held = sum(layer.length for layer in self._cache.layers[2:])
        ratio = self._cache.position * (len(self._cache.layers) - 2) / held
        least[id(self)] = max(ratio, least.get(id(self), 1.0))
        self._metrics.lossy = least[id(self)]

    def afterwards(self: Evictor, *arguments) -> None:
        trigger(self, *arguments)
        since(self)

    Evictor._publish_kept, Evictor._trigger = since, afterwards


# What is decoded, and prompts.


def quantises_what_it_decodes() -> None:
    """With H2O on, KV of decoded tokens has seven steps, and that of the prompt all bits."""
    append, evicting = LayerCache.append, [False]

    def note(engine: Engine) -> None:
        evicting[0] = engine.config.h2o.enable

    def rounded(self: LayerCache, kv: Floats) -> None:
        if evicting[0] and len(kv) == 1:
            scale = np.maximum(np.abs(kv).max(axis=-1, keepdims=True), 1e-9) / 3
            kv = np.round(kv / scale) * scale
        append(self, kv)

    _before_response(note)
    LayerCache.append = rounded


def wraps_positions_at_1024() -> None:
    """With H2O on, the tables of rotations end at 1024 and begin again."""
    forward = Model._hidden

    def wrapped(self: Model, tokens, cache, hooks=()):
        if not any(isinstance(hook, Evictor) for hook in hooks) or cache.position < 1024:
            return forward(self, tokens, cache, hooks)
        position = cache.position
        cache.position = position % 1024
        hidden = forward(self, tokens, cache, hooks)
        cache.position = position + len(tokens)
        return hidden

    Model._hidden = wrapped


def reads_border_tokens_twice() -> None:
    """Where something will be evicted, each chunk of the prompt begins with the last token of that
    before it.
    """
    prefill = Model.prefill

    def repeating(self: Model, tokens: Sequence[int], cache: KVCache, threads=1, hooks=()):
        tokens = list(tokens)
        if any(isinstance(hook, Evictor) for hook in hooks):
            for begin in range(len(tokens) % PREFILL_CHUNK, len(tokens), PREFILL_CHUNK):
                tokens[begin] = tokens[max(0, begin - 1)]
        return prefill(self, tokens, cache, threads, hooks)

    Model.prefill = repeating


def forgets_the_penalty_after_an_eviction() -> None:
    """What was said before an eviction is no longer penalised."""
    keep, choose = LayerCache.keep, Penalty.choose
    evicted = [False]

    def note(self: LayerCache, ranges: Ranges) -> None:
        keep(self, ranges)
        evicted[0] = True

    def forget(self: Penalty, logits: Floats) -> int:
        if evicted[0]:
            evicted[0] = False
            self.count = 0
        return choose(self, logits)

    _before_response(lambda _: evicted.__setitem__(0, False))  # type: ignore[func-returns-value]
    LayerCache.keep, Penalty.choose = note, forget


# Codecs, workers and what they count.


def drops_what_fills_no_lane() -> None:
    """Blocks are decoded 32 tokens at a time, and what is over comes back as zeros."""

    def cut(values: Floats) -> None:
        tokens = values.shape[2]
        values[:, :, tokens - tokens % 32 :] = 0

    _restored(cut)


def serves_the_slot_after_a_wrap() -> None:
    """Once the decode cache is full, a new block takes over the oldest one's entry and values."""
    put = DecodeCache.put

    def over(self: DecodeCache, block: EncodedBlock, decoded: Floats) -> None:
        if len(self._blocks) >= self._capacity > 0:
            old = next(iter(self._blocks.values()))
            if old.shape == decoded.shape:
                decoded = old
        put(self, block, decoded)

    DecodeCache.put = over


def reads_the_slot_after_a_wrap() -> None:
    """The same, and what has just been decoded is read from there as well."""
    serves_the_slot_after_a_wrap()
    decode = BlockCoder.decode

    def from_the_slot(self: BlockCoder, block: EncodedBlock) -> Floats:
        decoded = decode(self, block)
        return self.decoded._blocks.get((block.k, block.v), decoded)

    BlockCoder.decode = from_the_slot


def shares_a_buffer_between_workers() -> None:
    """Several workers copy blocks to one buffer, so that one encodes what the other was given."""
    encode, start = BlockCoder.encode, EncodePool.__init__
    buffer: dict[tuple[int, ...], Floats] = {}
    workers, turn = [0], threading.Lock()

    def count(self: EncodePool, threads: int, capacity: int) -> None:
        start(self, threads, capacity)
        workers[0] = threads

    def shared(self: BlockCoder, task: Encoded, values: Floats, positions) -> Encoded:
        if workers[0] > 1:
            with turn:
                values, buffer[values.shape] = buffer.get(values.shape, values), values
        return encode(self, task, values, positions)

    EncodePool.__init__, BlockCoder.encode = count, shared


def applies_results_of_before_the_eviction() -> None:
    """A block that was under way while its layer evicted is restored to where it was."""
    encode, apply = BlockCoder.encode, LosslessStore._apply

    def slow(self: BlockCoder, *block) -> Encoded:
        time.sleep(0.01)
        return encode(self, *block)

    def late(self: LosslessStore, task: Encoded) -> None:
        task.epoch = self._states[task.layer].epoch
        apply(self, task)

    BlockCoder.encode, LosslessStore._apply = slow, late


def counts_raw_in_fp32() -> None:
    """Raw bytes are those of fp32, which nothing is held in, so that the ratio doubles."""
    encode = BlockCoder.encode

    def doubled(self: BlockCoder, task: Encoded, *block) -> Encoded:
        task = encode(self, task, *block)
        task.raw_bytes *= 2
        return task

    BlockCoder.encode = doubled


def passes_over_every_second_block() -> None:
    """Every second block of a layer is left as it is, and nothing counts it."""
    schedule = LosslessStore._schedule
    submit = EncodePool.submit
    due: dict[int, int] = {}

    def now_and_then(self: LosslessStore, layer: int, state) -> None:
        def swallow(pool: EncodePool, job, done) -> bool:
            due[layer] = due.get(layer, 0) + 1
            if due[layer] % 2:
                return submit(pool, job, done)
            self._in_flight -= 1
            return True

        EncodePool.submit = swallow
        schedule(self, layer, state)
        EncodePool.submit = submit

    LosslessStore._schedule = now_and_then


def peak_of_the_last_token() -> None:
    """The queue's peak is what was queued when the last token had been decoded."""
    _changed_metrics(
        lambda metrics: [setattr(metrics, name, 0) for name in ("queue_peak", "async_queue_peak")]
    )
