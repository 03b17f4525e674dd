"""What all tests begin with, and the score of the sabotage suite, from test reports, which workers
send as well.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

settings.register_profile(
    "any machine", deadline=None
)  # examples take as long as the neighbours let them
settings.load_profile("any machine")
# What a fault was looked for in.
SIDES = {"columns": "with all columns", "lines": "with what a real build prints"}


def pytest_configure() -> None:
    """Let tests press Ctrl-C: in the background of a script it is ignored, also by all that is
    started.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many saboteurs were caught, and how many the original's rules would have."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    scores = [value for name, value in properties if name == "sabotage"]
    gates, original = (
        {k: v for each in scores for k, v in each[rules].items()} for rules in ("gates", "original")
    )
    if gates:
        missed = ", ".join(name for name, caught in gates.items() if not caught)
        terminalreporter.section("sabotage")
        terminalreporter.write_line(
            f"saboteurs caught: {_of(gates)}" + (f" (missed: {missed})" if missed else "")
        )
        terminalreporter.write_line(f"original rules: {_of(original)}")
    live: dict[str, dict[str, bool]] = {}
    for name, value in properties:
        if name == "live":
            live.update(value)
    if live:
        terminalreporter.section("engines with a fault")
        for side, title in SIDES.items():
            seen = {fault: caught[side] for fault, caught in live.items() if side in caught}
            missed = ", ".join(fault for fault, caught in seen.items() if not caught)
            terminalreporter.write_line(f"{title}: {_of(seen)} ({missed or 'none'} missed)")


def _of(caught: dict[str, bool]) -> str:
    return f"{sum(caught.values())} of {len(caught)}"
