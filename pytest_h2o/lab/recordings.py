"""Launches that something else recorded, judged in place of launches of this session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from pytest_h2o.plan.cases import Case, candidate_case, recorded_case
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.prompts import Prompt, PromptSelection, bucket_of
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


@dataclass(frozen=True)
class Recording:
    """What a directory recorded."""

    directory: Path
    launches: tuple[Recorded, ...]

    @property
    def name(self) -> str:
        """The name of the directory, which is also that of the case without real prompts."""
        return self.directory.name

    def cases(self, knobs: Knobs) -> dict[str, Case]:
        """The recorded cases: one of the launches of prompt lengths, if there are any, and
        the real prompts.
        """
        specs = [record.spec for record in self.records if record.spec.work == "lengths"]
        cases = [recorded_case(self.name, knobs, specs[0])] if specs else []
        cases.append(candidate_case(knobs))
        return {case.name: case for case in cases}

    def run(self, case: Case) -> Run:
        """The recorded launches of a case's kind of work."""
        if case.name not in self._runs:
            launches = [each for each in self.launches if each.record.spec.work == case.work]
            self._runs[case.name] = _joined(case.name, launches, self.directory)
        return self._runs[case.name]

    @cached_property
    def prompts(self) -> PromptSelection:
        """The recorded prompts; their texts are not at hand."""
        files = [record.spec.prompt_file for record in self.records]
        prompts = [Prompt(path, bucket_of(path.name), path.stem) for path in files if path]
        return PromptSelection(tuple(prompts), ())

    @property
    def records(self) -> list[LaunchRecord]:
        """The recorded launches."""
        return [each.record for each in self.launches]

    @property
    def has_h2o(self) -> bool:
        """Whether any launch had H2O on."""
        return any(record.spec.config.get("kv_h2o_enable") for record in self.records)

    @cached_property
    def _runs(self) -> dict[str, Run]:
        return {}


def _joined(case: str, launches: Sequence[Recorded], directory: Path) -> Run:
    """Several launches as one run; none at all is a problem of the run."""
    if not launches:
        return Run(case, (), (), (f"no such launch in {directory}",))
    runs = [each.read(case) for each in launches]
    records = chain.from_iterable(run.launches for run in runs)
    rows = chain.from_iterable(run.rows for run in runs)
    problems = chain.from_iterable(run.problems for run in runs)
    causes = [run.cause for run in runs if run.cause]
    cause = causes[0] if causes else ""
    return Run(case, tuple(records), tuple(rows), tuple(problems), cause)
