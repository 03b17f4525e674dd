"""The ``pytest-h2o`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_h2o.data import bundled

EXAMPLES = """examples:
  pytest-h2o final --junitxml=report.xml          the whole acceptance, from an installed package
  pytest-h2o final -k lossy                       arguments after the suite go to pytest
  pytest-h2o knobs                                every setting, its default and its meaning
  pytest-h2o offline DUMP_DIR --out-json out.json evaluate the lossless codec on a KV dump
"""
SUITES = ("final", "runtime", "m3", "llm_demo", "offline")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    from pytest_h2o.offline import cli as offline  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="pytest-h2o",
        description="Acceptance gates for KV-cache compression.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for suite in SUITES:
        if suite != "offline":
            commands.add_parser(suite, help=f"run the gates of the {suite} suite with pytest", add_help=False)
    commands.add_parser("knobs", help="list every setting")
    offline.add_arguments(commands.add_parser("offline", help="evaluate the lossless codec on a KV dump"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command in SUITES and arguments.command != "offline":
        return run_suite(arguments.command, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.command == "knobs":
        return print_knobs()
    from pytest_h2o.offline import cli as offline  # noqa: PLC0415

    return offline.run(arguments)


def run_suite(suite: str, arguments: Sequence[str]) -> int:
    """Run the bundled gates of one suite."""
    import pytest  # noqa: PLC0415

    return int(pytest.main([str(bundled("gates")), "-m", suite, "--strict-markers", *arguments]))


def print_knobs() -> int:
    """One line per knob."""
    from pytest_h2o.knobs import KNOBS  # noqa: PLC0415
    from pytest_h2o.report.text import aligned  # noqa: PLC0415

    rows = [("knob", "default", "accepts", "meaning")]
    for knob in KNOBS.values():
        default = ",".join(map(str, knob.default)) if isinstance(knob.default, tuple) else str(knob.default)
        rows.append((knob.name, default, knob.accepts, knob.doc))
    print("\n".join(aligned(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
