"""The summary of an earlier run directory, from its ``summary.json``."""

from __future__ import annotations

import argparse
from pathlib import Path
from shutil import get_terminal_size

from pytest_h2o.commands import fail

EXAMPLES = """examples:
  pytest-h2o report h2o-runs/2026-01-31_12-00-00-4711
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run directory."""
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="directory of a run, or its summary.json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table of gates and the outcome; 1 if there is no readable summary, whatever the
    outcome was.
    """
    from pytest_h2o.report.models import read_summary  # noqa: PLC0415
    from pytest_h2o.report.screen import session_lines  # noqa: PLC0415
    from pytest_h2o.report.text import clean, headline  # noqa: PLC0415

    path = arguments.run_dir / "summary.json" if arguments.run_dir.is_dir() else arguments.run_dir
    if not path.exists() and (arguments.run_dir / "launches").is_dir():
        steps = "--h2o-resume goes on with its launches, --h2o-replay judges them"
        return fail(f"{arguments.run_dir}: nothing was judged before the run ended; {steps}")
    try:
        document = read_summary(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return fail(
            f"{path}: no summary of a run ({reason}); give the directory that the run named at "
            f"its end"
        )
    print(clean(document.title))
    columns = get_terminal_size().columns
    print("\n".join(session_lines(document.gates, columns, color=False)))
    left = len(document.not_judged)
    accepted, suite = document.overall_pass, clean(document.suite)
    print(headline(document.gates, accepted=accepted, suite=suite, left=left))
    return 0
