"""Heavy-hitter oracle: keep what has drawn the most attention, as an exponential moving average of
softmax mass.
"""

from __future__ import annotations

from pytest_h2o.engine.kv_cache import Attention, Floats


def update(scores: Floats, attention: Attention, alpha: float) -> None:
    """Mass is averaged over heads, so that all tokens together draw 1."""
    share = (1 - alpha) / attention.totals.size / attention.totals  # [G, R]
    scores *= alpha
    scores += (attention.weights @ share[..., None])[..., 0]  # [G, L, R] @ [G, R, 1]
