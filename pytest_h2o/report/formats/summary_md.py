"""``summary.md``: the verdicts as a Markdown table."""

from __future__ import annotations

from pytest_h2o.report.models import Summary
from pytest_h2o.report.page import outcome
from pytest_h2o.report.text import LONG, markdown_table, markdown_text, summary_rows

FILE = "summary.md"


def text(document: Summary) -> str:
    """Outcome, what was tested, and one row per verdict, cells escaped."""
    table = markdown_table(summary_rows(document.gates, LONG))
    return f"# {outcome(document)}\n\n{markdown_text(document.title)}\n\n{table}\n"
