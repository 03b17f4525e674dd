"""The offline evaluator; its options and its output are its own, the page is made like a report."""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail
from pytest_h2o.offline.command import add_arguments as add_own_arguments
from pytest_h2o.offline.command import run as evaluate

if TYPE_CHECKING:
    from pytest_h2o.offline.result import DumpEvaluation

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  pytest-h2o offline DUMP_DIR
  pytest-h2o offline DUMP_DIR --out-json offline.json --out-md offline.md
  pytest-h2o offline DUMP_DIR --front-n 2 --entry-mode chunked_grouped --online-chunk-seq 192
  pytest-h2o offline a:/dumps b:/dumps --launcher 'ssh {host}' --hosts a,b   read where they are
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the evaluator, and the hosts that dumps are evaluated on."""
    add_own_arguments(parser)
    parser.add_argument(
        "--launcher",
        default=os.environ.get("H2O_LAUNCHER", ""),
        metavar="WORDS",
        help="what starts a program on a host: 'ssh {host}' (environment: H2O_LAUNCHER)",
    )
    parser.add_argument(
        "--hosts",
        default=os.environ.get("H2O_HOSTS", ""),
        metavar="A,B,C",
        help="evaluate on these: HOST:/DIR on that host, any other DUMP_DIR, which all of them "
        "see, on whichever is free (environment: H2O_HOSTS)",
    )
    parser.add_argument(
        "--far-command",
        default="pytest-h2o",
        metavar="WORDS",
        help="what starts pytest-h2o on the hosts (default: pytest-h2o)",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate dumps; 0 when something was evaluated."""
    if not args.hosts:
        return evaluate(args, _page)
    from pytest_h2o.commands.far_offline import evaluate_on_hosts  # noqa: PLC0415
    from pytest_h2o.plan.knobs import KnobError  # noqa: PLC0415
    from pytest_h2o.runs.hosts import HostsGoneError  # noqa: PLC0415
    from pytest_h2o.runtimes import RuntimeSetupError  # noqa: PLC0415

    try:
        return evaluate(args, _page, partial(evaluate_on_hosts, args))
    except (HostsGoneError, KnobError, RuntimeSetupError) as error:
        return fail(error)


def _page(result: DumpEvaluation) -> str:
    from pytest_h2o.report.offline_page import offline_html  # noqa: PLC0415  (only for pages)

    return offline_html(result)
