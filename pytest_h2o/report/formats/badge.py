"""``badge.json``: the outcome in the form that shields.io and its like read."""

from __future__ import annotations

import json

from pytest_h2o.report.groups import BAD
from pytest_h2o.report.models import Summary

FILE = "badge.json"
COLORS = {True: "brightgreen", False: "red"}


def text(document: Summary) -> str:
    """Label, message and colour."""
    content = {
        "schemaVersion": 1,
        "label": f"h2o {document.suite}".strip(),
        "message": "accepted" if document.overall_pass else _why_not(document),
        "color": COLORS[document.overall_pass],
    }
    return json.dumps(content) + "\n"


def _why_not(document: Summary) -> str:
    bad = sum(document.outcomes.get(name, 0) for name in BAD)
    return f"{bad} of {len(document.gates)} gates failed" if bad else "not all judged"
