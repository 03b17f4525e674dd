"""The session's laboratory: turns what gates ask for into launches, each made once, and hands out
what they showed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.lab.case_runs import launched, part_of
from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.lab.measuring import Budget, PairMeasuring, Store
from pytest_h2o.lab.recorded_pairs import recorded_baseline, study_of_rows
from pytest_h2o.lab.recordings import Recording
from pytest_h2o.lab.workload import Workload
from pytest_h2o.plan.cases import Case, baseline_of
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.prompts import PromptSelection
from pytest_h2o.plan.specs import LaunchSpec, Work
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launches
from pytest_h2o.runtimes import programs_by_work
from pytest_h2o.runtimes.base import CAPABILITIES, Capability
from pytest_h2o.runtimes.programs import BOTH
from pytest_h2o.verdict import NO_H2O


@dataclass
class Lab:
    """Everything gates need: cases, launches, decode studies, prompts.

    ``demand`` is what the selected gates need. It is known before the first launch, so that the
    launches of all arms can be interleaved. ``combinations`` are those of a sweep. ``programs``
    says what is launched for each kind of work, ``reports`` what ``runtime`` can tell. A
    ``recording`` takes the place of all launches, with what was recorded in ``baseline`` to compare
    its decode speed with; ``replay`` is the directory of any earlier run that is judged again.
    ``history`` is the file with the decode speeds of earlier sessions.
    """

    root: Path
    knobs: Knobs
    get: Store
    prompt_dir: Path
    combinations: Sequence[LaunchSpec] = ()
    programs: Mapping[Work, str] = field(default_factory=lambda: programs_by_work(BOTH))
    runtime: str = "embedded"
    reports: Collection[Capability] = frozenset(CAPABILITIES)
    replay: Path | None = None
    recording: Recording | None = None
    baseline: Recording | None = None
    history: Path | None = None
    demand: Demand = field(default_factory=Demand)
    _runs: dict[str, Run] = field(default_factory=dict)
    _studies: dict[tuple[str, str], PairedStudy] = field(default_factory=dict)

    @cached_property
    def workload(self) -> Workload:
        """What can be launched, or was recorded."""
        return Workload(
            self.knobs,
            self.prompt_dir,
            self.combinations,
            self.recording,
            programs=self.programs,
            reports=self.reports,
            unseen_dir=self.root / "unseen_prompts",
        )

    @property
    def plan(self) -> LaunchPlan:
        """What of it the selected gates need."""
        return LaunchPlan(self.workload, self.demand)

    @property
    def cases(self) -> Mapping[str, Case]:
        """Every case by name."""
        return self.workload.cases

    @property
    def prompts(self) -> PromptSelection:
        """The real prompts that the knobs select, and what was wrong with the others."""
        return self.workload.prompts

    @property
    def buckets(self) -> list[str]:
        """The buckets of the selected prompts, in order."""
        return self.workload.buckets

    def run(self, name: str, bucket: str = "") -> Run:
        """The launches of a case, or of its prompts in one bucket, made on first use; ValueError
        for another name.
        """
        if name not in self.cases:
            raise ValueError(f"there is no case {name}; there are {', '.join(self.cases)}")
        if self.recording:
            return part_of(self.recording.run(self.cases[name]), self._labels(bucket))
        if name not in self._runs:
            case, no_h2o = self.cases[name], self.lacks("h2o_columns")
            self._runs[name] = launched(self.plan, self.get, case, no_h2o)
        return part_of(self._runs[name], self._labels(bucket))

    def baseline_run(self, name: str, bucket: str = "") -> Run:
        """The launches of the same work with H2O off, made on first use."""
        case, labels = self.cases[name], self._labels(bucket)
        if self.recording:
            return recorded_baseline(
                self.recording, self.baseline, case, lambda run: part_of(run, labels)
            )
        records = [self.get(baseline_of(spec)) for spec in self.workload.launches(case)]
        return part_of(read_launches(name, records), labels)

    def baseline_mode(self, name: str) -> str:
        """What the decode speed of a case is held against."""
        return self.workload.baseline_mode(name)

    def shares_study(self, name: str) -> bool:
        """Whether the repeats of a case are compared in the same pairs, so that one verdict says
        all.
        """
        return not self.recording and self.baseline_mode(name) == "paired"

    def study(self, name: str, bucket: str = "") -> PairedStudy:
        """Measure candidate against baseline in pairs until a planned look decides, or the cap is
        reached.

        The buckets of a case are measured together.
        """
        if (name, bucket) not in self._studies:
            case = self.cases[name]
            if self.recording:
                baseline, run = self.baseline_run(name, bucket), self.run(name, bucket)
                found = {bucket: study_of_rows(baseline, run, case, self.knobs)}
            else:
                family = list(dict.fromkeys((*self.buckets, bucket))) if bucket else [""]
                found = PairMeasuring(self.plan, self.get, self._budget).measure(case, family)
            for each, study in found.items():
                self._studies[name, each] = study
        return self._studies[name, bucket]

    def screened(self, name: str) -> PairedStudy | None:
        """The first pairs of a case if they are enough: where none of them looks slow."""
        return PairMeasuring(self.plan, self.get, self._budget).screened(self.cases[name])

    def quality(self) -> LaunchRecord | None:
        """The launch that predicts a held-out text; None where it is turned off, in a recording,
        or where the runtime cannot tell.
        """
        records = [self.get(spec) for spec in self.workload.quality_launches()]
        return records[0] if records else None

    def lacks(self, capability: Capability) -> str:
        """Why a gate cannot be judged that needs ``capability``; empty where launches report it."""
        if capability in self.reports:
            return ""
        if "kv_quant" in self.reports and "h2o_columns" not in self.reports:
            return NO_H2O
        what = CAPABILITIES[capability]
        return f"the runtime {self.runtime} does not report {what}, which this gate needs"

    def texts(self, name: str) -> tuple[LaunchRecord, LaunchRecord]:
        """The launches that predict a held-out text: with plain KV, and as a case has it."""
        baseline, candidate = self.workload.text_launches(self.cases[name])
        return self.get(baseline), self.get(candidate)

    def reading(self, get: Store) -> Lab:
        """This laboratory over a store that launches nothing."""
        return replace(self, get=get, _runs={}, _studies={})

    @cached_property
    def _budget(self) -> Budget:
        return Budget(self.knobs.number("DECODE_BUDGET_S"))

    def _labels(self, bucket: str) -> list[str] | None:
        """The labels of a bucket's launches; None of no bucket, where all count."""
        return self.workload.labels(bucket) if bucket else None


def seen_from(lab: Lab, kind: str) -> Lab:
    """A laboratory whose dumps, held-out texts and relations are those of a kind of host."""
    found = copy(lab)
    found.workload = lab.workload.on(kind)
    return found
