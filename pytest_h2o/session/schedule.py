"""How the launches of a session are made: once, whichever process asks for them, and seen by the
user.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest

from pytest_h2o.plan.seats import kind_of
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.report.text import clean
from pytest_h2o.runs.hosts import HostsGoneError
from pytest_h2o.runs.hosts_file import HOSTS_FILE, read_hosts
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import Runtime
from pytest_h2o.runtimes.placement import PlacedRuntime
from pytest_h2o.session.forecast import Forecast, Lanes, earlier_seconds, maker_of
from pytest_h2o.session.places import runs_directory
from pytest_h2o.session.progress import (
    ENDING,
    EventFollower,
    EventReader,
    ProgressPrinter,
    append_event,
)
from pytest_h2o.session.time_budget import TimeBudget
from pytest_h2o.session.workers import processes_of

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
        if not self.is_worker:  # an earlier session may have left its own
            (root / HOSTS_FILE).unlink(missing_ok=True)
        hosts = runtime.hosts if isinstance(runtime, PlacedRuntime) else {}
        self.forecast = Forecast(Lanes.of(hosts, processes_of(config)))
        self.budget = TimeBudget("")
        self.printer = ProgressPrinter(config, self.forecast)
        self.events = EventReader(root)
        self.follower: EventFollower | None = None
        self._store: RunStore | ReplayStore | None = None
        self.session: pytest.Session | None = None

    # No property: some versions of pytest read every attribute of a plugin that is registered.
    def store(self) -> RunStore | ReplayStore:
        """Where the launches are kept, or were kept by an earlier session; made on first use."""
        if self._store is None:
            self._store = self._opened()
        return self._store

    def _opened(self) -> RunStore | ReplayStore:
        if self.replay:
            return ReplayStore(self.replay)
        resume = self.config.getoption("h2o_resume")
        previous = Path(resume) if resume else None
        return RunStore(self.root, self.runtime, on_event=self._show, previous=previous)

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        """The record of a launch, made on first use while there is time for it; the session ends
        where no host is left.
        """
        if not self._in_time(spec):
            self._show("late", spec, 0.0)
            paths = standard_paths(self.root)
            reason = self.budget.used_up
            return LaunchRecord(spec=spec, status="out_of_time", reason=reason, **paths)
        try:
            return self.store().get(spec)
        except HostsGoneError as error:
            why = clean(error)
        if self.session:
            self.session.shouldstop = why  # of a worker: xdist stops the others as well
        pytest.fail(why, pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.session = item.session

    def _in_time(self, spec: LaunchSpec) -> bool:
        """Whether a launch costs nothing, or is expected to end in time."""
        if self.budget.limit_s is None:
            return True
        store = self.store()
        if isinstance(store, ReplayStore) or store.costs_nothing(spec):
            return True
        if self.is_worker:
            for event in self.events.new():
                if event["kind"] in ENDING:
                    self.forecast.ended(event["name"], event["seconds"])
        return self.budget.allows(spec.name, self.forecast)

    def hosts_of(self, specs: Iterable[LaunchSpec]) -> str:
        """Where launches were made, as far as they were: ``pixel: a, b``; empty for this
        machine.
        """
        if self._store is None:
            return ""
        found: dict[str, list[str]] = {}
        for record in map(self._store.peek, specs):
            if record and record.host:
                found.setdefault(kind_of(record.spec.seat), []).append(record.host)
        parts = []
        for kind, names in found.items():
            listed = ", ".join(sorted(set(names)))
            parts.append(f"{kind}: {listed}" if kind else listed)
        return "; ".join(parts)

    def _show(self, kind: str, spec: LaunchSpec, seconds: float) -> None:
        if self.is_worker:
            append_event(self.root, kind, spec.name, seconds)
            return
        if not self.forecast.total:
            self.expect(self.planned())
        self.printer.show(kind, spec.name, seconds)

    def expect(self, names: Collection[str]) -> None:
        """Learn what is planned, and how long that took before."""
        runs = runs_directory(self.config)
        forecast = self.forecast
        before = earlier_seconds(runs, self.root, maker_of(self.runtime), names, forecast.lanes)
        forecast.expect(names, before)

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
        if not self.is_worker:
            for line in read_hosts((self.replay or self.root) / HOSTS_FILE).trouble:
                terminalreporter.write_line(clean(line), yellow=True)
        unfinished = exitstatus not in DONE or self.printer.late
        if unfinished and (self.root / "launches").is_dir() and not self.is_worker:
            root = shlex.quote(str(self.root))
            terminalreporter.write_line(
                clean(f"not everything was judged; to go on, add --h2o-resume {root}")
            )
