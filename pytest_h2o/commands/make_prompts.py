"""Prompt files of given token counts from a corpus of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_h2o.commands import fail, table

EXAMPLES = """examples:
  pytest-h2o make_prompts --corpus docs/ --config model/config.json --out-dir my_prompts
  pytest-h2o make_prompts --corpus questions.jsonl --config config.json --targets 512 --overwrite
  pytest gates -m llm_demo --prompt-dir my_prompts

A corpus is a list of files and directories with .txt (paragraphs), .jsonl and .json (rows with a
question and choices, or with text, prompt or input).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add corpus, lengths and output."""
    parser.add_argument(
        "--corpus",
        nargs="+",
        type=Path,
        required=True,
        metavar="PATH",
        help="files and directories",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="config.json of the model"
    )
    parser.add_argument(
        "--targets",
        type=_targets,
        default="128,512,2048",
        metavar="N,...",
        help="token counts (128,512,2048)",
    )
    parser.add_argument(
        "--per-target", type=int, default=3, metavar="N", help="files of each token count (3)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="tokens above target left (0.05)",
    )
    parser.add_argument(
        "--seed", type=int, default=42, metavar="N", help="of the order of the pieces (42)"
    )
    parser.add_argument(
        "--min-piece-chars",
        type=int,
        default=200,
        metavar="N",
        help="shorter paragraphs are joined (200)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail where words would be counted instead of tokens"
    )
    parser.add_argument(
        "--out-dir", type=Path, default=Path("my_prompts"), metavar="DIR", help="(my_prompts)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _targets(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected token counts, comma separated"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Write the files and their manifest; 1 if a text is not as long as asked for."""
    from pytest_h2o.commands.corpus import (  # noqa: PLC0415
        CorpusError,
        compose,
        read_pieces,
        token_counter,
        write_prompts,
    )
    from pytest_h2o.runtimes import RuntimeSetupError  # noqa: PLC0415

    try:
        least = min(arguments.per_target, *arguments.targets)
        if least < 1 or arguments.tolerance < 0:
            raise CorpusError(
                "--targets and --per-target must be at least 1, --tolerance at least 0"
            )
        name, tokens = token_counter(arguments.config, strict=arguments.strict)
        pieces = read_pieces(arguments.corpus, arguments.min_piece_chars)
        made = compose(
            pieces,
            arguments.targets,
            arguments.per_target,
            tokens,
            tolerance=arguments.tolerance,
            seed=arguments.seed,
        )
        entries = write_prompts(
            arguments.out_dir, made, name, tokens, overwrite=arguments.overwrite
        )
    except (CorpusError, RuntimeSetupError, ValueError) as error:
        return fail(error)
    rows = [("file", "target", f"tokens ({name})", "")]
    off = 0
    for each in entries:
        note = ""
        away = abs(each.actual_tokens - each.target_tokens)
        if away > arguments.tolerance * each.target_tokens:
            note = "not as long as asked for"
            off += 1
        rows.append((each.file, str(each.target_tokens), str(each.actual_tokens), note))
    print(table(rows))
    return int(off > 0)
