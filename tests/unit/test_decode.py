"""Decode speeds held against each kind of baseline, with launches that a stand-in store makes
up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_store import FakeStore, Speed, by_arm

from pytest_h2o.decode.history import append_history, read_history
from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.lab.decode import Comparison, held_against, history_entries, history_key
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.recordings import Recording
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.runs.results import read_launch
from pytest_h2o.verdict import Outcome, Verdict

CASE = "full_strict"


def make(
    tmp_path: Path, speed: Speed, *settings: str, mode: str = "same_batch"
) -> tuple[Lab, FakeStore]:
    store = FakeStore(tmp_path, speed)
    knobs = resolve([f"DECODE_BASELINE_MODE={mode}", *settings])
    lab = Lab(tmp_path, knobs, store.get, tmp_path, history=tmp_path / "history.jsonl")
    lab.demand = Demand({CASE}, {CASE})
    return lab, store


def drop(lab: Lab) -> float | None:
    comparison = held_against(lab, CASE)
    assert isinstance(comparison, Comparison)
    return comparison.measured.value


def by_length(speeds: Mapping[tuple[str, int], float]) -> Speed:
    return lambda spec: speeds[spec.arm, spec.prompt_tokens or 0]


SLOW_AT_LENGTH = by_length(
    {("full", 512): 99.0, ("full", 1024): 40.0, ("baseline", 512): 100.0, ("baseline", 1024): 80.0}
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["DECODE_BASELINE_MODE=same_batch"], 0.5),
        (["DECODE_BASELINE_MODE=same_batch", "DECODE_FASTEST_ROW=1"], 0.01),
        (["DECODE_BASELINE_MODE=same_batch", "REQUIRE_ALL_ROWS=1"], 0.5),
        (["DECODE_BASELINE_MODE=fixed", "DECODE_BASELINE=110"], 0.1),
        (["DECODE_BASELINE_MODE=fixed", "DECODE_BASELINE=80", "REQUIRE_ALL_ROWS=1"], 0.5),
        (["DECODE_BASELINE_MODE=rolling", "DECODE_BASELINE=110"], 0.1),
    ],
)
def test_modes(tmp_path: Path, settings: list[str], expected: float) -> None:
    """Each mode has its baseline; against launches of the session each length counts, otherwise the
    best row unless all do.
    """
    lab, _ = make(tmp_path, SLOW_AT_LENGTH, *settings)
    assert drop(lab) == pytest.approx(expected)


def test_rolling_over_sessions(tmp_path: Path) -> None:
    """Sessions that pass fill the history until it is a baseline; one that fails does not enter
    it.
    """
    verdict = Verdict(gate="decode_drop", case=CASE, outcome="pass")

    def session(speed: float, outcome: Outcome, *settings: str) -> float | None:
        lab, store = make(tmp_path / str(speed), by_arm(full=speed), *settings, mode="rolling")
        lab.history = tmp_path / "history.jsonl"
        store.root.mkdir()
        found = drop(lab)
        append_history(
            lab.history, history_entries(lab, [replace(verdict, outcome=outcome)], tmp_path)
        )
        return found

    assert [session(speed, "pass") for speed in (100.0, 102.0, 98.0)] == [None, None, None]
    assert session(50.0, "fail") == 0.5
    assert session(97.0, "pass") == pytest.approx(0.03)
    assert session(96.0, "pass", "H2O_BLOCK_TOKENS=64") is None
    assert [entry.decode_best for entry in read_history(tmp_path / "history.jsonl")] == [
        100.0,
        102.0,
        98.0,
        97.0,
        96.0,
    ]


@pytest.mark.parametrize(
    ("outcome", "asked", "kept"),
    [("pass", 0, 1), ("fail", 0, 0), ("fail", 1, 1), ("inconclusive", 0, 0)],
)
def test_what_enters_the_history(tmp_path: Path, outcome: Outcome, asked: int, kept: int) -> None:
    """Any gate of the case that fails keeps its speed out, unless the user asks for it."""
    lab, _ = make(tmp_path, by_arm(), f"DECODE_BASELINE_HISTORY_FAILED={asked}")
    verdicts = [
        Verdict(gate="decode_drop", case=CASE, outcome="pass"),
        Verdict(gate="lossy", case=CASE, outcome=outcome),
        Verdict(gate="lossy", case="store_tuned", outcome="fail"),
        Verdict(gate="fallback", case=CASE, outcome="skipped"),
    ]
    entries = history_entries(lab, verdicts, tmp_path, {"store_tuned"})
    assert [(entry.case, entry.decode_best, entry.overall_pass) for entry in entries] == [
        (CASE, 100.0, outcome == "pass")
    ] * kept


@pytest.mark.parametrize(("asked", "kept"), [(0, []), (1, [False])])
def test_part_of_a_case_has_not_passed(tmp_path: Path, asked: int, kept: list[bool]) -> None:
    """While some gates of a case were not judged, its speed is worth as little as that of one that
    failed.
    """
    lab, _ = make(tmp_path, by_arm(), f"DECODE_BASELINE_HISTORY_FAILED={asked}")
    verdicts = [Verdict(gate="decode_drop", case=CASE, outcome="pass")]
    assert [
        entry.overall_pass for entry in history_entries(lab, verdicts, tmp_path, {CASE})
    ] == kept


def test_shared_launches_enter_once_and_invalid_ones_never(tmp_path: Path) -> None:
    """Two cases of the same launches are one sample; a crashed run is none, even if failed ones are
    asked for.
    """
    lab, store = make(tmp_path, by_arm(store=float("nan")), "DECODE_BASELINE_HISTORY_FAILED=1")
    store.broken = frozenset({"coverage"})
    cases = [
        CASE,
        "joint_full-1",
        "joint_full-2",
        "store_tuned",
        "full_coverage",
        "candidate",
        "unheard_of",
    ]
    verdicts = [Verdict(gate="decode_drop", case=case, outcome="pass") for case in cases]
    assert [entry.case for entry in history_entries(lab, verdicts, tmp_path)] == [
        CASE,
        "joint_full-2",
    ]


@pytest.mark.parametrize(
    ("settings", "arms"),
    [
        ([], ["baseline", "full", "full", "baseline"]),
        (["RUN_ORDER=baseline_first"], ["baseline", "baseline", "full", "full"]),
        (["RUN_ORDER=candidate_first"], ["full", "full", "baseline", "baseline"]),
        (["DECODE_BASELINE_MODE=fixed"], ["full", "full"]),
        (["DECODE_BASELINE_MODE=rolling"], ["full", "full"]),
    ],
)
def test_run_order(tmp_path: Path, settings: list[str], arms: list[str]) -> None:
    """The baseline of a session runs before, after or between the candidate's launches; stored ones
    launch nothing.
    """
    lab, store = make(tmp_path, by_arm(), *settings)
    planned = sorted(spec.name for spec in lab.plan.planned())
    drop(lab)
    assert [name.split("-")[2] for name in store.launched] == arms
    assert sorted(store.launched) == planned


def test_broken_baseline_is_named(tmp_path: Path) -> None:
    """A baseline launch that crashed leaves nothing to compare with, and no stored number stands
    in.
    """
    lab, store = make(tmp_path, by_arm(), "DECODE_BASELINE=6.6")
    store.broken = frozenset({"baseline"})
    comparison = held_against(lab, CASE)
    assert isinstance(comparison, Comparison)
    assert comparison.measured.value is None
    assert "SIGSEGV" in comparison.measured.missing


def record(directory: Path, speeds: Sequence[tuple[int, object]]) -> Recording:
    """A recording of one table per prompt length and decode speed."""
    directory.mkdir()
    for number, (length, speed) in enumerate(speeds):
        row = f"| prompt={length}<br>decode=4 | 5.0 ± 0.0<br>{speed} ± 0.0 |"
        (directory / f"{number}.log").write_text(
            f"| llm_demo | speed(tok/s) |\n| --- | --- |\n{row}\n"
        )
    return read_recording(directory)


def replayed(
    tmp_path: Path,
    candidate: Sequence[tuple[int, object]],
    baseline: Sequence[tuple[int, object]],
    *settings: str,
) -> PairedStudy | Comparison:
    """The decode gate's material of a replay."""
    lab = Lab(
        tmp_path, resolve(settings), lambda _: pytest.fail("nothing is launched"), tmp_path,
        recording=record(tmp_path / "run", candidate), baseline=record(tmp_path / "off", baseline),
    )  # fmt: skip
    return held_against(lab, "run")


ALIKE = [(8, 100.0), (16, 100.0)] * 3
MODES = [
    ["DECODE_BASELINE_MODE=same_batch"],
    ["DECODE_BASELINE_MODE=same_batch", "REQUIRE_ALL_ROWS=1"],
]


@pytest.mark.parametrize(
    ("candidate", "baseline", "reason"),
    [
        (
            [*ALIKE, (32, "nan")],
            [*ALIKE, (32, 1.0)],
            "decode_tps is nan ± 0 in p32_g4, not a number",
        ),
        (
            [*ALIKE, (32, 1.0)],
            [*ALIKE, (32, "inf")],
            "baseline: decode_tps is inf ± 0 in p32_g4, not a number",
        ),
        ([*ALIKE, (32, "0.00")], [*ALIKE, (32, 1.0)], "decode_tps is not above 0 in p32_g4"),
        (
            [*ALIKE, (32, 1.0)],
            [*ALIKE, (32, "0.00")],
            "baseline: decode_tps is not above 0 in p32_g4",
        ),
        (
            [*ALIKE, (32, -1.0)],
            [*ALIKE, (32, 1.0)],
            "decode_tps is -1 ± 0 in p32_g4, which cannot be negative",
        ),
        ([*ALIKE, (32, 1.0), (64, 1.0)], ALIKE, "the baseline holds no row of p32_g4, p64_g4"),
        ([*ALIKE, (16, 1.0)], ALIKE, "the baseline holds no row of p16_g4"),
    ],
)
def test_recorded_rows_that_cannot_be_compared(
    tmp_path: Path,
    candidate: list[tuple[int, object]],
    baseline: list[tuple[int, object]],
    reason: str,
) -> None:
    """One row without a speed or a counterpart leaves a recorded study undecided, however good the
    others are.
    """
    study = replayed(tmp_path, candidate, baseline, "DECODE_BASELINE_MODE=paired")
    assert isinstance(study, PairedStudy)
    assert study.study is None
    [problem] = study.problems
    assert problem.startswith(reason)


@pytest.mark.parametrize("settings", MODES)
def test_part_of_a_baseline_is_none(tmp_path: Path, settings: list[str]) -> None:
    """A candidate row that the baseline lacks is named; the others are not compared without it."""
    comparison = replayed(tmp_path, [(8, 90.0), (16, 80.0)], [(8, 100.0), (512, 50.0)], *settings)
    assert isinstance(comparison, Comparison)
    assert (comparison.measured.value, comparison.records) == (None, ())
    assert comparison.measured.missing == "the baseline holds no row of p16_g4"


@pytest.mark.parametrize(("settings", "drop"), list(zip(MODES, [1 - 65 / 90, 0.5], strict=True)))
def test_more_than_the_candidate_ran_does_not_count(
    tmp_path: Path, settings: list[str], drop: float
) -> None:
    """A baseline of more lengths, in another order, is compared in the candidate's rows alone, each
    with its own.
    """
    comparison = replayed(
        tmp_path,
        [(16, 180.0), (8, 50.0), (8, 80.0)],
        [(1, 999.0), (8, 100.0), (8, 80.0), (16, 200.0)],
        *settings,
    )
    assert isinstance(comparison, Comparison)
    assert comparison.measured.value == pytest.approx(drop)
    rows = [[read_launch(record, ())[0][0].label for record in pair] for pair in comparison.records]
    assert rows == [["p16_g4"] * 2, ["p8_g4"] * 2, ["p8_g4"] * 2]


def test_default_key() -> None:
    """The key names host, backend, threads, lengths and repeats, as the original's does; the user's
    replaces it.
    """
    assert history_key(resolve()).endswith("_cpu_t4_p512,1024_g128_rep3")
    assert history_key(resolve(["DECODE_BASELINE_KEY=mine"])) == "mine"
