"""Run directories beside each other, from their ``summary.json``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, table

if TYPE_CHECKING:
    from pytest_h2o.report.comparison import Table

EXAMPLES = """examples:
  pytest-h2o compare h2o-runs/2026-01-31_12-00-00-4711 h2o-runs/latest
  pytest-h2o compare before/ after/ --markdown     tables for a pull request
  pytest-h2o compare before/ after/ --html compared.html

Deltas are of the last run against the first; those of times and speeds are left out where machines
differ.
"""
TITLES = ("what was tested", "outcomes that changed", "values")
NOTHING = ("the same in all that was recorded", "none", "none was measured")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and the format."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="directory of a run, or its summary.json"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a chart too")


def run(arguments: argparse.Namespace) -> int:
    """Print what differs; the outcomes do not change the exit code."""
    from pytest_h2o.report.comparison import compare_runs  # noqa: PLC0415
    from pytest_h2o.report.models import read_summary  # noqa: PLC0415

    if len(arguments.runs) < 2:
        return fail("give at least two runs to compare")
    found = []
    for given in arguments.runs:
        path = given / "summary.json" if given.is_dir() else given
        try:
            found.append(read_summary(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return fail(f"{path}: no summary of a run ({reason}); give a run directory")
    names = short_names(arguments.runs)
    compared = compare_runs(names, found)
    tables = (compared.identity, compared.outcomes, compared.values)
    for title, rows, nothing in zip(TITLES, tables, NOTHING, strict=True):
        print(_section(title, rows, nothing, markdown=arguments.markdown))
    if arguments.html:
        from pytest_h2o.report.comparison_page import comparison_html  # noqa: PLC0415

        page = comparison_html(compared)
        arguments.html.write_text(page, "utf-8", errors="backslashreplace")
    return 0


def short_names(paths: list[Path]) -> list[str]:
    """The last parts of the paths where they tell the runs apart, else numbered."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{number} {path}" for number, path in enumerate(paths, 1)]


def _section(title: str, rows: Table, nothing: str, *, markdown: bool) -> str:
    from pytest_h2o.report.text import markdown_table  # noqa: PLC0415

    body = nothing
    if len(rows) > 1:
        body = markdown_table(rows) if markdown else table(rows)
    return f"### {title}\n\n{body}\n" if markdown else f"{title}\n{body}\n"
