"""The last lines on the screen: how the session ended, where its report lies, how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from pytest_h2o.report.groups import BAD
from pytest_h2o.report.page import outcome
from pytest_h2o.report.text import LONG, clean
from pytest_h2o.session.reporter import Reporter

SHOWN_LEFT = 10


class Conclusion:
    """Speaks when everything else has, for the gates that ``reporter`` collected."""

    def __init__(self, config: pytest.Config, reporter: Reporter) -> None:
        self.config = config
        self.reporter = reporter

    # Around pytest's own, so that the outcome comes below everything else.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        if self.reporter.verdicts and not self.reporter.is_worker:
            self._warn(terminalreporter)
            self._conclude(terminalreporter)

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
        if self.reporter.unwritten:
            terminal.write_line(self.reporter.unwritten, red=True)

    def _conclude(self, terminal: pytest.TerminalReporter) -> None:
        document, root = self.reporter.document, self.reporter.root
        accepted = bool(document and document.overall_pass and not self.reporter.unwritten)
        text = outcome(document) if document else "Not accepted: there is no record of it"
        failed = any(each.outcome in BAD for each in self.reporter.verdicts.values())
        color = "green" if accepted else "red" if failed or not document else "yellow"
        terminal.write_line(text, bold=True, **{color: True})
        report = root / "report.html"
        terminal.write_line(f"report {clean(report if report.is_file() else root)}")
        terminal.write_line(f"rerun {clean(self._rerun())}")

    def _rerun(self) -> str:
        """The command that repeats what did not pass, or all of it."""
        bad = [each.rerun for each in self.reporter.verdicts.values() if each.outcome in BAD]
        if len(bad) == 1 and bad[0]:
            return bad[0]
        words = ["pytest", *map(str, self.config.invocation_params.args)]
        if bad and self.config.pluginmanager.has_plugin("lfplugin"):
            words.append("--lf")
        return shlex.join(words)
