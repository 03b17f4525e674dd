"""Recorded launches beside those of a recorded baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_h2o.decode.pairs import PairedStudy, row_pairs, row_problems, study_pairs
from pytest_h2o.lab.measuring import by_length, drop_target
from pytest_h2o.lab.recordings import Recording
from pytest_h2o.plan.cases import Case
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.runs.results import Run

NO_BASELINE = (
    "a recording has no baseline beside its launches; name one with --h2o-replay-baseline DIR"
)


def recorded_baseline(
    recording: Recording, named: Recording | None, case: Case, part_of: Callable[[Run], Run]
) -> Run:
    """The launches of a case with H2O off: those of the recording that was ``named``, else what
    lies beside the case's own; ``part_of`` takes those that are asked for.
    """
    run = named.launches_of(case) if named else recording.baseline_run(case)
    if run is None:
        trouble = recording.trouble(case)
        problem = f"{trouble}: {NO_BASELINE}" if trouble else NO_BASELINE
        return Run(case.name, (), (), (problem,))
    part = part_of(run)
    problems = [f"baseline: {problem}" for problem in part.problems]
    if any(record.spec.config.get("kv_h2o_enable") for record in run.launches):
        problems.append(f"baseline: {run.launches[0].directory} was run with H2O on")
    return replace(part, problems=tuple(problems))


def study_of_rows(baseline: Run, run: Run, case: Case, knobs: Knobs) -> PairedStudy:
    """A study of recorded rows, each beside the baseline's row of the same name."""
    if problems := row_problems(baseline, run):
        return PairedStudy((), None, tuple(problems), run.source)
    pairs = tuple(row_pairs(baseline, run))
    study, _ = study_pairs(pairs, drop_target(case, knobs), each_label=by_length(case))
    return PairedStudy(pairs, study, (), run.source)
