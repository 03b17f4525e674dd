"""Where the run directory of a session lies."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest

from pytest_h2o.plan.knobs import KnobError

ROOT = pytest.StashKey[Path]()


def runs_directory(config: pytest.Config) -> Path:
    """Where run directories are kept."""
    return config.invocation_params.dir / (config.getoption("h2o_out") or "h2o-runs")


def session_root(config: pytest.Config, given: str) -> Path:
    """This session's run directory: given, or named after the time (the controller's in a worker).

    It is made when first needed. Raises :class:`KnobError` if the given one holds launches, which
    would be taken for those of this session.
    """
    if given:
        root = config.invocation_params.dir / given
        if (root / "launches").exists() and not hasattr(config, "workerinput"):
            raise KnobError(
                f"OUT={given} holds launches; give another directory, and --h2o-resume to take "
                f"them over"
            )
        return root
    return unnamed_root(config)


def unnamed_root(config: pytest.Config) -> Path:
    """The run directory where OUT names none, the same whenever it is asked for."""
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["h2o_root"])
    if ROOT not in config.stash:
        config.stash[ROOT] = _new_root(config)
    return config.stash[ROOT]


def _new_root(config: pytest.Config) -> Path:
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"
    root = runs_directory(config) / name
    later = count(2)  # for sessions of one process and second
    while root.exists():
        root = root.with_name(f"{name}-{next(later)}")
    return root
