"""The sweep presets: which there are, what one combines, what a file may contain."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, table

if TYPE_CHECKING:
    from pytest_h2o.plan.presets import Preset

EXAMPLES = """examples:
  pytest-h2o presets                     names with their number of launches
  pytest-h2o presets target_ratio_v6     every combination of one
  pytest-h2o presets mine.json           the same for a file of your own
  pytest-h2o presets --schema            JSON Schema of such a file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the preset and ``--schema``."""
    parser.add_argument(
        "preset", nargs="?", metavar="NAME|FILE.json", help="print the combinations of this preset"
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of a preset file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the list, one preset or the schema; 1 if the preset cannot be used."""
    from pytest_h2o.plan.presets import PresetError, json_schema, load_preset, preset_names  # noqa: PLC0415

    if arguments.schema:
        print(json_schema(), end="")
        return 0
    try:
        if arguments.preset:
            print(table(combinations(load_preset(arguments.preset))))
        else:
            header = ("preset", "combinations", "distinct", "mode", "combines")
            print(table([header, *(summary(name, load_preset(name)) for name in preset_names())]))
    except PresetError as error:
        return fail(error)
    return 0


def summary(name: str, preset: Preset) -> tuple[str, ...]:
    """One preset in a line: all combinations, those that the engine runs differently, and the lists
    that vary.
    """
    from pytest_h2o.plan.presets import distinct, expand  # noqa: PLC0415

    first = distinct(expand(preset))
    varied = [
        f"{key} {', '.join(map(str, values))}"
        for key, values in preset.dimensions.items()
        if len(values) > 1
    ]
    mode = f"{preset.h2o_target_mode}, {preset.kv_lossless_runtime_mode}"
    launches = len({spec.arm for spec in first.values()})
    return name, str(len(first)), str(launches), mode, "; ".join(varied) or "nothing"


def combinations(preset: Preset) -> list[tuple[str, ...]]:
    """Header and one row per combination: its run id, its values, and the earlier run that it
    repeats.
    """
    from pytest_h2o.plan.presets import DIMENSIONS, distinct, expand  # noqa: PLC0415

    specs = list(expand(preset))
    first = distinct(specs)
    rows = [
        (
            "run_id",
            "prompt",
            "gen",
            *(name.removeprefix("h2o_") for name in DIMENSIONS),
            "launched as",
        )
    ]
    for spec in specs:
        values = (
            spec.prompt_tokens,
            spec.gen_tokens,
            *(spec.config[key] for key in DIMENSIONS.values()),
        )
        rows.append(
            (spec.arm, *map(str, values), "" if first[spec.arm] is spec else first[spec.arm].arm)
        )
    return rows
