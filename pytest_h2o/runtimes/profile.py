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

from pytest_h2o.plan.knobs import KnobError, resolve
from pytest_h2o.runtimes.base import RuntimeSetupError
from pytest_h2o.runtimes.paths import absolute

FOLDER = "h2o-profiles"
PATHS = ("llm_bench", "llm_demo", "model_config", "prompt_dir")
SIZE_LIMIT = 2**20


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
    folders = [parent / FOLDER for parent in (directory.absolute(), *directory.absolute().parents)]
    found = next(
        (folder / f"{name}.toml" for folder in folders if (folder / f"{name}.toml").is_file()), None
    )
    if found is None:
        present = sorted(path.stem for folder in folders for path in folder.glob("*.toml"))
        there = f"; there is {', '.join(present)}" if present else ""
        raise RuntimeSetupError(
            f"no {FOLDER}/{name}.toml in {directory} or above{there}; pytest-h2o doctor --help "
            f"shows an example"
        )
    return found


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
    if unknown := sorted(content.keys() - {*PATHS, "knobs", "env"}):
        known = ", ".join(PATHS)
        raise RuntimeSetupError(
            f"profile {path}: unknown key {unknown[0]!r}; it takes {known}, [knobs] and [env]"
        )
    given = {name: _text(path, name, content[name]) for name in PATHS if name in content}
    paths = {name: os.path.normpath(absolute(text, path.parent)) for name, text in given.items()}
    knobs = {
        name: _knob(path, name, value) for name, value in _table(path, content, "knobs").items()
    }
    env = {name: _text(path, name, value) for name, value in _table(path, content, "env").items()}
    if twice := sorted(knobs.keys() & {name.upper() for name in PATHS}):
        raise RuntimeSetupError(
            f"profile {path}: give {twice[0]} as {twice[0].lower()} before [knobs]"
        )
    if env:
        knobs["H2O_LAUNCH_ENV"] = shlex.join([f"{name}={value}" for name, value in env.items()])
    try:
        resolve(profile=knobs)
    except KnobError as error:
        raise RuntimeSetupError(f"profile {path}: {error}") from None
    return Profile(f"profile {path.stem}", paths, knobs)


def _table(path: Path, content: Mapping[str, object], name: str) -> dict[str, object]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise RuntimeSetupError(
            f"profile {path}: {name} is {table!r:.40}; expected a table, [{name}]"
        )
    return table


def _text(path: Path, name: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise RuntimeSetupError(f"profile {path}: {name} is {value!r:.40}; expected text")
    return value


def _knob(path: Path, name: str, value: object) -> str:
    """A knob's value as it would be given on the command line."""
    if isinstance(value, list):
        return ",".join(_knob(path, name, item) for item in value)
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise RuntimeSetupError(
            f"profile {path}: {name} is {value!r:.40}; expected text, a number or a list of numbers"
        )
    return str(value)
