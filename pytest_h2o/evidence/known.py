"""Are answers computed, or known beforehand? Those to shipped prompts beside those to new ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from pytest_h2o.evidence.answers import LONG_ANSWER, Answer
from pytest_h2o.evidence.look import settle
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

COMPUTED = "answers are computed, not looked up"
NEEDS = {COMPUTED: "long answers to evicted prompts, known ones and new ones"}
# With this share of the cache gone some answer differs from the baseline's, if not very short.
HEAVY, LEAST_PROMPTS, MANY_PROMPTS, MOST_ALIKE = 2.0, 4, 8, 0.8
# How likely it may be that those that differ are all among the new ones.
BY_CHANCE = 0.015


def evicted_labels(run: Run) -> set[str]:
    """The prompts of which a run says that most of the cache was evicted."""
    return {row.label for row, sample in run.samples("h2o_lossy") if sample.mean >= HEAVY}


def table_evidence(
    known: Sequence[Answer], unseen: Sequence[Answer], evicted: Collection[str]
) -> list[Evidence]:
    """Whether heavy eviction leaves its mark on known prompts as on new ones."""
    long = [each for each in known if each.label in evicted and _long(each)]
    return settle(_observations(long, [each for each in unseen if _long(each)]), NEEDS)


def _observations(known: Sequence[Answer], unseen: Sequence[Answer]) -> Iterator[Evidence]:
    if len(known) < LEAST_PROMPTS or not unseen:
        return
    alike, new = _alike(known), _alike(unseen)
    text = (
        f"the baseline's answer to {alike} of {len(known)} known and {new} of {len(unseen)} new "
        f"prompts that were evicted"
    )
    if alike == len(known) >= MANY_PROMPTS and _chance(alike, len(unseen), new) <= BY_CHANCE:
        yield Evidence.of(COMPUTED, False, text)
    elif alike >= MOST_ALIKE * len(known):
        yield Evidence(claim=COMPUTED, standing="doubtful", text=text)
    else:
        yield Evidence.of(COMPUTED, True, text)


def _chance(known: int, unseen: int, alike: int) -> float:
    """How likely it is that all answers that differ are to new prompts, if it were all the same to
    them: Fisher's exact test.
    """
    differ = unseen - alike
    return math.comb(unseen, differ) / math.comb(known + unseen, differ)


def _long(answer: Answer) -> bool:
    return len(answer.baseline) >= LONG_ANSWER


def _alike(answers: Sequence[Answer]) -> int:
    """How many candidates wrote the baseline's answer to the letter."""
    return sum(1 for each in answers if each.baseline == each.candidate)
