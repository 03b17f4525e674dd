"""The offline evaluator; its options and its output are its own, the page is made like a report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_h2o.offline.command import add_arguments
from pytest_h2o.offline.command import run as evaluate

if TYPE_CHECKING:
    from pytest_h2o.offline.result import DumpEvaluation

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  pytest-h2o offline DUMP_DIR
  pytest-h2o offline DUMP_DIR --out-json offline.json --out-md offline.md
  pytest-h2o offline DUMP_DIR --front-n 2 --entry-mode chunked_grouped --online-chunk-seq 192
"""


def run(args: argparse.Namespace) -> int:
    """Evaluate a dump; 0 when something was evaluated."""
    return evaluate(args, _page)


def _page(result: DumpEvaluation) -> str:
    from pytest_h2o.report.offline_page import offline_html  # noqa: PLC0415  (only for pages)

    return offline_html(result)
