"""Counters of the table against the lines of the log."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_h2o.evidence import (
    bytes_evidence_of,
    failed_evidence,
    feasible_evidence,
    queue_evidence,
    restored_evidence,
    skipped_evidence,
    workers_evidence,
)
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

RUNS = Path(__file__).parents[1] / "data" / "runs"
About = Callable[[Run], list[Evidence]]
ABOUT: list[About] = [
    bytes_evidence_of,
    failed_evidence,
    feasible_evidence,
    queue_evidence,
    restored_evidence,
    skipped_evidence,
]


def case_of(directory: Path) -> Run:
    """A recording's only case."""
    recording = read_recording(directory)
    return recording.run(next(iter(recording.cases(resolve()).values())))


def standings(about: About, run: Run) -> set[str]:
    """How what is said stands."""
    return {item.standing for item in about(run)}


@pytest.mark.parametrize("about", ABOUT)
@pytest.mark.parametrize("name", ["bench_full", "bench_store", "bench_full_coverage"])
def test_honest_counters_are_supported(about: About, name: str) -> None:
    """Whatever a gate rests on, the lines of the launch bear out."""
    assert standings(about, case_of(RUNS / name)) == {"supported"}


def test_workers_are_those_of_the_settings() -> None:
    """Where encode workers are configured, tasks were queued or running."""
    assert "contradicted" not in standings(workers_evidence, case_of(RUNS / "bench_full"))


@pytest.mark.parametrize(
    ("about", "pattern", "other"),
    [
        (failed_evidence, r"fallback=0", "fallback=1"),
        (skipped_evidence, r"backpressure=0", "backpressure=1"),
        (queue_evidence, r"queue=\d+", "queue=99"),
        (
            feasible_evidence,
            r"kv=(\d+) keep_ratio=\S+ evict=\d+",
            r"kv=\1 keep_ratio=0.01 evict=400",
        ),
    ],
)
def test_lines_that_tell_another_story(
    tmp_path: Path, about: About, pattern: str, other: str
) -> None:
    """A counter of 0, a short queue, a floor: the log may deny them."""
    folder = Path(shutil.copytree(RUNS / "bench_full", tmp_path / "run"))
    for path in folder.rglob("*.stdout"):
        text, count = re.subn(pattern, other, path.read_text())
        assert count
        path.write_text(text)
    assert standings(about, case_of(folder)) == {"contradicted"}


@pytest.mark.parametrize("about", [failed_evidence, feasible_evidence, queue_evidence])
def test_a_launch_without_lines(tmp_path: Path, about: About) -> None:
    """Nothing bears its counters out, and that is said, though other launches have lines."""
    folder = Path(shutil.copytree(RUNS / "bench_full", tmp_path / "run"))
    for path in folder.rglob("*p1024*.stdout"):
        path.write_text("\n")
    said = about(case_of(folder))
    assert {item.standing for item in said} == {"supported", "not evidenced"}
    assert "which is not there for p1024_g128" in said[0].text
