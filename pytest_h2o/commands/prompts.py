"""The real prompts that a run would take, those that it cannot, and new ones made from a corpus."""

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
  pytest-h2o prompts my_prompts --generate books notes.jsonl --targets 128,512,2048 --per-target 6
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the directory, the manifest and the knobs."""
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="prompt directory")
    parser.add_argument("--manifest", metavar="FILE", help="list of prompt files, one per line, plain or JSON")
    parser.add_argument(
        "--h2o-set", action="append", default=[], metavar="NAME=VALUE", help="set a knob such as PROMPT_PATTERN"
    )
    made = parser.add_argument_group("making prompts")
    made.add_argument(
        "--generate",
        nargs="+",
        type=Path,
        metavar="CORPUS",
        help="write prompts to DIR, made from these texts",
    )
    made.add_argument("--targets", default="128,512,2048", metavar="N,N", help="their tokens (default: 128,512,2048)")
    made.add_argument("--per-target", type=int, default=3, metavar="N", help="prompts of each length (default: 3)")
    made.add_argument("--tolerance", type=float, default=0.05, metavar="SHARE", help="above a length (default: 0.05)")
    made.add_argument("--seed", type=int, default=42, metavar="N", help="seed of the order of the corpus (default: 42)")
    made.add_argument(
        "--tokenizer", metavar="FILE.model|words", help="SentencePiece model (default: the embedded runtime's)"
    )


def generate(arguments: argparse.Namespace) -> int:
    """Write prompts and their manifest; 1 if the corpus or an option cannot be used."""
    from pytest_h2o.data import PACKAGE  # noqa: PLC0415
    from pytest_h2o.prompt_files import CorpusError, corpus_files, pieces, token_counter, write_prompts  # noqa: PLC0415

    shipped = PACKAGE / "engine" / "weights" / "tokenizer.model"
    tokenizer = {None: shipped, "words": None}.get(arguments.tokenizer, Path(arguments.tokenizer or ""))
    try:
        targets = [int(text) for text in arguments.targets.split(",") if text.strip()]
    except ValueError:
        targets = []
    if not arguments.directory or not targets or min(*targets, arguments.per_target, 1) < 1 or arguments.tolerance < 0:
        return fail("--generate needs DIR, --targets and --per-target of at least 1, and no negative --tolerance")
    try:
        corpus = [piece for file in corpus_files(arguments.generate) for piece in pieces(file)]
        records = write_prompts(
            arguments.directory, corpus, targets, token_counter(tokenizer),
            per_target=arguments.per_target, tolerance=arguments.tolerance, seed=arguments.seed,
        )  # fmt: skip
    except CorpusError as error:
        return fail(error)
    rows = [(str(record["file"]), str(record["target_tokens"]), str(record["actual_tokens"])) for record in records]
    print(table([("prompt", "asked", "tokens"), *rows]))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """List the prompts in the order of a run; 1 if any cannot be run or there is none."""
    if arguments.generate:
        return generate(arguments)
    from pytest_h2o.data import bundled  # noqa: PLC0415
    from pytest_h2o.knobs import KnobError, resolve  # noqa: PLC0415
    from pytest_h2o.prompts import select_prompts  # noqa: PLC0415

    manifest = [f"PROMPT_MANIFEST={arguments.manifest}"] if arguments.manifest else []
    try:
        knobs = resolve([*arguments.h2o_set, *manifest], os.environ)
    except KnobError as error:
        return fail(error)
    directory = Path(arguments.directory or os.environ.get("PROMPT_DIR") or bundled("prompts"))
    selection = select_prompts(directory, knobs)
    rows = [(prompt.bucket, str(_size(prompt.path)), str(prompt.path)) for prompt in selection.prompts]
    print(table([("bucket", "bytes", "prompt"), *rows]))
    counts = Counter(prompt.bucket for prompt in selection.prompts)
    print(f"{len(rows)} prompts" + "".join(f", {count} in bucket {bucket}" for bucket, count in counts.items()))
    for problem in selection.problems:
        note(f"{problem.entry}: {problem.reason}")
    return 1 if selection.problems or not rows else 0


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:
        return "-"
