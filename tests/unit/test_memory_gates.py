"""What the operating system saw of a launch, and the gates on memory that rest on it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from gate_functions import MEMORY, judge

from pytest_h2o.evidence.memory import (
    HANDLES,
    baseline_memory,
    growth_evidence,
    memory_growth,
    peak_evidence,
    store_evidence,
)
from pytest_h2o.lab.decode import Comparison
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.launcher import Ended, launch
from pytest_h2o.runs.records import LaunchRecord, load_record, save_record, standard_paths
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes.base import Command
from pytest_h2o.verdict import Measured

LAB = SimpleNamespace(recording=None)
NO_RUN = Run("full_strict", (), (), ())
ALLOCATE = """
import time
held = bytearray(b"x") * (120 * 2**20)
open("file", "wb").write(held[:2**20])
open("file", "rb").read()
time.sleep(0.3)
del held
time.sleep(0.3)
"""
LEAK = """
import time
held = []
for _ in range(40):
    held.append(bytearray(b"x") * 2**20)
    time.sleep(0.02)
"""


def seen(tmp_path: Path, program: str) -> Ended:
    """How a small Python program ended."""
    argv = (sys.executable, "-SE", "-c", program)
    config = tmp_path / "config.json"
    command = Command(argv=argv, env={}, cwd=tmp_path, config_path=config, config={})
    return launch(command, tmp_path, 60.0)


def test_memory_and_traffic_are_those_of_the_launch(tmp_path: Path) -> None:
    """The peak is of the program, not of what started it, the final memory is without what was
    freed, and bytes that were read and written are counted.
    """
    held = bytearray(b"y") * (300 * 2**20)
    usage = seen(tmp_path, ALLOCATE).usage
    assert len(held) > 0
    assert 120 < (usage.peak_mb or 0) < 200
    assert 0 < (usage.final_mb or 0) < 100
    assert 1 <= (usage.written_mb or 0) < 3
    assert 1 <= (usage.read_mb or 0) < 20
    assert list(usage.peaks_mb) == sorted(usage.peaks_mb)


def test_a_leak_shows_in_the_steps(tmp_path: Path) -> None:
    """Memory that is never given back makes every later step higher."""
    peaks = seen(tmp_path, LEAK).usage.peaks_mb
    assert len(peaks) == 32
    assert peaks[31] - peaks[16] > 10


OPENS = """
import os, threading, time
held = []
for _ in range(40):
    held.append(open(os.devnull))
    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
    time.sleep(0.04)
"""


def test_threads_and_open_files_are_counted(tmp_path: Path) -> None:
    """What is opened and never closed makes later steps higher."""
    handles = seen(tmp_path, OPENS).usage.handles
    assert len(handles) == 32
    assert handles[31] - handles[16] > 15


@pytest.mark.parametrize(
    ("handles", "standing"),
    [
        ((10,) * 32, "supported"),
        ((10,) * 8 + (40,) * 24, "supported"),  # opened before the first repeat ends
        (tuple(range(10, 42)), "contradicted"),
        ((10,) * 26 + (14,) * 6, "supported"),
        ((10,) * 28 + (40,) * 4, "supported"),  # those of one request, not yet gone
        ((), None),
    ],
)
def test_handles_that_requests_leave(
    tmp_path: Path, handles: tuple[int, ...], standing: str | None
) -> None:
    """Threads and files that grow over the repeats are a leak; those of the start are not."""
    found = growth_evidence(run_of(record(tmp_path, handles=handles)))
    assert [each.standing for each in found if each.claim == HANDLES] == [standing] * bool(standing)


def record(tmp_path: Path, arm: str = "full", **fields: object) -> LaunchRecord:
    """A launch of two repeats that took 4 s, of which the warm-up and the start took 2 s."""
    spec = LaunchSpec(
        program="llm_bench", arm=arm, replicate=1, config={}, gen_tokens=50, repeat=2,
        threads=1, prompt_tokens=500,
    )  # fmt: skip
    directory = tmp_path / arm
    directory.mkdir(exist_ok=True)
    return LaunchRecord(
        spec=spec, status="ok", reason="exit code 0", argv=("/bin/llm_bench",), seconds=4.0,
        **standard_paths(directory), **fields,
    )  # fmt: skip


def run_of(launched: LaunchRecord, **metrics: float) -> Run:
    """The run of one launch, whose responses took one second."""
    values = {"decode_tps": 100.0, "prefill_tps": 1000.0, **metrics}
    launched.stdout.write_text("")
    row = Row(
        kind="bench", label="p500_g50", prompt_tokens=500, decode_tokens=50,
        samples={name: Sample(value, 0.1) for name, value in values.items()}, cells={},
        source=launched.stdout, line=1, problems=(),
    )  # fmt: skip
    return Run("full_strict", (launched,), (row,), ())


def test_a_record_keeps_what_was_seen(tmp_path: Path) -> None:
    """Usage is the same after it was written and read again."""
    kept = record(tmp_path, peak_mb=310.5, final_mb=290.0, peaks_mb=(100.0, 310.5), read_mb=5.0)
    save_record(kept)
    assert load_record(kept.directory / "launch.json").peaks_mb == (100.0, 310.5)


@pytest.mark.parametrize(
    ("candidate", "outcome"), [(1000.0, "pass"), (1090.0, "pass"), (1200.0, "fail")]
)
def test_peak(tmp_path: Path, candidate: float, outcome: str) -> None:
    """A candidate above its baseline by more than the knob fails, with both peaks."""
    pair = record(tmp_path, "base", peak_mb=1000.0), record(tmp_path, peak_mb=candidate)
    study = Comparison(Measured(metric="decode_drop", value=0.0), records=(pair,))
    verdict = judge(MEMORY.test_memory_peak, resolve(()), decode_study=study, lab=LAB, run=NO_RUN)
    assert (verdict.outcome, verdict.knob) == (outcome, "MAX_MEMORY_INCREASE")
    assert "1000 MiB in the baseline" in verdict.rows[0].text


@pytest.mark.parametrize(
    ("peaks", "standing"),
    [
        ([(1200.0, 1000.0), (1205.0, 1000.0)], "contradicted"),
        ([(1200.0, 1000.0), (1004.0, 1000.0)], "supported"),
        ([(1060.0, 1000.0), (1200.0, 1000.0)], "doubtful"),
        ([(1000.0, 1300.0)], "supported"),
        ([(1000.0, None)], None),
    ],
)
def test_baseline_that_holds_more(
    tmp_path: Path, peaks: list[tuple[float, float | None]], standing: str | None
) -> None:
    """A baseline above a candidate with nothing to evict in every launch holds it for nothing."""
    pairs = [(record(tmp_path, "base", peak_mb=a), record(tmp_path, peak_mb=b)) for a, b in peaks]
    assert [each.standing for each in baseline_memory(pairs)] == [standing] * bool(standing)


def test_peak_that_nobody_saw(tmp_path: Path) -> None:
    """Launches of another host, or recorded by something else, pass and say that nothing is
    evidenced; without a launch nothing passes.
    """
    study = Comparison(Measured(metric="decode_drop", value=0.0), records=())
    verdict = judge(MEMORY.test_memory_peak, resolve(()), decode_study=study, lab=LAB, run=NO_RUN)
    assert (verdict.outcome, verdict.standing) == ("pass", "not evidenced")
    broken = replace(study, measured=Measured(metric="decode_drop", value=None, missing="crashed"))
    assert (
        judge(
            MEMORY.test_memory_peak, resolve(()), decode_study=broken, lab=LAB, run=NO_RUN
        ).outcome
        == "fail"
    )


def test_knob_turns_it_off() -> None:
    """A negative limit skips the gate."""
    study = Comparison(Measured(metric="decode_drop", value=0.0), records=())
    knobs = resolve(("MAX_MEMORY_INCREASE=-1",))
    assert (
        judge(MEMORY.test_memory_peak, knobs, decode_study=study, lab=LAB, run=NO_RUN).outcome
        == "skipped"
    )


def steps(*peaks: float) -> tuple[float, ...]:
    """Eight equal steps for each peak."""
    return tuple(peak for peak in peaks for _ in range(8))


@pytest.mark.parametrize(
    ("peaks", "outcome"),
    [
        (steps(100.0, 300.0, 300.0, 302.0), "pass"),
        (steps(100.0, 300.0, 350.0, 400.0), "fail"),
    ],
)
def test_growth(tmp_path: Path, peaks: tuple[float, ...], outcome: str) -> None:
    """What the second repeat needs beyond the first is growth; loading and warm-up are not."""
    run = run_of(record(tmp_path, peaks_mb=peaks))
    assert judge(MEMORY.test_memory_growth, resolve(()), run=run).outcome == outcome


def test_growth_with_kept_kv_is_a_doubt(tmp_path: Path) -> None:
    """A build that keeps KV from request to request grows for that, on both sides: it is said, and
    not judged.
    """
    run = run_of(record(tmp_path, peaks_mb=steps(100.0, 300.0, 350.0, 400.0)))
    run.launches[0].stdout.write_text(
        "[H2O] layer=2 kv=2000 keep_ratio=0.3 evict=9 lossy_ratio=3\n"
    )
    verdict = judge(MEMORY.test_memory_growth, resolve(()), run=run)
    assert (verdict.outcome, verdict.standing) == ("pass", "doubtful")
    assert memory_growth(run).value is None


@pytest.mark.parametrize(
    ("store", "raw", "standing"),
    [
        (600.0, 100.0, "contradicted"),
        (500.0, 100.0, "doubtful"),
        (450.0, 100.0, "supported"),
        (500.0, 1.0, "not evidenced"),
    ],
)
def test_store(tmp_path: Path, store: float, raw: float, standing: str) -> None:
    """Above full mode is refused, equal is a doubt where much was dropped, and nothing where little
    was.
    """
    full = run_of(record(tmp_path, peak_mb=500.0))
    other = run_of(
        record(tmp_path, "store", peak_mb=store), h2o_lossless_raw_mb=raw, h2o_lossless_comp_mb=0.1
    )
    [evidence] = store_evidence(full, other)
    assert evidence.standing == standing


@pytest.mark.parametrize(
    ("program", "peak", "standing"),
    [
        ("/bin/llm_bench", 20.0, "contradicted"),
        ("docker", 20.0, "doubtful"),
        ("/bin/llm_bench", 90.0, "supported"),
    ],
)
def test_model_that_is_never_read(
    tmp_path: Path, program: str, peak: float, standing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of a program that read a tenth of its weights are of something else."""
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(128 * 2**20)
    launched = replace(record(tmp_path, peak_mb=peak, read_mb=1.0), argv=(program,))
    launched.config_path.write_text('{"llm_weight": "../weights"}')
    run = run_of(launched)
    monkeypatch.setattr("pytest_h2o.evidence.memory.read_launches", lambda *_: run)
    measured = Measured(metric="memory_increase", value=0.0)
    read = peak_evidence(measured, [(launched, launched)])[-1]
    assert (read.claim, read.standing) == ("the model was read", standing)
