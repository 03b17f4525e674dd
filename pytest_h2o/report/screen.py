"""A session on a terminal: one row per gate, failing cases below theirs, and every cause once.

rich is imported when the first table is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from pytest_h2o.metrics import quantity
from pytest_h2o.report.groups import (
    BAD,
    ORDER,
    by_cause,
    by_gate,
    conclusion,
    hints,
    not_off,
    tightest,
)
from pytest_h2o.report.text import WORDS, clean, verdict_row, wrapped
from pytest_h2o.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "skipped": "dim"}
# What is shown, and what of it, with which gap, on narrower screens.
COLUMNS = ("", "gate", "cases", "tightest", "value", "required", "margin", "evidence")
FEWER = ("", "gate", "cases", "value", "required", "margin")
CHOICES = (
    (COLUMNS, 2),
    (COLUMNS[:-1], 2),
    (FEWER, 2),
    (FEWER, 1),
    (("", "gate", "value", "required", "margin"), 1),
)
NUMERIC = ("cases", "value", "margin")
WIDEST = 10_000
SHOWN_GATES, SHOWN_CASES = 12, 3
REASON = 600


def session_lines(verdicts: Sequence[Verdict], columns: int, *, color: bool) -> list[str]:
    """All between the section's title and the outcome: table, causes, doubts, what is off."""
    lines = table_lines(verdicts, columns, color=color)
    for text in _doubts(verdicts):
        lines += wrapped(f"doubtful: {text}", columns)
    if claimed := _claims(verdicts):
        why = "claims of the program alone; the report says why"
        lines += wrapped(f"not evidenced: {', '.join(claimed)} ({why})", columns)
    if off := _off(verdicts):
        lines += wrapped(f"off: {', '.join(off)}", columns)
    lines += cause_lines(verdicts, columns)
    return lines


def table_lines(verdicts: Sequence[Verdict], columns: int, *, color: bool) -> list[str]:
    """One row per gate that was judged, what did not pass last and its cases below it.

    No cell is cut: a screen that is too narrow gets fewer columns.
    """
    from rich.console import Console  # noqa: PLC0415

    groups = [group for group in by_gate(verdicts) if not_off(group)]
    groups.sort(key=lambda group: ORDER.index(tightest(group).outcome) in (0, 1))
    if not groups:
        return []
    measuring = Console(width=WIDEST, file=StringIO())
    for chosen, gap in CHOICES:
        table = _table(groups, chosen, gap)
        width = measuring.measure(table).maximum
        if width <= columns:
            break
    console = Console(
        file=StringIO(), width=max(width, columns), color_system="standard" if color else None,
        force_terminal=color, no_color=not color, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def cause_lines(verdicts: Sequence[Verdict], columns: int) -> list[str]:
    """Every cause of a failure once: the conclusion, what else needs it, and what to try."""
    lines: list[str] = []
    for group in by_cause(verdicts):
        first = tightest(group)
        lines.append("")
        lines += wrapped(f"{WORDS[first.outcome]}: {clean(conclusion(first), REASON)}", columns)
        count = "gate" if len(group) == 1 else f"{len(group)} gates need this"
        lines += wrapped(f"{count}: {needed_by(group)}", columns, "  ")
        for hint in hints(group):
            lines += wrapped(f"try: {clean(hint)}", columns, "  ")
    return lines


def needed_by(group: Sequence[Verdict]) -> str:
    """The gates of one cause by name: a few with their cases, many with the count of them."""
    cases: dict[str, list[str]] = {}
    for verdict in group:
        cases.setdefault(clean(verdict.gate, 60), []).append(clean(verdict.case, 40))
    names: list[str] = []
    for gate, found in cases.items():
        if len(group) <= SHOWN_CASES:
            names.append(f"{gate} [{', '.join(found)}]")
        elif len(found) > 1:
            names.append(f"{gate} ({len(found)})")
        else:
            names.append(gate)
    more = f" and {len(names) - SHOWN_GATES} more" if len(names) > SHOWN_GATES else ""
    return f"{', '.join(names[:SHOWN_GATES])}{more}"


def _table(groups: Sequence[Sequence[Verdict]], chosen: Sequence[str], gap: int) -> Table:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="")
    for name in chosen:
        table.add_column(name, no_wrap=True, justify="right" if name in NUMERIC else "left")
    for group in groups:
        for outcome, cells in _rows(group):
            texts = [Text(cells[name]) for name in chosen]
            texts[0].stylize(STYLES[outcome])
            table.add_row(*texts)
    return table


def _rows(group: Sequence[Verdict]) -> Iterator[tuple[str, dict[str, str]]]:
    """The row of a gate, and of its cases that did not pass, with the cells by column."""
    worst = tightest(group)
    judged = not_off(group)
    bad = [each for each in judged if each.outcome in BAD]
    count = f"{len(judged) - len(bad)} of {len(judged)}" if bad else f"{len(judged)}"
    shown = _cells(worst) | {"gate": clean(worst.gate, 60), "cases": count}
    shown["tightest"] = clean(worst.case, 40)
    unfolded = bad if len(judged) > 1 and not _told_below(bad) else []
    if unfolded:
        shown |= dict.fromkeys(("tightest", "value", "required", "margin", "evidence"), "")
    elif len(bad) > 1:
        shown["tightest"] = "-"
    yield worst.outcome, shown
    for verdict in unfolded:
        cells = _cells(verdict)
        yield (
            verdict.outcome,
            cells | {"": "", "gate": f"  {clean(verdict.case, 58)}", "cases": "", "tightest": ""},
        )


def _told_below(bad: Sequence[Verdict]) -> bool:
    """Whether the cases say nothing one by one that their causes, below the table, do not say."""
    causes = {each.cause for each in bad}
    if "" in causes:
        return False
    return len(causes) == 1 or all(each.value is None for each in bad)


def _cells(verdict: Verdict) -> dict[str, str]:
    names = ("", "gate", "case", "value", "required", "margin", "evidence", "note")
    return dict(zip(names, verdict_row(verdict), strict=True))


def _doubts(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """The first warning of every gate that passed, and how many of its cases have one."""
    said: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.warning and verdict.outcome == "pass":
            said.setdefault(verdict.gate, []).append(verdict)
    for gate, found in said.items():
        first, *others = found
        more = f" and {len(others)} more" if others else ""
        yield f"{clean(gate, 60)} [{clean(first.case, 40)}{more}]: {clean(first.warning, REASON)}"


def _claims(verdicts: Iterable[Verdict]) -> list[str]:
    """The gates that passed by a claim that nothing else confirms."""
    names: dict[str, None] = {}
    for verdict in verdicts:
        if verdict.outcome == "pass" and verdict.standing == "not evidenced":
            names[clean(verdict.gate, 60)] = None
    return list(names)


def _off(verdicts: Iterable[Verdict]) -> list[str]:
    """The gates that a knob turns off, with it."""
    found: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.outcome == "skipped":
            why = verdict.reason.removeprefix("turned off by ")
            found.setdefault(verdict.gate, f"{clean(verdict.gate, 60)} ({clean(why, 100)})")
    return list(found.values())


def figures(verdict: Verdict) -> str:
    """What was measured against what was asked for, in one line; empty where nothing was."""
    if verdict.value is None:
        return ""
    text = f"measured {quantity(verdict.value, verdict.unit)}"
    if verdict.target is not None:
        text = f"{text} {verdict.operator} {quantity(verdict.target, verdict.unit)}"
    if verdict.margin is not None:
        text = f"{text}, margin {quantity(verdict.margin, verdict.unit)}"
    return text
