"""Formats of a session's record: one file each, found by its name.

A module holds ``FILE``, the name of what it writes into the run directory, and ``text(document)``,
the content. The HTML page and the metrics need the launches as well and are written elsewhere.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pytest_h2o.report.models import Summary
from pytest_h2o.report.text import write_text


def write_all(root: Path, document: Summary) -> None:
    """Write the record into ``root`` in every format."""
    for module in iter_modules(__path__):
        found = import_module(f"{__name__}.{module.name}")
        write_text(root / found.FILE, found.text(document))
