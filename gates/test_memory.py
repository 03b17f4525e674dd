"""What compression may cost in memory, as the operating system sees it: no program can print it
away.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence.memory import (
    growth_evidence,
    memory_growth,
    memory_increase,
    peak_evidence,
    store_evidence,
)
from pytest_h2o.lab.decode import Comparison
from pytest_h2o.lab.lab import Lab
from pytest_h2o.plan.needs import needs
from pytest_h2o.runs.results import Run, problems_of
from pytest_h2o.session.gate import Gate
from pytest_h2o.verdict import Evidence, Measured


def test_memory_peak(
    lab: Lab, run: Run, decode_study: PairedStudy | Comparison, gate: Gate
) -> None:
    """The candidate's peak memory must not be above the baseline's: its purpose is to need less.

    KV that is copied to be compressed, blocks that are kept beside the raw values and evicted bytes
    that are never given back all show here, whatever the columns say.
    """
    _judge_peak(lab, run, decode_study, gate)


def test_memory_growth(run: Run, gate: Gate) -> None:
    """Later repeats must not need more memory than the first: a request leaves nothing behind.

    A leak of a few blocks a request fills any device in a day.
    """
    evidence = growth_evidence(run)
    _judge(gate, memory_growth(run), "MAX_MEMORY_GROWTH", run.problems, evidence, run.cause_of())


@pytest.mark.runtime
@needs("full_strict", "store_tuned")
def test_store_memory(lab: Lab, gate: Gate) -> None:
    """Store mode must not need more memory than full mode, and less where what it drops is large.

    It exists to hold blocks in place of raw values; where it holds both, it only costs time.
    """
    gate.needs("MAX_MEMORY_INCREASE")
    names = [name for name in ("full_strict", "store_tuned") if name in lab.cases]
    runs = [lab.run(name) for name in names]
    problems = problems_of(runs)
    evidence: list[Evidence] = []
    if len(runs) == 2:
        evidence = store_evidence(*runs)
    causes = [run.cause_of() for run in runs if run.problems]
    gate.holds("store_memory", problems, cause="".join(causes[:1]), evidence=evidence)


@pytest.mark.llm_demo
def test_prompt_memory(
    lab: Lab, demo: Run, demo_study: PairedStudy | Comparison, gate: Gate
) -> None:
    """On real prompts as well the candidate's peak memory must not be above the baseline's."""
    _judge_peak(lab, demo, demo_study, gate)


def _judge_peak(lab: Lab, run: Run, study: PairedStudy | Comparison, gate: Gate) -> None:
    if lab.recording:
        # Nobody saw the memory of what something else launched, beside a baseline or not.
        problems = list(run.problems)
    elif isinstance(study, Comparison):
        problems = [study.measured.missing] if study.measured.missing else []
    else:
        problems = list(study.problems)
    increase = memory_increase(study.records)
    evidence = peak_evidence(increase, study.records)
    _judge(gate, increase, "MAX_MEMORY_INCREASE", problems, evidence, run.cause_of())


def _judge(  # noqa: PLR0913, PLR0917  what a verdict is made of
    gate: Gate,
    measured: Measured,
    knob: str,
    problems: Sequence[str],
    evidence: Sequence[Evidence],
    cause: str,
) -> None:
    """Hold what was seen against a knob; what nobody could see is said to be without evidence."""
    gate.needs(knob)
    if problems or measured.value is None:
        gate.holds(
            measured.metric, problems, source=measured.source, cause=cause, evidence=evidence
        )
    else:
        gate.at_most(measured, knob, evidence=evidence)
