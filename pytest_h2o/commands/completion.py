"""A completion script for a shell, made from the options of all commands."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  pytest-h2o completion bash      into ~/.local/share/bash-completion/completions/pytest-h2o
  pytest-h2o completion zsh       into a directory of fpath, as _pytest-h2o
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415

    print(shtab.complete(arguments.parser, arguments.shell))
    return 0
