"""Heavy-hitter oracle: keep the blocks that have drawn the most attention, as an exponential moving average."""

from __future__ import annotations

from pytest_h2o.engine.kv_cache import Floats


def update(scores: Floats, current: Floats, alpha: float) -> Floats:
    """``alpha`` is the weight of history."""
    return alpha * scores + (1 - alpha) * current
