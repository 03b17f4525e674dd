"""The sweep presets: which there are, what one combines, what a file may contain."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_h2o.commands import fail, table
from pytest_h2o.keys import SWEPT

if TYPE_CHECKING:
    from pytest_h2o.plan.presets import SweepPreset

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
            rows: list[tuple[str, ...]] = [
                ("preset", "combinations", "distinct", "mode", "combines")
            ]
            for name in preset_names():
                rows.append(summary(name, load_preset(name)))
            print(table(rows))
    except PresetError as error:
        return fail(error)
    return 0


def summary(name: str, preset: SweepPreset) -> tuple[str, ...]:
    """One preset in a line: all combinations, those that the engine runs differently, and the lists
    that vary.
    """
    from pytest_h2o.plan.presets import distinct, expand  # noqa: PLC0415

    first = distinct(expand(preset))
    varied = []
    for key, values in preset.dimensions.items():
        if len(values) > 1:
            varied.append(f"{key} {', '.join(map(str, values))}")
    shared = preset.shared
    mode = f"{shared['kv_h2o_target_mode']}, {shared['kv_lossless_runtime_mode']}"
    launches = len({spec.arm for spec in first.values()})
    return name, str(len(first)), str(launches), mode, "; ".join(varied) or "nothing"


def combinations(preset: SweepPreset) -> list[tuple[str, ...]]:
    """Header and one row per combination: its run id, its values, and the earlier run that it
    repeats.
    """
    from pytest_h2o.plan.presets import distinct, expand  # noqa: PLC0415

    specs = list(expand(preset))
    first = distinct(specs)
    names = [key.preset.removeprefix("h2o_") for key in SWEPT]
    rows = [("run_id", "prompt", "gen", *names, "launched as")]
    for spec in specs:
        values = [str(spec.config[key.name]) for key in SWEPT]
        launched = first[spec.arm]
        same = "" if launched is spec else launched.arm
        prompt, gen = str(spec.prompt_tokens), str(spec.gen_tokens)
        rows.append((spec.arm, prompt, gen, *values, same))
    return rows
