"""What a session judges instead of launches made from knobs: recorded runs, or a sweep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_h2o.kit.archives import is_own, read_recording
from pytest_h2o.lab.recordings import Recording, RecordingError
from pytest_h2o.plan.knobs import KNOBS
from pytest_h2o.plan.presets import PresetError, combinations, preset_names
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.session.settings import Settings

TYPED = "command line"
# What a preset decides, so that setting it for a sweep would be recorded and change nothing.
DECIDED = ("PROMPTS", "GENS", "REPEAT", *(knob.name for knob in KNOBS.values() if knob.key))


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Attributes:
        replay: the directory of an earlier run that is judged again.
        recording: what lies there, unless it is a run directory of this project, whose launches a
            store finds.
        baseline: the recorded run with H2O off that is compared with.
        combinations: the launches of a sweep.
    """

    replay: Path | None
    recording: Recording | None
    baseline: Recording | None
    combinations: Sequence[LaunchSpec]


def read_subject(config: pytest.Config, settings: Settings) -> Subject:
    """What the options name; raises :class:`RecordingError` and :class:`PresetError`."""
    swept = _combinations(config, settings)
    replay, recording = None, None
    if given := config.getoption("h2o_replay"):
        replay = _settled(Path(given))
        if not is_own(replay, sweep=bool(config.getoption("h2o_preset"))):
            recording = read_recording(replay)
    return Subject(replay, recording, _baseline(config), swept)


def check_directories(config: pytest.Config) -> None:
    """Raise UsageError if an option names a directory that is not there."""
    for option in ("replay", "replay-baseline", "resume"):
        given = config.getoption(f"h2o_{option.replace('-', '_')}")
        if given and not Path(given).is_dir():
            raise pytest.UsageError(
                f"--h2o-{option} {given}: not a directory; give an earlier run directory"
            )


def _settled(path: Path) -> Path:
    """``path``, or what it points to if it is a link such as ``latest``, which may point elsewhere
    tomorrow.
    """
    return path.resolve() if path.is_symlink() else path


def _baseline(config: pytest.Config) -> Recording | None:
    given = config.getoption("h2o_replay_baseline")
    if not given:
        return None
    if not config.getoption("h2o_replay"):
        raise RecordingError("--h2o-replay-baseline belongs to --h2o-replay RUN_DIR")
    return read_recording(Path(given))


def _combinations(config: pytest.Config, settings: Settings) -> list[LaunchSpec]:
    """The launches of the preset that is asked for; none where no sweep is."""
    knobs = settings.knobs
    name = config.getoption("h2o_preset")
    if name is None and re.search(r"\bsweep\b", config.getoption("markexpr")):
        raise PresetError(
            f"-m sweep needs --h2o-preset NAME; there are {', '.join(preset_names())}"
        )
    specs = combinations(name, knobs, settings.programs.get("lengths", "")) if name else []
    if specs and knobs.suite == "sweep":
        idle = [knob for knob in DECIDED if knobs.with_source(knob)[1] == TYPED]
        if idle:
            raise PresetError(
                f"{', '.join(idle)} on the command line: decided by the preset {name}; "
                f"correct it there"
            )
    return specs
