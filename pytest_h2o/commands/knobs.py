"""Every setting, as a table, as Markdown, or as JSON with the values in force."""

from __future__ import annotations

import argparse
import json
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, in_session
from pytest_h2o.keys import KEYS

if TYPE_CHECKING:
    from pytest_h2o.plan.knobs import Knob, Knobs

EXAMPLES = """examples:
  pytest-h2o knobs
  pytest-h2o knobs LOSSY RECENT       those with one of these words in their name
  pytest-h2o knobs --markdown         the table of knobs.md
  REPEAT=5 pytest-h2o knobs --json    with the values in force in -m final, and their origin
  pytest-h2o knobs --json --suite m3 --h2o-set PROMPTS=512
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the format, and what the values in force depend on."""
    from pytest_h2o.plan.suites import SUITES  # noqa: PLC0415

    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only those with NAME in their own (default: all)"
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--json", action="store_true", help="print JSON, with each value in force and its source"
    )
    formats.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument(
        "--suite", choices=SUITES, default="final", help="whose values in force (default: final)"
    )
    parser.add_argument(
        "--h2o-set", action="append", default=[], metavar="NAME=VALUE", help="set a knob"
    )
    parser.add_argument(
        "--h2o-profile", metavar="NAME|PATH", help="a TOML file that names a whole setup"
    )
    parser.add_argument("--h2o-kit", choices=("v5", "v6"), help="version of the kit (default: v6)")


def run(arguments: argparse.Namespace) -> int:
    """Print the knobs; 1 if a value in force was asked for and cannot be had.

    A list looks at nothing but the table, so that a wrong name in the environment can be looked up
    in it.
    """
    from pytest_h2o.docs.generated import knob_table  # noqa: PLC0415
    from pytest_h2o.plan.knobs import KNOBS, unknown  # noqa: PLC0415

    if arguments.markdown:
        print(knob_table())
    elif not arguments.json:
        width = get_terminal_size().columns
        wanted = [name.upper() for name in arguments.names] or [""]
        for name in wanted:
            if not any(name in each for each in KNOBS):
                return fail(unknown(name))
        for knob in KNOBS.values():
            if any(name in knob.name for name in wanted):
                print("\n".join(listed(knob, width)))
    else:
        import pytest  # noqa: PLC0415

        try:
            knobs = in_force(arguments)
        except pytest.UsageError as error:
            return fail(error)
        print(json.dumps([described(knob, knobs) for knob in KNOBS.values()], indent=2))
    return 0


def listed(knob: Knob, width: int) -> list[str]:
    """A knob on a screen: name and default, and below them what it accepts and means."""
    from pytest_h2o.docs.generated import default_text  # noqa: PLC0415
    from pytest_h2o.report.text import clean, wrapped  # noqa: PLC0415

    lines = wrapped(f"{knob.name} = {clean(default_text(knob))}", width)
    lines += wrapped(f"{clean(knob.accepts)}: {clean(knob.doc)}", width, "    ")
    return lines


def in_force(arguments: argparse.Namespace) -> Knobs:
    """The knobs as a session of pytest in this directory would have them; raises UsageError."""
    words = ["-m", arguments.suite]
    for option in ("h2o_set", "h2o_profile", "h2o_kit"):
        value = getattr(arguments, option)
        values = value if isinstance(value, list) else [value]
        for each in values:
            if each is not None:
                words.append(f"--{option.replace('_', '-')}={each}")
    return in_session(words).knobs


def described(knob: Knob, knobs: Knobs) -> dict[str, object]:
    """One knob as JSON data: its definition, the value in force and its source."""
    from dataclasses import asdict  # noqa: PLC0415

    value, source = knobs.with_source(knob.name)
    described = asdict(knob) | {"accepts": knob.accepts, "value": value, "source": source}
    if knob.key is not None:
        key = KEYS[knob.key]
        described |= {"other_defaults": key.differing, "why": key.why}
    return described
