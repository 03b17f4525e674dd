"""Which launches the selected gates need, and which of them are made next to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_h2o.decode.pairs import SCREEN_PAIRS
from pytest_h2o.decode.study import LEAST_OF_EACH, LEAST_PAIRS, launch_order
from pytest_h2o.lab.workload import Workload
from pytest_h2o.plan.cases import (
    BUILDS_FULL,
    BUILDS_PLAIN,
    UNEVICTED,
    Case,
    baseline_of,
    of_second_build,
)
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.suites import on_kind

# The relations between speeds, with their cases.
PAIRED_RELATIONS = {"speed": UNEVICTED, "builds": BUILDS_PLAIN, "release": BUILDS_FULL}
# Rounds of pairs before their launches are made twice as long, and how often that is done.
ROUNDS_OF_A_LENGTH, MOST_DOUBLINGS = 3, 3
SpecPair = tuple[LaunchSpec, LaunchSpec]


@dataclass(frozen=True)
class LaunchPlan:
    """The launches of a workload that are in demand.

    Pairs of a decode study are baseline and candidate on the same work. All arms that are studied
    are launched next to each other, so that what the machine does meanwhile meets all of them.
    """

    workload: Workload
    demand: Demand

    def planned(self) -> list[LaunchSpec]:
        """The launches that the selected gates need at least, without repeats."""
        specs: dict[str, LaunchSpec] = {}

        def add(more: Iterable[LaunchSpec]) -> None:
            for spec in more:
                specs[spec.key] = spec

        work, cases = self.workload, self.workload.cases
        for kind in self.demand.dumps:
            add(work.on(kind).dump_launches())
        for kind in self.demand.qualities:
            add(work.on(kind).quality_launches())
        for relation in self.demand.relations:
            name, _, kind = relation.partition("@")
            add(work.on(kind).relations.launches(name))
        for name in self.demand.texts:
            add(work.text_launches(cases[name]))
        for name in self.demand.cases:
            add(work.launches(cases[name]))
        for name in self.demand.baselines:
            add(baseline_of(spec) for spec in work.launches(cases[name]))
        for name in self.demand.studies:
            add(work.batch(cases[name]))
        for name in self.paired:
            for replicate in range(1, self.first_look(cases[name]) + 1):
                for pair in self.pairs(cases[name], replicate):
                    add(pair)
        return list(specs.values())

    @property
    def paired(self) -> list[str]:
        """The studied cases that are measured in pairs, with those of relations."""
        names: dict[str, None] = {}
        for name in self.demand.studies:
            if self.workload.baseline_mode(name) == "paired":
                names[name] = None
        for relation in self.demand.relations:
            name, _, kind = relation.partition("@")
            name = on_kind(PAIRED_RELATIONS.get(name, ""), kind)
            if name in self.workload.cases:
                names[name] = None
        return list(names)

    def first_look(self, case: Case) -> int:
        """Replicates until a study may be decided for the first time, or a relation is screened."""
        if case.holds_baseline:
            return SCREEN_PAIRS
        if case.work == "lengths":
            per_replicate = len(self.workload.launches(case, 1))
            return max(LEAST_OF_EACH, math.ceil(LEAST_PAIRS / max(1, per_replicate)))
        sizes = [len(self.workload.labels(bucket)) for bucket in self.workload.buckets]
        return math.ceil(LEAST_PAIRS / max(1, min(sizes, default=0)))

    def pairs(self, case: Case, replicate: int, bucket: str = "") -> list[SpecPair]:
        """Baseline and candidate on the same work; in the first rounds all arms share one
        baseline.
        """
        repeat = self._repeat(case, replicate)
        candidates = self.workload.launches(case, replicate, repeat)
        if bucket:
            labels = self.workload.labels(bucket)
            candidates = [spec for spec in candidates if spec.label in labels]
        if case.builds:
            return [(of_second_build(candidate), candidate) for candidate in candidates]
        paired_with = case.arm if replicate > self.first_look(case) else ""
        return [(baseline_of(candidate, paired_with), candidate) for candidate in candidates]

    def _repeat(self, case: Case, replicate: int) -> int | None:
        """Measured repeats of a pair's launches; doubled after rounds that decided nothing, since
        what is too short is not made longer by more of it.
        """
        repeat = self.workload.knobs.integer("DECODE_REPEAT")
        doublings = (replicate - self.first_look(case)) // ROUNDS_OF_A_LENGTH
        if case.work != "lengths" or doublings < 1:
            return repeat or None
        repeat = repeat or case.knobs(self.workload.knobs).integer("REPEAT")
        return repeat << min(doublings, MOST_DOUBLINGS)

    def before(self, case: Case, spec: LaunchSpec) -> list[LaunchSpec]:
        """What is launched together with a launch that gates look at: its neighbours, if it is the
        candidate of a planned pair as well.
        """
        if case.name not in self.paired or spec.replicate > self.first_look(case):
            return []
        candidates = [candidate for _, candidate in self.pairs(case, spec.replicate)]
        return self.neighbours(case, spec) if spec in candidates else []

    def neighbours(self, case: Case, candidate: LaunchSpec) -> list[LaunchSpec]:
        """All arms on the same work as the candidate of a pair, its baseline and itself included,
        in seeded order.
        """
        names = {case.name}
        for name in self.paired:
            if candidate.replicate <= self.first_look(self.workload.cases[name]):
                names.add(name)
        by_arm: dict[str, LaunchSpec] = {}
        for name in sorted(names):
            other = self.workload.cases[name]
            if other.work != case.work or candidate.seat not in other.seats:
                continue
            for pair in self.pairs(other, candidate.replicate):
                if pair[0].label == candidate.label:
                    by_arm.update({spec.arm: spec for spec in pair})
        group, labels = self._group(case, candidate)
        turn = (candidate.replicate - 1) * len(labels) + labels.index(candidate.label)
        seed = self.workload.knobs.integer("DECODE_SEED")
        return [by_arm[arm] for arm in launch_order(list(by_arm), turn, seed, group)]

    def _group(self, case: Case, candidate: LaunchSpec) -> tuple[str, list[str]]:
        """The launches whose orders mirror each other, by label: all lengths, or the prompts of
        one bucket.
        """
        if case.work == "prompts":
            for bucket in self.workload.buckets:
                labels = self.workload.labels(bucket)
                if candidate.label in labels:
                    return bucket, labels
        return case.program, [spec.label for spec in self.workload.launches(case, 1)]
