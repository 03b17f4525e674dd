"""Logs and JSON files of ``llm_bench`` -> one CSV file, in a fixed column order."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, note

if TYPE_CHECKING:
    from pytest_h2o.kit.bench_csv import Line
    from pytest_h2o.parsers.rows import Row

    Found = tuple[list[Row], list[str]]  # rows, and what is wrong with the file

EXAMPLES = """examples:
  pytest-h2o parse run/logs -o metrics.csv
  pytest-h2o parse first.log second.md            to stdout
  pytest-h2o parse h2o-runs/*/launches/*/log.md -o all.csv
  pytest-h2o parse report.json -o metrics.csv     what llm_bench wrote with -j
"""
SUFFIXES = {".log", ".md"}
MAX_NOTES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the logs and the output."""
    logs = "a log, a .json file, or a directory of such files"
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help=logs)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.csv", help="write here instead of to stdout"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the CSV; 1 if no log holds a row. What is left out is said on stderr."""
    from pytest_h2o.kit.bench_csv import write_csv  # noqa: PLC0415

    files = log_files(arguments.logs)
    lines = list(read_lines(files))
    if not lines:
        return fail(
            f"no rows in {len(files)} files; give logs that llm_bench wrote with -fp, or its stdout"
        )
    write_csv(lines, arguments.output)
    if arguments.output:
        note(f"{len(lines)} rows written to {arguments.output}")
    return 0


def log_files(paths: Iterable[Path]) -> list[Path]:
    """The paths, a directory replaced by the logs in it (sorted, not those below it), each file
    once.
    """
    found: dict[str, Path] = {}
    for path in paths:
        inside = _logs_in(path) if path.is_dir() else [path]
        if not inside:
            note(f"{path}: holds no *.log or *.md; those of a run are in its launches/*/ or logs/")
        for file in inside:
            found.setdefault(str(file.resolve()), file)
    return list(found.values())


def _logs_in(directory: Path) -> list[Path]:
    """What is called a log there, and what holds a table or results under another name."""
    from pytest_h2o.kit.unclaimed import holds_measurements  # noqa: PLC0415

    found: list[Path] = []
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in SUFFIXES or holds_measurements(path):
            found.append(path)
    return found


def read_lines(files: Iterable[Path]) -> Iterator[Line]:
    """Every row by column, with its ``log_file``; a header is never a row, wherever it is
    repeated.
    """
    from pytest_h2o.parsers.rows import ParseError  # noqa: PLC0415

    for file in files:
        try:
            is_json = file.suffix.lower() == ".json"
            rows, problems = read_json(file) if is_json else read_log(file)
        except ParseError as error:
            note(error)
            continue
        for row in rows:
            problems += row.problems
        for problem in problems[:MAX_NOTES]:
            note(f"{file}: {problem}")
        if len(problems) > MAX_NOTES:
            note(f"{file}: and {len(problems) - MAX_NOTES} more problems")
        for row in rows:
            yield {**row.cells, "log_file": str(file)}


def read_log(file: Path) -> Found:
    """The rows of all tables in a log."""
    from pytest_h2o.parsers.bench_table import read_tables  # noqa: PLC0415

    tables = read_tables(file)
    if not tables:
        return [], ["holds no table"]
    rows: list[Row] = []
    problems: list[str] = []
    for each in tables:
        rows += each.rows
        problems += each.problems
    if not rows:
        return [], ["holds no row of a table"]
    return rows, problems


def read_json(file: Path) -> Found:
    """The results in a JSON file, whose keys are the columns."""
    from pytest_h2o.parsers.bench_json import read_bench_json  # noqa: PLC0415

    rows = list(read_bench_json(file))
    return rows, [] if rows else ["holds no result"]
