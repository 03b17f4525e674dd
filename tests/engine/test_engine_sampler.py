"""The samplers against a second implementation that looks at one token at a time."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.engine.config import EngineSettings
from pytest_h2o.engine.sampler import Penalty, sampler_for

VOCAB = 7
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40)
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=VOCAB, max_size=VOCAB)
SETTINGS = st.builds(
    EngineSettings,
    sampler_type=st.just("penalty"),
    penalty=st.sampled_from([1.0, 1.1, 2.0]),
    ngram=st.integers(2, 6),
    ngram_factor=st.sampled_from([1.0, 1.25, 3.0]),
    max_penalty=st.sampled_from([1.0, 10.0]),
)


def strength_of(token: int, said: list[int], settings: EngineSettings) -> float:
    """What one token loses by: the most of all places where it was said."""
    worst = 1.0
    for place, other in enumerate(said):
        if other != token:
            continue
        alike = 0
        while alike < settings.ngram - 1 and place - 1 - alike >= 0:
            if said[place - 1 - alike] != said[len(said) - 1 - alike]:
                break
            alike += 1
        loss = settings.penalty * settings.ngram_factor**alike
        if settings.ngram_factor > 1 and alike == settings.ngram - 1:
            loss = settings.max_penalty
        worst = max(worst, min(loss, settings.max_penalty))
    return worst


@given(said=TOKENS, logits=LOGITS, settings=SETTINGS)
def test_penalty_of_each_token(
    said: list[int], logits: list[float], settings: EngineSettings
) -> None:
    """The token chosen is one of those that are best after each has lost its part."""
    left = []
    for token, logit in enumerate(logits):
        strength = strength_of(token, said, settings)
        left.append(logit / strength if logit > 0 else logit * strength)
    sampler = Penalty(settings, said, 1)
    chosen = sampler.choose(np.array(logits, np.float32))
    assert left[chosen] == pytest.approx(max(left), rel=1e-5, abs=1e-6)
    assert sampler.tokens.tolist() == [*said, chosen]


def test_a_loop_ends() -> None:
    """Logits that never change give one token for ever, and with the penalty none for long."""
    logits = np.linspace(4, 3, 64, dtype=np.float32)
    settings = EngineSettings(sampler_type="penalty", penalty=1.02, ngram_factor=1.001)
    sampler = sampler_for(settings, [0], 64)
    written = [sampler.choose(logits) for _ in range(64)]
    greedy = sampler_for(EngineSettings(), [0], 64)
    assert {greedy.choose(logits) for _ in range(64)} == {0}
    assert len(set(written)) > 1
    assert max(len(list(run)) for _, run in groupby(written)) < 10
