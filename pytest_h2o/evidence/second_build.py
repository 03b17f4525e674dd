"""Do two builds write the same?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pytest_h2o.evidence.written_texts import Written, difference, same_share
from pytest_h2o.verdict import Evidence

SAME = "the build under test writes what the second build writes"
ROUNDING = "kernels of another build may round otherwise"
# Of answers with H2O on, where those with H2O off are all the same: more than rounding parts.
LEAST_ANSWERS, PARTED = 4, 0.5
Answers = Sequence[tuple[Written, Written]]


def text_evidence_of_builds(
    answers: Answers, least: float, drawn: str, plain: Answers = ()
) -> Evidence:
    """What answers to the same prompts show, the second build's first; ``plain`` are those with H2O
    off, where others are judged.

    Texts that part late are a doubt, and so are those that are ``drawn``; if the median of what
    they have in common is below ``least``, it is another computation. So it is where most part and
    none of the plain ones does, whose kernels are the same.
    """
    shares = [same_share(*pair) for pair in answers]
    parted = [pair for pair in answers if difference(*pair)]
    text = f"{len(answers) - len(parted)} of {len(answers)} answers are the same"
    if not parted:
        return Evidence.of(SAME, True, text)
    first = parted[0]
    text = (
        f"{text}, the median stays so for {median(shares):.1%}; {first[1].record.label} differs "
        f"{difference(*first)}"
    )
    if drawn:
        return Evidence(claim=SAME, standing="doubtful", text=f"{text}; {drawn}")
    if len(parted) > PARTED * len(answers) and _all_the_same(plain):
        text = f"{text}; with H2O off all {len(plain)} are the same, so it is no rounding"
        return Evidence.of(SAME, False, text)
    if median(shares) >= least:
        return Evidence(claim=SAME, standing="doubtful", text=f"{text}; {ROUNDING}")
    return Evidence.of(SAME, False, text)


def _all_the_same(answers: Answers) -> bool:
    return len(answers) >= LEAST_ANSWERS and not any(difference(*pair) for pair in answers)
