"""What a controller of xdist workers gives them, and what they tell it of the gates they found.

It does not collect: that there are gates, it learns from its workers, through files, as each has
collected and before any test runs. Nothing heavy is imported here, as most test runs have no gates.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.session.places import unnamed_root

INI_NAMES = (
    "llm_bench", "llm_demo", "model_config", "prompt_dir", "h2o_baseline_llm_bench",
    "h2o_baseline_llm_demo", "h2o_profile", "h2o_hosts", "h2o_set",
)  # fmt: skip


# What -n said, where it was taken back since nothing is launched.
PROCESSES = pytest.StashKey[int | str | None]()


@dataclass(frozen=True)
class FoundGates:
    """That a worker found gates: the cases whose decode speed they look at, the suite that they
    were narrowed to, the names of the launches that they need, or why it cannot run them.
    """

    studied: Collection[str] = ()
    suite: str = ""
    launches: Collection[str] = ()
    error: str = ""


def processes_of(config: pytest.Config) -> int:
    """How many processes ask for launches: the workers of xdist, or this one."""
    if hasattr(config, "workerinput"):
        return int(config.workerinput["workercount"])
    given = config.stash.get(PROCESSES, config.getoption("numprocesses", None))
    if isinstance(given, str):  # auto, logical
        return os.cpu_count() or 1
    return max(1, given or 1, len(config.getoption("tx", None) or ()))


def give(config: pytest.Config, node: Any) -> None:
    """Give a worker the controller's ini values, the run directory if OUT names none, and the file
    to :func:`tell` in.
    """
    node.workerinput["h2o_ini"] = {name: config.getini(name) for name in INI_NAMES}
    node.workerinput["h2o_inipath"] = str(config.inipath or "")
    node.workerinput["h2o_root"] = str(unnamed_root(config))
    # The controller's, as a worker may have another directory for temporary files.
    name = f"pytest-h2o-{node.workerinput['testrunuid']}-{node.workerinput['workerid']}.json"
    node.workerinput["h2o_told"] = str(Path(tempfile.gettempdir()) / name)


def tell(config: pytest.Config, found: FoundGates) -> None:
    """Let the controller know, from a worker."""
    path = Path(config.workerinput["h2o_told"])  # type: ignore[attr-defined]
    path.write_text(json.dumps(asdict(found)), "utf-8")


def told(node: Any) -> FoundGates | None:
    """What a worker let the controller know, once; None if it found no gate."""
    path = Path(node.workerinput["h2o_told"])
    if not path.is_file():
        return None
    found = FoundGates(**json.loads(path.read_text("utf-8")))
    path.unlink()
    return found
