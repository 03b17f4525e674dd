"""The summary of an earlier run directory, from its ``summary.json``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_h2o.commands import fail, table

if TYPE_CHECKING:
    from pytest_h2o.verdict import Verdict

EXAMPLES = """examples:
  pytest-h2o report h2o-runs/2026-01-31_12-00-00-4711
"""
SIZE_LIMIT = 64 * 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run directory."""
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="directory of a run, or its summary.json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table of gates and the outcome; 1 if there is no readable summary, whatever the
    outcome was.
    """
    from pytest_h2o.report.text import clean, headline, summary_rows  # noqa: PLC0415

    path = arguments.run_dir / "summary.json" if arguments.run_dir.is_dir() else arguments.run_dir
    if not path.exists() and (arguments.run_dir / "launches").is_dir():
        steps = "--h2o-resume goes on with its launches, --h2o-replay judges them"
        return fail(f"{arguments.run_dir}: nothing was judged before the run ended; {steps}")
    try:
        document = read_summary(path)
        title, verdicts = clean(document["title"]), [verdict_of(gate) for gate in document["gates"]]
        suite, left = clean(document.get("suite", "")), len(document.get("not_judged", ()))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        )
        return fail(
            f"{path}: no summary of a run ({reason}); give the directory that the run named at "
            f"its end"
        )
    print(title)
    print(table(summary_rows(verdicts)))
    print(headline(verdicts, accepted=document["overall_pass"], suite=suite, left=left))
    return 0


def read_summary(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; raises OSError or ValueError."""
    with path.open("rb") as file:
        document = json.loads(file.read(SIZE_LIMIT))
    if not isinstance(document, dict) or not isinstance(document.get("overall_pass"), bool):
        raise ValueError("it does not say whether the run passed")
    if not isinstance(document.get("gates"), list):
        raise ValueError("it lists no gates")
    return document


def verdict_of(gate: object) -> Verdict:
    """A verdict from its JSON object; raises ValueError, TypeError or OverflowError if it is
    none.
    """
    from pytest_h2o.report.text import WORDS  # noqa: PLC0415
    from pytest_h2o.verdict import Verdict  # noqa: PLC0415

    if not isinstance(gate, dict) or gate.get("outcome") not in WORDS:
        raise ValueError("a gate without outcome")
    numbers = {
        name: None if gate.get(name) is None else float(gate[name])
        for name in ("value", "target", "margin")
    }
    texts = {field.name for field in fields(Verdict)} - {"outcome", "rows", *numbers}
    return Verdict.from_properties(
        {"outcome": gate["outcome"], **numbers, **{name: str(gate.get(name, "")) for name in texts}}
    )
