"""What must hold between launches over the same real prompts, whatever the programs say of
themselves.

The right answer is known beforehand: it is what another launch wrote. A program that reports the
right numbers and computes something else is found here.
"""

from __future__ import annotations

import pytest

from pytest_h2o.evidence import (
    answers_beside,
    evicted_labels,
    eviction_evidence,
    table_evidence,
    text_evidence,
)
from pytest_h2o.lab.target_ratios import TargetRatios
from pytest_h2o.lab.text_relation import TextRelation
from pytest_h2o.lab.unseen_prompts import Unseen
from pytest_h2o.runs.results import Run
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.relations


def test_lossless_is_lossless(lossless_texts: TextRelation, gate: Gate) -> None:
    """Lossless coding off and on must give the same greedy text, letter for letter, with H2O off
    and on.

    So must ``full`` and ``store``, encode workers, decode caches, block sizes and codecs: a stage
    that changes what the model writes is not lossless, whatever ratio it reports.
    """
    _same(lossless_texts, "RELATION_LOSSLESS", gate)


def test_nothing_evicted_nothing_changes(unevicted_texts: TextRelation, gate: Gate) -> None:
    """With a target ratio of 1 the candidate must write what the baseline writes.

    A baseline that is quantised or otherwise another program shows here, and so does a candidate
    that leaves something out.
    """
    _same(unevicted_texts, "RELATION_UNEVICTED", gate)


def test_repeated_launches_agree(repeated_texts: TextRelation, gate: Gate) -> None:
    """Candidate and baseline must write the same text when they are launched again.

    Greedy decoding draws nothing at random, so texts that differ come from memory that was not set,
    or from threads that race.
    """
    _same(repeated_texts, "RELATION_GREEDY", gate)


def test_requests_are_strangers(answers_in_a_row: TextRelation, gate: Gate) -> None:
    """Prompts that one process answers one after the other must get the answers that they get
    alone.

    A cache, scores or blocks that outlive a response belong to somebody else's request.
    """
    _same(answers_in_a_row, "RELATION_STRANGERS", gate)


def test_more_eviction_keeps_less(target_ratios: TargetRatios, gate: Gate) -> None:
    """At target ratios of 1, 1.25 and the tested one, less and less must be kept; a little eviction
    may not change all of every answer.

    A ratio that is only reported keeps what it kept. Positions that are renumbered, or values that
    are mixed up, spoil an answer at once, however little is evicted.
    """
    gate.needs("RELATION_ORDER")
    gate.holds(
        "kept",
        target_ratios.problems,
        cause=target_ratios.cause,
        evidence=target_ratios.evidence,
    )


def test_unseen_prompts(unseen_prompts: Unseen, demo: Run, demo_baseline: Run, gate: Gate) -> None:
    """Prompts that were made for this session alone must be answered, and evicted, like the others.

    Answers that are good for known prompts only come from a table, not from a model.
    """
    gate.needs("RELATION_UNSEEN")
    candidate, baseline = unseen_prompts.candidate, unseen_prompts.baseline
    known = answers_beside(demo_baseline, demo)
    gate.holds(
        "unseen_prompts",
        [*candidate.problems, *baseline.problems],
        source=candidate.source,
        cause=candidate.cause_of() or baseline.cause_of(),
        evidence=[
            *text_evidence(unseen_prompts.answers),
            *eviction_evidence(candidate),
            *table_evidence(known, unseen_prompts.answers, evicted_labels(demo)),
        ],
    )


def _same(relation: TextRelation, knob: str, gate: Gate) -> None:
    gate.needs(knob)
    gate.holds("same_text", relation.problems, cause=relation.cause, evidence=relation.evidence)
