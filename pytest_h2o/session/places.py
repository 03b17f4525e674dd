"""Where the run directory of a session lies."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest

from pytest_h2o.plan.knobs import KnobError


def runs_directory(config: pytest.Config) -> Path:
    """Where run directories are kept."""
    return config.invocation_params.dir / (config.getoption("h2o_out") or "h2o-runs")


def session_root(config: pytest.Config, given: str) -> Path:
    """This session's run directory: given, or named after the time (the controller's in a worker).

    It is made when first needed. Raises :class:`KnobError` if the given one holds launches, which
    would be taken for those of this session.
    """
    if hasattr(config, "workerinput"):
        return Path(config.workerinput["h2o_root"])
    if given:
        root = config.invocation_params.dir / given
        if (root / "launches").exists():
            raise KnobError(
                f"OUT={given} holds launches; give another directory, and --h2o-resume to take "
                f"them over"
            )
        return root
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"
    root = runs_directory(config) / name
    later = count(2)  # for sessions of one process and second
    while root.exists():
        root = root.with_name(f"{name}-{next(later)}")
    return root
