"""``report.html``: the verdicts as one self-contained page. Whatever a program or a file said is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from pytest_h2o.report.models import Summary
from pytest_h2o.report.text import HEADER, WORDS, clean, details, headline, verdict_row
from pytest_h2o.verdict import Verdict

STYLE = """body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em;overflow-wrap:anywhere}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.1em .6em;text-align:left;vertical-align:top}
.pass{background:#e3f3e6}.fail{background:#f8dcdc}.inconclusive{background:#f9efd2}.skipped{color:#777}"""
ORDER = ("fail", "inconclusive", "pass", "skipped")


def to_html(summary: Summary) -> str:
    """The outcome, how many gates ended in which way, and one row per gate, those that did not pass
    first.
    """
    title = outcome(summary)
    counts = ", ".join(f"{number} {WORDS[outcome]}" for outcome, number in summary.outcomes.items())
    gates = sorted(summary.gates, key=lambda gate: ORDER.index(gate.outcome))
    knobs = [f"{name} = {knob.value} ({knob.source})" for name, knob in summary.knobs.items()] or [
        "none"
    ]
    root = Path(summary.run_directory)
    facts = [
        summary.title,
        *([f"launched by {summary.runtime}"] if summary.runtime not in ("", summary.title) else []),
    ]
    facts += [
        f"run directory {root}, written {summary.written_utc} by pytest-h2o {summary.version}, "
        f"kit {summary.kit}"
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1><p>{_text(counts)}</p>{_list(facts)}",
            f"<table><tr>{_cells('th', HEADER)}</tr>",
            *(_row(gate, root) for gate in gates),
            f"</table><h2>Knobs that were set</h2>{_list(knobs)}",
            "</body></html>\n",
        ]
    )


def outcome(summary: Summary) -> str:
    """The outcome in words."""
    left = len(summary.not_judged)
    return headline(summary.gates, accepted=summary.overall_pass, suite=summary.suite, left=left)


def _row(verdict: Verdict, root: Path) -> str:
    """One gate; its details open on a click."""
    *cells, note = verdict_row(verdict)
    lines = "".join(
        f"<li>{_text(name)}{': ' if name else ''}{_place(verdict.source, root) if name == 'open' else _text(text)}</li>"
        for name, text in details(verdict)
    )
    shown = (
        f"<details><summary>{_text(note) or 'details'}</summary><ul>{lines}</ul></details>"
        if lines
        else _text(note)
    )
    return f'<tr class="{verdict.outcome}">{_cells("td", cells)}<td>{shown}</td></tr>'


def _place(source: str, root: Path) -> str:
    """A file of the run directory as a link beside the page; the name alone of any other."""
    inside = Path(source).relative_to(root) if Path(source).is_relative_to(root) else None
    if inside is None or ".." in inside.parts:
        return _text(source)
    return f'<a href="{quote(bytes(inside))}">{_text(inside)}</a>'


def _list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells)


def _text(text: object) -> str:
    return escape(clean(text))
