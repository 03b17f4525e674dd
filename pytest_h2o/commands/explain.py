"""What a gate, knob, metric, suite or word of the reports means: its section of the pages."""

from __future__ import annotations

import argparse
import re

from pytest_h2o.commands import clean, fail

# A link within the pages, of which a terminal shows the text.
PLACE = re.compile(r"\[([^\]]+)\]\([\w.#-]+\)")
EXAMPLES = """examples:
  pytest-h2o explain lossy                  a gate: what it protects, why it fails, what to do
  pytest-h2o explain LOSSY_TARGET           a knob
  pytest-h2o explain h2o_lossy              a metric
  pytest-h2o explain UNDECIDED              a word of the reports
  pytest-h2o explain 'gates/test_runtime.py::test_lossy[full_strict]'
  pytest-h2o explain                        all names
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name."""
    parser.add_argument(
        "name", nargs="*", help="a gate, knob, metric, suite or word; none: list all"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what the pages say; 1 for a name that they do not explain, with the nearest ones."""
    from pytest_h2o.docs.pages import PAGES, entries, explain, nearest  # noqa: PLC0415

    name = " ".join(arguments.name)
    if not name:
        return list_names([(entry.kind, entry.name) for entry in entries()])
    found = explain(name)
    if not found:
        near = ", ".join(nearest(name)) or "pytest-h2o explain lists all names"
        return fail(f"nothing is said about {clean(name, 100)}; the nearest: {near}")
    for entry in found:
        title = f"## {entry.kind} {entry.name}"
        text = PLACE.sub(r"`\1`", entry.text)
        render(f"{title}\n\n{text}\n\nFrom `{PAGES / entry.page}`")
    return 0


def list_names(named: list[tuple[str, str]]) -> int:
    """Print all names by what they are of."""
    by_kind: dict[str, list[str]] = {}
    for kind, name in named:
        by_kind.setdefault(kind, []).append(f"`{name}`")
    for kind, names in by_kind.items():
        render(f"## {kind}\n\n{', '.join(names)}")
    return 0


def render(text: str) -> None:
    """Print Markdown for the terminal; without colours where it is none."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415

    console = Console()
    console.print(Markdown(text, hyperlinks=False))
