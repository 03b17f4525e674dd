"""What the runtime says of its memory and its evictions, against observers that share none of its
accounts.
"""

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import H2O

from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import KVCache, KVShape, LayerCache

STATM = Path("/proc/self/statm")


@pytest.mark.parametrize("h2o", [{}, H2O], ids=["keep_all", "evict"])
def test_kv_held(
    make_engine: Callable[..., Engine], prompt: list[int], h2o: dict[str, object]
) -> None:
    """KV length, resident and peak bytes are those that counting tokens after every change of a
    layer gives.
    """
    engine, totals = make_engine(h2o), list[int]()

    def watched(change: Callable[..., None]) -> Callable[..., None]:
        def wrapper(layer: LayerCache, argument: object) -> None:
            change(layer, argument)
            totals.append(sum(each.length for each in engine.cache.layers))

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for name in ("append", "keep"):
            patch.setattr(LayerCache, name, watched(getattr(LayerCache, name)))
        metrics = engine.respond(prompt, 40).metrics
    token = 2 * 2 * 8 * 2  # K and V of 2 heads of 8 fp16 values
    assert metrics.kv_tokens_end == totals[-1] / 4
    assert (metrics.kv_resident_bytes, metrics.kv_peak_bytes) == (
        totals[-1] * token,
        max(totals) * token,
    )
    assert (metrics.kv_peak_bytes > metrics.kv_resident_bytes) == bool(h2o)


def test_dropped_plans_show(
    make_engine: Callable[..., Engine], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eviction that is announced and not carried out is counted as dropped."""

    assert make_engine(H2O).respond(prompt, 4).metrics.evictions_dropped == 0
    monkeypatch.setattr(LayerCache, "keep", lambda layer, ranges: None)
    metrics = make_engine(H2O).respond(prompt, 4).metrics
    assert (metrics.evictions_applied, metrics.kv_tokens_end) == (0, 164)
    assert metrics.evictions_dropped == metrics.evictions_planned > 0


@pytest.mark.skipif(
    not STATM.exists() or not hasattr(mmap, "MADV_DONTNEED"), reason="the system does not tell"
)
@pytest.mark.parametrize(
    "lose",
    [lambda layer: layer.drop(0, 4096), lambda layer: layer.keep([(0, 8)]), LayerCache.clear],
    ids=["drop", "keep", "clear"],
)
def test_memory_is_given_back(lose: Callable[[LayerCache], None]) -> None:
    """The process shrinks by what a cache of 32 MB loses."""
    cache, tokens = (
        KVCache(KVShape(4, 32, np.dtype(np.float16)), 8, 4096),
        np.ones((4096, 256), np.float32),
    )
    for layer in cache.layers:
        layer.append(tokens)

    def resident() -> int:
        return int(STATM.read_text().split()[1]) * mmap.PAGESIZE

    before = resident()
    for layer in cache.layers:
        lose(layer)
    assert before - resident() > 28 * 2**20
