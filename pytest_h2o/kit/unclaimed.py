"""What launches left in a directory and none that is known claims: it is named, never left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pytest_h2o.kit.layouts import BASELINE, DEMO_HEAD, TABLE_HEAD, TRANSCRIPT, baseline_in
from pytest_h2o.kit.transcripts import MARK
from pytest_h2o.lab.recordings import Recorded
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.parsers.text_files import decoded

OUTPUTS = (
    "log.md", "stdout", "*.stdout", "*.metrics.jsonl", "logs/*.stdout", "logs/*.stdout.log",
)  # fmt: skip
# By any other name, in these folders; logs are called so, or rotated.
LOG_FOLDERS = ("", "logs")
LOG_NAMES = re.compile(r"[^.]+|.*\.(?:log|txt|out|md|mkd|text|[0-9]+)", re.IGNORECASE)
# What is printed of whole packs, and what is written about them.
NO_LOGS = re.compile(r"readme.*|.*summary\.md|.*report\.md|.*console.*|.*stderr.*", re.IGNORECASE)
HEAD_BYTES = 64 * 1024
_LAUNCHED = re.compile(rf"^{re.escape(MARK.decode())}\S", re.MULTILINE)


def unclaimed(directory: Path, sides: Sequence[str], read: Collection[Path]) -> Iterator[str]:
    """What stands in a directory, or in its folders ``sides``, and is not among what was ``read``,
    as resolved paths.
    """
    for path in dict.fromkeys(_outputs(directory, sides)):
        if not path.is_dir() and path.resolve() not in read:
            yield f"{path} is of no launch that is known"


def _outputs(directory: Path, sides: Sequence[str]) -> Iterator[Path]:
    for name in ("", *sides):
        for pattern in OUTPUTS:
            yield from sorted((directory / name).glob(pattern))
        for folder in LOG_FOLDERS:
            yield from _logs_by_content(directory / name / folder)


def _logs_by_content(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_log = LOG_NAMES.fullmatch(path.name) and not NO_LOGS.fullmatch(path.name)
        if is_log and path.is_file() and not _is_transcript_of(path) and _tells_of_launches(path):
            yield path


def _is_transcript_of(path: Path) -> bool:
    """Whether it is read with a directory's launches, or with their baseline."""
    owner = path.name.removesuffix("_stdout.log")
    beside = {BASELINE, baseline_in(path.parent)}
    return path.name == TRANSCRIPT or (owner in beside and (path.parent / owner).is_dir())


def _tells_of_launches(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            text = decoded(file.read(HEAD_BYTES))
    except OSError:
        return False
    return any(shape.search(text) for shape in (TABLE_HEAD, DEMO_HEAD, _LAUNCHED))


def earlier_tables(path: Path) -> list[str]:
    """The tables above the one that counts, if they differ: programs append."""
    try:
        tables = list(read_tables(path))
    except ParseError:
        return []  # the gates say so
    contents: list[list[dict[str, str]]] = []
    for table in tables:
        contents.append([dict(row.cells) for row in table.rows])
    if all(cells == contents[-1] for cells in contents):
        return []
    count = len(tables)
    return [f"{path} holds {count} tables, and the last alone is judged; give each its own file"]


def named_twice(launches: Sequence[Recorded]) -> Iterator[str]:
    """The tables of a case that are said to be those of several launches, so that nobody knows
    whose they are.
    """
    tables = Counter(each.record.table for each in launches)
    for path, count in tables.items():
        if count > 1 and path.is_file():
            yield f"{path} is named by {count} launches; name each once, with a file of its own"
