"""Launches that something else recorded, judged in place of launches of this session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import CANDIDATE, Case, candidate_case, recorded_case
from pytest_h2o.plan.knobs import Knobs, KnobValue
from pytest_h2o.plan.prompts import Prompt, PromptSelection, bucket_of
from pytest_h2o.plan.specs import Work
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, launch_cause, read_launch


class RecordingError(ValueError):
    """A directory holds nothing that can be judged; the message names the file, the cause and the
    next step.
    """


@dataclass(frozen=True)
class Recorded:
    """A launch and the labels of the rows that it must have printed; none where that is unknown."""

    record: LaunchRecord
    labels: tuple[str, ...] = ()

    def read(self, case: str) -> Run:
        """The launch as a run of its own."""
        rows, problems = read_launch(self.record, self.labels)
        cause = launch_cause(self.record, self.labels)
        return Run(case, (self.record,), tuple(rows), tuple(problems), cause)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One recorded case.

    Attributes:
        name: unique in the recording, and printable.
        directory: where its launches, and its offline results, lie.
        baseline: the same work with H2O off, if it lies beside the launches.
        suite: the suite that it was run for; empty where that is not known.
        trouble: why launches or files are missing, in words.
        replicate: its number among repeated cases.
        defaults: knobs as it was judged by what ran it.
    """

    name: str
    directory: Path
    launches: tuple[Recorded, ...]
    baseline: tuple[Recorded, ...] = ()
    suite: str = ""
    trouble: str = ""
    replicate: int = 1
    defaults: Mapping[str, KnobValue] = field(default_factory=dict)

    @property
    def work(self) -> Work:
        """What its launches are."""
        return "prompts" if self.name == CANDIDATE else "lengths"

    def case(self, knobs: Knobs) -> Case:
        """The case that it is."""
        launch = self.launches[0].record.spec if self.launches else None
        return recorded_case(
            self.name,
            knobs,
            launch,
            suite=self.suite,
            replicate=self.replicate,
            defaults=self.defaults,
        )


@dataclass(frozen=True)
class Recording:
    """What a directory recorded; ``unread`` names what lies there and could not be read."""

    directory: Path
    parts: tuple[Part, ...]
    unread: tuple[str, ...] = ()

    def cases(self, knobs: Knobs) -> dict[str, Case]:
        """The recorded cases: those of prompt lengths, and the real prompts."""
        cases = [part.case(knobs) for part in self.parts if part.work == "lengths"]
        prompts = self._by_name.get(CANDIDATE)
        cases.append(candidate_case(knobs, prompts.defaults if prompts else {}))
        return {case.name: case for case in cases}

    def run(self, case: Case) -> Run:
        """The recorded launches of a case."""
        if case.name not in self._runs:
            part = self._by_name.get(case.name)
            missing = f"no such launch in {self.directory}"
            if part and part.trouble and not part.launches:
                missing = part.trouble
            self._runs[case.name] = _joined(case.name, part.launches if part else (), missing)
        return self._runs[case.name]

    def baseline_run(self, case: Case) -> Run | None:
        """The launches with H2O off that lie beside those of a case; None without any."""
        part = self._by_name.get(case.name)
        return _joined(case.name, part.baseline, "") if part and part.baseline else None

    def trouble(self, case: Case) -> str:
        """What is missing of a case; empty where nothing is known to be."""
        part = self._by_name.get(case.name)
        return part.trouble if part else ""

    def launches_of(self, case: Case) -> Run:
        """The launches of a case of that name, else all of its kind of work."""
        part = self._by_name.get(case.name)
        if part:
            return self.run(case)
        alike: list[Recorded] = []
        for part in self.parts:
            if part.work == case.work:
                alike += part.launches
        return _joined(case.name, alike, self._nothing)

    @cached_property
    def prompts(self) -> PromptSelection:
        """The recorded prompts; their texts are not at hand."""
        prompts = []
        for record in self.records:
            path = record.spec.prompt_file
            if path:
                prompts.append(Prompt(path, bucket_of(path.name), record.label))
        return PromptSelection(tuple(prompts), ())

    @property
    def records(self) -> list[LaunchRecord]:
        """The recorded launches, without those of baselines, in the order of their start where
        that is known.
        """
        records: list[LaunchRecord] = []
        for part in self.parts:
            records += [each.record for each in part.launches]
        return sorted(records, key=lambda record: record.started_utc or "")

    @property
    def has_h2o(self) -> bool:
        """Whether any launch had H2O on."""
        return any(record.spec.config.get("kv_h2o_enable") for record in self.records)

    @property
    def _nothing(self) -> str:
        return f"no such launch in {self.directory}"

    @cached_property
    def _by_name(self) -> dict[str, Part]:
        return {part.name: part for part in self.parts}

    @cached_property
    def _runs(self) -> dict[str, Run]:
        return {}


def _joined(case: str, launches: Sequence[Recorded], missing: str) -> Run:
    """Several launches as one run; none at all is a problem of the run."""
    if not launches:
        return Run(case, (), (), (missing,))
    records: list[LaunchRecord] = []
    rows: list[Row] = []
    problems: list[str] = []
    cause = ""
    for each in launches:
        run = each.read(case)
        records += run.launches
        rows += run.rows
        problems += run.problems
        cause = cause or run.cause
    return Run(case, tuple(records), tuple(rows), tuple(problems), cause)
