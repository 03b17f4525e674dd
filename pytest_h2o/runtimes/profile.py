"""A profile: a TOML file that names a whole setup, so that ``--h2o-profile server`` replaces a page
of options.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_h2o.plan.knobs import KNOBS, Kind, Knob, KnobError, resolve
from pytest_h2o.plan.user_files import problems
from pytest_h2o.runtimes.base import RuntimeSetupError
from pytest_h2o.runtimes.paths import absolute, absolute_text

FOLDER = "h2o-profiles"
PATHS = (
    "llm_bench",
    "llm_demo",
    "model_config",
    "prompt_dir",
    "h2o_baseline_llm_bench",
    "h2o_baseline_llm_demo",
)
SIZE_LIMIT = 2**20
# What a knob's value may be in a profile.
_TYPES: Mapping[Kind, list[str]] = {
    "bool": ["boolean", "integer", "string"],
    "float": ["number", "string"],
    "int": ["integer", "boolean", "string"],
    "ints": ["array", "integer", "string"],
    "str": ["string", "number", "boolean", "array"],
}


@dataclass(frozen=True)
class Profile:
    """``paths`` by setting, absolute; ``knobs`` as texts by name; ``source`` is what messages call
    it.
    """

    source: str
    paths: Mapping[str, str] = field(default_factory=dict)
    knobs: Mapping[str, str] = field(default_factory=dict)


def find_profile(name: str, directory: Path) -> Path:
    """The file of a profile: ``name`` if it is a path, else ``h2o-profiles/NAME.toml`` here or in a
    parent directory.

    Raises :class:`RuntimeSetupError` naming where was looked and what is there.
    """
    if "/" in name or name.endswith(".toml"):
        return absolute(name, directory)
    here = directory.absolute()
    present: list[str] = []
    for parent in (here, *here.parents):
        file = parent / FOLDER / f"{name}.toml"
        if file.is_file():
            return file
        present += [path.stem for path in (parent / FOLDER).glob("*.toml")]
    there = f"; there is {', '.join(sorted(present))}" if present else ""
    raise RuntimeSetupError(
        f"no {FOLDER}/{name}.toml in {directory} or above{there}; pytest-h2o doctor --help "
        f"shows an example"
    )


def read_profile(path: Path) -> Profile:
    """The profile in ``path``; raises :class:`RuntimeSetupError` naming the file and the key that
    is wrong.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise RuntimeSetupError(f"profile {path} is larger than 1 MiB; give a profile")
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise RuntimeSetupError(
            f"profile {path} cannot be read: {error.strerror}; correct --h2o-profile"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RuntimeSetupError(f"profile {path} is not TOML: {error}; correct it") from None
    _check(path, content)
    paths: dict[str, str] = {}
    for name in PATHS:
        if name in content:
            paths[name] = os.path.normpath(absolute_text(name, content[name], path.parent))
    knobs = {name: _knob(value) for name, value in content.get("knobs", {}).items()}
    if env := content.get("env"):
        knobs["H2O_LAUNCH_ENV"] = shlex.join([f"{name}={value}" for name, value in env.items()])
    try:
        resolve(profile=knobs)
    except KnobError as error:
        raise RuntimeSetupError(f"profile {path}: {error}") from None
    return Profile(f"profile {path.stem}", paths, knobs)


def profile_schema() -> dict[str, Any]:
    """The JSON Schema of a profile, whose knobs are those that there are.

    Each may be text, as on the command line.
    """
    text = {"type": "string", "minLength": 1, "pattern": r"^[^\0]*$"}
    knobs = {name: _knob_schema(knob) for name, knob in KNOBS.items() if name.lower() not in PATHS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Profile",
        "description": "A setup of pytest-h2o; relative paths start at the file.",
        "type": "object",
        "properties": {
            **dict.fromkeys(PATHS, text),
            "knobs": {"type": "object", "properties": knobs, "additionalProperties": False},
            "env": {"type": "object", "additionalProperties": text},
        },
        "additionalProperties": False,
    }


def _knob_schema(knob: Knob) -> dict[str, Any]:
    """What a knob takes; its words and limits as text are left to itself."""
    schema: dict[str, Any] = {"description": knob.doc, "type": _TYPES[knob.kind]}
    number: dict[str, Any] = {}
    if knob.low is not None and not knob.limit:
        number["minimum"] = knob.low
    if knob.high is not None:
        number["maximum"] = knob.high
    if knob.kind == "ints":
        schema["items"] = {"type": "integer"} | number
    return schema | number


def _check(path: Path, content: Mapping[str, object]) -> None:
    """Raise :class:`RuntimeSetupError` for what the schema does not take."""
    knobs = content.get("knobs")
    twice = [name for name in PATHS if isinstance(knobs, dict) and name.upper() in knobs]
    if twice:
        raise RuntimeSetupError(
            f"profile {path}: give {twice[0].upper()} as {twice[0]} before [knobs]"
        )
    if wrong := problems(content, profile_schema()):
        raise RuntimeSetupError(f"profile {path}: {'; '.join(map(str, wrong))}")


def _knob(value: object) -> str:
    """A knob's value as it would be given on the command line."""
    if isinstance(value, list):
        return ",".join(map(_knob, value))
    return str(int(value)) if isinstance(value, bool) else str(value)
