"""What H2O gains in one program, beside the other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.evidence.bench_beside_demo import READ, SAME_WORK, programs_evidence
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

HEADER = "| model | llm_demo | speed(tok/s) |\n|---|---|---|\n"


def launched(folder: Path, speed: float, reading: float, backend: str = "cpu") -> LaunchRecord:
    """A bench launch of 512 and 64 tokens that decoded and read so fast."""
    folder.mkdir()
    spec = LaunchSpec(
        program="llm_bench", arm="full", replicate=1, config={}, gen_tokens=64, repeat=1,
        prompt_tokens=512, backend=backend,
    )  # fmt: skip
    paths = standard_paths(folder)
    row = f"| m | prompt=512<br>decode=64 | {reading:.2f} ± 1.00<br>{speed:.2f} ± 0.10 |\n"
    paths["table"].write_text(HEADER + row)
    for name in ("stdout", "stderr"):
        paths[name].write_text("")
    return LaunchRecord(spec=spec, status="ok", reason="exit code 0", **paths)


def pairs(
    folder: Path, gain: float, count: int, reading: float = 900.0, backend: str = "cpu"
) -> list[tuple[LaunchRecord, LaunchRecord]]:
    """Pairs in which the candidate is so many times as fast, give or take some percent."""
    folder.mkdir()
    found = []
    for number in range(count):
        baseline = launched(folder / f"baseline{number}", 100.0 + number, reading, backend)
        candidate = launched(folder / f"candidate{number}", gain * 100.0, reading, backend)
        found.append((baseline, candidate))
    return found


@pytest.mark.parametrize(
    ("bench", "demo", "count", "standings"),
    [
        (1.0, 1.0, 3, ["supported"]),
        (1.3, 1.2, 4, ["supported"]),
        (1.4, 1.0, 3, ["doubtful"]),
        (2.0, 1.1, 3, ["contradicted"]),
        (1.0, 2.0, 3, ["supported"]),
        (2.0, 1.0, 2, []),
    ],
)
def test_gains(bench: float, demo: float, count: int, standings: list[str], tmp_path: Path) -> None:
    """The bench may not gain far more, where there are pairs enough to tell."""
    made = pairs(tmp_path / "bench", bench, count), pairs(tmp_path / "demo", demo, count)
    found = [each for each in programs_evidence(*made) if each.claim == SAME_WORK]
    assert [each.standing for each in found] == standings


@pytest.mark.parametrize(
    ("reading", "standing"),
    [(1200.0, "supported"), (2500.0, "doubtful"), (90000.0, "contradicted"), (90.0, "supported")],
)
def test_a_prompt_that_is_not_read_again(reading: float, standing: str, tmp_path: Path) -> None:
    """A bench reads one prompt again and again, and must read it each time."""
    bench = pairs(tmp_path / "bench", 1.0, 3, reading)
    found = list(programs_evidence(bench, pairs(tmp_path / "demo", 1.0, 3)))
    assert [each.standing for each in found if each.claim == READ] == [standing]


def test_kernels_are_compiled_while_the_first_prompt_is_read(tmp_path: Path) -> None:
    """On other backends than the processor a slow first prompt refutes nothing."""
    bench = pairs(tmp_path / "bench", 1.0, 3, 90000.0, "opencl")
    found = list(programs_evidence(bench, pairs(tmp_path / "demo", 1.0, 3, 900.0, "opencl")))
    assert [each.standing for each in found if each.claim == READ] == ["doubtful"]


def test_speeds_that_are_none(tmp_path: Path) -> None:
    """A candidate that says 0 tokens a second gains nothing that could be compared."""
    made = pairs(tmp_path / "bench", 1.0, 3), pairs(tmp_path / "demo", 0.0, 3)
    assert [each for each in programs_evidence(*made) if each.claim == SAME_WORK] == []
