"""One response: prefill the prompt, then sample and forward token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pytest_h2o.engine.config import Config, ConfigError, H2OSettings, LosslessSettings
from pytest_h2o.engine.encode_pool import EncodePool
from pytest_h2o.engine.evictor import Evictor
from pytest_h2o.engine.kv_cache import Floats, KVCache, KVShape
from pytest_h2o.engine.kv_dump import DecodeDump, KVDump
from pytest_h2o.engine.lossless_store import LosslessStore
from pytest_h2o.engine.model import PREFILL_CHUNK, Hook, Model
from pytest_h2o.engine.response import Metrics, Response
from pytest_h2o.engine.response_clock import ResponseClock
from pytest_h2o.engine.sampler import sampler_for
from pytest_h2o.engine.threads import available_cores, single_threaded_blas
from pytest_h2o.engine.yardstick import EVERY, Yardstick

TUNING_STEPS = 7
# Forced tokens that are decoded one by one whatever the settings, while blocks are encoded.
CODED_STEPS = 8


class Trial(NamedTuple):
    """Tokens that are decoded as if they had been chosen, and the settings meanwhile; without
    ``lossless`` nothing is encoded.
    """

    tokens: Sequence[int]
    h2o: H2OSettings
    lossless: LosslessSettings | None = None


class Engine:
    """A loaded model with its cache and compression; answers one prompt at a time.

    ``say`` gets the engine's lines, which are printed unless somebody else takes them.
    """

    def __init__(
        self, config: Config, *, threads: int | None = None, model: Model | None = None
    ) -> None:
        shape = config.architecture
        self.config = config
        self.threads = min(threads or config.engine.thread_num, available_cores())
        self.say: Callable[[str], None] = partial(print, flush=True)
        self.model = model or Model(shape, config.weights)
        dtype: np.dtype[Any] = np.dtype(np.float32)
        if config.engine.precision == "low":
            dtype = np.dtype(np.float16)
        kv_shape = KVShape(shape.kv_heads, shape.head_dim, dtype, config.engine.quantised)
        self.cache = KVCache(kv_shape, shape.layers, shape.context)
        self._pool: EncodePool | None = None
        if config.lossless.active and not config.engine.quantised:  # int8 is compressed already
            self._pool = _make_pool(config.lossless)
        self._yardstick = Yardstick(self.model)
        self._dump = KVDump.from_environment(rope_theta=shape.rope_theta)
        single_threaded_blas()
        np.seterr(over="ignore", under="ignore")  # exp of far-off scores is 0 or inf by intent

    def twin(self) -> Engine:
        """An engine of one thread with the same weights, and a cache of its own."""
        return Engine(self.config, threads=1, model=self.model)

    def tune(self) -> None:
        """Warm caches and thread pools with a few steps that leave no trace."""
        for _ in range(TUNING_STEPS):
            self.model.forward([0], self.cache)
        self.cache.clear()

    def respond(
        self,
        prompt: Sequence[int],
        budget: int,
        *,
        stop: frozenset[int] = frozenset(),
        emit: Callable[[int], None] | None = None,
        measured: bool = True,
    ) -> Response:
        """Answer ``prompt`` with up to ``budget`` tokens, fewer when one of ``stop`` is
        sampled.

        ``emit`` sees every token; its time counts as decoding, sampling is timed apart. Unless
        ``measured`` is false, the yardstick runs between tokens. ConfigError when the tokens cannot
        be held.
        """
        check_fits(prompt, budget, self.model.shape.vocab, self.cache.capacity)
        self.cache.clear()
        clock, metrics = ResponseClock(self._yardstick), Metrics()
        tokens: list[int] = []
        hooks = self._hooks(metrics, len(prompt) + budget)
        sampler = sampler_for(self.config.engine, prompt, budget)
        with clock.running("prefill"):
            logits = self.model.prefill(prompt, self.cache, self.threads, hooks)
        if self._dump:
            self._dump.write_prompt(self.cache)
        while len(tokens) < budget and not stop.intersection(tokens[-1:]):
            with clock.running("sample"):
                token = sampler.choose(logits)
            tokens.append(token)
            with clock.running("decode"):
                if emit:
                    emit(token)
                if token not in stop:
                    logits = self.model.forward([token], self.cache, hooks)
            if measured and len(tokens) % EVERY == 0 and (self._pool is None or self._pool.idle):
                clock.run_yardstick()
        with clock.running("decode"):
            for hook in hooks:
                hook.finish()
        if measured and tokens:
            clock.run_yardstick()
            workers = self._pool.threads if self._pool else 0
            metrics.decode_cost = clock.cost(len(tokens), workers)
        self._close(metrics)
        return Response(
            prompt_tokens=len(prompt),
            tokens=tuple(tokens),
            prefill_us=clock.microseconds["prefill"],
            decode_us=clock.microseconds["decode"],
            sample_us=clock.microseconds["sample"],
            metrics=metrics,
        )

    def force(self, prompt: Sequence[int], trials: Sequence[Trial]) -> Iterator[Floats]:
        """Decode given tokens after ``prompt`` under given settings, trial by trial, the prompt
        being read only once.

        Yields the logits before each of the tokens of a trial [T, V]; until the next is asked for,
        the cache is as that trial left it.
        """
        longest = max(len(trial.tokens) for trial in trials)
        check_fits(prompt, longest, self.model.shape.vocab, self.cache.capacity)
        self.cache.clear()
        evictors: list[Evictor | None] = []
        for trial in trials:
            if trial.h2o.enable:
                evictors.append(Evictor(trial.h2o, self.cache, Metrics(), self._log))
            else:
                evictors.append(None)
        watching = [evictor for evictor in evictors if evictor]
        first = self.model.prefill(prompt, self.cache, self.threads, watching)
        after_prompt = self.cache.save()
        for trial, evictor in zip(trials, evictors, strict=True):
            self.cache.load(after_prompt)
            logits = [first[None]]
            store = _store_of(trial, self.config, self.cache)
            logits.extend(_follow(trial, self.model, self.cache, evictor, store))
            yield np.concatenate(logits)

    def _hooks(self, metrics: Metrics, tokens: int) -> list[Hook]:
        """What watches the decoding of a response of up to ``tokens`` tokens, in the order it
        acts.
        """
        config = self.config
        hooks: list[Hook] = []
        if self._dump:
            hooks.append(DecodeDump(self._dump, self.cache))
        if tokens < config.h2o.trigger_min_tokens:
            return hooks  # too short for anything to be evicted or encoded
        if config.h2o.enable and not config.engine.quantised:
            hooks.append(Evictor(config.h2o, self.cache, metrics, self._log))
        if self._pool:
            hooks.append(LosslessStore(config, self.cache, self._pool, metrics, self._log))
        return hooks

    def _log(self, line: str) -> None:
        """Print an engine line if the config asks for them."""
        if self.config.h2o.log_stats:
            self.say(line)

    def _close(self, metrics: Metrics) -> None:
        """Read what the response leaves in the cache."""
        layers = self.cache.layers
        metrics.kv_tokens_end = sum(layer.length for layer in layers) / len(layers)
        metrics.kv_resident_bytes = self.cache.account.held
        metrics.kv_peak_bytes = self.cache.account.peak


def _follow(
    trial: Trial,
    model: Model,
    cache: KVCache,
    evictor: Evictor | None,
    store: LosslessStore | None,
) -> Iterator[Floats]:
    """Logits after each token of a trial but the last; where nothing can be evicted or is to be
    encoded any more, many are read in one pass.
    """
    hooks: list[Hook] = []
    for hook in (evictor, store):
        if hook:
            hooks.append(hook)
    tokens = trial.tokens[:-1]
    coded = CODED_STEPS
    while tokens and (coded > 0 or (evictor and evictor.may_evict(len(tokens)))):
        yield model.forward(tokens[:1], cache, hooks)[None]
        tokens = tokens[1:]
        coded -= 1
    if store:
        for layer in range(len(cache.layers)):
            store.before_attention(layer)
    for begin in range(0, len(tokens), PREFILL_CHUNK):
        yield model.forward_all(tokens[begin : begin + PREFILL_CHUNK], cache)


def _store_of(trial: Trial, config: Config, cache: KVCache) -> LosslessStore | None:
    """What encodes in a trial, if anything does; nothing is left to workers."""
    if trial.lossless is None:
        return None
    config = replace(config, h2o=trial.h2o, lossless=trial.lossless)
    pool = EncodePool(0, trial.lossless.max_queue)
    return LosslessStore(config, cache, pool, Metrics(), lambda _: None)


def check_fits(prompt: Sequence[int], budget: int, vocab: int, capacity: int) -> None:
    """ConfigError unless a cache of ``capacity`` tokens can hold a prompt of tokens below ``vocab``
    and ``budget`` new ones.
    """
    if not prompt or max(prompt) >= vocab:
        raise ConfigError(f"a prompt takes at least one token, all below the vocabulary of {vocab}")
    if len(prompt) + budget > capacity:
        asked = f"{len(prompt)} prompt tokens and {budget} new ones"
        raise ConfigError(f"{asked} exceed the model's context of {capacity}; ask for fewer")


def _make_pool(settings: LosslessSettings) -> EncodePool:
    if settings.runtime_mode == "probe":
        return EncodePool(0, settings.max_queue)
    return EncodePool(settings.async_threads, settings.max_queue)
