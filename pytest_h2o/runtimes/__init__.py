"""Runtimes: what provides ``llm_bench`` and ``llm_demo``, and how the one to use is found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pytest_h2o.plan.specs import Program
from pytest_h2o.runtimes.base import Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.embedded import MODEL_CONFIG, EmbeddedRuntime
from pytest_h2o.runtimes.mnn import MnnRuntime, check_program
from pytest_h2o.runtimes.profile import Profile
from pytest_h2o.runtimes.programs import absolute

__all__ = [
    "Command",
    "EmbeddedRuntime",
    "MnnRuntime",
    "Runtime",
    "RuntimeSetupError",
    "find_runtime",
]

PROGRAMS: tuple[Program, ...] = ("llm_bench", "llm_demo")
BUILD_DIRS = ("build_h2o_v6", "build")
Choice = Literal["auto", "embedded", "mnn"]
Found = tuple[Path, str]


def find_runtime(  # noqa: PLR0913  three names, and where to look for them
    llm_bench: str | Path | None = None,
    llm_demo: str | Path | None = None,
    model_config: str | Path | None = None,
    *,
    choice: Choice = "auto",
    environ: Mapping[str, str] | None = None,
    profile: Profile | None = None,
    ini: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Runtime:
    """The runtime to use, with the reason recorded in what it describes.

    Each of ``llm_bench``, ``llm_demo`` and ``model_config`` is taken from the first source that
    names it: the argument (an explicit option), the environment (``LLM_BENCH``, ``LLM_DEMO``,
        ``MODEL_CONFIG``), the profile, the
    ini file.
    A program that is not named is taken from beside the other one, if it is there. If neither is
    named, the first of ``./build_h2o_v6/`` and ``./build/`` that holds one is used; if there is
    none, the embedded runtime. ``choice`` insists on one of them. Relative paths start at
    ``directory`` (default: the working directory). A build is never
    replaced by the embedded runtime because its model is missing: raises :class:`RuntimeSetupError`
        for programs
    without a model config and for a model config without programs.
    """
    options = {"llm_bench": llm_bench, "llm_demo": llm_demo, "model_config": model_config}
    directory = directory or Path.cwd()
    if choice == "embedded":
        config = absolute(model_config, directory) if model_config else MODEL_CONFIG
        return EmbeddedRuntime("chosen explicitly", config)
    environ = os.environ if environ is None else environ
    named = {
        name: (absolute(value, directory), source)
        for name, option in options.items()
        for value, source in named_by(name, option, environ, profile, ini)[:1]
    }
    programs = _beside({name: named[name] for name in PROGRAMS if name in named}) or _built(
        directory
    )
    config_found = named.get("model_config")
    if not programs and not config_found and choice == "auto":
        return EmbeddedRuntime(
            "neither --llm-bench, --llm-demo, LLM_BENCH, LLM_DEMO, a profile nor the ini file "
            "names a program, "
            f"and there is none in {_words(BUILD_DIRS)}"
        )
    return _mnn(programs, config_found)


def named_by(
    name: str,
    option: str | Path | None,
    environ: Mapping[str, str],
    profile: Profile | None = None,
    ini: Mapping[str, str] | None = None,
) -> list[tuple[str | Path, str]]:
    """The values of a path setting and their sources, the one that counts first."""
    sources = (
        (option, "--" + name.replace("_", "-")),
        (environ.get(name.upper()), name.upper()),
        (profile.paths.get(name), profile.source) if profile else (None, ""),
        ((ini or {}).get(name), f"{name} in the ini file"),
    )
    return [(value, source) for value, source in sources if value]


def _beside(named: dict[Program, Found]) -> dict[Program, Found]:
    """The named programs, and beside a single one the other, if it is there."""
    for name, (path, _) in list(named.items()):
        for other in PROGRAMS:
            if other not in named and path.with_name(other).is_file():
                named[other] = (path.with_name(other), f"beside {name}")
    return named


def _built(directory: Path) -> dict[Program, Found]:
    """The programs of the first build directory that holds any."""
    for folder in BUILD_DIRS:
        paths = {name: directory / folder / name for name in PROGRAMS}
        found: dict[Program, Found] = {
            name: (path, f"./{folder}/") for name, path in paths.items() if path.is_file()
        }
        if found:
            return found
    return {}


def _mnn(programs: Mapping[Program, Found], config: Found | None) -> MnnRuntime:
    if not programs:
        named = (
            f"model config {config[0]} is named by {config[1]}"
            if config
            else "the mnn runtime was chosen"
        )
        raise RuntimeSetupError(
            f"{named}, but there is no program to run it; name one with --llm-bench or --llm-demo"
        )
    if config is None:
        for name, (path, _) in programs.items():
            check_program(name, path)
        path, source = next(iter(programs.values()))
        raise RuntimeSetupError(
            f"{path} was found ({source}), but no model config; name one with --model-config or "
            f"MODEL_CONFIG"
        )
    sources = [
        *((name, source) for name, (_, source) in programs.items()),
        ("model config", config[1]),
    ]
    words = (
        f"{name} {source if source.startswith('beside ') else f'from {source}'}"
        for name, source in sources
    )
    return MnnRuntime(
        {name: path for name, (path, _) in programs.items()}, config[0], ", ".join(words)
    )


def _words(folders: tuple[str, ...]) -> str:
    return " or ".join(f"./{folder}/" for folder in folders)
