"""Every combination of the values on the command line: a sweep without a preset file."""

from __future__ import annotations

import argparse

from pytest_h2o.commands import fail, sweep
from pytest_h2o.keys import SHARED, SWEPT

# The defaults of a preset that are no engine keys.
WORK = {"prompts": "512", "gens": "128", "repeat": "3"}

EXAMPLES = """examples:
  pytest-h2o bench                                     one launch with the sweep's defaults
  pytest-h2o bench --prompts 512,1024 --h2o-target-lossy-ratios 3.0,3.2 --kv-lossless-enable 1
  pytest-h2o bench --disable-h2o --out baseline        the same work with H2O off
  pytest-h2o bench --h2o-keep-ratios 0.3,0.4 --h2o-target-mode static --dry-run --out plan

Lists are comma separated; every combination is a launch. exit code: as of pytest-h2o sweep
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one option per key of a preset, and those of a launch."""
    group = parser.add_argument_group("values to combine, and settings of all launches")
    shown = WORK | {key.preset: str(key.presets_default) for key in SWEPT + SHARED}
    for name, default in shown.items():
        option = f"--{name.replace('_', '-')}"
        words = f"default: {default}"
        group.add_argument(option, dest=f"preset_{name}", metavar="VALUE", help=words)
    sweep.add_launch_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sweep over the values; 1 if one of them is wrong or a list is empty."""
    from pytest_h2o.plan.presets import PresetError, preset_of  # noqa: PLC0415

    given: dict[str, str] = {}
    for name, text in vars(arguments).items():
        if name.startswith("preset_") and text is not None:
            given[name.removeprefix("preset_")] = text
    try:
        arguments.preset = preset_of(given)
    except PresetError as error:
        return fail(error)
    return sweep.run(arguments)
