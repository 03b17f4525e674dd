"""How often decode verdicts are wrong: paired studies and the original's three rules on simulated
launches.

    python tests/bench/bench_verdicts.py [--sessions N] [--seed N]

A session is a row of launches. The logarithm of a launch's speed is the sum of what the code does
(the true drop, for a candidate), noise of its own, bursts (one launch in twenty begins a stretch of
three on average that is 10 to 30 % slower), drift (a wave of 5 % with a period of 40 launches and a
random phase) and the day (a deviation of 3 %, one for all launches of a session). Every rule judges
the same candidate: is it at most 5 % slower?

* paired: ``pytest_h2o.decode.study`` as it is, vectorised here; 6, 10, 16 and 20 pairs, blocks AB
BA or BA AB, two
  prompt lengths by turns.
* fixed: the best of two rows against a constant, a best row of another day without the drop.
* rolling: against the median of the best rows of eight such days.
* same_batch: against the best of two rows without the drop that are launched after the candidate's.

A second table is about a drop at one of two or three prompt lengths only: with each length judged
as well, and pooled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pytest_h2o.decode.study import ALPHA, LOOKS, doubt, signed_rank_cumulative, signed_rank_index

Floats = npt.NDArray[np.float64]
Launches = Callable[
    [int, int], Floats
]  # sessions and launches of each -> ln speed without any drop
LAUNCH_DEVIATIONS = (0.005, 0.015, 0.03)
TRUE_DROPS = (0.0, 0.03, 0.05, 0.07, 0.10)
LIMIT = 0.05
ROWS = np.array([0.0, -0.04])  # ln speed of the two prompt lengths
LENGTHS = len(ROWS)
HISTORY = 8


def launches(rng: np.random.Generator, deviation: float) -> Launches:
    """A source of sessions of launches whose own noise has this deviation."""

    def draw(sessions: int, count: int) -> Floats:
        shape = (sessions, count)
        begins = rng.random(shape) < 0.05
        burst, left = np.zeros(shape), np.zeros(sessions)
        depth = np.zeros(sessions)
        for at in range(count):
            left = np.where(begins[:, at], rng.geometric(1 / 3, sessions), np.maximum(left - 1, 0))
            depth = np.where(begins[:, at], -rng.uniform(0.1, 0.3, sessions), depth)
            burst[:, at] = np.where(left > 0, depth, 0)
        wave = 0.05 * np.sin(2 * np.pi * (np.arange(count) / 40 + rng.random((sessions, 1))))
        day = rng.normal(0, 0.03, (sessions, 1))
        return day + wave + burst + rng.normal(0, deviation, shape)

    return draw


def differences(draw: Launches, sessions: int, rng: np.random.Generator) -> Floats:
    """What pairs of equal programs differ by [sessions, pairs]."""
    count = LOOKS[-1] + 2  # three lengths are looked at a little later
    speed = draw(sessions, 2 * count).reshape(sessions, count, 2)
    coin = rng.random((sessions, count // 2)) < 0.5  # whether a block begins with the candidate
    first = np.stack([coin, ~coin], axis=2).reshape(sessions, -1)
    return np.where(first, speed[..., 0] - speed[..., 1], speed[..., 1] - speed[..., 0])


def decide(
    difference: Floats, lengths: int = LENGTHS, *, each: bool = True
) -> tuple[Floats, Floats]:
    """Decision (1 pass, -1 fail, 0 neither) and number of pairs, from the differences [sessions,
    pairs] of studies.

    The pairs are of ``lengths`` prompt lengths by turns, each of which is judged as well if
    ``each``.
    """
    last = min(-(-LOOKS[-1] // lengths) * lengths, difference.shape[1])
    decision, pairs = np.zeros(len(difference)), np.full(len(difference), float(last))
    for look in LOOKS:
        now, count = _look(difference, -(-look // lengths) * lengths, lengths if each else 1)
        pairs = np.where((decision == 0) & (now != 0), count, pairs)
        decision = np.where(decision == 0, now, decision)
    return decision, pairs


def _look(difference: Floats, count: int, lengths: int) -> tuple[Floats, int]:
    limit = math.log1p(-LIMIT)
    index = signed_rank_index(count, ALPHA)
    assert index is not None
    walsh = np.sort(_walsh(difference[:, :count]), axis=1)
    fails, passes = walsh[:, -1 - index] < limit, walsh[:, index] > limit
    worst = np.min(
        [_p_slow(difference[:, part:count:lengths], limit) for part in range(lengths)], axis=0
    )
    fails |= lengths * worst <= ALPHA
    return np.where(
        fails, -1.0, np.where(passes & (worst > doubt(count // lengths)), 1.0, 0.0)
    ), count


def _walsh(difference: Floats) -> Floats:
    i, j = np.triu_indices(difference.shape[1])
    return (difference[:, i] + difference[:, j]) / 2


def _p_slow(difference: Floats, limit: float) -> Floats:
    cumulative = np.array(signed_rank_cumulative(difference.shape[1])) / 2.0 ** difference.shape[1]
    return cumulative[(_walsh(difference) >= limit).sum(axis=1)]


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
    """Print the table."""
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
    print("| launch SD | true drop | paired: pass | paired: FAIL | undecided | pairs | fixed: "
          "FAIL | rolling: FAIL |"
          " same_batch: FAIL |")  # fmt: skip
    print("| ---: " * 9 + "|")
    for deviation in LAUNCH_DEVIATIONS:
        for drop in TRUE_DROPS:
            rng = np.random.default_rng([seed, int(1e4 * deviation), int(100 * drop)])
            draw = launches(rng, deviation)
            decision, pairs = decide(differences(draw, sessions, rng) + math.log1p(-drop))
            rules = original_rules(draw, sessions, drop).values()
            cells = [
                f"{deviation:.1%}",
                f"{drop:.0%}",
                *map("{:.2%}".format, shares(decision)),
                f"{pairs.mean():.1f}",
            ]
            print("| " + " | ".join([*cells, *(f"{rate:.1%}" for rate in rules)]) + " |")


def one_length(sessions: int, seed: int) -> None:
    """The table of a drop at one prompt length only."""
    print(
        "\n| launch SD | lengths | drop at one | pass | FAIL | undecided | pooled: pass | "
        "pooled: FAIL | undecided |"
    )
    print("| ---: " * 9 + "|")
    for deviation in LAUNCH_DEVIATIONS:
        for lengths in (2, 3):
            for drop in (0.0, 0.10, 0.15):
                rng = np.random.default_rng([seed, int(1e4 * deviation), int(100 * drop), lengths])
                difference = differences(launches(rng, deviation), sessions, rng)
                difference[:, lengths - 1 :: lengths] += math.log1p(-drop)
                rates = [
                    rate
                    for each in (True, False)
                    for rate in shares(decide(difference, lengths, each=each)[0])
                ]
                cells = [
                    f"{deviation:.1%}",
                    str(lengths),
                    f"{drop:.0%}",
                    *map("{:.2%}".format, rates),
                ]
                print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
