"""Do two builds write the same?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pytest_h2o.evidence.written_texts import Written, difference, same_share
from pytest_h2o.verdict import Evidence

SAME = "the build under test writes what the second build writes"
ROUNDING = "kernels of another build may round otherwise"


def text_evidence_of_builds(
    answers: Sequence[tuple[Written, Written]], least: float, drawn: str
) -> Evidence:
    """What answers to the same prompts show, the second build's first.

    Texts that part late are a doubt, and so are those that are ``drawn``; if the median of what
    they have in common is below ``least``, it is another computation.
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
    if median(shares) >= least:
        return Evidence(claim=SAME, standing="doubtful", text=f"{text}; {ROUNDING}")
    return Evidence.of(SAME, False, text)
