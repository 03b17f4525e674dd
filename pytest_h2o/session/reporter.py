"""What was collected and judged, and the reports of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.decode.history import Entry, read_history
from pytest_h2o.kit.run_files import write_kit_reports
from pytest_h2o.kit.versions import Kit, composed
from pytest_h2o.lab.decode import history_entries, keep_history
from pytest_h2o.lab.lab import Lab
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.needs import is_gate
from pytest_h2o.plan.presets import distinct
from pytest_h2o.pytest_private import add_junit_property
from pytest_h2o.report.background import Background, gate_meanings, offline_layers
from pytest_h2o.report.files import judged_summary, write_reports
from pytest_h2o.report.groups import BAD
from pytest_h2o.report.judged import Judged
from pytest_h2o.report.models import Summary
from pytest_h2o.report.pareto import LEGEND, comparison
from pytest_h2o.report.screen import session_lines
from pytest_h2o.report.text import LONG, aligned, clean, shown_path, wrapped
from pytest_h2o.runs.directory import point_latest
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.session.failures import fold, screen_of
from pytest_h2o.session.gate import suites_of
from pytest_h2o.session.places import runs_directory
from pytest_h2o.session.schedule import DONE
from pytest_h2o.verdict import NO_H2O, Verdict

COLLECTED = "h2o_collected"


class Reporter:
    """Collects the verdicts of this process and its workers, and writes the reports at the end.

    ``title`` says what is tested.
    """

    def __init__(self, config: pytest.Config, lab: Lab, title: str) -> None:
        self.config = config
        self.lab = lab
        self.title = title
        self.root = lab.root
        self.kit: Kit = config.getoption("h2o_kit")
        self.is_worker = hasattr(config, "workerinput")
        self.unwritten = ""
        self.left: list[str] = []
        self.document: Summary | None = None
        self.records: Sequence[LaunchRecord] = ()
        self.failed: set[str] = set()
        self.without_h2o: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.collected: dict[str, tuple[str, str]] = {}

    def collect(self, item: pytest.Item, label: str) -> None:
        """Put a gate into the suites that are made up of others, and remember it, selected or
        not.
        """
        if not is_gate(item):
            return
        marks = {mark.name for mark in item.iter_markers()}
        for suite in composed(marks, self.kit, self.lab.knobs.on):
            item.add_marker(suite)
        self.collected[item.nodeid] = (label, suites_of(item))

    def pytest_report_header(self) -> list[str]:
        lines = [f"h2o: {clean(self.title)}", f"h2o: run directory {shown_path(self.root)}"]
        columns = screen_of(self.config)
        if not columns:
            return lines
        return list(chain.from_iterable(wrapped(line, columns) for line in lines))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "call" and "gate" in properties:
            self.verdicts[report.nodeid] = Verdict.from_properties(properties)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Of the gates of a suite that fail since the program has no H2O, one is shown at
        length.
        """
        properties = dict(report.user_properties)
        if report.when != "call" or not report.failed or properties.get("cause") != NO_H2O:
            return None
        first = self.without_h2o.setdefault(str(properties["suites"]), report.nodeid)
        return None if first == report.nodeid else ("without H2O", "F", "FAILED")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what an xdist worker collected."""
        output = getattr(node, "workeroutput", {})
        for nodeid, pair in output.get(COLLECTED, []):
            self.collected[nodeid] = tuple(pair)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.is_worker:
            self.config.workeroutput[COLLECTED] = list(self.collected.items())  # type: ignore[attr-defined]
            return
        # Whatever goes wrong here, the JUnit file, the verdicts on the screen and the exit status
        # are still to come. A user's filter that makes errors of warnings is for tests.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._finish(complete=session.exitstatus in DONE)
                fold(self.config, self.verdicts, self.records)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.strerror:
                why = error.strerror
            self.unwritten = clean(f"NOT ALL REPORTS ARE WRITTEN: {why}", LONG)
        if self.unwritten or self.left or self.judged_nothing:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @property
    def judged_nothing(self) -> bool:
        """Whether a recording was to be judged, and no gate had anything to judge of it."""
        listed = self.config.option.collectonly or self.config.getoption("h2o_plan")
        return bool(self.lab.replay and self.collected and not self.verdicts and not listed)

    def _finish(self, *, complete: bool) -> None:
        if self.verdicts:
            broken = (self.failed & self.collected.keys()) - self.verdicts.keys()
            self._write(complete=complete and not broken)
        # A replay holds no launches: the last session that does stays the one to judge again, or to
        # go on with.
        launched = self.root.is_dir() and not self.lab.replay
        if launched and self.root.parent == runs_directory(self.config):
            point_latest(self.root)

    # Before the schedule has its say on how to go on.
    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.verdicts or self.is_worker:
            return
        terminalreporter.write_sep("=", "h2o gates")
        writer = self.config.get_terminal_writer()
        shown = shown_on_screen(self.verdicts.values(), self.config.get_verbosity())
        for line in session_lines(shown, writer.fullwidth, color=writer.hasmarkup):
            terminalreporter.write_line(line)
        if rows := swept_rows(self.lab, self.verdicts):
            terminalreporter.write_sep("=", "h2o sweep")
            for line in aligned(comparison(rows)):
                terminalreporter.write_line(line)
            terminalreporter.write_line(LEGEND)

    def _write(self, *, complete: bool) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        store = ReplayStore(self.lab.replay or self.root)
        tolerated = self.lab.knobs["DECODE_INCONCLUSIVE"] != "fail"
        suites = [suites for _, suites in self.collected.values()]
        whole = not parts_collected(self.config, suites)
        lab = self.lab.reading(store.get)
        judged = Judged(self.verdicts, self.collected, lab, tolerated, complete, whole)
        self.left = judged.launches_left
        records = lab.recording.records if lab.recording else store.records()
        self.records = records
        expression = self.config.getoption("markexpr")
        document = judged_summary(
            self.title, judged, expression, records, kit=self.kit, root=self.root
        )
        self.document = document
        for name, text in document.properties().items():
            add_junit_property(self.config, name, text)
        is_new = complete and whole and not lab.replay
        own: list[Entry] = []
        if is_new:
            own = history_entries(lab, self.verdicts.values(), self.root, judged.unfinished)
        background = page_background(lab, self.verdicts, self.config.rootpath, own)
        write_reports(self.root, document, records, background)
        write_kit_reports(self.root, judged, expression, document.title)
        if is_new:
            keep_history(lab, self.verdicts.values(), self.root, judged.unfinished)


def shown_on_screen(verdicts: Iterable[Verdict], verbosity: int) -> list[Verdict]:
    """The verdicts that the screen shows: with ``-q`` those that did not pass."""
    if verbosity >= 0:
        return list(verdicts)
    return [verdict for verdict in verdicts if verdict.outcome in BAD]


def parts_collected(config: pytest.Config, suites: Iterable[str]) -> bool:
    """Whether gates of ``suites`` were collected from less than whole directories, so that others
    are not known.
    """
    directory = config.invocation_params.dir
    whole = all((directory / word).is_dir() for word in config.args)
    narrowing = ("lf", "ignore", "ignore_glob")
    left_out = any(config.getoption(name, None) for name in narrowing)
    return any(suites) and (left_out or not whole)


def page_background(
    lab: Lab, verdicts: Mapping[str, Verdict], project: Path, own: Sequence[Entry]
) -> Background:
    """What the page says beyond the verdicts; ``own`` are this session's speeds."""
    history: list[Entry] = []
    if lab.history:
        history = list(chain(read_history(lab.history), own))
    cases = {verdict.case for verdict in verdicts.values()}
    return Background(
        history=[entry for entry in history if entry.case in cases],
        window=lab.knobs.integer("DECODE_BASELINE_ROLLING_WINDOW"),
        offline=offline_layers(verdicts.values()),
        meanings=gate_meanings(project, verdicts),
    )


def swept_rows(lab: Lab, verdicts: Mapping[str, Verdict]) -> dict[str, Row]:
    """What the judged combinations of a sweep showed, by run id; one that was launched as another
    is left out.
    """
    store = ReplayStore(lab.replay or lab.root)
    judged = {verdict.case for verdict in verdicts.values()}
    found: dict[str, Row] = {}
    for spec in distinct(lab.combinations).values():
        record = store.peek(spec) if spec.arm in judged else None
        rows = read_launch(record)[0] if record else []
        if rows:
            found[spec.arm] = rows[0]
    return found
