"""The plugin's state in one process: settings, lab, and what plans, schedules and reports."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

import pytest

from pytest_h2o.decode.history import FILE
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.plan.knobs import KnobError, Knobs, misspelt
from pytest_h2o.plan.needs import names_of, parameters
from pytest_h2o.plan.presets import PresetError
from pytest_h2o.plan.relations import RELATIONS
from pytest_h2o.plan.specs import LaunchSpec, launch_names
from pytest_h2o.runs.directory import check_room
from pytest_h2o.runtimes import RuntimeSetupError
from pytest_h2o.session.acceptance import check_suite, narrow
from pytest_h2o.session.conclusion import Conclusion
from pytest_h2o.session.gate import Gate
from pytest_h2o.session.places import runs_directory, session_root
from pytest_h2o.session.planner import Planner, check_builds
from pytest_h2o.session.reporter import Reporter
from pytest_h2o.session.schedule import Schedule
from pytest_h2o.session.settings import Settings, read_settings, rerun_command
from pytest_h2o.session.subject import check_directories, read_subject
from pytest_h2o.session.time_budget import TimeBudget
from pytest_h2o.session.workers import FoundGates, tell


class Session:
    """What gates of this process share; ``parts`` are plugins while it lasts."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.runtime = settings.runtime
        self.knobs = settings.knobs
        self.is_worker = hasattr(config, "workerinput")
        self.root = session_root(config, self.knobs.text("OUT"))
        subject = read_subject(config, settings)
        if subject.recording:
            self.knobs = without_relations(self.knobs)
        history = self.knobs.text("DECODE_BASELINE_HISTORY") or runs_directory(config) / FILE
        self.schedule = Schedule(
            config, self.runtime, self.root, subject.replay, self._planned_names
        )
        self.schedule.budget = TimeBudget(self.knobs.text("H2O_BUDGET"))
        self.lab = Lab(
            self.root, self.knobs, self.schedule.get, settings.prompt_dir,
            combinations=subject.combinations, programs=settings.programs,
            runtime=settings.runtime.name, reports=settings.runtime.capabilities,
            replay=subject.replay, recording=subject.recording, baseline=subject.baseline,
            history=config.invocation_params.dir / history,
        )  # fmt: skip
        self.planner = Planner(config, self.lab, self.runtime, self.schedule)
        title = f"replay of {subject.replay}" if subject.replay else self.runtime.describe()
        self.reporter = Reporter(config, self.lab, title)
        self.conclusion = Conclusion(config, self.reporter)

    @classmethod
    def from_config(cls, config: pytest.Config) -> Session:
        """Read options, environment and ini; raises UsageError naming what is wrong before anything
        is launched.
        """
        check_directories(config)
        check_suite(config)
        settings = read_settings(config)
        replay = config.getoption("h2o_replay")
        try:
            if not replay:
                settings.runtime.check()
            session = cls(config, settings)
            if session.is_worker:
                return session
            if not replay:
                check_room(session.root)
        except (KnobError, PresetError, RecordingError, RuntimeSetupError) as error:
            raise pytest.UsageError(str(error)) from error
        for text in misspelt(os.environ):
            config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)
        return session

    def register(self) -> None:
        """Let the parts take part in the pytest session; what is registered last is called
        first.
        """
        for name, part in self._parts().items():
            self.config.pluginmanager.register(part, name)

    def unregister(self) -> None:
        """Undo :meth:`register`."""
        for part in self._parts().values():
            self.config.pluginmanager.unregister(part)

    def _parts(self) -> dict[str, object]:
        return {
            "h2o-planner": self.planner,
            "h2o-reporter": self.reporter,
            "h2o-schedule": self.schedule,
            "h2o-conclusion": self.conclusion,
        }

    def collect(self, item: pytest.Item) -> None:
        """Remember a test that asks for fixtures of this plugin."""
        self.reporter.collect(item, label_of(item))

    def plan(self, items: list[pytest.Item]) -> None:
        """Learn what the selected tests need; raises UsageError for a baseline that is not
        given.
        """
        if narrowed := narrow(self.config, items):
            self.choose(narrowed)
        self.planner.plan(items)
        if self.is_worker:
            studied = sorted(self.lab.demand.studies)
            tell(self.config, FoundGates(studied, narrowed, self._planned_names()))
        else:
            self.planner.check_baselines(self.lab.demand.studies)
            check_builds(self.config, self.lab)

    def _planned_names(self) -> list[str]:
        return launch_names(self.planner.planned())

    def take_over(self, found: FoundGates) -> None:
        """Lead the gates that an xdist worker found; raises UsageError for what the worker could
        not.
        """
        if found.error:
            raise pytest.UsageError(found.error)
        if found.suite:
            self.choose(found.suite)
        self.planner.check_baselines(found.studied)
        check_builds(self.config, self.lab)
        self.schedule.follow(found.launches)

    def choose(self, suite: str) -> None:
        """Go on as if ``-m SUITE`` had been given, so that all reports speak of that suite."""
        self.config.option.markexpr = suite

    def gate(self, item: pytest.Item) -> Gate:
        """The gate fixture of one test, with the knobs as its case sees them."""
        knobs = self.knobs
        looked_at = [name for name in self.lab.cases if name in set(names_of(item))]
        if len(looked_at) == 1:
            knobs = self.lab.cases[looked_at[0]].knobs(knobs)
        name = getattr(item, "originalname", item.name).removeprefix("test_")
        required = self.config.getoption("h2o_require_evidence")
        rerun = rerun_command(self.config, item)
        return Gate(
            name, label_of(item), knobs, item, rerun, required, lambda: self._hosts_of(looked_at)
        )

    def _hosts_of(self, cases: Collection[str]) -> str:
        """Where the launches of some cases were made, as far as they were."""
        specs: list[LaunchSpec] = []
        if not self.lab.recording:
            for case in map(self.lab.cases.__getitem__, cases):
                specs += self.lab.workload.launches(case)
                specs += [candidate for _, candidate in self.lab.plan.pairs(case, 1)]
        return self.schedule.hosts_of(specs)


def without_relations(knobs: Knobs) -> Knobs:
    """The knobs for launches that something else recorded, which made none for relations."""
    off = dict.fromkeys(RELATIONS.values(), (False, "a recording has none"))
    return replace(knobs, defaults={**knobs.defaults, **off})


def label_of(item: pytest.Item) -> str:
    """What a verdict of this gate is about: its parameter, else its module."""
    values = [str(value) for value in parameters(item).values()]
    return values[0] if values else item.path.stem.removeprefix("test_")
