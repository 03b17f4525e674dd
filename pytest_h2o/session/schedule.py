"""How the launches of a session are made: once, whichever process asks for them, and seen by the
user.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path

import pytest

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.report.text import clean
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import Runtime
from pytest_h2o.session.forecast import Forecast, earlier_seconds
from pytest_h2o.session.places import runs_directory
from pytest_h2o.session.progress import EventFollower, ProgressPrinter, append_event
from pytest_h2o.session.time_budget import TimeBudget

# How sessions end in which every selected gate was judged, if it was not -x that ended them.
DONE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


class Schedule:
    """The launches of this process, in a store that xdist workers share.

    ``planned`` gives the names of the launches that are planned, for the screen.
    """

    def __init__(
        self,
        config: pytest.Config,
        runtime: Runtime,
        root: Path,
        replay: Path | None,
        planned: Callable[[], Collection[str]],
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.root = root
        self.replay = replay
        self.planned = planned
        self.is_worker = hasattr(config, "workerinput")
        self.forecast = Forecast()
        self.budget = TimeBudget("")
        self.printer = ProgressPrinter(config, self.forecast)
        self.follower: EventFollower | None = None

    @cached_property
    def store(self) -> RunStore | ReplayStore:
        """Where the launches are kept, or were kept by an earlier session."""
        if self.replay:
            return ReplayStore(self.replay)
        resume = self.config.getoption("h2o_resume")
        previous = Path(resume) if resume else None
        return RunStore(self.root, self.runtime, on_event=self._show, previous=previous)

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        """The record of a launch, made on first use while there is time for it."""
        store = self.store
        if isinstance(store, ReplayStore) or store.costs_nothing(spec):
            return store.get(spec)
        if self.budget.allows(spec.name, self.forecast):
            return store.get(spec)
        self._show("late", spec, 0.0)
        paths = standard_paths(self.root)
        return LaunchRecord(spec=spec, status="out_of_time", reason=self.budget.used_up, **paths)

    def _show(self, kind: str, spec: LaunchSpec, seconds: float) -> None:
        if self.is_worker:
            if kind == "end":
                self.forecast.ended(spec.name, seconds)
            append_event(self.root, kind, spec.name, seconds)
            return
        if not self.forecast.total:
            self.expect(self.planned())
        self.printer.show(kind, spec.name, seconds)

    def expect(self, names: Collection[str]) -> None:
        """Learn what is planned, and how long that took before."""
        runs = runs_directory(self.config)
        self.forecast.expect(
            names, earlier_seconds(runs, self.root, self.runtime.describe(), names)
        )

    def follow(self, names: Collection[str]) -> None:
        """Show the launches that xdist workers make."""
        if self.follower is None:
            self.expect(names)
            self.follower = EventFollower(self.root, self.printer)
            self.follower.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if self.follower:
            self.follower.stop()

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        if self.printer.reused:
            resume = self.config.getoption("h2o_resume")
            terminalreporter.write_line(
                clean(f"launches taken over from {resume}: {self.printer.reused}")
            )
        unfinished = exitstatus not in DONE or self.printer.late
        if unfinished and (self.root / "launches").is_dir() and not self.is_worker:
            root = shlex.quote(str(self.root))
            terminalreporter.write_line(
                clean(f"not everything was judged; to go on, add --h2o-resume {root}")
            )
