"""``--h2o-plan``: what the selected gates would have launched, in which order and time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_h2o.plan.specs import LaunchSpec, launch_names
from pytest_h2o.report.text import aligned, clean, plural
from pytest_h2o.runs.launch_folder import file_name
from pytest_h2o.session.forecast import Forecast, duration, latest_launches
from pytest_h2o.session.places import runs_directory

if TYPE_CHECKING:
    from pytest_h2o.session.session import Session

MIB = 2**20


def show_plan(config: pytest.Config, session: Session | None) -> None:
    """Write the plan to the screen; where nothing is launched, say so."""
    writer = config.get_terminal_writer()
    writer.line()
    specs = session.planner.in_order() if session else []
    if session is None or not specs or session.lab.replay:
        writer.line("h2o: the selected tests launch nothing")
        return
    session.schedule.expect(launch_names(specs))
    for line in plan_lines(specs, session.schedule.forecast, runs_directory(config)):
        writer.line(line)


def plan_lines(specs: Sequence[LaunchSpec], forecast: Forecast, runs: Path) -> list[str]:
    """A line per launch, and what all take together as far as earlier launches tell."""
    guesses = list(map(forecast.guess, launch_names(specs)))
    rows = [("", "launch", "time")]
    for number, (spec, guess) in enumerate(zip(specs, guesses, strict=True), 1):
        shown = "not known" if guess is None else f"about {duration(guess)}"
        rows.append((str(number), clean(spec.name, 200), shown))
    lines = aligned(rows)
    lines.append("")
    lines += _totals(specs, forecast, runs)
    return lines


def _totals(specs: Sequence[LaunchSpec], forecast: Forecast, runs: Path) -> list[str]:
    known = forecast.known(launch_names(specs))
    count = f"at least {plural(len(specs), 'launch', 'launches')}"
    if not known:
        return [f"{count}; time and disk are not known, since nothing like it was launched here"]
    time = f"about {duration(forecast.lanes.together(known))}{forecast.lanes.described}"
    if len(known) < len(specs):
        time = f"{time} for {len(known)} of them"
    deadline = max(spec.deadline_s for spec in specs)
    lines = [f"{count}, {time}; one that takes {deadline:g} s is stopped (LAUNCH_TIMEOUT_S)"]
    sizes: list[int] = []
    for root in latest_launches(runs):
        sizes += [_size(root / file_name(spec.name)) for spec in specs]
    sizes = list(filter(None, sizes))
    if sizes:
        disk = sum(sizes) / len(sizes) * len(specs) / MIB
        lines.append(f"about {max(disk, 0.1):.1f} MiB of disk in {runs}")
    lines.append("a decode study that is not decided measures more pairs than these")
    lines.append("the order is that of one process; workers (-n) ask in theirs")
    return lines


def _size(directory: Path) -> int:
    """The bytes of a launch's files."""
    if not directory.is_dir():
        return 0
    return sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file())
