"""What quantised KV must show beside plain KV: fewer bytes, the same speed, the same words."""

from __future__ import annotations

import pytest

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence import (
    agreement,
    answers_beside,
    decode_evidence,
    launches_evidence,
    settings_evidence,
    text_evidence,
)
from pytest_h2o.evidence.kv_quant_cost import (
    Compared,
    bytes_evidence,
    bytes_ratio,
    divergence,
    in_force,
    perplexity_rise,
)
from pytest_h2o.lab.decode import Comparison
from pytest_h2o.runs.results import Run
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.kv_quant


def test_settings(quant_run: Run, quant_text: Compared, gate: Gate) -> None:
    """Every launch must have run as asked, and have quantised KV: an option that is passed over
    costs nothing, and saves nothing.
    """
    evidence = settings_evidence(quant_run)
    evidence += launches_evidence([quant_run])
    evidence += in_force(quant_text, quant_run)
    gate.holds(
        "settings",
        quant_run.problems,
        source=quant_run.source,
        cause=quant_run.cause_of(),
        evidence=evidence,
    )


def test_kv_bytes(quant_text: Compared, quant_plain_run: Run, quant_run: Run, gate: Gate) -> None:
    """A token must take fewer bytes: that is what KV is quantised for.

    What the option's name promises is a claim, which the memory of the process must bear out: a
    build may quantise K alone where K and V were asked for.
    """
    measured = bytes_ratio(quant_text, quant_plain_run, quant_run)
    option = gate.knobs.integer("ATTENTION_OPTION")
    gate.at_least(measured, "KV_BYTES_TARGET", evidence=bytes_evidence(measured, option))


def test_decode_drop(quant_study: PairedStudy | Comparison, gate: Gate) -> None:
    """Quantising and reading back must not cost decode speed."""
    gate.passes_study(
        quant_study, "DECODE_DROP_TARGET", evidence=decode_evidence(quant_study.records)
    )


def test_perplexity(quant_text: Compared, gate: Gate) -> None:
    """A held-out text must be predicted nearly as well, token by token where the program can."""
    gate.at_most(perplexity_rise(quant_text), "MAX_PERPLEXITY_INCREASE")


def test_divergence(quant_text: Compared, gate: Gate) -> None:
    """What is predicted must stay near to what plain KV predicts, also where the text is as likely.

    Programs that report perplexity alone leave MAX_KV_DIVERGENCE off.
    """
    gate.at_most(divergence(quant_text), "MAX_KV_DIVERGENCE")


def test_launches(quant_demo: Run, gate: Gate) -> None:
    """Every real prompt must have been run to the end and reported."""
    gate.holds(
        "launches",
        quant_demo.problems,
        source=quant_demo.source,
        cause=quant_demo.cause_of(),
        evidence=launches_evidence([quant_demo]),
    )


def test_greedy_agreement(quant_demo: Run, quant_plain_demo: Run, gate: Gate) -> None:
    """With quantised KV the model must still write text, and as far like with plain KV as
    MIN_GREEDY_AGREEMENT asks.
    """
    found = answers_beside(quant_plain_demo, quant_demo)
    measured = agreement(found, quant_demo, quant_plain_demo)
    gate.at_least(measured, "MIN_GREEDY_AGREEMENT", evidence=text_evidence(found))
