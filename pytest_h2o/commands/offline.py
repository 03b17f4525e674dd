"""The offline evaluator; its options and its output are its own."""

from __future__ import annotations

from pytest_h2o.offline.command import add_arguments, run

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  pytest-h2o offline DUMP_DIR
  pytest-h2o offline DUMP_DIR --out-json offline.json --out-md offline.md
  pytest-h2o offline DUMP_DIR --scope front_n --front-n 2 --entry-mode chunked_grouped --online-chunk-seq 192
"""
