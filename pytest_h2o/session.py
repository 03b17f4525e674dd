"""The plugin's state in one process: settings, laboratory, progress and, at the end, the reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.data import bundled
from pytest_h2o.gate import Gate
from pytest_h2o.gating import Verdict
from pytest_h2o.knobs import KnobError, Knobs, KnobValue, resolve
from pytest_h2o.lab import Lab
from pytest_h2o.progress import EventFollower, ProgressPrinter, append_event
from pytest_h2o.report.files import write_reports
from pytest_h2o.report.text import aligned, summary_rows
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import Runtime, RuntimeSetupError, find_runtime
from pytest_h2o.specs import LaunchSpec

# The embedded runtime prints every metric, so what is optional elsewhere is required of it. It is there to be tried on
# any machine, so its decode studies are short, and one that decides nothing is shown as an expected failure.
EMBEDDED_DEFAULTS: dict[str, KnobValue] = {
    "THREADS": 2,
    "REPEAT": 2,
    "DECODE_TOKENS": 96,
    "DECODE_BUDGET_S": 5.0,
    "DECODE_INCONCLUSIVE": "xfail",
    "MAX_LOSSLESS_ASYNC_WAIT_US": 50_000.0,
    "REQUIRE_ASYNC_QUEUE_ACTIVITY": True,
    "REQUIRE_DECODE_CACHE_ACTIVITY": True,
}
SETUP = ("llm_bench", "llm_demo", "model_config")
STUDIES = {"decode_study", "demo_study", "bucket_study"}


class Session:
    """Settings and laboratory of this process; registered as a plugin once a gate is collected."""

    def __init__(self, config: pytest.Config, runtime: Runtime, knobs: Knobs) -> None:
        self.config = config
        self.runtime = runtime
        self.knobs = knobs
        self.root = session_root(config)
        self.replay = Path(config.getoption("h2o_replay")) if config.getoption("h2o_replay") else None
        self.is_worker = hasattr(config, "workerinput")
        self.verdicts: dict[str, Verdict] = {}
        self.printer = ProgressPrinter(config)
        self.follower: EventFollower | None = None
        self.lab = Lab(self.root, knobs, self._get, _prompt_dir(config))

    @classmethod
    def from_config(cls, config: pytest.Config) -> Session:
        """Read options, environment and ini; raises UsageError naming what is wrong before anything is launched."""
        replay = config.getoption("h2o_replay")
        for option in ("replay", "resume"):
            given = config.getoption(f"h2o_{option}")
            if given and not Path(given).is_dir():
                raise pytest.UsageError(f"--h2o-{option} {given}: not a directory; give an earlier run directory")
        try:
            runtime = find_runtime(
                *(config.getoption(name) for name in SETUP),
                choice=config.getoption("h2o_runtime"),
                ini={name: config.getini(name) for name in SETUP},
                directory=config.invocation_params.dir,
            )
            if not replay:
                runtime.check()
            defaults = EMBEDDED_DEFAULTS if runtime.name == "embedded" else {}
            knobs = resolve(config.getoption("h2o_set"), os.environ, config.getini("h2o_set"), defaults)
            return cls(config, runtime, knobs)
        except (KnobError, RuntimeSetupError) as error:
            raise pytest.UsageError(str(error)) from error

    def describe(self) -> str:
        """One line for the screen: what is tested."""
        return f"replay of {self.replay}" if self.replay else self.runtime.describe()

    def plan(self, items: Sequence[pytest.Item]) -> None:
        """Learn from the selected gates which cases and studies are needed, so that launches can be interleaved."""
        looked_at: set[str] = set()
        studied: set[str] = set()
        for item in items:
            fixtures = set(getattr(item, "fixturenames", ()))
            cases = _cases_of(item, fixtures, self.lab.cases)
            looked_at |= cases
            studied |= cases if fixtures & STUDIES else set()
            self.lab.dumped |= "online_sim" in fixtures
        self.lab.looked_at, self.lab.studied = frozenset(looked_at), frozenset(studied)

    def gate(self, item: pytest.Item) -> Gate:
        """The gate fixture of one test."""
        parameters = _parameters(item)
        label = next(iter(parameters.values()), item.path.stem.removeprefix("test_"))
        case = self.lab.cases.get(parameters.get("bench_case", "candidate"))
        knobs = case.knobs(self.knobs) if case else self.knobs
        return Gate(getattr(item, "originalname", item.name).removeprefix("test_"), label, knobs, item)

    @cached_property
    def _store(self) -> RunStore | ReplayStore:
        if self.replay:
            return ReplayStore(self.replay)
        resume = self.config.getoption("h2o_resume")
        return RunStore(self.root, self.runtime, on_event=self._on_event, previous=Path(resume) if resume else None)

    def _get(self, spec: LaunchSpec) -> LaunchRecord:
        return self._store.get(spec)

    def _on_event(self, kind: str, spec: LaunchSpec, seconds: float) -> None:
        if self.is_worker:
            append_event(self.root, kind, spec.name, seconds)
        else:
            self.printer.show(kind, spec.name, seconds, len(self.lab.planned()))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give an xdist worker this session's run directory, and show the launches that workers make."""
        node.workerinput["h2o_root"] = str(self.root)
        if self.follower is None:
            self.follower = EventFollower(self.root, self.printer)
            self.follower.start()

    def pytest_report_header(self) -> list[str]:
        return [f"h2o: {self.describe()}", f"h2o: run directory {self.root}"]

    def pytest_report_collectionfinish(self) -> str:
        return "h2o: nothing is launched" if self.replay else f"h2o: {len(self.lab.planned())} launches planned"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if report.when == "call" and "gate" in properties:
            self.verdicts[report.nodeid] = Verdict.from_properties(properties)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if self.follower:
            self.follower.stop()
        if self.verdicts and not self.is_worker:
            self.root.mkdir(parents=True, exist_ok=True)
            write_reports(self.root, self.describe(), self.knobs, self.verdicts, self.replay or self.root)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.verdicts and not self.is_worker:
            terminalreporter.section("h2o gates")
            for line in aligned(summary_rows(list(self.verdicts.values()))):
                terminalreporter.write_line(line)
            terminalreporter.write_line(f"run directory: {self.root}")


def session_root(config: pytest.Config) -> Path:
    """This session's run directory, named after the time (the controller's in a worker); made when first needed."""
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["h2o_root"])
    base = config.invocation_params.dir / (config.getoption("h2o_out") or "h2o-runs")
    return base / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"


def _prompt_dir(config: pytest.Config) -> Path:
    given = config.getoption("prompt_dir") or os.environ.get("PROMPT_DIR") or config.getini("prompt_dir")
    return config.invocation_params.dir / given if given else bundled("prompts")


def _parameters(item: pytest.Item) -> dict[str, str]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec else {}


def _cases_of(item: pytest.Item, fixtures: set[str], cases: Sequence[str] | Any) -> set[str]:
    parameters = _parameters(item)
    if "joint" in parameters:
        return {name for name in cases if name.startswith(f"{parameters['joint']}-")}
    if "bench_case" in parameters:
        return {parameters["bench_case"]}
    return {"candidate"} if "demo" in fixtures else set()
