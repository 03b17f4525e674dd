"""Collects sessions of pytest one after the other in this process, whose imports they share.

Reads a JSON list of argument lists from standard input; prints a JSON list of what each came to:
exit status and how many tests it would run.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

import pytest


class Selected:
    """Counts what a session would run."""

    def __init__(self) -> None:
        self.count = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.count = len(session.items)


def collect(arguments: list[str]) -> tuple[int, int, str]:
    """Exit status, number of tests, and what was printed where that is not 0."""
    seen = Selected()
    printed = io.StringIO()
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = pytest.main([*arguments, *options], plugins=[seen])
    return int(status), seen.count, printed.getvalue()[-600:] if status else ""


if __name__ == "__main__":
    json.dump([collect(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
