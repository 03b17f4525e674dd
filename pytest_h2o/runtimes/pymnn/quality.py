"""What quantising KV costs: a held-out text predicted while decoding, and the memory of a token.

Each window is a prompt that is read at once, and tokens that are forced through decoding one by
one, so that every prediction is made from a cache as a response has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from pytest_h2o.engine.bench_options import EngineSetup
from pytest_h2o.runtimes.pymnn.wheel import (
    Floats,
    ModelError,
    Wheel,
    resident_bytes,
    return_buffers,
)

PROMPT_TOKENS, SCORED_TOKENS, WINDOWS = 768, 64, 6
# Where memory is looked at, and how many tokens are read at once between, so that the rest of the
# memory stays as it is.
LENGTHS, CHUNK = (768, 3072), 32


def measure(
    load: Callable[[EngineSetup], Wheel], setup: EngineSetup, text: str
) -> dict[str, object]:
    """The report of a launch: ``kv_bytes_per_token`` by process memory, None where the system does
    not tell, and rows ``full`` and, if the setup quantises, ``quantised``.

    ``perplexity`` is of the scored tokens, ``divergence`` from the full cache in nats per token.
    """
    return_buffers()
    wheel = load(setup)
    tokens = wheel.encode(text)
    windows = cut(tokens)
    memory = token_bytes(wheel, tokens)
    seen = [_log_probabilities(wheel, window) for window in windows]
    full = seen
    if setup.quantised:
        plain = load(replace(setup, quantised=0))
        full = [_log_probabilities(plain, window) for window in windows]
    quality = [_row("full", full, full, windows)]
    if setup.quantised:
        quality.append(_row("quantised", seen, full, windows))
    return {
        "attention_option": setup.quantised,
        "kv_bytes_per_token": memory,
        "kv_quality": quality,
    }


def cut(tokens: Sequence[int]) -> list[list[int]]:
    """Evenly spaced windows of a text; raises :class:`ModelError` if it is too short."""
    size = PROMPT_TOKENS + SCORED_TOKENS
    count = min(WINDOWS, len(tokens) // size)
    if not count:
        raise ModelError(f"the text holds {len(tokens)} tokens; quality takes at least {size}")
    begins = np.linspace(0, len(tokens) - size, count).astype(int).tolist()
    # A window begins as prompts do: with the first token of the text, that of beginning.
    return [[tokens[0], *tokens[begin + 1 : begin + size]] for begin in begins]


def token_bytes(wheel: Wheel, tokens: Sequence[int]) -> float | None:
    """How much the process grows with each token in the cache."""
    wheel.empty()
    held: list[int] = []
    for begin in range(0, LENGTHS[1], CHUNK):
        wheel.forward(tokens[begin : begin + CHUNK])
        if begin + CHUNK in LENGTHS:
            resident = resident_bytes()
            if resident is None:
                return None
            held.append(resident)
    wheel.empty()
    return (held[1] - held[0]) / (LENGTHS[1] - LENGTHS[0])


def _log_probabilities(wheel: Wheel, window: Sequence[int]) -> Floats:
    """Log probabilities [SCORED_TOKENS, V] of the tokens behind the prompt."""
    wheel.empty()
    logits = [wheel.forward(window[:PROMPT_TOKENS])[-1]]
    for token in window[PROMPT_TOKENS:-1]:
        logits.append(wheel.forward([token])[-1])
    stacked = np.stack(logits)
    shifted: Floats = stacked - stacked.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _row(
    policy: str, seen: Sequence[Floats], full: Sequence[Floats], windows: Sequence[Sequence[int]]
) -> dict[str, object]:
    losses, divergences = [], []
    for mine, plain, window in zip(seen, full, windows, strict=True):
        expected = window[PROMPT_TOKENS:]
        losses.append(-float(mine[np.arange(len(expected)), expected].mean()))
        apart = np.exp(plain) * (plain - mine)
        divergences.append(float(apart.sum(axis=1).mean()))
    return {
        "policy": policy,
        "perplexity": math.exp(fmean(losses)),
        "divergence": max(0.0, fmean(divergences)),
        "tokens": len(windows) * SCORED_TOKENS,
    }
