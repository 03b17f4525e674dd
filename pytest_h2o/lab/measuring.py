"""Decode speed measured in pairs of launches, until a study is sure or has all its pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from pytest_h2o.decode.pairs import (
    SCREEN_PAIRS,
    OpenStudy,
    Pair,
    PairedStudy,
    look,
    read_pair,
    screen,
)
from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.plan.cases import Case, baseline_of
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause

NOT_LAUNCHED = ("not_recorded", "out_of_time")
Store = Callable[[LaunchSpec], LaunchRecord]


@dataclass
class Budget:
    """The seconds of launches that the studies of a session may take after their first rounds."""

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
        most = knobs.integer("DECODE_MAX_PAIRS")
        studies = {bucket: OpenStudy(most) for bucket in buckets}
        replicate = 0
        while running := [bucket for bucket, study in studies.items() if study.open]:
            judged = all(studies[bucket].study for bucket in running)
            if judged and self.budget.used_up:
                for bucket in running:
                    studies[bucket].ended = "DECODE_BUDGET_S was used up"
                break
            replicate += 1
            for bucket in running:
                self._add_pairs(studies[bucket], case, replicate, bucket)
            if replicate >= self.plan.first_look(case):
                look(studies, target, each_label=by_length(case))
        seed = knobs.integer("DECODE_SEED")
        return {bucket: study.end(seed) for bucket, study in studies.items()}

    def screened(self, case: Case) -> PairedStudy | None:
        """The first pairs of a case if none of them looks slow, or one cannot be compared."""
        knobs = self.plan.workload.knobs
        pairs: list[Pair] = []
        for replicate in range(1, SCREEN_PAIRS + 1):
            for specs in self.plan.pairs(case, replicate):
                first, second = self._launch(case, *specs)[:: _order(case)]
                pair, problems = read_pair(first, second)
                if pair is None:
                    cause = launch_cause(first) or launch_cause(second)
                    return PairedStudy((), None, tuple(problems), second.directory, cause=cause)
                pairs.append(pair)
        study = screen(pairs, drop_target(case, knobs))
        if study is None:
            return None
        source = first.directory.parent
        return PairedStudy(tuple(pairs), study, (), source, seed=knobs.integer("DECODE_SEED"))

    def _add_pairs(self, study: OpenStudy, case: Case, replicate: int, bucket: str) -> None:
        specs = self.plan.pairs(case, replicate, bucket)
        if by_length(case) and study.study:
            specs = [pair for pair in specs if pair[1].label in study.study.doubtful]
        records = [self._launch(case, baseline, candidate) for baseline, candidate in specs]
        if not records:
            study.problems.append(self.plan.workload.nothing_to_run(bucket))
            study.cause = self.plan.workload.without_prompts
        for pair in records:
            if study.study:
                # Of the launches themselves: what the machine did between them is not to change
                # what is decided.
                self.budget.spent_s += sum(record.seconds or 0.0 for record in pair)
            missing = [record for record in pair if record.status in NOT_LAUNCHED]
            if study.study and missing:
                study.most, study.ended = len(study.pairs), missing[0].reason
                return
            study.add(*pair[:: _order(case)])

    def _launch(
        self, case: Case, baseline: LaunchSpec, candidate: LaunchSpec
    ) -> tuple[LaunchRecord, LaunchRecord]:
        for spec in self.plan.neighbours(case, candidate):
            self.get(spec)
        launched, other = self.get(candidate), self.get(baseline)
        if other.status == "not_recorded":
            # Earlier versions shared the baseline of all arms for more rounds.
            other = self.get(baseline_of(candidate))
        return other, launched


def _order(case: Case) -> int:
    """The step through a pair of launches, baseline first, that puts first what is held against."""
    return -1 if case.holds_baseline else 1


def stayed(records: Iterable[LaunchRecord]) -> bool:
    """Whether all launches of each seat were made on one host; what was not launched was on
    none.
    """
    hosts: dict[str, str] = {}
    made = [each for each in records if each.host]
    return all(hosts.setdefault(each.spec.seat, each.host) == each.host for each in made)


def drop_target(case: Case, knobs: Knobs) -> float:
    """The largest decode drop that a case may have."""
    return case.knobs(knobs).number(case.drop_knob)


def by_length(case: Case) -> bool:
    """Whether every label is a prompt length, to be judged on its own; real prompts are judged by
    bucket.
    """
    return case.work == "lengths"
