"""pytest's list of failures: every cause once, with what the launch behind it said last."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import pytest

from pytest_h2o.pytest_private import add_failure_section, print_once, show_failure_as
from pytest_h2o.report.groups import by_cause, tightest
from pytest_h2o.report.models import GateVerdict
from pytest_h2o.report.outputs import tail_of
from pytest_h2o.report.screen import needed_by
from pytest_h2o.report.text import clean, failure_table, wrapped
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause
from pytest_h2o.verdict import Verdict


def fold(
    config: pytest.Config, verdicts: Mapping[str, Verdict], records: Sequence[LaunchRecord]
) -> None:
    """Leave one failure of each cause in the list, and say what else is of that cause."""
    judged = [GateVerdict.of(nodeid, verdict) for nodeid, verdict in verdicts.items()]
    repeated: set[str] = set()
    columns = screen_of(config)
    for verdict in judged if columns else ():
        show_failure_as(config, verdict.nodeid, failure_table(verdict, columns))
    for group in by_cause(judged):
        first = tightest(group)
        if not first.cause:  # each value that misses its target is a failure of its own
            continue
        others = list(group)
        others.remove(first)
        repeated.update(verdict.nodeid for verdict in others)
        if others:
            named = needed_by(others)
            text = "\n".join(wrapped(named, columns)) if columns else named
            add_failure_section(config, first.nodeid, _more(len(others)), text)
        for record in records:
            if launch_cause(record) == first.cause:
                _show(config, first.nodeid, record)
                break
    print_once(config, repeated, verdicts.keys())


def screen_of(config: pytest.Config) -> int:
    """How wide the screen is; 0 where the output goes elsewhere, in whole lines."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    is_screen = getattr(terminal, "isatty", False)
    return config.get_terminal_writer().fullwidth if is_screen else 0


def _more(count: int) -> str:
    return "1 more gate needs this" if count == 1 else f"{count} more gates need this"


def _show(config: pytest.Config, nodeid: str, record: LaunchRecord) -> None:
    """What a launch that left nothing to judge said last, and the command that repeats it."""
    if tail := tail_of(record):
        add_failure_section(config, nodeid, f"last output of {clean(record.name, 60)}", tail)
    if record.argv:
        by_hand = f"cd {shlex.quote(str(record.directory))} && {shlex.join(record.argv)}"
        add_failure_section(config, nodeid, "by hand", clean(by_hand, 20_000))
