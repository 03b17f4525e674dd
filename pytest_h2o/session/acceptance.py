"""What runs where nobody said which gates: the acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.data import bundled
from pytest_h2o.plan.knobs import meant
from pytest_h2o.plan.needs import is_gate
from pytest_h2o.plan.suites import SUITES
from pytest_h2o.session.gate import suites_of

ACCEPTANCE = "final"
# A recording has the suites that it has, and a preset is launched by gates of its own.
CHOOSING = ("markexpr", "h2o_replay", "h2o_preset")


def narrow(config: pytest.Config, items: list[pytest.Item]) -> str:
    """Deselect, where no option chose and whole directories were collected, the gates that ship and
    are not in the acceptance; returns the suite, empty if the choice stands.

    ``items`` is changed in place. Gates of others stay, and so does everything where a filter left
    no gate of the acceptance.
    """
    if any(config.getoption(name) for name in CHOOSING):
        return ""
    directory = config.invocation_params.dir
    if not all((directory / word).is_dir() for word in config.args):
        return ""
    shipped = bundled("gates").resolve()
    ours = [item for item in items if is_gate(item) and _lies_in(shipped, item.path)]
    others = [item for item in ours if ACCEPTANCE not in suites_of(item).split(",")]
    if len(others) == len(ours):
        return ""
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]
    if others:
        config.hook.pytest_deselected(items=others)
    return ACCEPTANCE


def check_suite(config: pytest.Config) -> None:
    """Raise UsageError for ``-m`` with a name that no marker has, and a suite nearly has."""
    name = config.getoption("markexpr").strip()
    markers = [line.partition(":")[0].partition("(")[0] for line in config.getini("markers")]
    known = name in SUITES or name in markers
    if name.isidentifier() and not known and (hint := meant(name, SUITES)):
        raise pytest.UsageError(f"-m {name}: no such suite{hint}")


def _lies_in(directory: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(directory)
