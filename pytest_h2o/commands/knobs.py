"""Every setting, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import os

from pytest_h2o.commands import fail, table

EXAMPLES = """examples:
  pytest-h2o knobs
  REPEAT=5 pytest-h2o knobs --json     with the value in force and where it comes from
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, with each value in force and its source")


def run(arguments: argparse.Namespace) -> int:
    """Print the knobs; 1 if the environment sets one wrongly and values were asked for."""
    return print_json() if arguments.json else print_table()


def print_table() -> int:
    """One line per knob; the environment is not looked at, so that a wrong name in it can be looked up here."""
    from pytest_h2o.knobs import KNOBS  # noqa: PLC0415

    rows = [("knob", "default", "accepts", "meaning")]
    for knob in KNOBS.values():
        default = ",".join(map(str, knob.default)) if isinstance(knob.default, tuple) else str(knob.default)
        rows.append((knob.name, default, knob.accepts, knob.doc))
    print(table(rows))
    return 0


def print_json() -> int:
    """One object per knob: its definition, the value in force without any suite's defaults, and its source."""
    from dataclasses import asdict  # noqa: PLC0415

    from pytest_h2o.knobs import KNOBS, KnobError, resolve  # noqa: PLC0415

    try:
        knobs = resolve(environment=os.environ)
    except KnobError as error:
        return fail(error)
    effective = {name: dict(zip(("value", "source"), knobs.with_source(name), strict=True)) for name in KNOBS}
    print(
        json.dumps(
            [{**asdict(knob), "accepts": knob.accepts, **effective[knob.name]} for knob in KNOBS.values()], indent=2
        )
    )
    return 0
