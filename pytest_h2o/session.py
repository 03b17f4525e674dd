"""The plugin's state in one process: settings, laboratory, progress and, at the end, the reports."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.data import bundled
from pytest_h2o.defaults import defaults_for
from pytest_h2o.gate import Gate
from pytest_h2o.gating import Verdict
from pytest_h2o.knobs import KnobError, Knobs, check_together, parse_assignments, resolve
from pytest_h2o.lab import Lab
from pytest_h2o.parsers.rows import Row
from pytest_h2o.presets import PresetError, combinations, distinct, preset_names
from pytest_h2o.progress import EventFollower, ProgressPrinter, append_event
from pytest_h2o.recordings import Recording, RecordingError, is_own, read_recording
from pytest_h2o.report.files import write_reports
from pytest_h2o.report.pareto import LEGEND, comparison
from pytest_h2o.report.text import aligned, summary_rows
from pytest_h2o.results import read_launch
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import Runtime, RuntimeSetupError, find_runtime
from pytest_h2o.specs import LaunchSpec
from pytest_h2o.suites import Kit, selected

SETUP = ("llm_bench", "llm_demo", "model_config")
STUDIES = {"decode_study", "demo_study", "bucket_study"}
OFFLINE = {"online_sim", "full_eval_sim"}


class Session:
    """Settings and laboratory of this process; registered as a plugin once a gate is collected."""

    def __init__(self, config: pytest.Config, runtime: Runtime, knobs: Knobs) -> None:
        self.config = config
        self.runtime = runtime
        self.knobs = knobs
        self.kit: Kit = config.getoption("h2o_kit")
        self.root = session_root(config, knobs.text("OUT"))
        self.replay = Path(config.getoption("h2o_replay")) if config.getoption("h2o_replay") else None
        self.is_worker = hasattr(config, "workerinput")
        self.verdicts: dict[str, Verdict] = {}
        self.printer = ProgressPrinter(config)
        self.follower: EventFollower | None = None
        self.lab = Lab(
            self.root, knobs, self._get, _prompt_dir(config, knobs), combinations=_combinations(config, knobs),
            replay=self.replay, recording=_recording(self.replay), baseline=_baseline(config),
        )  # fmt: skip

    @classmethod
    def from_config(cls, config: pytest.Config) -> Session:
        """Read options, environment and ini; raises UsageError naming what is wrong before anything is launched."""
        replay = config.getoption("h2o_replay")
        for option in ("replay", "replay-baseline", "resume"):
            given = config.getoption(f"h2o_{option.replace('-', '_')}")
            if given and not Path(given).is_dir():
                raise pytest.UsageError(f"--h2o-{option} {given}: not a directory; give an earlier run directory")
        try:
            assigned, ini = (
                parse_assignments(texts) for texts in (config.getoption("h2o_set"), config.getini("h2o_set"))
            )
            runtime = find_runtime(
                *(config.getoption(name) or assigned.get(name.upper()) for name in SETUP),
                choice=config.getoption("h2o_runtime"),
                ini={name: config.getini(name) or ini.get(name.upper(), "") for name in SETUP},
                directory=config.invocation_params.dir,
            )
            if not replay:
                runtime.check()
            foreign = replay and not is_own(Path(replay))  # what made such a recording is not known
            defaults = defaults_for("" if foreign else runtime.name, config.getoption("h2o_kit"))
            suite = selected(config.getoption("markexpr"))
            knobs = resolve(config.getoption("h2o_set"), os.environ, config.getini("h2o_set"), defaults, suite)
            check_together(knobs)
            return cls(config, runtime, knobs)
        except (KnobError, PresetError, RecordingError, RuntimeSetupError) as error:
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
            self.lab.dumped |= bool(fixtures & OFFLINE)
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
            if rows := self.combinations():
                terminalreporter.section("h2o sweep")
                for line in [*aligned(comparison(rows)), LEGEND]:
                    terminalreporter.write_line(line)
            terminalreporter.write_line(f"run directory: {self.root}")

    def combinations(self) -> dict[str, Row]:
        """What the judged combinations of a sweep showed, by run id; one that was launched as another is left out."""
        store = ReplayStore(self.replay or self.root)
        judged = {verdict.case for verdict in self.verdicts.values()}
        wanted = {spec.arm: spec for spec in distinct(self.lab.combinations).values() if spec.arm in judged}
        records = {run_id: store.peek(spec) for run_id, spec in wanted.items()}
        found = {run_id: read_launch(record)[0] for run_id, record in records.items() if record}
        return {run_id: rows[0] for run_id, rows in found.items() if rows}


def session_root(config: pytest.Config, given: str) -> Path:
    """This session's run directory: given, or named after the time (the controller's in a worker).

    It is made when first needed. Raises :class:`KnobError` if the given one holds launches, which would be taken for
    those of this session.
    """
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["h2o_root"])
    if given:
        root = config.invocation_params.dir / given
        if (root / "launches").exists():
            raise KnobError(f"OUT={given} holds launches; give another directory, and --h2o-resume to take them over")
        return root
    base = config.invocation_params.dir / (config.getoption("h2o_out") or "h2o-runs")
    return base / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"


def _prompt_dir(config: pytest.Config, knobs: Knobs) -> Path:
    given = config.getoption("prompt_dir") or knobs.text("PROMPT_DIR") or config.getini("prompt_dir")
    return config.invocation_params.dir / given if given else bundled("prompts")


def _recording(replay: Path | None) -> Recording | None:
    """What is replayed, unless it is a run directory of this project, whose launches a store finds."""
    return read_recording(replay) if replay and not is_own(replay) else None


def _baseline(config: pytest.Config) -> Recording | None:
    """The recorded run with H2O off that is compared with."""
    given = config.getoption("h2o_replay_baseline")
    if given and not config.getoption("h2o_replay"):
        raise RecordingError("--h2o-replay-baseline belongs to --h2o-replay RUN_DIR")
    return read_recording(Path(given)) if given else None


def _combinations(config: pytest.Config, knobs: Knobs) -> list[LaunchSpec]:
    """The launches of the preset that is asked for; none where no sweep is."""
    name = config.getoption("h2o_preset")
    if name is None and re.search(r"\bsweep\b", config.getoption("markexpr")):
        raise PresetError(f"-m sweep needs --h2o-preset NAME; there are {', '.join(preset_names())}")
    return combinations(name, knobs) if name else []


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
