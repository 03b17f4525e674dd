"""The row codecs inside the runtime: positions of what an eviction kept, and no token changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_models import H2O, LOSSLESS

from pytest_h2o.codec import ROW_CODECS
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Account, KVShape, LayerCache


def test_kept_tokens_keep_their_positions() -> None:
    """Positions move with the tokens, go on where they were, and start anew with a response."""
    layer = LayerCache(KVShape(1, 2, np.dtype(np.float16)), 64, Account())
    layer.append(np.zeros((10, 4), np.float32))
    layer.keep([(0, 2), (5, 3)])
    layer.append(np.zeros((1, 4), np.float32))
    assert layer.positions(0, layer.length).tolist() == [0, 1, 5, 6, 7, 10]
    layer.fill(layer.copy(0, 3))
    assert layer.positions(0, 3).tolist() == [0, 1, 2]
    layer.clear()
    layer.append(np.zeros((2, 4), np.float32))
    assert layer.positions(0, 2).tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["full", "store"])
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_runtime(
    make_engine: Callable[..., Engine], prompt: list[int], codec: str, mode: str
) -> None:
    """Blocks of a cache that evicts decode to what was encoded, and the response is that of a
    runtime without lossless coding.
    """
    plain = make_engine(H2O).respond(prompt, 60)
    engine = make_engine(
        H2O | LOSSLESS, kv_lossless_codec_runtime=codec, kv_lossless_runtime_mode=mode
    )
    response = engine.respond(prompt, 60)
    assert response.tokens == plain.tokens
    assert response.metrics.evictions_applied > 0
    assert response.metrics.roundtrips > 0
    assert response.metrics.fallback == 0


def test_derotated_after_eviction(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """Where a prompt repeats itself, row references beat the planes even after eviction."""
    ratios = []
    for codec in ("fp16_gear_predictive_v3", "row_reference"):
        engine = make_engine(H2O | LOSSLESS, kv_lossless_codec_runtime=codec)
        ratios.append(engine.respond(prompt[:4] * 60, 60).metrics.lossless)
    assert ratios[1] > 1.1 * ratios[0]
