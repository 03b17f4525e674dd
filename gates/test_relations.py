"""What must hold between launches over the same real prompts, whatever the programs say of
themselves.

The right answer is known beforehand: it is what another launch wrote. A program that reports the
right numbers and computes something else is found here.
"""

from __future__ import annotations

import pytest

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence import (
    eviction_evidence,
    text_evidence,
)
from pytest_h2o.evidence.unevicted import unevicted_evidence
from pytest_h2o.lab.recall import Recall
from pytest_h2o.lab.target_ratios import TargetRatios
from pytest_h2o.lab.text_relation import TextRelation
from pytest_h2o.lab.unseen_prompts import Unseen
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.relations


def test_lossless_is_lossless(lossless_texts: TextRelation, gate: Gate) -> None:
    """Lossless coding off and on must give the same greedy text, letter for letter, with H2O off
    and on.

    So must ``full`` and ``store``, encode workers, decode caches, block sizes and codecs: a stage
    that changes what the model writes is not lossless, whatever ratio it reports. Where log lines
    tell the sizes of blocks, those of the front layers are the same with H2O off: its KV is not
    coarser.
    """
    _same(lossless_texts, "RELATION_LOSSLESS", gate)


def test_nothing_evicted_nothing_changes(unevicted_texts: TextRelation, gate: Gate) -> None:
    """With a target ratio of 1, or with all tokens protected as recent ones, the candidate must
    write what the baseline writes.

    A baseline that is quantised or otherwise another program shows here, and so does a candidate
    that leaves something out.
    """
    _same(unevicted_texts, "RELATION_UNEVICTED", gate)


def test_baseline_is_no_slower(baseline_study: PairedStudy, gate: Gate) -> None:
    """The baseline must not be slower, by more than the decode limit, than a candidate with nothing
    to evict: that does all that the baseline does, and more.

    A baseline that is slowed down makes any candidate look fast. Pairs that decide nothing are a
    doubt, and so is a candidate that is slower: honest ones score tokens all the time.
    """
    gate.needs("RELATION_SPEED")
    target = gate.knobs.number("DECODE_DROP_TARGET")
    gate.holds(
        "same_speed",
        baseline_study.problems,
        source=baseline_study.source,
        cause=baseline_study.cause,
        evidence=unevicted_evidence(baseline_study, target),
    )


def test_repeated_launches_agree(repeated_texts: TextRelation, gate: Gate) -> None:
    """Candidate and baseline must write the same text when they are launched again, the candidate
    without its log lines.

    Greedy decoding draws nothing at random, so texts that differ come from memory that was not set,
    or from threads that race. And a program must do what it does whether or not it is watched.
    """
    _same(repeated_texts, "RELATION_GREEDY", gate)


def test_evicted_is_missing(heavy_eviction: TextRelation, gate: Gate) -> None:
    """Where nearly all of the cache is evicted, not every answer may be the baseline's, letter for
    letter.

    A program that only says that it evicts, or that knows what to answer, writes what it always
    writes.
    """
    _same(heavy_eviction, "RELATION_HEAVY", gate)


def test_requests_are_strangers(answers_in_a_row: TextRelation, gate: Gate) -> None:
    """Prompts that one process answers one after the other must get the answers that they get
    alone, and the first of them, at the end once more, as fast and in no more memory.

    A cache, scores or blocks that outlive a response belong to somebody else's request. Lossless
    coding is in store mode there, and the prompts begin with the same words: what is found by its
    place or by how a prompt begins shows.
    """
    _same(answers_in_a_row, "RELATION_STRANGERS", gate)


def test_more_eviction_keeps_less(target_ratios: TargetRatios, gate: Gate) -> None:
    """At target ratios of 1, about 1.1 and the tested one, less and less must be kept; a little
    eviction must leave most of most answers as they were.

    A ratio that is only reported keeps what it kept. Positions that are renumbered, scores the
    wrong way round and values that are mixed up spoil an answer at once, however little is evicted
    and whatever is protected: at 1.1, in steps of 1.012, only a block of recent tokens is.
    """
    gate.needs("RELATION_ORDER")
    gate.holds(
        "kept",
        target_ratios.problems,
        cause=target_ratios.cause,
        evidence=target_ratios.evidence,
    )


def test_unseen_prompts(unseen_prompts: Unseen, gate: Gate) -> None:
    """Prompts that were made for this session alone must be answered, and evicted, like the others.

    Answers that are good for known prompts only come from a table, not from a model.
    """
    gate.needs("RELATION_UNSEEN")
    candidate, baseline = unseen_prompts.candidate, unseen_prompts.baseline
    evidence = text_evidence(unseen_prompts.answers)
    evidence += eviction_evidence(candidate)
    evidence += unseen_prompts.evidence
    gate.holds(
        "unseen_prompts",
        candidate.problems + baseline.problems,
        source=candidate.source,
        cause=candidate.cause_of() or baseline.cause_of(),
        evidence=evidence,
    )


def test_passages_are_recalled(recalled_passage: Recall, gate: Gate) -> None:
    """A passage that the end of a prompt begins to repeat must be continued under eviction as the
    baseline continues it, up to MAX_RECALL_DROP of its words.

    The passage is protected as recent, so that it is kept whatever else is not: positions that are
    renumbered, and keys that lie beside other values, lead nowhere. Both sides decode greedily,
    since samplers that punish repetition forbid to copy. A model that does not copy without
    eviction tells nothing: the gate is off then, and fails with --h2o-require-evidence.
    """
    gate.needs("RELATION_RECALL")
    gate.tells_something(recalled_passage.tells_nothing, "RELATION_RECALL")
    gate.holds(
        "recall",
        recalled_passage.problems,
        cause=recalled_passage.cause,
        evidence=recalled_passage.evidence,
    )


def _same(relation: TextRelation, knob: str, gate: Gate) -> None:
    gate.needs(knob)
    gate.holds("same_text", relation.problems, cause=relation.cause, evidence=relation.evidence)
