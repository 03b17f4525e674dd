"""Is the candidate slower? Paired log ratios, the Hodges-Lehmann estimate and exact signed-rank
bounds.

A pair is one launch of the candidate and one of the baseline, close in time, on the same work; its
difference is ``d = ln(candidate tok/s / baseline tok/s)``. The estimate is the median of the Walsh
averages (Hodges and Lehmann 1963); the bounds invert Wilcoxon's signed-rank test, so they assume a
symmetric distribution and nothing about its shape. Looks are planned in advance and each spends
``ALPHA`` on either side, and once more on the parts of the work.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Literal

Decision = Literal["pass", "fail", "inconclusive"]
LOOKS = (6, 10, 16, 20)
ALPHA = 0.02
DOUBT = 0.125  # three slow pairs of three


@dataclass(frozen=True, slots=True)
class Study:
    """The state of a study after some pairs; drops are shares (0.05 is 5 % slower), negative when
    faster.

    ``p_slow`` is the probability of such slow pairs if the drop were just at its limit; ``slow_at``
    names the part of the work, such as a prompt length, that keeps the whole from passing.
    """

    pairs: int
    drop: float
    drop_low: float
    drop_high: float
    decision: Decision
    p_slow: float
    slow_at: str = ""


def walsh_averages(differences: Sequence[float]) -> list[float]:
    """All ``n (n + 1) / 2`` averages of pairs of differences, self-pairs included, ascending."""
    return sorted((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])


@cache
def signed_rank_cumulative(pairs: int) -> tuple[int, ...]:
    """How many of the ``2 ** pairs`` assignments of signs give a signed-rank statistic of at most
    0, 1, 2, ...
    """
    counts = [1]
    for rank in range(1, pairs + 1):
        counts = [
            (counts[t] if t < len(counts) else 0) + (counts[t - rank] if t >= rank else 0)
            for t in range(len(counts) + rank)
        ]
    return tuple(accumulate(counts))


@cache
def signed_rank_index(pairs: int, alpha: float) -> int | None:
    """The largest ``k`` with ``P(T+ <= k) <= alpha`` under the null; None when even ``k = 0`` is
    too likely.
    """
    index = bisect_right(signed_rank_cumulative(pairs), alpha * 2**pairs) - 1
    return index if index >= 0 else None


def bounds(differences: Sequence[float], alpha: float = ALPHA) -> tuple[float, float, float]:
    """``(lower, estimate, upper)`` of the shift; infinite bounds when there are too few pairs for
    ``alpha``.
    """
    walsh = walsh_averages(differences)
    middle = len(walsh) // 2
    estimate = walsh[middle] if len(walsh) % 2 else (walsh[middle - 1] + walsh[middle]) / 2
    index = signed_rank_index(len(differences), alpha)
    if index is None:
        return -math.inf, estimate, math.inf
    return walsh[index], estimate, walsh[-1 - index]


def slow_p_value(differences: Sequence[float], drop_target: float) -> float:
    """One-sided exact signed-rank p-value of "not slower than ``drop_target``"; small when surely
    slower.
    """
    limit = math.log1p(-drop_target)
    statistic = sum(average >= limit for average in walsh_averages(differences))
    return float(signed_rank_cumulative(len(differences))[statistic] / 2 ** len(differences))


def judge(differences: Sequence[float], drop_target: float) -> Study:
    """Compare the slowdown with ``drop_target``: pass when it is surely smaller, fail when it is
    surely larger.
    """
    lower, estimate, upper = bounds(differences)
    limit = math.log1p(-drop_target)
    slow = slow_p_value(differences, drop_target)
    decision: Decision = "pass" if lower > limit else "fail" if slow <= ALPHA else "inconclusive"
    return Study(
        len(differences),
        1 - math.exp(estimate),
        1 - math.exp(upper),
        1 - math.exp(lower),
        decision,
        slow,
    )


def judge_parts(study: Study, parts: Mapping[str, Sequence[float]], drop_target: float) -> Study:
    """The study of all differences, held to those of each part of the work as well, so that no part
    hides in the mean.

    It fails, with the numbers of that part, when one is surely slower than ``drop_target``
    (Bonferroni over the parts), and does not pass while one probably is (:func:`doubt`).
    """
    p_values = {name: slow_p_value(differences, drop_target) for name, differences in parts.items()}
    worst = min(p_values, key=p_values.__getitem__)
    slow = len(parts) * p_values[worst]
    if slow <= ALPHA and study.decision != "fail":
        return replace(
            judge(parts[worst], drop_target), decision="fail", p_slow=slow, slow_at=worst
        )
    doubtful = [name for name, p_value in p_values.items() if p_value <= doubt(len(parts[name]))]
    if doubtful and study.decision == "pass":
        return replace(
            study, decision="inconclusive", slow_at=min(doubtful, key=p_values.__getitem__)
        )
    return study


def doubt(pairs: int) -> float:
    """The p-value up to which a part with so many pairs is probably slow; fewer than three must all
    be.
    """
    return max(DOUBT, 0.5**pairs)


def holm(p_values: Mapping[str, float], alpha: float = ALPHA) -> set[str]:
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
