"""``summary.json``: the record as it is."""

from __future__ import annotations

from pytest_h2o.report.models import Summary, json_text

FILE = "summary.json"


def text(document: Summary) -> str:
    """The whole record."""
    return json_text(document, indent=2) + "\n"
