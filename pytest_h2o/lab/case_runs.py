"""The launches of a case as one run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pytest_h2o.lab.launch_order import of_case
from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.lab.measuring import Store, stayed
from pytest_h2o.plan.cases import Case
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launches


def launched(plan: LaunchPlan, get: Store, case: Case, no_h2o: str) -> Run:
    """What a case launches, each now unless it was; ``no_h2o`` says why H2O tells nothing."""
    records = _records(plan, get, case)
    while not stayed(records):  # their host died in the middle
        records = _records(plan, get, case)
    run = replace(read_launches(case.name, records), no_h2o=no_h2o)
    if records:
        return run
    work = plan.workload
    return replace(run, problems=(work.nothing_to_run(),), cause=work.without_prompts)


def _records(plan: LaunchPlan, get: Store, case: Case) -> list[LaunchRecord]:
    for spec in of_case(plan, case):
        get(spec)
    return [get(spec) for spec in plan.workload.launches(case)]


def part_of(run: Run, labels: Collection[str] | None) -> Run:
    """The launches with these labels, all without any, so that trouble with another does not
    count.
    """
    if labels is None or not run.launches:
        return run
    part = [record for record in run.launches if record.label in labels]
    return replace(read_launches(run.case, part), no_h2o=run.no_h2o)
