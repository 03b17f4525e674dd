"""What the history of decode speeds holds: the samples of a rolling baseline."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, table

if TYPE_CHECKING:
    from pytest_h2o.decode.history import Entry

EXAMPLES = """examples:
  pytest-h2o baseline           the history of this directory's run directories
  pytest-h2o baseline history.jsonl --window 8
  pytest-h2o baseline --json    every entry, with what identifies its machine and model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file, the window and ``--json``."""
    parser.add_argument(
        "history",
        nargs="?",
        type=Path,
        metavar="FILE.jsonl",
        help="default: DECODE_BASELINE_HISTORY, else in h2o-runs",
    )
    parser.add_argument(
        "--window", type=int, default=8, metavar="N", help="latest sessions that count (default: 8)"
    )
    parser.add_argument("--json", action="store_true", help="print the entries that can be read")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per key, machine, model and settings; 1 if there is no entry."""
    from dataclasses import asdict  # noqa: PLC0415

    from pytest_h2o.decode.history import FILE, read_history  # noqa: PLC0415

    path = arguments.history or Path(
        os.environ.get("DECODE_BASELINE_HISTORY") or Path("h2o-runs") / FILE
    )
    if arguments.window < 1:
        return fail("--window: expected at least 1")
    entries = list(read_history(path))
    if not entries:
        return fail(f"{path}: no entries; a session appends one for each case whose gates pass")
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        print(table(rows(entries, arguments.window)))
    return 0


def rows(entries: Iterable[Entry], window: int) -> list[tuple[str, ...]]:
    """Header and one row per group of entries that may be compared: count, passed, latest, median
    of the window.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        machine, model, settings = map(entry.identity.get, ("machine", "model", "settings"))
        same = (entry.key, machine or "", model or "", settings or "")
        groups.setdefault(same, []).append(entry)
    lines: list[tuple[str, ...]] = [
        ("key", "settings", "case", "entries", "passed", "latest", "median", "machine")
    ]
    for (key, machine, _, settings), group in groups.items():
        passed = [entry.decode_best for entry in group if entry.overall_pass]
        middle = f"{median(passed[-window:]):.4g} tok/s" if passed else "-"
        latest = f"{group[-1].decode_best:.4g} tok/s"
        lines.append(
            (
                key,
                settings,
                group[-1].case,
                str(len(group)),
                str(len(passed)),
                latest,
                middle,
                machine,
            )
        )
    return lines
