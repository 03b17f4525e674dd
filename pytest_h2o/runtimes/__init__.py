"""Runtimes: what provides programs, and how the one to use is found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pytest_h2o.plan.seats import by_kind
from pytest_h2o.runtimes.base import (
    Command,
    Found,
    Program,
    Runtime,
    RuntimeKind,
    RuntimeSetupError,
    Setup,
)
from pytest_h2o.runtimes.embedded import EmbeddedRuntime
from pytest_h2o.runtimes.mnn import BUILD_DIRS, MnnRuntime, find_binaries
from pytest_h2o.runtimes.paths import absolute
from pytest_h2o.runtimes.profile import Profile
from pytest_h2o.runtimes.programs import LLM_BENCH, LLM_DEMO
from pytest_h2o.runtimes.registry import (
    check_programs,
    defaults_for,
    find_program,
    programs_by_work,
    runtime_kind,
    runtime_names,
)

__all__ = [
    "LLM_BENCH",
    "LLM_DEMO",
    "Command",
    "EmbeddedRuntime",
    "Found",
    "MnnRuntime",
    "Program",
    "Runtime",
    "RuntimeKind",
    "RuntimeSetupError",
    "defaults_for",
    "find_program",
    "find_runtime",
    "named_by",
    "programs_by_work",
    "runtime_kind",
    "runtime_names",
    "value_for",
]

AUTO = "auto"


def value_for(kind: str, value: str | Path, name: str, source: str) -> str | Path:
    """What a path setting says for a kind of host; raises :class:`RuntimeSetupError` where it has
    values for others only.
    """
    values = by_kind(name.upper(), str(value))
    if "" in values:
        return value
    if kind not in values:
        raise RuntimeSetupError(
            f"{source} gives {name} for {', '.join(values)}, and not for "
            f"{kind or 'hosts without a kind'}; add {kind or 'KIND'}=PATH"
        )
    return values[kind]


def find_runtime(  # noqa: PLR0913  three names, and where to look for them
    llm_bench: str | Path | None = None,
    llm_demo: str | Path | None = None,
    model_config: str | Path | None = None,
    *,
    choice: str = AUTO,
    environ: Mapping[str, str] | None = None,
    profile: Profile | None = None,
    ini: Mapping[str, str] | None = None,
    directory: Path | None = None,
    kind: str = "",
) -> Runtime:
    """The runtime to use, with the reason recorded in what it describes.

    Each of ``llm_bench``, ``llm_demo`` and ``model_config`` is taken from the first source that
    names it: the argument (an explicit option), the environment (``LLM_BENCH``, ``LLM_DEMO``,
    ``MODEL_CONFIG``), the profile, the ini file. Relative paths start at ``directory`` (default:
    the working directory). With ``kind`` the value for that kind of host is taken where a source
    gives one for each.

    ``choice`` is the name of a registered runtime. Without one, a program that is not named is
    taken from beside the other one, if it is there; if neither is named, the first of
    ``./build_h2o_v6/`` and ``./build/`` that holds one is used; if there is none, the embedded
    runtime. A build is never replaced by the embedded runtime because its model is missing.

    Raises :class:`RuntimeSetupError` for a name that is not registered and for what the runtime
    cannot use.
    """
    options = {"llm_bench": llm_bench, "llm_demo": llm_demo, "model_config": model_config}
    directory = directory or Path.cwd()
    environ = os.environ if environ is None else environ
    named = {}
    for name, option in options.items():
        for value, source in named_by(name, option, environ, profile, ini)[:1]:
            path = absolute(value_for(kind, value, name, source), directory)
            named[name] = Found(path, source)
    setup = Setup(directory, named, kind=kind)
    if choice == AUTO:
        return _usual(setup)
    runtime = runtime_kind(choice).create(setup)
    check_programs(runtime)
    return runtime


def _usual(setup: Setup) -> Runtime:
    """The build that is named or lies here, else the embedded runtime."""
    if find_binaries(setup) or "model_config" in setup.named:
        return MnnRuntime.create(setup)
    folders = [f"./{folder}/" for folder in BUILD_DIRS]
    return EmbeddedRuntime(
        "neither --llm-bench, --llm-demo, LLM_BENCH, LLM_DEMO, a profile nor the ini file names "
        f"a program, and there is none in {' or '.join(folders)}"
    )


def named_by(
    name: str,
    option: str | Path | None,
    environ: Mapping[str, str],
    profile: Profile | None = None,
    ini: Mapping[str, str] | None = None,
) -> list[tuple[str | Path, str]]:
    """The values of a path setting and their sources, the one that counts first."""
    sources = [
        (option, "--" + name.replace("_", "-")),
        (environ.get(name.upper()), name.upper()),
    ]
    if profile:
        sources.append((profile.paths.get(name), profile.source))
    if ini:
        sources.append((ini.get(name), f"{name} in the ini file"))
    return [(value, source) for value, source in sources if value]
