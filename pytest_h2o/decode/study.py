"""Is the candidate slower? The differences of paired launches, judged after every round of pairs.

A pair is one launch of the candidate and one of the baseline, close in time, on the same work; its
difference is ``ln(candidate tok/s / baseline tok/s)``. :mod:`pytest_h2o.decode.effects` says how
probable a drop beyond the limit is. Such a probability does not depend on when it is looked at
(Berger and Wolpert 1988, "The Likelihood Principle"), so a study ends as soon as it is sure. How
often it errs then is simulated in ``tests/bench/bench_verdicts.py``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_h2o.decode.effects import Parts, part_tables, quantiles, weigh

Decision = Literal["pass", "fail", "inconclusive"]
ERROR = 0.01  # what may be left of the probability of the contrary
LEAST_PAIRS = 4  # before anything is decided
LEAST_TO_FAIL = 6  # so that two disturbed launches fail nobody,
LEAST_OF_SLOW = 3  # and so many of the part that is slow
LEAST_OF_EACH = 2  # pairs of every prompt length in the first round
DOUBT = 0.5  # of the probability of the most doubtful part: parts that are measured again


@dataclass(frozen=True, slots=True)
class Study:
    """The state of a study after some pairs; drops are shares (0.05 is 5 % slower), negative when
    faster.

    ``p_fast`` is the probability that no part of the work drops by more than the limit. ``slow_at``
    names the part, such as a prompt length, that probably does where not all do; the drops are its
    own then. ``doubtful`` are the parts on which more pairs are best spent.
    """

    pairs: int
    drop: float
    drop_low: float
    drop_high: float
    decision: Decision
    p_fast: float
    slow_at: str = ""
    doubtful: tuple[str, ...] = ()


def judge(parts: Mapping[str, Sequence[float]], drop_target: float) -> Study:
    """Compare the slowdown in each part of the work with ``drop_target``: pass when surely no part
    has a larger one, fail when surely one has.
    """
    limit = math.log1p(-drop_target)
    from_limit = [[each - limit for each in found] for found in parts.values()]
    none_slow, slow = weigh(part_tables(from_limit))
    p_fast = float(none_slow)
    p_slow = dict(zip(parts, slow.tolist(), strict=True))
    worst = max(p_slow, key=p_slow.__getitem__)
    pairs = sum(len(found) for found in parts.values())
    decision = decide(p_fast, pairs, len(parts[worst]))
    slow_at = worst if min(p_slow.values()) < 0.5 < p_slow[worst] else ""
    doubtful = [name for name in parts if p_slow[name] >= DOUBT * p_slow[worst]]
    part = list(parts).index(slow_at) if slow_at else None
    low, middle, high = _drops(from_limit, limit, part)
    return Study(pairs, middle, low, high, decision, p_fast, slow_at, tuple(doubtful))


def decide(p_fast: float, pairs: int, of_worst: int) -> Decision:
    """What this probability that no part is slow decides after so many pairs, ``of_worst`` of the
    most doubtful part.
    """
    if pairs >= LEAST_PAIRS and 1 - p_fast <= ERROR:
        return "pass"
    enough = pairs >= LEAST_TO_FAIL and of_worst >= LEAST_OF_SLOW
    if enough and p_fast <= ERROR:
        return "fail"
    return "inconclusive"


def _drops(from_limit: Parts, limit: float, part: int | None) -> list[float]:
    """The drop in one part, or in all of them, between its bounds."""
    effects = quantiles(from_limit, (1 - ERROR, 0.5, ERROR), part)
    return [1 - math.exp(effect + limit) for effect in effects]


def holm(p_values: Mapping[str, float], alpha: float = ERROR) -> set[str]:
    """What Holm's step-down procedure rejects: the k-th smallest of m p-values against ``alpha / (m
    - k + 1)``.
    """
    rejected: set[str] = set()
    for name in sorted(p_values, key=p_values.__getitem__):
        if p_values[name] > alpha / (len(p_values) - len(rejected)):
            break
        rejected.add(name)
    return rejected


def launch_order(arms: Sequence[str], turn: int, seed: int, group: str) -> list[str]:
    """The order of the arms in one turn (from 0) of a group: drawn by a seeded coin, mirrored in
    every second turn.
    """
    order = sorted(arms)
    random.Random(f"{seed}/{group}/{turn // 2}").shuffle(order)
    return order[::-1] if turn % 2 else order
