"""What the user set, from the command line, the environment, a profile and the ini file, read once
per process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.data import bundled, project_ini
from pytest_h2o.kit.archives import is_own
from pytest_h2o.kit.versions import DEFAULTS, Kit
from pytest_h2o.plan.knobs import (
    KNOBS,
    KnobError,
    Knobs,
    KnobValue,
    check_together,
    parse_assignments,
    resolve,
)
from pytest_h2o.plan.seats import hosts_text
from pytest_h2o.plan.specs import Work
from pytest_h2o.plan.suites import named, selected
from pytest_h2o.pytest_private import undeclared_names
from pytest_h2o.report.text import command_line
from pytest_h2o.runs.hosts_file import HOSTS_FILE, read_hosts
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.runtimes import (
    Found,
    Runtime,
    RuntimeSetupError,
    defaults_for,
    find_runtime,
    named_by,
    programs_by_work,
)
from pytest_h2o.runtimes.paths import absolute
from pytest_h2o.runtimes.placement import placed
from pytest_h2o.runtimes.profile import Profile, find_profile, read_profile
from pytest_h2o.runtimes.two_builds import BASELINE_PREFIX, with_second_build
from pytest_h2o.session.workers import INI_NAMES

SETUP = ("llm_bench", "llm_demo", "model_config")
BASELINES = {name: f"{BASELINE_PREFIX}{name}" for name in ("llm_bench", "llm_demo")}
# Where the value of RELATION_BUILD comes from then.
NO_SECOND_BUILD = "no second build is named"
INI_PATHS = (*SETUP, *BASELINES.values(), "prompt_dir")
OURS = re.compile(rf"^[ \t]*({'|'.join(INI_NAMES)})[ \t]*=", re.MULTILINE)
# What a command that repeats one gate must repeat as well.
OPTIONS = (
    *INI_PATHS, "h2o_profile", "h2o_launcher", "h2o_hosts", "h2o_runtime", "h2o_kit", "h2o_preset",
    "h2o_set", "h2o_replay", "h2o_replay_baseline", "h2o_out",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The runtime with its launcher, what is launched for each kind of work, the knobs, and the
    prompt directory with its source; paths are absolute.
    """

    runtime: Runtime
    programs: Mapping[Work, str]
    knobs: Knobs
    prompt_dir: Path
    prompt_source: str


def read_settings(config: pytest.Config) -> Settings:
    """The settings of this session; raises UsageError naming the one that is wrong.

    Programs, model and prompts are not looked at.
    """
    ini = ini_values(config)
    directory = config.invocation_params.dir
    try:
        profile = _profile(config, ini, directory)
        words = list(config.getoption("h2o_set"))
        for name in ("h2o_launcher", "h2o_hosts", "h2o_budget"):
            given = config.getoption(name)
            if given is not None:
                words.append(f"{name.upper()}={given}")
        assigned, paths = parse_assignments(words), ini_paths(ini)
        options = {name: config.getoption(name) or assigned.get(name.upper()) for name in INI_PATHS}
        runtime = find_runtime(
            *(options[name] for name in SETUP),
            choice=config.getoption("h2o_runtime"),
            profile=profile,
            ini=paths,
            directory=directory,
        )
        kit: Kit = config.getoption("h2o_kit")
        defaults = defaults_for(_tested(config, runtime)) | DEFAULTS[kit] | _recorded_hosts(config)
        knobs = resolve(
            words, os.environ, ini["h2o_set"], defaults,
            suite=selected(config.getoption("markexpr")),
            profile=profile.knobs if profile else None,
        )  # fmt: skip
        check_together(knobs)
        _check_paths(knobs)
        prompts = named_by("prompt_dir", options["prompt_dir"], os.environ, profile, paths)
        prompt_dir, source = (
            prompts[0] if prompts else (bundled("prompts"), "the prompts that ship")
        )
        programs = programs_by_work(runtime.programs) | _recorded_programs(config)
        second: dict[str, Found] = {}
        for name, setting in BASELINES.items():
            for value, named in named_by(setting, options[setting], os.environ, profile, paths)[:1]:
                second[name] = Found(absolute(value, directory), named)
        if second:
            runtime = with_second_build(runtime, second, directory)
        elif not _recorded_second(config):
            knobs = without_second_build(knobs)
        return Settings(
            placed(runtime, knobs), programs, knobs, absolute(prompt_dir, directory), source
        )
    except (KnobError, RuntimeSetupError) as error:
        raise pytest.UsageError(str(error)) from error


def without_second_build(knobs: Knobs) -> Knobs:
    """The knobs of a session in which there is one build only."""
    off: tuple[KnobValue, str] = (False, NO_SECOND_BUILD)
    return replace(knobs, given={**knobs.given, "RELATION_BUILD": off})


def _tested(config: pytest.Config, runtime: Runtime) -> str:
    """The name of the runtime whose defaults hold: in a replay the recorded one's, empty where that
    is not known.
    """
    if not config.getoption("h2o_replay"):
        return runtime.name
    if not _replays_own(config):
        return ""
    recorded = next((record.runtime for record in _replayed(config)), "")
    return recorded.partition(":")[0] or runtime.name


def _replays_own(config: pytest.Config) -> bool:
    replay = config.getoption("h2o_replay")
    sweep = bool(config.getoption("h2o_preset"))
    return bool(replay) and is_own(Path(replay), sweep=sweep)


def _replayed(config: pytest.Config) -> list[LaunchRecord]:
    return ReplayStore(Path(config.getoption("h2o_replay"))).records()


def _recorded_hosts(config: pytest.Config) -> dict[str, KnobValue]:
    """The hosts that a replayed session launched on, over which its cases are spread."""
    if not _replays_own(config):
        return {}
    kept = read_hosts(Path(config.getoption("h2o_replay")) / HOSTS_FILE)
    return {"H2O_HOSTS": hosts_text(kept.hosts)}


def _recorded_programs(config: pytest.Config) -> dict[Work, str]:
    """What a replayed session launched for each kind of work."""
    if not _replays_own(config):
        return {}
    return {record.spec.work: record.program for record in _replayed(config)}


def _recorded_second(config: pytest.Config) -> bool:
    """Whether a replayed session launched a second build."""
    return _replays_own(config) and any(record.spec.second_build for record in _replayed(config))


def ini_values(config: pytest.Config) -> dict[str, Any]:
    """This plugin's values in the ini file; a worker takes the controller's, whichever file it
    reads itself.
    """
    if hasattr(config, "workerinput"):
        given: dict[str, Any] = config.workerinput["h2o_ini"]
    else:
        _check_names(config)
        _check_nearest(config)
        given = {name: config.getini(name) for name in INI_NAMES}
    inipath = inipath_of(config)
    folder = inipath.parent if inipath else config.rootpath
    values: dict[str, Any] = dict.fromkeys(INI_PATHS, "")
    for name in INI_PATHS:
        if given[name]:
            values[name] = str(absolute(given[name], folder))
    profile = given["h2o_profile"]
    if "/" in profile or profile.endswith(".toml"):
        profile = str(absolute(profile, folder))
    set_there = list(given["h2o_set"])
    if given["h2o_hosts"]:
        set_there.append(f"H2O_HOSTS={given['h2o_hosts']}")
    return values | {"h2o_profile": profile, "h2o_set": set_there}


def inipath_of(config: pytest.Config) -> Path | None:
    """The ini file of the session: a worker may read another one than the controller."""
    if not hasattr(config, "workerinput"):
        return config.inipath
    given = config.workerinput["h2o_inipath"]
    return Path(given) if given else None


def ini_paths(ini: Mapping[str, Any]) -> dict[str, str]:
    """The programs and directories among :func:`ini_values`, by their own names or as knobs in
    ``h2o_set``.
    """
    in_set = parse_assignments(ini["h2o_set"])
    return {name: ini.get(name) or in_set.get(name.upper(), "") for name in INI_PATHS}


def _check_paths(knobs: Knobs) -> None:
    """Raise KnobError for a knob that names nothing to read."""
    if (given := knobs.text("DUMP_DIR")) and not Path(given).is_dir():
        raise KnobError(f"DUMP_DIR={given}: not a directory; give one with a KV dump in it")
    if (given := knobs.text("PROMPT_MANIFEST")) and not Path(given).is_file():
        raise KnobError(f"PROMPT_MANIFEST={given}: not a file; give a list of prompt files")


def _check_nearest(config: pytest.Config) -> None:
    """Raise UsageError if the ini file of the working directory has settings of ours and pytest
    reads another, or none.

    It looks beside the gates, which lie elsewhere when they are an installed package's, or another
    checkout's.
    """
    near = project_ini(config.invocation_params.dir)
    if (
        near is None
        or config.getoption("inifilename")
        or (config.inipath and near.samefile(config.inipath))
    ):
        return
    if named := OURS.search(near.read_text("utf-8", errors="replace")):
        read = config.inipath or "no ini file"
        raise pytest.UsageError(
            f"{near} sets {named[1]}, but pytest read {read}, since it looks beside the gates; "
            f"add -c {near}, "
            "or run pytest-h2o SUITE"
        )


def _check_names(config: pytest.Config) -> None:
    """Raise UsageError for a name of ours, or of a knob, that pytest passes over in the ini
    file.
    """
    for name in undeclared_names(config):
        if name.lower() in INI_NAMES and name not in INI_NAMES:
            raise pytest.UsageError(
                f"{config.inipath}: {name} is written {name.lower()} in an ini file"
            )
        if name in KNOBS:
            raise pytest.UsageError(
                f"{config.inipath}: {name} is a knob; give it as a line of h2o_set: {name}=VALUE"
            )


def rerun_command(config: pytest.Config, item: pytest.Item) -> str:
    """The command that repeats one gate with this session's options, from the directory it was
    started in.
    """
    directory = config.invocation_params.dir
    path = item.path
    if path.is_relative_to(directory):
        path = path.relative_to(directory)
    words = ["pytest", f"{path}::{item.nodeid.partition('::')[2]}"]
    if suite := named(config.getoption("markexpr")):  # it has defaults of its own
        words += ["-m", suite]
    inipath = inipath_of(config)
    if inipath and inipath.is_file() and not item.path.is_relative_to(inipath.parent):
        words += ["-c", str(inipath)]
    for name in OPTIONS:
        option = f"--{name.replace('_', '-')}"
        value = config.getoption(name)
        if isinstance(value, list):
            words += [f"{option}={each}" for each in value]
        elif value not in (None, "auto", "v6"):
            words.append(f"{option}={value}")
    return command_line(words)


def _profile(config: pytest.Config, ini: Mapping[str, str], directory: Path) -> Profile | None:
    name = config.getoption("h2o_profile") or ini["h2o_profile"]
    return read_profile(find_profile(name, directory)) if name else None
