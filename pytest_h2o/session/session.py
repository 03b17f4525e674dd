"""The plugin's state in one process: settings, laboratory, progress and, at the end, the
reports.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from pytest_h2o.decode.history import FILE
from pytest_h2o.kit.files import write_kit_reports
from pytest_h2o.lab.decode import keep_history
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.recordings import Recording, RecordingError, is_own, read_recording
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.knobs import KNOBS, NEEDS_BASELINE, KnobError, misspelt
from pytest_h2o.plan.presets import PresetError, combinations, distinct, preset_names
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.suites import CASE_PARTS, Kit, composed, is_gate
from pytest_h2o.report.files import judged_summary, write_reports
from pytest_h2o.report.judged import Judged
from pytest_h2o.report.pareto import LEGEND, comparison
from pytest_h2o.report.text import LONG, aligned, clean, fitted, summary_rows
from pytest_h2o.runs.directory import check_room, point_latest
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import Runtime, RuntimeSetupError
from pytest_h2o.session.gate import Gate, suites_of
from pytest_h2o.session.progress import EventFollower, ProgressPrinter, append_event
from pytest_h2o.session.settings import Settings, ini_values, read_settings, rerun_command
from pytest_h2o.verdict import Verdict

STUDIES = {"decode_study", "demo_study", "bucket_study"}
COLLECTED = "h2o_collected"
# How sessions end in which every selected gate was judged, if it was not -x that ended them.
DONE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
# What a preset decides, so that setting it for a sweep would be recorded and change nothing.
DECIDED = ("PROMPTS", "GENS", "REPEAT", *(knob.name for knob in KNOBS.values() if knob.key))
TYPED = "command line"
OFFLINE = {"online_sim", "full_eval_sim", "upper_bound"}


class Session:
    """Settings and laboratory of this process; registered as a plugin once a gate is collected."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.runtime = settings.runtime
        self.knobs = settings.knobs
        self.kit: Kit = config.getoption("h2o_kit")
        self.root = session_root(config, self.knobs.text("OUT"))
        self.replay = _settled(Path(given)) if (given := config.getoption("h2o_replay")) else None
        self.is_worker = hasattr(config, "workerinput")
        self.unwritten = ""
        self.failed: set[str] = set()
        self.verdicts: dict[str, Verdict] = {}
        self.collected: dict[str, tuple[str, str]] = {}
        self.printer = ProgressPrinter(config)
        self.follower: EventFollower | None = None
        history = self.knobs.text("DECODE_BASELINE_HISTORY") or _base(config) / FILE
        self.lab = Lab(
            self.root, self.knobs, self._get, settings.prompt_dir, combinations=_combinations(config, settings),
            programs=settings.programs, reports=settings.runtime.capabilities,
            replay=self.replay, recording=_recording(config, self.replay), baseline=_baseline(config),
            history=config.invocation_params.dir / history,
        )  # fmt: skip

    @classmethod
    def from_config(cls, config: pytest.Config) -> Session:
        """Read options, environment and ini; raises UsageError naming what is wrong before anything
        is launched.
        """
        replay = config.getoption("h2o_replay")
        for option in ("replay", "replay-baseline", "resume"):
            given = config.getoption(f"h2o_{option.replace('-', '_')}")
            if given and not Path(given).is_dir():
                raise pytest.UsageError(
                    f"--h2o-{option} {given}: not a directory; give an earlier run directory"
                )
        settings = read_settings(config)
        for text in [] if hasattr(config, "workerinput") else misspelt(os.environ):
            config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)
        try:
            if not replay:
                settings.runtime.check()
            session = cls(config, settings)
            if not replay and not session.is_worker:
                check_room(session.root)
            return session
        except (KnobError, PresetError, RecordingError, RuntimeSetupError) as error:
            raise pytest.UsageError(str(error)) from error

    def describe(self) -> str:
        """One line for the screen: what is tested."""
        return f"replay of {self.replay}" if self.replay else self.runtime.describe()

    def plan(self, items: Sequence[pytest.Item]) -> None:
        """Learn from the selected gates which cases and studies are needed, so that launches can be
        interleaved.
        """
        looked_at: set[str] = set()
        studied: set[str] = set()
        compared: set[str] = set()
        for item in items:
            fixtures = set(getattr(item, "fixturenames", ()))
            cases = _cases_of(item, fixtures, self.lab.cases)
            looked_at |= cases
            studied |= cases if fixtures & STUDIES else set()
            compared |= cases if "demo_baseline" in fixtures else set()
            self.lab.dumped |= bool(fixtures & OFFLINE)
            self.lab.scored |= "quality" in fixtures
        self.lab.looked_at, self.lab.studied = frozenset(looked_at), frozenset(studied)
        self.lab.compared = frozenset(compared)
        if not self.is_worker:
            self._check_baselines(studied)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Check in the controller what a worker is to run: an error in the worker would be xdist's
        own.
        """
        studied = (
            name
            for name in self.lab.cases
            if any(each.endswith(f"::test_decode_drop[{name}]") for each in ids)
        )
        self._check_baselines(studied)

    def _check_baselines(self, studied: Iterable[str]) -> None:
        """Raise UsageError if the decode speed of a case is to be held against a number that is not
        given.
        """
        for name in studied if not (self.replay or self.knobs.is_given("DECODE_BASELINE")) else ():
            if self.lab.baseline_mode(name) == "fixed":
                raise pytest.UsageError(
                    f"the decode gate of {name} {NEEDS_BASELINE}{_left_out(name)}"
                )

    def gate(self, item: pytest.Item) -> Gate:
        """The gate fixture of one test."""
        demo = "candidate" if "demo" in getattr(item, "fixturenames", ()) else ""
        case = self.lab.cases.get(_parameters(item).get("bench_case", demo))
        knobs = case.knobs(self.knobs) if case else self.knobs
        name = getattr(item, "originalname", item.name).removeprefix("test_")
        required = self.config.getoption("h2o_require_evidence")
        return Gate(name, label_of(item), knobs, item, rerun_command(self.config, item), required)

    @cached_property
    def _store(self) -> RunStore | ReplayStore:
        if self.replay:
            return ReplayStore(self.replay)
        resume = self.config.getoption("h2o_resume")
        return RunStore(
            self.root,
            self.runtime,
            on_event=self._on_event,
            previous=Path(resume) if resume else None,
        )

    @cached_property
    def _planned(self) -> list[LaunchSpec]:
        """The launches that the collected gates need; asked for once they are collected."""
        return self.lab.planned()

    def _get(self, spec: LaunchSpec) -> LaunchRecord:
        return self._store.get(spec)

    def _on_event(self, kind: str, spec: LaunchSpec, seconds: float) -> None:
        if self.is_worker:
            append_event(self.root, kind, spec.name, seconds)
        else:
            self.printer.show(kind, spec.name, seconds, len(self._planned))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give an xdist worker this session's run directory, and show the launches that workers
        make.
        """
        node.workerinput["h2o_root"] = str(self.root)
        node.workerinput["h2o_ini"] = ini_values(self.config)
        node.workerinput["h2o_inipath"] = str(self.config.inipath or "")
        if self.follower is None:
            self.follower = EventFollower(self.root, self.printer)
            self.follower.start()

    def pytest_report_header(self) -> list[str]:
        return [f"h2o: {clean(self.describe())}", f"h2o: run directory {clean(self.root)}"]

    def pytest_report_collectionfinish(self) -> list[str]:
        if self.replay:
            return ["h2o: nothing is launched"]
        number = len(self._planned)  # of gates that ship; others ask for theirs as they run
        lines = (
            [f"h2o: at least {number} launch{'' if number == 1 else 'es'} planned"]
            if number
            else []
        )
        if keys := overridden_keys(self.runtime, self._planned):
            lines.append(
                f"h2o: the launches replace these keys of the model config: "
                f"{clean(', '.join(keys))}"
            )
        return lines

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "call" and "gate" in properties:
            self.verdicts[report.nodeid] = Verdict.from_properties(properties)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Put a gate into the suites that are made up of others, and remember it, selected or
        not.
        """
        if not is_gate(item):
            return
        for suite in composed({mark.name for mark in item.iter_markers()}, self.kit, self.knobs.on):
            item.add_marker(suite)
        self.collected[item.nodeid] = (label_of(item), suites_of(item))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what an xdist worker collected."""
        self.collected |= {
            nodeid: tuple(pair)
            for nodeid, pair in getattr(node, "workeroutput", {}).get(COLLECTED, [])
        }

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.is_worker:
            self.config.workeroutput[COLLECTED] = list(self.collected.items())  # type: ignore[attr-defined]
        if self.follower:
            self.follower.stop()
        if self.verdicts and not self.is_worker:
            try:
                broken = (self.failed & self.collected.keys()) - self.verdicts.keys()
                self._write_reports(complete=not broken and session.exitstatus in DONE)
            except OSError as error:
                self.unwritten = f"NOT ALL REPORTS ARE WRITTEN: {error.strerror}"
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        # A replay holds no launches: the last session that does stays the one to judge again, or to
        # go on with.
        launched = self.root.is_dir() and not self.replay
        if launched and self.root.parent == _base(self.config) and not self.is_worker:
            point_latest(self.root)

    def _write_reports(self, *, complete: bool) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        store = ReplayStore(self.replay or self.root)
        tolerated = self.knobs["DECODE_INCONCLUSIVE"] != "fail"
        whole = not self._parts_collected()
        judged = Judged(
            self.verdicts, self.collected, self.lab.reading(store.get), tolerated, complete, whole
        )
        records = self.lab.recording.records if self.lab.recording else store.records()
        expression = self.config.getoption("markexpr")
        document = judged_summary(
            self.describe(), judged, expression, records, kit=self.kit, root=self.root
        )
        if junit := self.config.stash.get(xml_key, None):
            for name, text in document.properties().items():
                junit.add_global_property(name, text)
        write_reports(self.root, document, records)
        write_kit_reports(self.root, judged, expression, document.title)
        if complete and whole and not self.replay:
            keep_history(judged.lab, self.verdicts.values(), self.root, judged.unfinished)

    def _parts_collected(self) -> bool:
        """Whether gates of a suite were collected from less than whole directories, so that others
        are not known.
        """
        directory = self.config.invocation_params.dir
        whole = all((directory / word).is_dir() for word in self.config.args)
        left_out = any(
            self.config.getoption(name, None) for name in ("lf", "ignore", "ignore_glob")
        )
        return any(suites for _, suites in self.collected.values()) and (left_out or not whole)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        if self.verdicts and not self.is_worker:
            terminalreporter.section("h2o gates")
            columns = self.config.get_terminal_writer().fullwidth
            for line in fitted(summary_rows(list(self.verdicts.values()), LONG), columns):
                terminalreporter.write_line(line)
            if rows := self.combinations():
                terminalreporter.section("h2o sweep")
                for line in [*aligned(comparison(rows)), LEGEND]:
                    terminalreporter.write_line(line)
            if self.unwritten:
                terminalreporter.write_line(self.unwritten, red=True)
            terminalreporter.write_line(f"run directory: {clean(self.root)}")
        if self.printer.reused:
            resume = self.config.getoption("h2o_resume")
            terminalreporter.write_line(
                clean(f"launches taken over from {resume}: {self.printer.reused}")
            )
        if exitstatus not in DONE and (self.root / "launches").is_dir() and not self.is_worker:
            root = shlex.quote(str(self.root))
            terminalreporter.write_line(
                clean(f"not everything was judged; to go on, add --h2o-resume {root}")
            )

    def combinations(self) -> dict[str, Row]:
        """What the judged combinations of a sweep showed, by run id; one that was launched as
        another is left out.
        """
        store = ReplayStore(self.replay or self.root)
        judged = {verdict.case for verdict in self.verdicts.values()}
        wanted = {
            spec.arm: spec
            for spec in distinct(self.lab.combinations).values()
            if spec.arm in judged
        }
        records = {run_id: store.peek(spec) for run_id, spec in wanted.items()}
        found = {run_id: read_launch(record)[0] for run_id, record in records.items() if record}
        return {run_id: rows[0] for run_id, rows in found.items() if rows}


def session_root(config: pytest.Config, given: str) -> Path:
    """This session's run directory: given, or named after the time (the controller's in a worker).

    It is made when first needed. Raises :class:`KnobError` if the given one holds launches, which
    would be taken for those of this session.
    """
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["h2o_root"])
    if given:
        root = config.invocation_params.dir / given
        if (root / "launches").exists():
            raise KnobError(
                f"OUT={given} holds launches; give another directory, and --h2o-resume to take "
                f"them over"
            )
        return root
    root = _base(config) / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"
    later = (
        root.with_name(f"{root.name}-{number}") for number in count(2)
    )  # sessions of one process and second
    return next(path for path in chain([root], later) if not path.exists())


def _settled(path: Path) -> Path:
    """``path``, or what it points to if it is a link such as ``latest``, which may point elsewhere
    tomorrow.
    """
    return path.resolve() if path.is_symlink() else path


def _left_out(case: str) -> str:
    """How the part of an acceptance that a case makes up is left out."""
    return "".join(f"; {knob}=0 leaves it out" for knob, part in CASE_PARTS.items() if part == case)


def _base(config: pytest.Config) -> Path:
    """Where run directories are kept."""
    return config.invocation_params.dir / (config.getoption("h2o_out") or "h2o-runs")


def overridden_keys(runtime: Runtime, specs: Sequence[LaunchSpec]) -> list[str]:
    """The keys of the user's base config that any of the launches gives another value."""
    with suppress(RuntimeSetupError):
        return sorted({key for spec in specs for key in runtime.command(spec, Path()).overridden})
    return []


def _recording(config: pytest.Config, replay: Path | None) -> Recording | None:
    """What is replayed, unless it is a run directory of this project, whose launches a store
    finds.
    """
    own = replay and is_own(replay, sweep=bool(config.getoption("h2o_preset")))
    return read_recording(replay) if replay and not own else None


def _baseline(config: pytest.Config) -> Recording | None:
    """The recorded run with H2O off that is compared with."""
    given = config.getoption("h2o_replay_baseline")
    if given and not config.getoption("h2o_replay"):
        raise RecordingError("--h2o-replay-baseline belongs to --h2o-replay RUN_DIR")
    return read_recording(Path(given)) if given else None


def _combinations(config: pytest.Config, settings: Settings) -> list[LaunchSpec]:
    """The launches of the preset that is asked for; none where no sweep is."""
    knobs = settings.knobs
    name = config.getoption("h2o_preset")
    if name is None and re.search(r"\bsweep\b", config.getoption("markexpr")):
        raise PresetError(
            f"-m sweep needs --h2o-preset NAME; there are {', '.join(preset_names())}"
        )
    specs = combinations(name, knobs, settings.programs.get("lengths", "")) if name else []
    if idle := [
        knob
        for knob in DECIDED
        if specs and knobs.suite == "sweep" and knobs.with_source(knob)[1] == TYPED
    ]:
        raise PresetError(
            f"{', '.join(idle)} on the command line: decided by the preset {name}; correct it there"
        )
    return specs


def label_of(item: pytest.Item) -> str:
    """What a verdict of this gate is about: its parameter, else its module."""
    return next(iter(_parameters(item).values()), item.path.stem.removeprefix("test_"))


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
