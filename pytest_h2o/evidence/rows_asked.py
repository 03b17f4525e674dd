"""Did a launch print the rows that its options ask for? Lists of values against the columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_h2o.evidence.look import Look
from pytest_h2o.metrics import BY_BENCH
from pytest_h2o.parsers.argv_options import LENGTHS, behind_program, options_of, without_files
from pytest_h2o.verdict import Evidence

ROWS = "the rows are those that were asked for"
# Columns that hold the values of an option as it was given.
COLUMNS = {"-t": "threads", "-a": "backend"}
# Cells that name the row, and those that hold speeds.
LABELS = {"llm_demo", "test", "speed(tok/s)", "t/s"}
_UNIT = re.compile(r"\([^)]*\)$")


def described(look: Look) -> dict[str, str]:
    """The cells of a table that are neither measurements nor labels."""
    if look.row.kind != "bench":
        return {}
    return {name: cell for name, cell in look.row.cells.items() if not is_measured(name, cell)}


def is_measured(name: str, cell: str) -> bool:
    """Whether a cell holds what was measured: known by name, with a spread, or with a unit in its
    header.
    """
    known = name in LABELS or name in BY_BENCH
    return known or "±" in cell or _UNIT.search(name) is not None


def values_asked(look: Look, option: str) -> list[str]:
    """The values of an option in the launch's argv, in capitals; none where it has no such
    option.
    """
    if not look.record.argv:
        return []
    value = options_of(behind_program(look.record.argv, look.record.program)).get(option, "")
    return value.upper().split(",") if value else []


def rows_as_asked(looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs argv and launches with several rows: each list of values makes as many kinds of rows,
    which a column must tell apart.
    """
    launches: dict[str, list[Look]] = {}
    for look in looks:
        launches.setdefault(str(look.record.stdout), []).append(look)
    for own in launches.values():
        first = own[0]
        if first.alone or not first.record.argv:
            continue
        given = options_of(behind_program(first.record.argv, first.record.program))
        for option in without_files(given):
            values = list(dict.fromkeys(values_asked(first, option)))
            if len(values) > 1 and option not in LENGTHS:
                yield _told_apart(own, option, values)


def _told_apart(own: Sequence[Look], option: str, values: Sequence[str]) -> Evidence:
    asked = f"{option} {','.join(values).lower()}"
    name = COLUMNS.get(option, "")
    if name and all(name in look.row.cells for look in own):
        cells = [look.row.cells[name].upper() for look in own]
        text = f"{name} is {', '.join(dict.fromkeys(cells))}, asked for {asked}"
        return own[0].says(ROWS, set(cells) == set(values) and _evenly(cells), text)
    for column in described(own[0]):
        cells = [look.row.cells.get(column, "").upper() for look in own]
        if len(set(cells)) == len(values) and _evenly(cells):
            return own[0].says(ROWS, True, f"{column} tells the rows of {asked} apart")
    text = f"no column tells the rows of {asked} apart ({own[0].name})"
    return Evidence(claim=ROWS, standing="not evidenced", text=text)


def _evenly(cells: Sequence[str]) -> bool:
    """Whether each value is there as often as any other."""
    return len(set(Counter(cells).values())) == 1
