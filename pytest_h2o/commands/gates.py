"""Where the gates that ship are."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  pytest $(pytest-h2o gates)                      the whole acceptance
  pytest $(pytest-h2o gates) -m runtime -k lossy
  pytest $(pytest-h2o gates) --collect-only -q
"""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """There are none."""


def run(_: argparse.Namespace) -> int:
    """Print the directory."""
    from pytest_h2o.data import bundled  # noqa: PLC0415

    print(bundled("gates"))
    return 0
