"""The real prompts that a run would take, and those that it cannot."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from pytest_h2o.commands import fail, note, table

EXAMPLES = """examples:
  pytest-h2o prompts                              those that ship, or of PROMPT_DIR
  pytest-h2o prompts my_prompts --h2o-set MAX_PROMPTS_PER_BUCKET=2
  pytest-h2o prompts --manifest my_prompts/prompts_manifest.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the directory, the manifest and the knobs."""
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="prompt directory")
    parser.add_argument(
        "--manifest", metavar="FILE", help="list of prompt files, one per line, plain or JSON"
    )
    parser.add_argument(
        "--h2o-set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a knob such as PROMPT_PATTERN",
    )


def run(arguments: argparse.Namespace) -> int:
    """List the prompts in the order of a run; 1 if any cannot be run or there is none."""
    from pytest_h2o.data import bundled  # noqa: PLC0415
    from pytest_h2o.plan.knobs import KnobError, resolve  # noqa: PLC0415
    from pytest_h2o.plan.prompts import select_prompts  # noqa: PLC0415

    settings = list(arguments.h2o_set)
    if arguments.manifest:
        settings.append(f"PROMPT_MANIFEST={arguments.manifest}")
    try:
        knobs = resolve(settings, os.environ)
    except KnobError as error:
        return fail(error)
    directory = Path(arguments.directory or os.environ.get("PROMPT_DIR") or bundled("prompts"))
    selection = select_prompts(directory, knobs)
    prompts = selection.prompts
    rows = [("bucket", "bytes", "prompt")]
    for prompt in prompts:
        rows.append((prompt.bucket, str(_size(prompt.path)), str(prompt.path)))
    print(table(rows))
    total = f"{len(prompts)} prompts"
    for bucket, count in Counter(prompt.bucket for prompt in prompts).items():
        total += f", {count} in bucket {bucket}"
    print(total)
    for problem in selection.problems:
        note(f"{problem.entry}: {problem.reason}")
    return 1 if selection.problems or not prompts else 0


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:
        return "-"
