"""The embedded engine with a defect in what it keeps: ``spoiled.main(defect)`` is ``h2o-llm-bench``
with that defect.

Unlike the stand-ins that print recorded numbers, these really evict, and really predict what they
then predict.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pytest_h2o.engine import bench, bench_options, demo, evictor, policy_quality, sampler
from pytest_h2o.engine.config import H2OSettings
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.model import Model
from pytest_h2o.engine.policies import h2o as heavy_hitters
from pytest_h2o.engine.response import Response

EVERY = 5  # only so many of the windows of held-out text are measured: enough to tell these apart


def honest() -> None:
    """The engine as it is."""


def oldest_tokens() -> None:
    """Keeps the oldest tokens, whatever attention says."""

    def update(scores: Floats, attention: object, alpha: float) -> None:
        scores[:] = -np.arange(scores.shape[1])

    heavy_hitters.update = update


def lightest_tokens() -> None:
    """Keeps what drew the least attention: a comparison the wrong way round."""
    update = heavy_hitters.update

    def reversed_update(scores: Floats, attention: object, alpha: float) -> None:
        np.negative(scores, out=scores)
        update(scores, attention, alpha)  # type: ignore[arg-type]
        np.negative(scores, out=scores)

    heavy_hitters.update = reversed_update


def recent_tokens_dropped() -> None:
    """Does not protect the recent tokens, and a token that has just come has no score yet."""
    select = evictor.select

    def unprotected(kv: int, scores: Floats, settings: H2OSettings) -> evictor.Selection:
        begin = max(0, kv - settings.recent_tokens) // settings.block_tokens
        scores[begin:] = -1
        return select(kv, scores, replace(settings, recent_tokens=0))

    evictor.select = unprotected


def keys_without_values() -> None:
    """Moves the kept keys to the front and leaves the values where they were."""
    keep = LayerCache.keep

    def keep_keys(self: LayerCache, ranges: Ranges) -> None:
        values = self._data[1].copy()
        keep(self, ranges)
        self._data[1, :, : self.length] = values[:, : self.length]

    LayerCache.keep = keep_keys  # type: ignore[method-assign]


def no_sink() -> None:
    """Does not protect the first tokens, though its lines repeat the config's sink."""
    select = evictor.select
    evictor.select = lambda kv, scores, settings: select(
        kv, scores, replace(settings, sink_tokens=0)
    )


def quantised_attention() -> None:
    """A build in which quantised attention is always on, which turns H2O off."""
    setups = bench_options.setups
    bench_options.setups = lambda options: (
        replace(setup, quantised=2) for setup in setups(options)
    )


def rounded_blocks() -> None:
    """Gives encoded blocks back without their mantissas; what is checked is another copy."""
    restore = LayerCache.restore

    def restore_rounded(self: LayerCache, begin: int, values: Floats) -> None:
        bits = values.astype(np.float16).view(np.uint16) & 0xFC00
        restore(self, begin, bits.view(np.float16).astype(values.dtype))

    LayerCache.restore = restore_rounded  # type: ignore[method-assign]


def renumbered_positions() -> None:
    """Counts the position of the next token from what the cache holds."""
    keep = KVCache.__init__

    def remember(self: KVCache, *arguments: Any) -> None:
        keep(self, *arguments)
        caches.append(self)

    forward = Model.forward

    def forward_renumbered(self: Model, tokens: Any, *arguments: Any) -> Floats:
        for cache in caches:
            cache.position = min(layer.length for layer in cache.layers)
        return forward(self, tokens, *arguments)

    caches: list[KVCache] = []
    KVCache.__init__ = remember  # type: ignore[method-assign]
    Model.forward = forward_renumbered  # type: ignore[method-assign]


def remembered_requests() -> None:
    """Keeps what earlier requests asked and got in front of the prompt."""
    respond = Engine.respond
    last: list[int] = []

    def respond_on(self: Engine, prompt: Sequence[int], *arguments: Any, **more: Any) -> Response:
        last.extend(prompt)
        response = respond(self, list(last), *arguments, **more)
        last.extend(response.tokens)
        return response

    Engine.respond = respond_on  # type: ignore[method-assign]


def drawn_tokens() -> None:
    """Draws among likely tokens, whatever the sampler of the config is."""
    choose = sampler.Greedy.choose

    def draw(self: sampler.Greedy, logits: Floats) -> int:
        noise = np.random.default_rng().gumbel(size=logits.shape).astype(logits.dtype)
        return choose(self, logits + noise)

    sampler.Greedy.choose = draw  # type: ignore[method-assign]


def main(defect: str) -> None:
    """Run the command line with the defect, of ``h2o-llm-demo`` if the program is called so."""
    if Path(sys.argv[0]).name.startswith("demo_"):
        globals()[defect]()
        sys.exit(demo.main())
    cut = policy_quality.cut
    policy_quality.cut = lambda *arguments: cut(*arguments)[::EVERY]
    globals()[defect]()
    sys.exit(bench.main())
