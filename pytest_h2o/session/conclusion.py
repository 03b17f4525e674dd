"""The last lines on the screen: how the session ended, its report, how to run it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_h2o.report.github import failure_commands, step_summary
from pytest_h2o.report.groups import BAD
from pytest_h2o.report.junit import settle
from pytest_h2o.report.page import outcome
from pytest_h2o.report.text import LONG, clean, command_line, escaped, shown_path
from pytest_h2o.session.reporter import Reporter

SHOWN_LEFT = 10


class Conclusion:
    """Speaks when everything else has, for the gates that ``reporter`` collected."""

    def __init__(self, config: pytest.Config, reporter: Reporter) -> None:
        self.config = config
        self.reporter = reporter

    # After pytest has written the JUnit file, and before it speaks.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        yield
        if self.reporter.is_worker or not self.reporter.verdicts:
            return
        try:
            self._settle_junit()
            self._tell_github()
        except Exception as error:  # the file of pytest's own is there, and the verdicts stand
            self.reporter.unwritten = clean(f"NOT ALL REPORTS ARE WRITTEN: {error}", LONG)

    def _settle_junit(self) -> None:
        given = self.config.getoption("xmlpath", None)
        if not given:
            return
        named = Path(os.path.expandvars(given)).expanduser()
        path = self.config.invocation_params.dir / named
        if path.is_file():
            settle(path, keep_properties=self.config.getini("h2o_junit_properties"))

    def _tell_github(self) -> None:
        document = self.reporter.document
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if document and summary:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(escaped(step_summary(document)))

    # Around pytest's own, so that the outcome comes below everything else.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        if self.reporter.is_worker:
            return
        if self.reporter.verdicts:
            self._warn(terminalreporter)
            self._conclude(terminalreporter)
        elif self.reporter.judged_nothing:
            text = (
                f"No acceptance: no gate found anything to judge in {self.reporter.lab.replay}; "
                "select another suite (-m), or none"
            )
            terminalreporter.write_line(clean(text, LONG), bold=True, red=True)

    def _warn(self, terminal: pytest.TerminalReporter) -> None:
        left = self.reporter.left
        for text in left[:SHOWN_LEFT]:
            terminal.write_line(clean(f"NOT JUDGED: {text}", LONG), red=True)
        if left:
            terminal.write_line(
                f"{len(left)} recorded launches or files that no gate judged: nothing is "
                "accepted; select their suites too, or replay their directory alone",
                red=True,
            )
        if late := self._late():
            terminal.write_line(clean(late, LONG), yellow=True)
        if self.reporter.unwritten:
            terminal.write_line(self.reporter.unwritten, red=True)

    def _late(self) -> str:
        """Which gates there was no time for."""
        late: list[str] = []
        for nodeid, verdict in self.reporter.verdicts.items():
            if "the time of H2O_BUDGET=" in verdict.reason:
                late.append(nodeid.rpartition("::test_")[2])
        if not late:
            return ""
        names = ", ".join(late[:SHOWN_LEFT])
        if len(late) > SHOWN_LEFT:
            names += f" and {len(late) - SHOWN_LEFT} more"
        return f"undecided for want of time: {len(late)} gates: {names}"

    def _conclude(self, terminal: pytest.TerminalReporter) -> None:
        document, root = self.reporter.document, self.reporter.root
        accepted = bool(document and document.overall_pass and not self.reporter.unwritten)
        text = outcome(document) if document else "Not accepted: there is no record of it"
        failed = any(each.outcome in BAD for each in self.reporter.verdicts.values())
        color = "red" if failed or not document else "yellow"
        if accepted:
            color = "green"
        terminal.write_line(text, bold=True, **{color: True})
        if document and os.environ.get("GITHUB_ACTIONS") == "true":
            for line in failure_commands(document):
                terminal.write_line(line)
        report = root / "report.html"
        if not report.is_file():
            report = root
        terminal.write_line(f"report {shown_path(report)}")
        terminal.write_line(f"rerun {clean(self._rerun())}")

    def _rerun(self) -> str:
        """The command that repeats what did not pass, or all of it."""
        bad = [each.rerun for each in self.reporter.verdicts.values() if each.outcome in BAD]
        if len(bad) == 1 and bad[0]:
            return bad[0]
        words = ["pytest", *map(str, self.config.invocation_params.args)]
        if bad and self.config.pluginmanager.has_plugin("lfplugin"):
            words.append("--lf")
        return command_line(words)
