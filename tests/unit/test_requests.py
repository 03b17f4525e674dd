"""What several requests to one process cost, read from records of a launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_h2o.evidence.requests import memory_after_first, requests_of, slowdown, timed_alike
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

SPEC = LaunchSpec(
    program="llm_demo",
    arm="candidate",
    replicate=1,
    config={},
    gen_tokens=100,
    prompt_file=Path("lines.txt"),
)


def launched(
    folder: Path, *decode_us: float, peaks: tuple[float, ...] = (), **more: object
) -> LaunchRecord:
    """A launch of 10 s whose requests took so long for 100 tokens."""
    paths = standard_paths(folder)
    lines = []
    for each in decode_us:
        request = {"prompt_tokens": 500, "decode_tokens": 100, "prefill_us": 1e6, "sample_us": 0}
        lines.append(json.dumps(request | {"decode_us": each} | more))
    paths["metrics"].write_text("\n".join(lines) + "\n")
    return LaunchRecord(spec=SPEC, status="ok", reason="", seconds=10.0, peaks_mb=peaks, **paths)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decode_us", "factor"), [((1e6, 3e6, 1e6), 1.0), ((1e6, 1e6, 2e6), 2.0), ((1e6,), None)]
)
def test_first_prompt_at_the_end(
    decode_us: tuple[float, ...], factor: float | None, tmp_path: Path
) -> None:
    """The last request is that of the first prompt; what lies between is another one's."""
    assert slowdown(launched(tmp_path, *decode_us)) == factor


def test_yardsticks_come_before_times(tmp_path: Path) -> None:
    """Where the program has a yardstick, a busy machine is no slowdown."""
    assert slowdown(launched(tmp_path, 1e6, 9e6, decode_cost=1.5)) == 1.0


@pytest.mark.parametrize(
    ("decode_us", "alike"),
    [
        ((1234567, 1234568, 1234569), False),
        ((1234567, 2345678, 1234567), True),
        ((1234000, 1234000), False),
        ((1234567,), False),
    ],
)
def test_times_that_were_copied(decode_us: tuple[float, ...], alike: bool, tmp_path: Path) -> None:
    """No clock shows the same microseconds twice; one of milliseconds may."""
    assert (timed_alike(launched(tmp_path, *decode_us)) is not None) == alike


def test_memory_beside_the_first_answer(tmp_path: Path) -> None:
    """Two later requests of 2 s each leave the first 6 s of 10: the peak of then is what counts."""
    peaks = (100.0,) * 7 + (130.0,) * 3
    record = launched(tmp_path, 1e6, 1e6, 1e6, peaks=peaks)
    assert memory_after_first(record) == (100.0, 130.0)
    assert memory_after_first(launched(tmp_path, 1e6, peaks=peaks)) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense", '{"decode_tokens": 0}', "\xff"])
def test_unreadable_records_say_nothing(text: str, tmp_path: Path) -> None:
    """Whatever a program writes there, nothing is raised."""
    record = launched(tmp_path, 1e6)
    record.metrics.write_text(text, "latin-1")
    assert requests_of(record) == []
