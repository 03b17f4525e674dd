"""Decode speed measured in pairs of launches, until a planned look decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from pytest_h2o.decode.pairs import OpenStudy, PairedStudy, look
from pytest_h2o.decode.study import LOOKS
from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.plan.cases import Case
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord

Store = Callable[[LaunchSpec], LaunchRecord]


@dataclass
class Budget:
    """The seconds of launches that the studies of a session may take after their first looks."""

    limit_s: float
    spent_s: float = 0.0

    @property
    def used_up(self) -> bool:
        """Whether no more pairs are to be measured."""
        return self.spent_s >= self.limit_s


@dataclass(frozen=True)
class PairMeasuring:
    """Launches the pairs of decode studies with ``get``."""

    plan: LaunchPlan
    get: Store
    budget: Budget

    def measure(self, case: Case, buckets: Sequence[str]) -> dict[str, PairedStudy]:
        """The studies of some buckets, a family, each on one host: where that dies, all is
        measured again.
        """
        while True:
            found = self._measured(case, buckets)
            launched: list[LaunchRecord] = []
            for study in found.values():
                launched += chain.from_iterable(study.records)
            if stayed(launched):
                return found

    def _measured(self, case: Case, buckets: Sequence[str]) -> dict[str, PairedStudy]:
        """Pairs until a look, the cap or the budget ends each study."""
        knobs = self.plan.workload.knobs
        target = drop_target(case, knobs)
        cap = knobs.integer("DECODE_MAX_PAIRS")
        looks = [pairs for pairs in LOOKS if pairs <= cap]
        studies = {bucket: OpenStudy(list(looks)) for bucket in buckets}
        replicate = 0
        while running := [bucket for bucket, study in studies.items() if study.open]:
            looked = all(studies[bucket].study for bucket in running)
            last = looked and self.budget.used_up
            if last:
                for bucket in running:
                    studies[bucket].looks = [len(studies[bucket].pairs)]
            else:
                replicate += 1
                for bucket in running:
                    self._add_pairs(studies[bucket], case, replicate, bucket)
            look(studies, target, each_label=by_length(case))
            if last:
                break
        seed = knobs.integer("DECODE_SEED")
        return {bucket: study.end(seed) for bucket, study in studies.items()}

    def _add_pairs(self, study: OpenStudy, case: Case, replicate: int, bucket: str) -> None:
        records = [
            self._launch(case, baseline, candidate)
            for baseline, candidate in self.plan.pairs(case, replicate, bucket)
        ]
        if not records:
            study.problems.append(self.plan.workload.nothing_to_run(bucket))
            study.cause = self.plan.workload.without_prompts
        for pair in records:
            if study.study:
                # Of the launches themselves: what the machine did between them is not to change
                # what is decided.
                self.budget.spent_s += sum(record.seconds or 0.0 for record in pair)
            study.add(*pair)

    def _launch(
        self, case: Case, baseline: LaunchSpec, candidate: LaunchSpec
    ) -> tuple[LaunchRecord, LaunchRecord]:
        for spec in self.plan.neighbours(case, candidate):
            self.get(spec)
        launched = self.get(candidate)
        return self.get(baseline), launched


def stayed(records: Iterable[LaunchRecord]) -> bool:
    """Whether all launches of each seat were made on one host."""
    hosts: dict[str, str] = {}
    return all(hosts.setdefault(each.spec.seat, each.host) == each.host for each in records)


def drop_target(case: Case, knobs: Knobs) -> float:
    """The largest decode drop that a case may have."""
    return case.knobs(knobs).number(case.drop_knob)


def by_length(case: Case) -> bool:
    """Whether every label is a prompt length, to be judged on its own; real prompts are judged by
    bucket.
    """
    return case.work == "lengths"
