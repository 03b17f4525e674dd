"""What eviction costs: perplexity of a held-out text with the full cache, with H2O, and with a plain sliding window.

The text is cut into windows. The first part of each is the prompt, the rest is forced through decoding token by token,
and the model is asked how likely each of these tokens was. A sliding window of the same size is the yardstick: what H2O
keeps must be worth more than what is merely recent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from pytest_h2o.engine.config import Config, ConfigError
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Floats

PROMPT_TOKENS, SCORED_TOKENS = 768, 256
LOSSY_RATIOS = (3.0, 3.2)


@dataclass(frozen=True, slots=True)
class Quality:
    """One row: a policy at a target lossy ratio (1: the full cache) and the perplexity it reaches."""

    policy: str
    target: float
    perplexity: float
    effective_ratio: float  # tokens of a full cache over tokens held, mean over decode steps


def measure(engine: Engine, tokens: Sequence[int], windows: int) -> Iterator[Quality]:
    """Quality of the full cache, then of H2O and of the sliding window at each target ratio."""
    config = engine.config
    yield _score(engine, _without_eviction(config), "full", 1.0, cut(tokens, windows))
    for target in LOSSY_RATIOS:
        for policy in ("h2o", "window"):
            yield _score(engine, _with_eviction(config, policy, target), policy, target, cut(tokens, windows))


def cut(tokens: Sequence[int], windows: int) -> list[Sequence[int]]:
    """Up to ``windows`` evenly spaced pieces of prompt and scored tokens. ConfigError if the text is too short."""
    size = PROMPT_TOKENS + SCORED_TOKENS
    if len(tokens) < size:
        raise ConfigError(f"the text holds {len(tokens)} tokens; quality takes at least {size}")
    count = min(windows, len(tokens) // size)
    return [tokens[begin : begin + size] for begin in np.linspace(0, len(tokens) - size, count).astype(int).tolist()]


def _score(engine: Engine, config: Config, policy: str, target: float, windows: list[Sequence[int]]) -> Quality:
    engine.config = config
    losses, ratios = [], []
    for window in windows:
        expected = window[PROMPT_TOKENS:]
        metrics, logits = engine.force(window[:PROMPT_TOKENS], expected)
        losses += [surprise(seen, token) for seen, token in zip(logits, expected, strict=True)]
        ratios.append(metrics.effective_ratio_mean)
    return Quality(policy, target, math.exp(fmean(losses)), fmean(ratios))


def surprise(logits: Floats, token: int) -> float:
    """Negative log probability of ``token``, in nats."""
    peak = float(logits.max())
    return peak + math.log(float(np.exp(logits - peak).sum())) - float(logits[token])


def _without_eviction(config: Config) -> Config:
    return replace(config, h2o=replace(config.h2o, enable=False))


def _with_eviction(config: Config, policy: str, target: float) -> Config:
    """``config`` evicting to ``target``; the sliding window protects no sink, since it is only what is recent."""
    sink = config.h2o.sink_tokens if policy == "h2o" else 0
    h2o = replace(
        config.h2o, enable=True, policy=policy, target_mode="adaptive", target_lossy_ratio=target, sink_tokens=sink
    )
    return replace(config, h2o=h2o)


def table_lines(rows: Sequence[Quality]) -> Iterator[str]:
    """The rows as a Markdown table; the first is what the others are compared with."""
    yield "| policy     | target lossy | perplexity | change   | effective ratio |"
    yield "| ---------- | -----------: | ---------: | -------: | --------------: |"
    for row in rows:
        change = row.perplexity / rows[0].perplexity - 1
        yield (
            f"| {row.policy:<10} | {row.target:>12.1f} | {row.perplexity:>10.3f} | {change:>+8.2%}"
            f" | {row.effective_ratio:>15.3f} |"
        )
