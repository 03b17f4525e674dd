"""Perplexity under eviction."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import H2O

from pytest_h2o.engine import policy_quality
from pytest_h2o.engine.bench_options import parse
from pytest_h2o.engine.config import ConfigError
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import LayerCache
from pytest_h2o.engine.response import Metrics


@given(logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=20), data=st.data())
def test_log_softmax(logits: list[float], data: st.DataObject) -> None:
    """Log probabilities are those of the softmax, term by term."""
    token = data.draw(st.integers(0, len(logits) - 1))
    expected = -math.log(sum(math.exp(value - logits[token]) for value in logits))
    assert policy_quality.log_softmax(np.array([logits], np.float32))[0, token] == pytest.approx(
        expected, abs=1e-4
    )


def stepwise(engine: Engine, tokens: list[int]) -> np.ndarray:
    """Log probabilities before each token after the first 150, each decoded by itself under the
    engine's hooks.
    """
    engine.cache.clear()
    hooks = engine._hooks(Metrics(), len(tokens))
    logits = [engine.model.prefill(tokens[:150], engine.cache, 1, hooks)]
    logits += [engine.model.forward([token], engine.cache, hooks) for token in tokens[150:-1]]
    return policy_quality.log_softmax(np.array(logits))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of one window of 150 prompt and 40 scored tokens."""
    monkeypatch.setattr(policy_quality, "PROMPT_TOKENS", 150)
    monkeypatch.setattr(policy_quality, "SCORED_TOKENS", 40)
    return [1, *np.random.default_rng(1).integers(3, 96, 189).tolist()]


def loss(seen: np.ndarray, expected: list[int]) -> float:
    """Mean of the negative log probabilities, token by token."""
    return -sum(float(row[token]) for row, token in zip(seen, expected, strict=True)) / len(
        expected
    )


@pytest.mark.parametrize("trigger", [40, 100, 140])
def test_rows(make_engine: Callable[..., Engine], short: list[int], trigger: int) -> None:
    """Losses and divergences are those of decoding token by token, whether or not evictions
    repeat.
    """
    given = H2O | {"kv_h2o_trigger_min_tokens": trigger}
    engine = make_engine(given)
    rows = policy_quality.measure(engine, short, 1)
    assert [(row.policy, row.target) for row in rows] == [
        ("full", 1.0), ("h2o", 2.0), ("window", 2.0), ("h2o", 3.0), ("window", 3.0), ("h2o", 3.2),
        ("window", 3.2),
    ]  # fmt: skip
    full = stepwise(make_engine(), short)
    passage = short[policy_quality.RECALLED : policy_quality.RECALLED + 40]
    for row in rows:
        policy = (
            {"kv_h2o_policy": "window", "kv_h2o_sink_tokens": 0} if row.policy == "window" else {}
        )
        evicting = given | policy | {"kv_h2o_target_lossy_ratio": row.target}
        engine = make_engine(evicting if row.policy != "full" else {})
        recalled = loss(stepwise(engine, short[:150] + passage), passage)
        seen = stepwise(engine, short)
        held = [layer.length for layer in engine.cache.layers[1:]]
        assert row.losses == pytest.approx([loss(seen, short[150:])], rel=1e-4)
        assert row.recall_losses == pytest.approx([recalled], rel=1e-4)
        assert row.divergences == pytest.approx(
            [(np.exp(full) * (full - seen)).sum(1).mean()], abs=1e-5
        )
        assert row.ratios == [189 * 3 / sum(held)]
        assert row.record()["perplexity"] == pytest.approx(math.exp(row.losses[0]))
        assert row.record()["recall_perplexity"] == pytest.approx(math.exp(recalled), rel=1e-3)
    assert all(row.ratios[0] > 1.5 < 100 * row.divergences[0] for row in rows[1:])
    assert list(policy_quality.table_lines(rows))[2].startswith("| full       |          1.0 | ")


LOSSLESS = H2O | {
    "kv_lossless_enable": True,
    "kv_lossless_runtime_enable": True,
    "kv_lossless_codec": "gear_delta",
    "kv_h2o_trigger_min_tokens": 100,
    "kv_lossless_hot_recent_tokens": 16,
}


def test_lossless_coding_predicts_the_same(
    make_engine: Callable[..., Engine], short: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been encoded and restored predicts what the full cache does, digit for digit; what
    comes back otherwise does not.
    """
    full, lossless, store = policy_quality.measure(make_engine(LOSSLESS), short, 1)[:3]
    assert full.record() | {"policy": ""} == lossless.record() | {"policy": ""}
    assert full.record() | {"policy": ""} == store.record() | {"policy": ""}
    restore = LayerCache.restore
    monkeypatch.setattr(LayerCache, "restore", lambda *args: restore(*args[:2], args[2] * 1.01))
    full, lossless, store = policy_quality.measure(make_engine(LOSSLESS), short, 1)[:3]
    assert full.losses == lossless.losses != store.losses


def test_threads_share_the_windows(
    make_engine: Callable[..., Engine], short: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows that several threads look at give the numbers and the lines of one thread, in its
    order.
    """
    tokens = np.random.default_rng(2).integers(3, 96, 5 * len(short)).tolist()
    found = []
    for threads in (1, 3):
        engine = make_engine(LOSSLESS, kv_h2o_log_stats=True)
        engine.threads = threads
        rows = policy_quality.measure(engine, tokens, 5)
        lines = re.sub(r"evict_us=\d+", "", capsys.readouterr().out)
        found.append(([row.record() for row in rows], lines))
    assert found[0] == found[1]
    assert len(rows[0].losses) == 5
    assert found[0][1].count("[H2O]") > 5


def test_settings_of_the_config(make_engine: Callable[..., Engine]) -> None:
    """A config that evicts is taken at its word; one that does not is given the acceptance suite's
    settings.
    """
    config = make_engine(H2O).config
    assert (
        policy_quality.policy_settings(config.h2o, "h2o", 3.0).recent_tokens
        == config.h2o.recent_tokens
    )
    chosen = policy_quality.policy_settings(make_engine().config.h2o, "window", 3.2)
    assert (chosen.enable, chosen.recent_tokens, chosen.sink_tokens, chosen.target_lossy_ratio) == (
        True,
        96,
        0,
        3.2,
    )


@pytest.mark.parametrize(
    ("given", "ratio"),
    [
        ({}, []),
        ({"kv_h2o_target_lossy_ratio": 2.8}, [2.8]),
        ({"kv_h2o_target_mode": "static", "kv_h2o_target_keep_ratio": 0.25}, [4.0]),
    ],
)
def test_ratio_of_the_config(
    given: dict[str, object], ratio: list[float], make_engine: Callable[..., Engine]
) -> None:
    """What the config evicts to is measured as well, whichever way it says so."""
    assert policy_quality.configured_ratio(make_engine(given and H2O | given).config.h2o) == ratio


def test_windows_are_spread_over_the_text() -> None:
    """Windows are of one size, evenly spaced, begun as prompts are, and no more than fit side by
    side.
    """
    size = policy_quality.PROMPT_TOKENS + policy_quality.SCORED_TOKENS
    tokens = list(range(3 * size + 10))
    windows = policy_quality.cut(tokens, 8, 99)
    assert [len(window) for window in windows] == [size] * 3
    assert [window[0] for window in windows] == [99] * 3
    assert (windows[0][1], windows[-1][-1]) == (1, tokens[-1])


def test_short_text() -> None:
    """A text of less than one window is refused with both lengths."""
    with pytest.raises(ConfigError, match="10 tokens; quality takes at least"):
        policy_quality.cut(list(range(10)), 8, 1)


def test_option() -> None:
    """The option takes a file or stands alone."""
    assert parse(["--quality"]).quality == ""
    assert parse(["--quality", "text.txt", "-t", "1"]).quality == "text.txt"
