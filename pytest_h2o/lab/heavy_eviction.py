"""Where nearly all of the cache is evicted, an answer cannot be that of the full cache."""

from __future__ import annotations

from pytest_h2o.evidence.answers import LONG_ANSWER, LOOPS
from pytest_h2o.evidence.writing import novelty
from pytest_h2o.evidence.written_texts import Written, difference
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.text_relation import NO_TEXT, TextRelation


def heavy_eviction(lab: Lab) -> TextRelation:
    """The relation over the real prompts that are chosen for it: one answer that is another shows
    that something was evicted.
    """
    relation = TextRelation(lab, "heavy")
    comparisons = lab.workload.relations.comparisons("heavy")
    if not comparisons:
        relation.problems.append(lab.workload.nothing_to_run())
        relation.cause = lab.workload.without_prompts
        return relation
    same: list[str] = []
    telling = 0
    for pair in comparisons:
        full, little = relation.texts.of(pair.expected), relation.texts.of(pair.other)
        if not relation.usable((full, little)):
            return relation
        telling += _tells(full)
        if _tells(full) and not difference(full, little):
            same.append(full.record.label)
    if not telling:
        relation.observe(False, NO_TEXT, doubt="short answers and loops tell nothing")
        return relation
    text = f"{len(same)} of {telling} answers are the baseline's though nearly all was evicted"
    relation.observe(len(same) < telling, f"{text}{_named(same)}")
    return relation


def _tells(full: Written) -> bool:
    """Whether a text is one that no model writes without most of what it was asked."""
    return len(full.text) >= LONG_ANSWER and novelty(full.text) >= LOOPS


def _named(labels: list[str]) -> str:
    return f" ({', '.join(labels[:3])})" if labels else ""
