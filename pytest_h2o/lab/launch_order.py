"""In which order gates that are judged one after the other have their launches made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.plan.cases import Case, baseline_of
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.specs import LaunchSpec


@dataclass(frozen=True)
class Asked:
    """What one gate needs launched; ``by_bucket`` if it compares prompts of one length."""

    demand: Demand
    by_bucket: bool = False


def in_order(plan: LaunchPlan, gates: Iterable[Asked]) -> list[LaunchSpec]:
    """The planned launches in the order in which ``gates`` ask for them, each where it is made."""
    planned = {spec.key: spec for spec in plan.planned()}
    found: dict[str, LaunchSpec] = {}
    for asked in gates:
        for spec in _launches(plan, asked):
            if spec.key in planned:
                found.setdefault(spec.key, spec)
    return list((found | planned).values())


def of_case(plan: LaunchPlan, case: Case) -> Iterator[LaunchSpec]:
    """The launches of a case, each behind those that are made next to it."""
    if case.name in plan.demand.studies:
        yield from plan.workload.batch(case)
    for spec in plan.workload.launches(case):
        yield from plan.before(case, spec)
        yield spec


def _launches(plan: LaunchPlan, asked: Asked) -> Iterator[LaunchSpec]:
    demand, work = asked.demand, plan.workload
    alone = replace(demand, cases=(), studies=(), baselines=())
    yield from LaunchPlan(work, alone).planned()
    for name, case in work.cases.items():
        if name in demand.studies and name in plan.paired:
            yield from _pairs(plan, case, by_bucket=asked.by_bucket)
        elif name in demand.cases:
            yield from of_case(plan, case)
        if name in demand.baselines:
            yield from map(baseline_of, work.launches(case))


def _pairs(plan: LaunchPlan, case: Case, *, by_bucket: bool) -> Iterator[LaunchSpec]:
    """The launches of a study up to its first look."""
    buckets = plan.workload.buckets if by_bucket else [""]
    for replicate in range(1, plan.first_look(case) + 1):
        for bucket in buckets:
            for baseline, candidate in plan.pairs(case, replicate, bucket):
                yield from plan.neighbours(case, candidate)
                yield candidate
                yield baseline
