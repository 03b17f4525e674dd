"""Logs of ``llm_bench`` -> one CSV file, in the column order of the original kit."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, note

if TYPE_CHECKING:
    from pytest_h2o.parsers.bench_table import Table
    from pytest_h2o.report.bench_csv import Line

EXAMPLES = """examples:
  pytest-h2o parse run/logs -o metrics.csv
  pytest-h2o parse first.log second.md            to stdout
  pytest-h2o parse h2o-runs/*/launches/*/log.md -o all.csv
"""
SUFFIXES = {".log", ".md"}
MAX_NOTES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the logs and the output."""
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a log, or a directory of *.log and *.md")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.csv", help="write here instead of to stdout")


def run(arguments: argparse.Namespace) -> int:
    """Write the CSV; 1 if no log holds a row. What is left out is said on stderr."""
    from pytest_h2o.report.bench_csv import write_csv  # noqa: PLC0415

    files = log_files(arguments.logs)
    lines = list(read_lines(files))
    if not lines:
        return fail(f"no rows in {len(files)} files; give logs that llm_bench wrote with -fp, or its stdout")
    write_csv(lines, arguments.output)
    if arguments.output:
        note(f"{len(lines)} rows written to {arguments.output}")
    return 0


def log_files(paths: Iterable[Path]) -> list[Path]:
    """The paths, a directory replaced by the logs in it (sorted, not those below it), each file once."""
    found: dict[str, Path] = {}
    for path in paths:
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES) if path.is_dir() else [path]
        for file in inside:
            found.setdefault(str(file.resolve()), file)
    return list(found.values())


def read_lines(files: Iterable[Path]) -> Iterator[Line]:
    """Every row of every table by column, with its ``log_file``; a header is never a row, wherever it is repeated."""
    from pytest_h2o.parsers.bench_table import read_tables  # noqa: PLC0415
    from pytest_h2o.parsers.rows import ParseError  # noqa: PLC0415

    for file in files:
        try:
            tables = read_tables(file)
        except ParseError as error:
            note(error)
            continue
        for problem in problems_of(tables):
            note(f"{file}: {problem}")
        yield from ({**row.cells, "log_file": str(file)} for table in tables for row in table.rows)


def problems_of(tables: Sequence[Table]) -> list[str]:
    """What is wrong with a file, cut to a few lines."""
    if not any(table.rows for table in tables):
        return ["holds no row of a table" if tables else "holds no table"]
    problems = [problem for table in tables for problem in table.problems]
    problems += [problem for table in tables for row in table.rows for problem in row.problems]
    rest = len(problems) - MAX_NOTES
    return problems[:MAX_NOTES] + ([f"and {rest} more problems"] if rest > 0 else [])
