"""Perplexity under eviction."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import H2O

from pytest_h2o.engine import quality
from pytest_h2o.engine.bench_options import parse
from pytest_h2o.engine.config import ConfigError
from pytest_h2o.engine.generate import Engine


@given(logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=20), data=st.data())
def test_surprise(logits: list[float], data: st.DataObject) -> None:
    """Surprise is the negative logarithm of the softmax."""
    token = data.draw(st.integers(0, len(logits) - 1))
    expected = math.log(sum(math.exp(value - logits[token]) for value in logits))
    assert quality.surprise(np.array(logits, np.float32), token) == pytest.approx(expected, abs=1e-4)


def test_rows(make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The full cache scores as plain decoding does; every policy evicts to about its target and is scored apart."""
    monkeypatch.setattr(quality, "PROMPT_TOKENS", 150)
    monkeypatch.setattr(quality, "SCORED_TOKENS", 40)
    tokens = np.random.default_rng(1).integers(3, 96, 200).tolist()
    engine = make_engine(H2O)
    rows = list(quality.measure(engine, tokens, 1))
    assert [(row.policy, row.target) for row in rows] == [
        ("full", 1.0), ("h2o", 3.0), ("window", 3.0), ("h2o", 3.2), ("window", 3.2),
    ]  # fmt: skip
    engine.cache.clear()
    logits = [engine.model.prefill(tokens[:150], engine.cache)]
    logits += [engine.model.forward([token], engine.cache) for token in tokens[150:189]]
    losses = [quality.surprise(seen, token) for seen, token in zip(logits, tokens[150:190], strict=True)]
    assert rows[0].perplexity == pytest.approx(math.exp(np.mean(losses)))
    assert rows[0].effective_ratio == 1
    assert all(row.effective_ratio > 2 for row in rows[1:])
    assert len({row.perplexity for row in rows}) == 5
    assert list(quality.table_lines(rows))[2].startswith("| full       |          1.0 | ")


def test_windows_are_spread_over_the_text() -> None:
    """Windows are of one size, evenly spaced, and no more than fit side by side."""
    size = quality.PROMPT_TOKENS + quality.SCORED_TOKENS
    tokens = list(range(3 * size + 10))
    windows = quality.cut(tokens, 8)
    assert [len(window) for window in windows] == [size] * 3
    assert (windows[0][0], windows[-1][-1]) == (0, tokens[-1])


def test_short_text() -> None:
    """A text of less than one window is refused with both lengths."""
    with pytest.raises(ConfigError, match="10 tokens; quality takes at least"):
        quality.cut(list(range(10)), 8)


def test_option() -> None:
    """The option takes a file or stands alone."""
    assert parse(["--quality"]).quality == ""
    assert parse(["--quality", "text.txt", "-t", "1"]).quality == "text.txt"
