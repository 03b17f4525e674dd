"""What eviction costs: how well a text is predicted with the full cache, H2O, a sliding window.

The text is cut into windows, each begun as prompts are, with the begin-of-text token. The first
part of a window is the prompt; the rest is forced through decoding, and the model is asked how
likely each of its tokens was. Three numbers per policy, in nats per token:

- the loss, whose exponential is the perplexity;
- the divergence of the predicted distribution from that of the full cache (Kullback-Leibler). It
  tells two policies apart with far fewer tokens, since what makes a text hard for any cache cancels
  out;
- the recall loss, when the prompt is followed by a passage of its own beginning instead. A small
  model predicts most of a text equally well without its distant part; a passage that returns is
  what it needs a distant part for.

A sliding window of the same size is the yardstick: what H2O keeps must be worth more than what is
merely recent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import SimpleQueue
from statistics import fmean
from typing import NamedTuple

import numpy as np

from pytest_h2o.engine.config import Config, ConfigError, H2OSettings, LosslessSettings
from pytest_h2o.engine.generate import Engine, Trial
from pytest_h2o.engine.kv_cache import Floats
from pytest_h2o.engine.threads import map_in_order

PROMPT_TOKENS, SCORED_TOKENS, WINDOWS = 832, 80, 15
RECALLED = 64  # where the passage that returns begins: behind what is kept as sink
LOSSY_RATIOS = (3.0, 3.2)
# The runtime modes of the full cache with lossless coding, which predict the same.
CODED = {"lossless": "full", "store": "store"}
DEFAULTS = H2OSettings(
    enable=True, block_tokens=32, sink_tokens=16, recent_tokens=96, trigger_min_tokens=384
)


@dataclass(slots=True)
class Quality:
    """One policy at a target lossy ratio (1: the full cache); the lists hold a mean per window."""

    policy: str
    target: float
    losses: list[float] = field(default_factory=list)
    recall_losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def perplexity(self) -> float:
        """Of all windows."""
        return math.exp(fmean(self.losses))

    @property
    def recall_perplexity(self) -> float:
        """Of the passages that return."""
        return math.exp(fmean(self.recall_losses))

    def record(self) -> dict[str, object]:
        """What the JSON file says of it."""
        return {
            "policy": self.policy,
            "target": self.target,
            "perplexity": self.perplexity,
            "divergence": fmean(self.divergences),
            "recall_perplexity": self.recall_perplexity,
            "effective_ratio": fmean(self.ratios),
            "window_losses": self.losses,
            "window_recall_losses": self.recall_losses,
            "window_divergences": self.divergences,
        }


class TriedPolicy(NamedTuple):
    """A policy that is tried on every window, and the settings that follow it."""

    row: Quality
    h2o: H2OSettings
    lossless: LosslessSettings | None


class Seen(NamedTuple):
    """What one policy made of one window."""

    loss: float
    divergence: float
    ratio: float


class Window(NamedTuple):
    """What each policy made of one window, in the order they are asked for, and what was printed
    meanwhile.
    """

    seen: list[Seen]
    recall_losses: list[float]
    lines: list[str]


def measure(engine: Engine, tokens: Sequence[int], windows: int = WINDOWS) -> list[Quality]:
    """Quality of the full cache, with lossless coding as well if the config has it, then of H2O and
    of the sliding window at each target ratio, the config's included.

    Windows are independent: each of the engine's threads takes one at a time.
    """
    asked = _what_is_asked(engine.config)
    pieces = cut(tokens, windows, engine.config.architecture.bos)
    threads = min(engine.threads, len(pieces))
    free: SimpleQueue[Engine] = SimpleQueue()
    for _ in range(threads):
        free.put(engine.twin())

    def look(piece: Sequence[int]) -> Window:
        mine = free.get()
        try:
            with np.errstate(over="ignore", under="ignore"):  # threads begin with numpy's own
                return _look_at(mine, piece, asked)
        finally:
            free.put(mine)

    for window in map_in_order(look, pieces, threads, lambda: None):
        for line in window.lines:
            print(line)
        for each, seen, recall in zip(asked, window.seen, window.recall_losses, strict=True):
            each.row.losses.append(seen.loss)
            each.row.divergences.append(seen.divergence)
            each.row.ratios.append(seen.ratio)
            each.row.recall_losses.append(recall)
    return [each.row for each in asked]


def _what_is_asked(config: Config) -> list[TriedPolicy]:
    targets = set(LOSSY_RATIOS).union(configured_ratio(config.h2o))
    rows = [Quality("full", 1.0)]
    if config.lossless.active:
        rows += [Quality(name, 1.0) for name in CODED]
    for target in sorted(targets):
        rows += [Quality("h2o", target), Quality("window", target)]
    asked: list[TriedPolicy] = []
    for row in rows:
        h2o = policy_settings(config.h2o, row.policy, row.target)
        asked.append(TriedPolicy(row, h2o, coded_settings(config.lossless, row.policy)))
    return asked


def _look_at(engine: Engine, piece: Sequence[int], asked: Sequence[TriedPolicy]) -> Window:
    """Try every policy on one window; the first of them is what divergences are held against."""
    lines: list[str] = []
    engine.say = lines.append
    prompt, expected = piece[:PROMPT_TOKENS], piece[PROMPT_TOKENS:]
    passage = prompt[RECALLED : RECALLED + SCORED_TOKENS]
    trials: list[Trial] = []
    for text in (expected, passage):
        for each in asked:
            trials.append(Trial(text, each.h2o, each.lossless))
    answers = engine.force(prompt, trials)
    found: list[Seen] = []
    full: Floats | None = None
    for logits in islice(answers, len(asked)):
        seen = log_softmax(logits)
        if full is None:
            full = seen
        divergence = float((np.exp(full) * (full - seen)).sum(axis=1).mean())
        found.append(Seen(_loss(seen, expected), divergence, _held_ratio(engine, asked[0].h2o)))
    recall_losses = [_loss(log_softmax(logits), passage) for logits in answers]
    return Window(found, recall_losses, lines)


def cut(tokens: Sequence[int], windows: int, bos: int) -> list[Sequence[int]]:
    """Up to ``windows`` evenly spaced pieces of prompt and scored tokens. ConfigError if the text
    is too short.
    """
    size = PROMPT_TOKENS + SCORED_TOKENS
    if len(tokens) < size:
        raise ConfigError(f"the text holds {len(tokens)} tokens; quality takes at least {size}")
    count = min(windows, len(tokens) // size)
    begins = np.linspace(0, len(tokens) - size, count).astype(int).tolist()
    return [[bos, *tokens[begin + 1 : begin + size]] for begin in begins]


def _loss(log_probabilities: Floats, expected: Sequence[int]) -> float:
    """Mean negative log probability [T, V] of the expected tokens."""
    return -float(log_probabilities[np.arange(len(expected)), expected].mean())


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities, row by row."""
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def policy_settings(given: H2OSettings, policy: str, target: float) -> H2OSettings:
    """Evicting to ``target`` with the ``given`` settings if they evict, else with those of the
    acceptance suite.

    The sliding window protects no sink, since it is only what is recent.
    """
    base = given if given.enable else DEFAULTS
    if policy in ("full", *CODED):
        return replace(base, enable=False)
    chosen = replace(base, policy=policy, target_mode="adaptive", target_lossy_ratio=target)
    if policy == "window":
        return replace(chosen, sink_tokens=0)
    return chosen


def coded_settings(given: LosslessSettings, policy: str) -> LosslessSettings | None:
    """The ``given`` settings such that as much as may be is encoded at the first token; None for
    policies that encode nothing.
    """
    if policy not in CODED:
        return None
    return replace(
        given,
        runtime_mode=CODED[policy],
        scope="front_n_and_h2o_kept",
        kept_sample_layers=0,
        block_tokens=PROMPT_TOKENS // 2,
        store_disable_front=False,
        store_bootstrap_tokens=PROMPT_TOKENS // 2,
        hot_recent_tokens=min(given.hot_recent_tokens, PROMPT_TOKENS // 4),
    )


def configured_ratio(given: H2OSettings) -> list[float]:
    """The target lossy ratio of a config that evicts; a static one asks for it by the share that is
    kept.
    """
    if not given.enable:
        return []
    if given.target_mode == "adaptive":
        return [given.target_lossy_ratio]
    return [1 / max(given.target_keep_ratio, 1e-3)]


def _held_ratio(engine: Engine, h2o: H2OSettings) -> float:
    """Tokens of a full cache over tokens held, in the layers of the H2O range."""
    layers = engine.cache.layers
    held = [layers[index].length for index in h2o.layers(len(layers))]
    return engine.cache.position * len(held) / sum(held)


def table_lines(rows: Sequence[Quality]) -> Iterator[str]:
    """The rows as a Markdown table; the first is what the others are compared with."""
    yield (
        "| policy     | target lossy | perplexity | change   | divergence "
        "| recall perplexity | change   | effective ratio |"
    )
    yield (
        "| ---------- | -----------: | ---------: | -------: | ---------: "
        "| ----------------: | -------: | --------------: |"
    )
    for row in rows:
        change = row.perplexity / rows[0].perplexity - 1
        recall_change = row.recall_perplexity / rows[0].recall_perplexity - 1
        yield (
            f"| {row.policy:<10} | {row.target:>12.1f} | {row.perplexity:>10.3f} | {change:>+8.2%}"
            f" | {fmean(row.divergences):>10.5f} | {row.recall_perplexity:>17.3f}"
            f" | {recall_change:>+8.2%} | {fmean(row.ratios):>15.3f} |"
        )
