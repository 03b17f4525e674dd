"""What this plugin needs of pytest and has no public way to, all of it in one place.

``tests/plugin/test_pytest_private.py`` fails where a version of pytest keeps it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest


def fixture_functions(item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """The function of every fixture that a test uses, by name; a direct parameter has none."""
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return {}
    found: dict[str, Callable[..., Any]] = {}
    for name, definitions in info.name2fixturedefs.items():
        if definitions:
            found[name] = definitions[-1].func
    return found


def undeclared_names(config: pytest.Config) -> Iterable[str]:
    """The names that the ini file sets, those that nobody declared included."""
    # pytest 9 has the first of these, older ones the second.
    values = vars(config)
    return list(values["_inicfg"] if "_inicfg" in values else values["inicfg"])


def add_junit_property(config: pytest.Config, name: str, text: str) -> None:
    """Add a property to the test suite in the JUnit file, if one is written."""
    # The fixture record_testsuite_property ends before a session does.
    for plugin in config.pluginmanager.get_plugins():
        if add := getattr(plugin, "add_global_property", None):
            add(name, text)


def write_past_capture(config: pytest.Config, text: str) -> None:
    """Write a line to the screen while a test runs, whose output pytest captures."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or capture is None:
        return
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(text)
        reporter.flush()


def print_once(
    config: pytest.Config, repeated: Collection[str], concluded: Collection[str]
) -> None:
    """Leave failed tests whose failure another one shows as well out of pytest's lists of
    failures, and the short list out where all are ``concluded`` elsewhere; they count as before.
    """
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    failed = terminal.stats.get("failed", [])
    for report in failed:
        if report.nodeid in repeated:
            # How pytest marks what a debugger has shown already.
            report._pdbshown = True
    others = {report.nodeid for report in failed} - set(concluded)
    if not others and config.option.reportchars == "fE":  # nobody asked for the list
        terminal.reportchars = terminal.reportchars.replace("f", "")


def show_failure_as(config: pytest.Config, nodeid: str, text: str) -> None:
    """Print a text where pytest would print the failure of a test, whose record stays as it is."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    for report in terminal.stats.get("failed", []) if terminal else []:
        if report.nodeid == nodeid:
            report.longrepr = text


def add_failure_section(config: pytest.Config, nodeid: str, title: str, text: str) -> None:
    """Show a text below the failure of a test, in pytest's list of failures."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    for report in terminal.stats.get("failed", []) if terminal else []:
        if report.nodeid == nodeid:
            report.sections.append((title, text))
