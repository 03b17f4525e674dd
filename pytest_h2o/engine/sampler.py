"""How the next token is chosen. Nothing is drawn at random: equal logits give equal tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_h2o.engine.config import EngineSettings
from pytest_h2o.engine.kv_cache import Floats


class Greedy:
    """The most likely token."""

    def choose(self, logits: Floats) -> int:
        """The token that follows."""
        return int(logits.argmax())


class Penalty(Greedy):
    """The most likely token once what was said already counts less.

    A token of the prompt or the answer loses by ``penalty``, and by ``ngram_factor`` more for each
    token before it that stands before the next one too; one that would repeat ``ngram`` tokens
    loses by ``max_penalty``. Positive logits are divided and negative ones multiplied, as Keskar et
    al. (2019) do.
    """

    def __init__(self, settings: EngineSettings, prompt: Sequence[int], budget: int) -> None:
        self.settings = settings
        self.tokens = np.zeros(len(prompt) + budget, np.int64)
        self.tokens[: len(prompt)] = prompt
        self.count = len(prompt)

    def choose(self, logits: Floats) -> int:
        """The token that follows, remembered."""
        said = self.tokens[: self.count]
        strength = np.ones_like(logits)
        np.maximum.at(strength, said, self._strengths(said))
        token = super().choose(np.where(logits > 0, logits / strength, logits * strength))
        self.tokens[self.count] = token
        self.count += 1
        return token

    def _strengths(self, said: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
        """What each token that was said loses by [n]."""
        settings = self.settings
        alike = np.zeros(len(said), np.int64)  # tokens before each that are also the last ones
        running = np.ones(len(said), bool)
        for back in range(1, min(settings.ngram, len(said) + 1)):
            running[:back] = False
            running[back:] &= said[:-back] == said[-back]
            alike += running
        strengths = settings.penalty * settings.ngram_factor**alike
        if settings.ngram_factor > 1:
            strengths[alike == settings.ngram - 1] = settings.max_penalty
        limited: Floats = np.minimum(strengths, settings.max_penalty).astype(np.float32)
        return limited


def sampler_for(settings: EngineSettings, prompt: Sequence[int], budget: int) -> Greedy:
    """The sampler of a config, for one response."""
    if settings.sampler_type == "penalty":
        return Penalty(settings, prompt, budget)
    return Greedy()
