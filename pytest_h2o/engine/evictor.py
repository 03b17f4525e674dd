"""H2O eviction: block scores, when a layer evicts, which blocks stay, and the move itself.

:func:`select` is the whole decision and pure. :class:`Evictor` feeds it from attention and applies
its plan at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_h2o.engine import policies
from pytest_h2o.engine.config import H2OSettings
from pytest_h2o.engine.kv_cache import Attention, Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.response import Metrics

Marks: TypeAlias = npt.NDArray[np.bool_]  # of blocks
RANGE_BYTES = 8  # two 4-byte integers describe a kept range


@dataclass(frozen=True, slots=True)
class Selection:
    """One decision for one layer of ``kv`` tokens; all sizes in tokens."""

    kv: int
    target: int  # what the ratio asks for, before the floor
    floor: int  # sink and recent blocks
    quantised: int  # target or floor, rounded up to whole blocks above the floor
    ranges: Ranges  # what stays

    @property
    def final(self) -> int:
        """Tokens that stay."""
        return sum(length for _, length in self.ranges)

    @property
    def dominated(self) -> bool:
        """Whether sink and recent alone exceed the target, so that nothing is evicted."""
        return self.floor >= self.target

    @property
    def evicted(self) -> int:
        """Tokens that go."""
        if self.dominated:
            return 0
        return self.kv - self.final

    def held_bytes(self, token_bytes: int) -> int:
        """Bytes of what stays, with the description of the plan."""
        return self.final * token_bytes + RANGE_BYTES * len(self.ranges)


def target_tokens(kv: int, settings: H2OSettings) -> int:
    """Tokens the configured ratio keeps of ``kv``, in 32-bit arithmetic, at least one."""
    ratio = np.float32(settings.target_keep_ratio)
    if settings.target_mode == "adaptive":
        ratio = np.float32(1) / np.float32(settings.target_lossy_ratio)
    return min(max(math.ceil(ratio * np.float32(kv)), 1), kv)


def select(kv: int, scores: Floats, settings: H2OSettings) -> Selection:
    """Which of ``kv`` tokens stay: sink and recent blocks, then the best ``scores`` (per block;
    ties by position).
    """
    size = settings.block_tokens
    count = -(-kv // size)
    last = kv - (count - 1) * size  # tokens of the last block
    marked = np.zeros(count, np.bool_)
    marked[: -(-min(kv, settings.sink_tokens) // size)] = True
    marked[max(0, kv - settings.recent_tokens) // size :] = True
    floor = _tokens(marked, size, last)
    target = target_tokens(kv, settings)
    quantised = floor
    if target > floor:
        above = -(-(target - floor) // size)  # blocks
        quantised = min(kv, floor + above * size)
    if quantised > floor:
        _mark_best(marked, scores, quantised - floor, size, last)
    return Selection(kv, target, floor, quantised, _ranges(marked, size, kv))


def _mark_best(marked: Marks, scores: Floats, wanted: int, size: int, last: int) -> None:
    """Mark the best of the blocks that are free, until they hold ``wanted`` tokens or more."""
    free = np.flatnonzero(~marked)
    best = free[np.argsort(-scores[free], kind="stable")]
    held = np.cumsum(np.where(best == len(marked) - 1, last, size))
    count = int(np.searchsorted(held, wanted)) + 1
    marked[best[:count]] = True


def _tokens(marked: Marks, size: int, last: int) -> int:
    """Tokens in the marked blocks, the last block holding ``last``."""
    tokens = int(marked.sum()) * size
    if marked[-1]:
        tokens -= size - last
    return tokens


def _ranges(marked: Marks, size: int, kv: int) -> Ranges:
    """Adjacent marked blocks merged into (begin, length)."""
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
    pairs = edges.reshape(-1, 2) * size
    return [(begin, min(end, kv) - begin) for begin, end in pairs.tolist()]


def _keep(scores: Floats, selection: Selection) -> None:
    """Move the scores of the tokens that stay to the front, as the cache does with the tokens."""
    pieces = [scores[:, begin : begin + length] for begin, length in selection.ranges]
    kept = np.concatenate(pieces, axis=1)
    scores[:, : selection.kv] = 0
    scores[:, : selection.final] = kept


@dataclass(slots=True)
class _LayerScores:
    """What eviction remembers of one layer within a response."""

    phase: int  # its place in the update interval
    scores: Floats  # [kv_heads, capacity], of the tokens in the cache; zero beyond them
    tokens: int = 0  # decode tokens seen
    last: Selection | None = None  # of any kind
    compacted: Selection | None = None  # the last that was not dominated


class Evictor:
    """The hook that evicts: every H2O layer once per update interval of decode tokens, its plan
    applied at once.

    The layers' turns are spread over the interval, so that no token pays for all of them.
    """

    def __init__(
        self, settings: H2OSettings, cache: KVCache, metrics: Metrics, log: Callable[[str], None]
    ) -> None:
        self._settings, self._cache, self._metrics, self._log = settings, cache, metrics, log
        self._update = policies.load(settings.policy)
        layers = settings.layers(len(cache.layers))
        self._last = layers[-1]
        interval = settings.update_interval
        self._states: dict[int, _LayerScores] = {}
        for turn, layer in enumerate(layers, start=1):
            phase = math.ceil(turn * interval / len(layers)) % interval
            scores = np.zeros((cache.shape.heads, cache.capacity), np.float32)
            self._states[layer] = _LayerScores(phase, scores)

    def after_prompt(self, layer: int, attention: Attention) -> None:
        """Begin with the scores that the end of the prompt gives: a layer may evict a few tokens
        later.
        """
        if state := self._states.get(layer):
            self._update(state.scores[:, : self._cache.layers[layer].length], attention, 0.0)

    def before_attention(self, layer: int) -> None:
        """Nothing to do."""

    def after_attention(self, layer: int, attention: Attention) -> None:
        """Update the layer's scores; evict if it is due."""
        state = self._states.get(layer)
        if state is None:
            return
        cache, settings = self._cache.layers[layer], self._settings
        state.tokens += 1
        self._update(state.scores[:, : cache.length], attention, settings.ema_alpha)
        due = state.tokens % settings.update_interval == state.phase
        if due and cache.length >= settings.trigger_min_tokens:
            self._trigger(layer, state, cache)
        if layer == self._last:
            self._observe_ratio(state.tokens)

    def finish(self) -> None:
        """Nothing to do."""

    def may_evict(self, tokens: int) -> bool:
        """Whether a layer can reach the trigger within so many tokens."""
        longest = max(self._cache.layers[layer].length for layer in self._states)
        return longest + tokens >= self._settings.trigger_min_tokens

    def _observe_ratio(self, tokens: int) -> None:
        """Tokens a full cache would hold over tokens held, after this token and as the mean over
        all so far.
        """
        held = sum(self._cache.layers[layer].length for layer in self._states)
        ratio = self._cache.position * len(self._states) / held
        self._metrics.effective_ratio = ratio
        self._metrics.effective_ratio_mean += (ratio - self._metrics.effective_ratio_mean) / tokens

    def _trigger(self, layer: int, state: _LayerScores, cache: LayerCache) -> None:
        started = perf_counter_ns()
        scores = self._block_scores(state.scores, cache.length)
        selection = select(cache.length, scores, self._settings)
        microseconds = (perf_counter_ns() - started) / 1e3
        state.last = selection
        if not selection.dominated:
            state.compacted = selection
        self._publish(selection, microseconds)
        if selection.evicted:
            self._log_plan(layer, selection, cache.shape.token_bytes, microseconds)
            cache.keep(selection.ranges)
            _keep(state.scores, selection)
            self._metrics.evictions_applied += cache.length == selection.final
        elif selection.floor > selection.target:
            self._log_floor(selection)

    def _block_scores(self, scores: Floats, kv: int) -> Floats:
        begins = np.arange(0, kv, self._settings.block_tokens)
        summed: Floats = np.add.reduceat(scores[:, :kv].sum(axis=0), begins)
        return summed

    def _publish(self, selection: Selection, microseconds: float) -> None:
        """Ratios as byte-weighted sums over the H2O layers; a layer that never evicted counts as
        kept whole.
        """
        metrics = self._metrics
        metrics.evict_us = microseconds
        metrics.last_evict_tokens = selection.evicted
        metrics.total_evict_tokens += selection.evicted
        metrics.evictions_planned += selection.evicted > 0
        kv = target = floor = quantised = 0
        for state in self._states.values():
            if state.last:
                kv += state.last.kv
                target += max(state.last.target, state.last.floor)
                floor += state.last.floor
                quantised += state.last.quantised
        metrics.target_keep_effective = target / kv
        metrics.floor_keep = floor / kv
        metrics.quantized_keep = quantised / kv
        self._publish_kept()

    def _publish_kept(self) -> None:
        size = self._cache.shape.token_bytes
        full = kept = held = 0
        for layer, state in self._states.items():
            selection = state.compacted
            if selection:
                full += selection.kv
                kept += selection.final
                held += selection.held_bytes(size)
            else:
                length = self._cache.layers[layer].length
                full += length
                kept += length
                held += length * size
        self._metrics.keep = kept / full
        self._metrics.lossy = full * size / held

    def _log_plan(self, layer: int, plan: Selection, token_bytes: int, microseconds: float) -> None:
        settings, kv = self._settings, plan.kv
        lossy = kv * token_bytes / plan.held_bytes(token_bytes)
        effective = max(plan.target, plan.floor)
        self._log(
            f"[H2O] layer={layer} kv={kv} keep_ratio={plan.final / kv:.4f} evict={plan.evicted}"
            f" lossy_ratio={lossy:.4f} evict_us={microseconds:.0f}"
            f" reserve_pairs={len(plan.ranges)} target={settings.target_keep_ratio:.3f}"
            f" effective={effective / kv:.3f} floor={plan.floor / kv:.3f}"
            f" quantized={plan.quantised / kv:.3f} recent={settings.recent_tokens}"
            f" sink={settings.sink_tokens} block={settings.block_tokens}"
        )

    def _log_floor(self, plan: Selection) -> None:
        settings = self._settings
        self._log(
            f"[H2O] floor-keep dominates target: kv={plan.kv} target={plan.target}"
            f" floor={plan.floor} (sink={settings.sink_tokens} recent={settings.recent_tokens}"
            f" block={settings.block_tokens})"
        )
