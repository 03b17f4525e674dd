"""A passage that a prompt begins to repeat: is it continued under eviction as without?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.evidence.written_texts import Written, alike
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.unseen_prompts import write_prompts
from pytest_h2o.plan.unseen import continuation
from pytest_h2o.runs.results import launch_cause
from pytest_h2o.verdict import Evidence

RECALLED = "what was read and is kept is continued"
# A model that copies less of a passage than this where nothing is evicted tells nothing.
LEAST_RECALL = 0.5


@dataclass(frozen=True)
class Recall:
    """What could not be compared and why in words that others share, what was seen, and why the
    model lets nothing be told.
    """

    problems: tuple[str, ...] = ()
    cause: str = ""
    evidence: tuple[Evidence, ...] = ()
    tells_nothing: str = ""


def recall(lab: Lab) -> Recall:
    """Candidate and baseline over a prompt whose end repeats the words that its last passage begins
    with. That passage is recent, so that every policy keeps it.
    """
    write_prompts(lab)
    comparisons = lab.workload.relations.comparisons("recall")
    if not comparisons:
        return Recall((lab.workload.nothing_to_run(),), lab.workload.without_prompts)
    pair = comparisons[0]
    texts = Texts(lab)
    # The candidate first: what its baseline answers is nowhere yet.
    candidate, baseline = texts.of(pair.other), texts.of(pair.expected)
    for each in (candidate, baseline):
        if each.problem:
            return Recall((each.problem,), launch_cause(each.record))
    expected = _expected(pair.other.spec.prompt_file)
    return judged(expected, baseline, candidate, lab.knobs.number("MAX_RECALL_DROP"))


def judged(expected: list[str], baseline: Written, candidate: Written, most: float) -> Recall:
    """Whether the candidate goes on with the ``expected`` words as far as the baseline does, up to
    a share ``most`` of them.
    """
    usual, seen = (alike(expected, each.text.split()) for each in (baseline, candidate))
    text = f"the baseline goes on with {usual} of the {len(expected)} words of a repeated passage"
    if not expected or usual < LEAST_RECALL * len(expected):
        return Recall(tells_nothing=f"{text}: this model does not copy, so that it tells nothing")
    text += f", the candidate with {seen} ({candidate.record.label})"
    holds = usual - seen <= most * len(expected)
    return Recall(evidence=(Evidence.of(RECALLED, holds, text),))


def _expected(prompt: Path | None) -> list[str]:
    try:
        return continuation(prompt.read_text("utf-8")) if prompt else []
    except OSError:
        return []
