"""How often decode verdicts are wrong: paired studies and the original's three rules on simulated
launches.

    python tests/bench/bench_verdicts.py [--sessions N] [--seed N]

A session is a row of launches. The logarithm of a launch's speed is the sum of what the code does
(the true drop, for a candidate), the day (a deviation of 3 %, one for all launches of a session)
and a noise model's:

* bursts: noise of its own, drift (a wave of 5 % with a period of 40 launches and a random phase)
  and bursts (one launch in twenty begins a stretch of three on average that is 10 to 30 % slower).
* calm: noise of its own only.
* heavy tails: noise of its own that follows Student's t with three degrees of freedom.
* drift: noise of its own, the wave, and a slope with a deviation of 0.5 % a launch.

Every rule judges the same candidate: is it at most 5 % slower?

* paired: ``pytest_h2o.decode.study`` as it is, on many studies at a time; blocks AB BA or BA AB,
  two prompt lengths by turns, at most 20 pairs.
* fixed: the best of two rows against a constant, a best row of another day without the drop.
* rolling: against the median of the best rows of eight such days.
* same_batch: against the best of two rows without the drop that are launched after the candidate's.

A second table is about a drop at one of two or three prompt lengths only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pytest_h2o.decode.effects import GRID, SCALES, log_likelihood, weigh
from pytest_h2o.decode.study import (
    DOUBT,
    ERROR,
    LEAST_OF_EACH,
    LEAST_OF_SLOW,
    LEAST_PAIRS,
    LEAST_TO_FAIL,
)

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator
Launches = Callable[
    [int, int], Floats
]  # sessions and launches of each -> ln speed without any drop
LAUNCH_DEVIATIONS = (0.005, 0.015, 0.03)
TRUE_DROPS = (0.0, 0.03, 0.05, 0.07, 0.10)
LIMIT = 0.05
ROWS = np.array([0.0, -0.04])  # ln speed of the two prompt lengths
LENGTHS = len(ROWS)
HISTORY = 8
MOST = 20
AT_A_TIME = 32  # studies whose tables fit into the cache of a core


def bursts(rng: Generator, deviation: float) -> Launches:
    """A source of sessions of launches with noise of this deviation, drift and bursts."""

    def draw(sessions: int, count: int) -> Floats:
        shape = (sessions, count)
        begins = rng.random(shape) < 0.05
        burst, left = np.zeros(shape), np.zeros(sessions)
        depth = np.zeros(sessions)
        for at in range(count):
            left = np.where(begins[:, at], rng.geometric(1 / 3, sessions), np.maximum(left - 1, 0))
            depth = np.where(begins[:, at], -rng.uniform(0.1, 0.3, sessions), depth)
            burst[:, at] = np.where(left > 0, depth, 0)
        noise = rng.normal(0, deviation, shape)
        return _day(rng, sessions) + _wave(rng, sessions, count) + burst + noise

    return draw


def calm(rng: Generator, deviation: float) -> Launches:
    """A source of sessions of launches with noise of this deviation alone."""
    return lambda sessions, count: _day(rng, sessions) + rng.normal(0, deviation, (sessions, count))


def heavy_tails(rng: Generator, scale: float) -> Launches:
    """A source of sessions of launches with noise of Student's t with three degrees of freedom."""
    return lambda sessions, count: (
        _day(rng, sessions) + scale * rng.standard_t(3, (sessions, count))
    )


def drift(rng: Generator, deviation: float) -> Launches:
    """A source of sessions of launches that get steadily slower or faster, in waves."""

    def draw(sessions: int, count: int) -> Floats:
        slope = rng.normal(0, 0.005, (sessions, 1)) * np.arange(count)
        noise = rng.normal(0, deviation, (sessions, count))
        return _day(rng, sessions) + _wave(rng, sessions, count) + slope + noise

    return draw


NOISES = {"bursts": bursts, "calm": calm, "heavy tails": heavy_tails, "drift": drift}


def _day(rng: Generator, sessions: int) -> Floats:
    return rng.normal(0, 0.03, (sessions, 1))


def _wave(rng: Generator, sessions: int, count: int) -> Floats:
    phase = rng.random((sessions, 1))
    wave: Floats = 0.05 * np.sin(2 * np.pi * (np.arange(count) / 40 + phase))
    return wave


def differences(draw: Launches, sessions: int, rng: Generator) -> Floats:
    """What pairs of equal programs differ by [sessions, pairs]."""
    count = MOST + 2  # a round of three lengths may go a little beyond
    speed = draw(sessions, 2 * count).reshape(sessions, count, 2)
    coin = rng.random((sessions, count // 2)) < 0.5  # whether a block begins with the candidate
    first = np.stack([coin, ~coin], axis=2).reshape(sessions, -1)
    return np.where(first, speed[..., 0] - speed[..., 1], speed[..., 1] - speed[..., 0])


def decide(
    noise: Floats, drops: Sequence[float] = (0.0,) * LENGTHS, *, most: int = MOST
) -> tuple[Floats, Floats]:
    """Decision (1 pass, -1 fail, 0 neither) and number of pairs of studies.

    ``noise`` [sessions, pairs] is the difference of the pairs in the order of time, to which the
    drop at the prompt length of a pair is added.
    """
    decision, pairs = np.zeros(len(noise)), np.zeros(len(noise))
    for begin in range(0, len(noise), AT_A_TIME):
        chunk = slice(begin, begin + AT_A_TIME)
        studies = Studies(noise[chunk], np.log1p(-np.array(drops)))
        studies.run(most)
        decision[chunk], pairs[chunk] = studies.decision, studies.pairs
    return decision, pairs


@dataclass
class Studies:
    """Some studies at the same time; ``effects`` [length] are the true ones."""

    noise: Floats
    effects: Floats
    decision: Floats = field(init=False)
    pairs: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        count, lengths = len(self.noise), len(self.effects)
        self.decision, self.pairs = np.zeros(count), np.zeros(count, np.int64)
        self._tables = np.zeros((count, lengths, len(SCALES), len(GRID)))
        self._doubtful = np.ones((count, lengths), bool)
        self._of_length = np.zeros((count, lengths), np.int64)

    def run(self, most: int) -> None:
        """Measure until everything is decided, or has ``most`` pairs."""
        lengths = len(self.effects)
        rounds, first = 0, max(LEAST_OF_EACH, math.ceil(LEAST_PAIRS / lengths))
        while len(studies := np.flatnonzero((self.decision == 0) & (self.pairs < most))):
            for length in range(lengths):
                self._measure(studies[self._doubtful[studies, length]], length)
            rounds += 1
            if rounds >= first:
                self._look(studies)

    def _measure(self, studies: npt.NDArray[np.int64], length: int) -> None:
        difference = self.noise[studies, self.pairs[studies]] + self.effects[length]
        from_limit = difference - math.log1p(-LIMIT)
        self._tables[studies, length] += log_likelihood(from_limit)
        self._of_length[studies, length] += 1
        self.pairs[studies] += 1

    def _look(self, studies: npt.NDArray[np.int64]) -> None:
        none_slow, slow = weigh(self._tables[studies])
        of_worst = self._of_length[studies, slow.argmax(axis=1)]
        enough = (self.pairs[studies] >= LEAST_TO_FAIL) & (of_worst >= LEAST_OF_SLOW)
        fails = enough & (none_slow <= ERROR)
        self.decision[studies] = np.where(1 - none_slow <= ERROR, 1, np.where(fails, -1, 0))
        self._doubtful[studies] = slow >= DOUBT * slow.max(axis=1, keepdims=True)


def shares(decision: Floats) -> list[float]:
    """How often the sessions pass, fail and decide nothing."""
    return [float((decision == outcome).mean()) for outcome in (1, -1, 0)]


def original_rules(draw: Launches, sessions: int, drop: float) -> dict[str, float]:
    """How often each rule of the original fails the candidate."""
    day = (
        draw(sessions, 4).reshape(sessions, 2, 2) + ROWS
    )  # the candidate's rows, then the baseline's
    candidate = np.exp(day[:, 0].max(axis=1)) * (1 - drop)
    earlier = np.exp(np.stack([(draw(sessions, 2) + ROWS).max(axis=1) for _ in range(HISTORY)]))
    baselines = {
        "fixed": earlier[0],
        "rolling": np.median(earlier, axis=0),
        "same_batch": np.exp(day[:, 1].max(axis=1)),
    }
    return {
        name: float(((value - candidate) / value > LIMIT).mean())
        for name, value in baselines.items()
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description="Error rates of decode verdicts on simulated launches."
    )
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{options.sessions} sessions a row, seed {options.seed}; limit {LIMIT:.0%}\n")
    every_length(options.sessions, options.seed)
    one_length(options.sessions, options.seed)


def every_length(sessions: int, seed: int) -> None:
    """The table of a drop at every prompt length, with the original's rules."""
    _row("noise", "launch SD", "true drop", "paired: pass", "paired: FAIL", "undecided", "pairs",
         "fixed: FAIL", "rolling: FAIL", "same_batch: FAIL")  # fmt: skip
    print("| --- " + "| ---: " * 9 + "|")
    for name, noise in NOISES.items():
        for deviation in LAUNCH_DEVIATIONS:
            for drop in TRUE_DROPS if noise is bursts else TRUE_DROPS[::2]:
                rng = np.random.default_rng([seed, int(1e4 * deviation), int(100 * drop)])
                draw = noise(rng, deviation)
                decision, pairs = decide(differences(draw, sessions, rng), (drop,) * LENGTHS)
                rules = original_rules(draw, sessions, drop).values()
                _row(name, f"{deviation:.1%}", f"{drop:.0%}",
                     *map("{:.2%}".format, shares(decision)), f"{pairs.mean():.1f}",
                     *map("{:.1%}".format, rules))  # fmt: skip


def one_length(sessions: int, seed: int) -> None:
    """The table of a drop at one prompt length only."""
    print()
    _row("launch SD", "lengths", "drop at one", "pass", "FAIL", "undecided", "pairs")
    print("| ---: " * 7 + "|")
    for deviation in LAUNCH_DEVIATIONS:
        for lengths in (2, 3):
            for drop in (0.0, 0.10, 0.15):
                rng = np.random.default_rng([seed, int(1e4 * deviation), int(100 * drop), lengths])
                noise = differences(bursts(rng, deviation), sessions, rng)
                decision, pairs = decide(noise, [*[0.0] * (lengths - 1), drop])
                _row(f"{deviation:.1%}", str(lengths), f"{drop:.0%}",
                     *map("{:.2%}".format, shares(decision)), f"{pairs.mean():.1f}")  # fmt: skip


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
