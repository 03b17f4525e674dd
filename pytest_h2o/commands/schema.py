"""The JSON Schema of a file that is written by hand, or that a run leaves."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from typing import Any

from pytest_h2o.commands import fail

EXAMPLES = """examples:
  pytest-h2o schema                           the names
  pytest-h2o schema profile                   h2o-profiles/NAME.toml, with every knob
  pytest-h2o schema preset                    what a preset of your own may hold
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="whose schema; without: the names")


def run(arguments: argparse.Namespace) -> int:
    """Print the names or one schema; 1 for a name that there is not."""
    from pytest_h2o.plan.knobs import meant  # noqa: PLC0415

    known = schemas()
    if arguments.name is None:
        print("\n".join(known))
        return 0
    if arguments.name not in known:
        near = meant(arguments.name, known)
        return fail(f"{arguments.name}: no such schema{near}; there are {', '.join(known)}")
    print(json.dumps(known[arguments.name], indent=2))
    return 0


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by name: first those of files that users write."""
    from pytest_h2o.kit import documents as kit  # noqa: PLC0415
    from pytest_h2o.offline.result_json import result_schema  # noqa: PLC0415
    from pytest_h2o.plan.presets import Preset  # noqa: PLC0415
    from pytest_h2o.plan.prompts import RECORD_SCHEMA  # noqa: PLC0415
    from pytest_h2o.report import models  # noqa: PLC0415
    from pytest_h2o.runtimes.profile import profile_schema  # noqa: PLC0415

    found = {
        "preset": Preset.model_json_schema(),
        "profile": profile_schema(),
        "prompt_record": dict(RECORD_SCHEMA),
    }
    found["manifest_entry"] = kit.ManifestEntry.model_json_schema()
    # What ships, and not what the version of pydantic here would make of the models.
    for package, documents in (("report", models.SCHEMAS), ("kit", kit.SCHEMAS)):
        folder = files(f"pytest_h2o.{package}") / "schemas"
        for name in documents:
            found[name] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    found["offline"] = result_schema()
    return found
