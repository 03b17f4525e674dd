"""What the user set, from the command line, the environment, a profile and the ini file, read once
per process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
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
    value_for,
)
from pytest_h2o.runtimes.paths import absolute, absolute_text
from pytest_h2o.runtimes.placement import placed
from pytest_h2o.runtimes.profile import Profile, find_profile, read_profile
from pytest_h2o.runtimes.runtime_by_kind import RuntimeByKind, kinds_in
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
        named = Named(options, profile, paths, directory)
        runtime = _runtime(named, config.getoption("h2o_runtime"))
        kit: Kit = config.getoption("h2o_kit")
        defaults = defaults_for(_tested(config, runtime)) | DEFAULTS[kit] | _recorded_hosts(config)
        knobs = resolve(
            words, os.environ, ini["h2o_set"], defaults,
            suite=selected(config.getoption("markexpr")),
            profile=profile.knobs if profile else None,
        )  # fmt: skip
        check_together(knobs)
        _check_paths(knobs)
        prompt_dir, source = named.prompts()
        programs = programs_by_work(runtime.programs) | _recorded_programs(config)
        has_second = any(named.text(setting) for setting in BASELINES.values())
        if not has_second and not _recorded_second(config):
            knobs = without_second_build(knobs)
        return Settings(placed(runtime, knobs), programs, knobs, prompt_dir, source)
    except (KnobError, RuntimeSetupError) as error:
        raise pytest.UsageError(str(error)) from error


@dataclass(frozen=True)
class Named:
    """Where programs, model and prompts are named: for all hosts, or for each kind of them."""

    options: Mapping[str, str | None]
    profile: Profile | None
    ini: Mapping[str, str]
    directory: Path

    def text(self, name: str) -> tuple[str, str] | None:
        """The value of a path setting and its source; None where nothing names it."""
        found = named_by(name, self.options[name], os.environ, self.profile, self.ini)
        return (str(found[0][0]), found[0][1]) if found else None

    def found(self, name: str, kind: str) -> Found | None:
        """The path of a setting for a kind of host."""
        named = self.text(name)
        if named is None:
            return None
        value, source = named
        return Found(absolute(value_for(kind, value, name, source), self.directory), source)

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of hosts that any of the paths is given for."""
        texts = {name: named[0] for name in INI_PATHS if (named := self.text(name))}
        return kinds_in(texts)

    def runtime(self, choice: str, kind: str) -> Runtime:
        """The runtime of a kind of host, beside the second build if there is one."""
        runtime = find_runtime(
            *(self.options[name] for name in SETUP),
            choice=choice, profile=self.profile, ini=self.ini, directory=self.directory, kind=kind,
        )  # fmt: skip
        second: dict[str, Found] = {}
        for name, setting in BASELINES.items():
            if found := self.found(setting, kind):
                second[name] = found
        return with_second_build(runtime, second, self.directory, kind) if second else runtime

    def prompt_dirs(self) -> dict[str, Found]:
        """The prompt directory of each kind of host; none where no kinds are named."""
        found = {kind: self.found("prompt_dir", kind) for kind in self.kinds}
        return {kind: named for kind, named in found.items() if named}

    def prompts(self) -> tuple[Path, str]:
        """The directory that prompts are read from here, and its source: of those of several kinds
        the first that is here.
        """
        places = list(self.prompt_dirs().values())
        if not self.kinds and (one := self.found("prompt_dir", "")):
            places.append(one)
        for place in places:
            if place.path.is_dir():
                return place.path, place.source
        if places:
            return places[0].path, places[0].source
        return bundled("prompts"), "the prompts that ship"


def _runtime(named: Named, choice: str) -> Runtime:
    """The runtime of the session, one for each kind of host where they are named apart."""
    if not named.kinds:
        return named.runtime(choice, "")
    runtimes = {kind: named.runtime(choice, kind) for kind in named.kinds}
    here = named.prompts()[0]
    prompts = {kind: found.path for kind, found in named.prompt_dirs().items()}
    first = next(iter(runtimes.values()))
    return RuntimeByKind(first, runtimes, prompts, here)


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
            values[name] = absolute_text(name, given[name], folder)
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
