"""What real prompts must show: ``llm_demo`` over the prompt files, baseline against candidate."""

from __future__ import annotations

import pytest

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence import (
    agreement,
    answers_beside,
    decode_evidence,
    eviction_evidence,
    failed_evidence,
    idle,
    launches_evidence,
    lossless_evidence,
    programs_evidence,
    settings_evidence,
    text_evidence,
)
from pytest_h2o.lab.decode import Comparison, bench_pairs
from pytest_h2o.lab.lab import Lab
from pytest_h2o.runs.results import Run
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.llm_demo


def test_prompts(lab: Lab, gate: Gate) -> None:
    """Every prompt asked for must be there and usable: one that is left out silently is one that
    nobody judges.
    """
    selection = lab.prompts
    reasons = [f"{problem.entry}: {problem.reason}" for problem in selection.problems]
    cause = "" if selection.prompts else lab.workload.without_prompts
    gate.holds(
        "prompts",
        reasons or ([] if selection.prompts else ["no prompt was found"]),
        source=lab.prompt_dir,
        cause=cause,
    )


def test_launches(demo: Run, gate: Gate) -> None:
    """Every prompt must have been run to the end and reported; a crashed one is not left out of an
    average.
    """
    gate.holds(
        "launches",
        demo.problems,
        source=demo.source,
        cause=demo.cause_of(),
        evidence=launches_evidence([demo]),
    )


def test_settings(demo: Run, gate: Gate) -> None:
    """Every prompt must have been run as asked: config, prompt file, blocks, workers, decode
    cache.
    """
    gate.holds(
        "settings",
        demo.problems,
        source=demo.source,
        cause=demo.cause_of(),
        evidence=settings_evidence(demo),
    )


def test_eviction_active(demo: Run, gate: Gate) -> None:
    """Real text must have been evicted somewhere (short prompts may not trigger it), and nothing
    may contradict it.
    """
    gate.positive(demo.highest("h2o_total_evict_tokens"), evidence=eviction_evidence(demo))


def test_decode_drop(lab: Lab, demo_study: PairedStudy | Comparison, gate: Gate) -> None:
    """Over all real prompts, compression must not cost decode speed.

    Outside paired studies, all tokens over all time are compared, so that a short fast prompt does
    not weigh as much as a long slow one. Without a baseline nothing can be said, and the gate
    fails. Where ``llm_bench`` is measured as well, H2O may not gain far more in it than here: its
    text is read by nobody.
    """
    evidence = decode_evidence(demo_study.records)
    evidence += programs_evidence(bench_pairs(lab), demo_study.records)
    gate.passes_study(demo_study, "LLM_DEMO_DECODE_DROP_TARGET", evidence=evidence)


def test_bucket_decode(bucket_study: PairedStudy | Comparison, gate: Gate) -> None:
    """Each prompt length on its own: an average would hide a slowdown of one bucket.

    A bucket whose prompts are missing on one side fails, since nothing was compared.
    """
    gate.needs("REQUIRE_BUCKET_DECODE_PASS")
    gate.passes_study(
        bucket_study, "LLM_DEMO_DECODE_DROP_TARGET", evidence=decode_evidence(bucket_study.records)
    )


def test_greedy_agreement(demo: Run, demo_baseline: Run, gate: Gate) -> None:
    """Under eviction the model must still write text, and as far like the baseline as
    MIN_GREEDY_AGREEMENT asks.
    """
    found = answers_beside(demo_baseline, demo)
    measured = agreement(found, demo, demo_baseline)
    gate.at_least(measured, "MIN_GREEDY_AGREEMENT", evidence=text_evidence(found))


def test_decompression_active(demo: Run, gate: Gate) -> None:
    """Encoded blocks must have been decoded on real text, with one prompt or, by REQUIRE_ALL_ROWS,
    with each.
    """
    gate.needs("REQUIRE_RUNTIME_DECOMP")
    decoded = demo.best_of(
        "h2o_lossless_decomp_us", "h2o_lossless_decode_cache_hit", every_row=gate.every_row
    )
    gate.positive(decoded, evidence=lossless_evidence(demo), root=idle(demo))


def test_fallback(demo: Run, gate: Gate) -> None:
    """No block of any prompt may have failed to encode, decode or restore."""
    failed = demo.highest("h2o_lossless_fallback")
    gate.at_most(failed, "MAX_LOSSLESS_FALLBACK", evidence=failed_evidence(demo))


def test_decode_cache_hit(demo: Run, gate: Gate) -> None:
    """The decode cache must have saved at least one decode."""
    gate.needs("REQUIRE_DECODE_CACHE_HIT")
    gate.positive(demo.best("h2o_lossless_decode_cache_hit", every_row=gate.every_row))
