"""What pairs of speeds, with and without a yardstick, decide together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.decode.pairs import OpenStudy, Pair, look, read_pair, study_pairs
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.verdict import BaselineSpeed, SpeedPair


def pairs(candidate: float, cost: float | None, count: int = 6) -> list[Pair]:
    """Equal pairs: a baseline of 100 tok/s and one yardstick a token, and a candidate."""
    return [Pair(f"p{number}", 100, candidate, cost and 1, cost) for number in range(count)]


@pytest.mark.parametrize(
    ("candidate", "cost", "decision"),
    [
        (100, None, "pass"), (90, None, "fail"),  # no yardstick: speeds decide
        (100, 1.0, "pass"), (100, 1.12, "fail"),
        (80, 1.12, "fail"), (120, 1.12, "fail"),  # slower than its yardstick, whatever happened
        (80, 1.0, "inconclusive"),  # token and yardstick both slow down: the whole process does
    ],
)  # fmt: skip
def test_decisions(candidate: float, cost: float | None, decision: str) -> None:
    """The yardstick decides where there is one, but nothing passes while bare speeds surely
    fail.
    """
    study, plain = study_pairs(pairs(candidate, cost), 0.05)
    assert study.decision == decision
    assert (plain is None) == (cost is None)


def test_noise_of_the_machine_cancels() -> None:
    """Speeds that halve and double with the machine decide nothing, their costs do."""
    noisy = [
        Pair("p", 100 * factor, 100 / factor, 1.0, 1.001) for factor in (0.5, 2, 0.7, 1.4, 0.6, 1.7)
    ]
    study, plain = study_pairs(noisy, 0.05)
    assert plain is not None
    assert (study.decision, plain.decision) == ("pass", "inconclusive")
    assert study.drop == pytest.approx(0.001, abs=1e-4)


def test_bare_speeds_are_judged_by_length_as_well() -> None:
    """Where one length surely slows down with its yardstick, nothing passes, as fast as the other
    may be.
    """
    slow = [Pair("p1024", 100, 60, 1.0, 1.0)] * 10
    fast = [Pair("p512", 100, 101, 1.0, 1.0)] * 10
    study, plain = study_pairs([*slow, *fast], 0.05, each_label=True)
    assert plain is not None
    assert (study.decision, plain.decision, plain.slow_at) == ("inconclusive", "fail", "p1024")


def test_one_pair_without_a_yardstick_makes_all_plain() -> None:
    """Differences of two kinds are never mixed."""
    study, plain = study_pairs([*pairs(100, 1.12, 5), Pair("p5", 100, 100)], 0.05)
    assert (study.decision, plain) == ("pass", None)


def test_more_studies_do_not_make_more_false_alarms() -> None:
    """Of three buckets, six slow pairs of one are not enough to fail it, as they are for a study
    alone; twelve are.
    """
    family = {name: OpenStudy(20, pairs(100, None)) for name in ("128", "512")}
    family["2048"] = OpenStudy(20, pairs(91.5, None))
    alone = OpenStudy(20, pairs(91.5, None))
    look(family, 0.08)
    look({"": alone}, 0.08)
    assert alone.study is not None
    assert (alone.study.decision, alone.open) == ("fail", False)
    assert [study.study and study.study.decision for study in family.values()] == [
        "pass",
        "pass",
        "inconclusive",
    ]
    assert [name for name, study in family.items() if study.open] == ["2048"]
    family["2048"].pairs += pairs(91.5, None)
    look(family, 0.08)
    assert [study.study and study.study.decision for study in family.values()] == [
        "pass",
        "pass",
        "fail",
    ]
    assert not any(study.open for study in family.values())


def test_a_decided_study_stays_decided() -> None:
    """Nothing is decided before four pairs; a pass is not taken back, and the cap ends the rest."""
    study = OpenStudy(6, pairs(100, None, 3))
    look({"": study}, 0.05)
    assert (study.study, study.open) == (None, True)
    study.pairs += pairs(100, None, 1)
    look({"": study}, 0.05)
    assert study.study is not None
    assert (study.study.decision, study.open) == ("pass", False)
    study.pairs += pairs(50, None, 8)
    look({"": study}, 0.05)
    assert (study.study.decision, study.study.pairs) == ("pass", 4)
    capped = OpenStudy(6, pairs(95, None, 6))
    look({"": capped}, 0.05)
    assert capped.study is not None
    assert (capped.study.decision, capped.open) == ("inconclusive", False)


def test_a_pair_says_what_it_is() -> None:
    """Signs: slower is negative in speeds and in costs alike."""
    pair = Pair("p", 100, 90, 1.0, 1.25)
    assert pair.difference == pytest.approx(math.log(0.9))
    assert pair.relative == pytest.approx(math.log(0.8))
    assert str(pair) == "100.00 -> 90.00 tok/s, 1.000 -> 1.250 yardsticks a token"
    assert str(Pair("p", 100, 90)) == "100.00 -> 90.00 tok/s"


def launch(directory: Path, arm: str, cost: str | None) -> LaunchRecord:
    """A launch that printed a table, with a ``decode_cost`` column if ``cost`` is not None."""
    path = directory / arm
    path.mkdir()
    header, row = (
        "| llm_demo | speed(tok/s) |",
        "| prompt=8<br>decode=4 | 5.0 ± 0.0<br>50.0 ± 0.0 |",
    )
    if cost is not None:
        header, row = f"{header} decode_cost |", f"{row} {cost} |"
    (path / "log.md").write_text(f"{header}\n{'| --- ' * (header.count('|') - 1)}|\n{row}\n")
    spec = LaunchSpec(
        program="llm_bench",
        arm=arm,
        replicate=1,
        config={},
        gen_tokens=4,
        prompt_tokens=8,
        repeat=1,
    )
    return LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(path))


@pytest.mark.parametrize(
    ("baseline", "candidate", "costs"),
    [
        ("1.2500 ± 0.0", "1.5000 ± 0.0", (1.25, 1.5)), (None, None, (None, None)),
        ("1.2 ± 0.0", None, (None, None)), ("1.2 ± 0.0", "0.0 ± 0.0", "decode_cost is 0"),
        ("nan ± 0.0", "1.2 ± 0.0", "decode_cost"),
    ],
)  # fmt: skip
def test_read_pair(
    tmp_path: Path,
    baseline: str | None,
    candidate: str | None,
    costs: str | tuple[float | None, float | None],
) -> None:
    """Costs are read where both launches print them; one that is no cost is a problem, not a plain
    speed.
    """
    pair, problems = read_pair(
        launch(tmp_path, "baseline", baseline), launch(tmp_path, "full", candidate)
    )
    if isinstance(costs, str):
        assert pair is None
        assert costs in problems[0]
    else:
        assert pair is not None
        assert (pair.baseline_cost, pair.candidate_cost) == costs


def test_a_study_has_the_baseline_of_its_pairs(tmp_path: Path) -> None:
    """The median speed of the baseline's launches, with all its digits; the pairs say which launch
    they are of.
    """
    study = OpenStudy(20)
    study.add(launch(tmp_path, "baseline", "1.25 ± 0.0"), launch(tmp_path, "full", "1.5 ± 0.0"))
    study.pairs += [Pair("p", 2.3456789, 2.26), Pair("p", 1.0, 2.0)]
    ended = study.end(seed=1)
    assert ended.baseline == BaselineSpeed(value=2.3456789, source="paired", samples=3)
    assert [pair.shown.replicate for pair in ended.pairs] == [1, None, None]
    assert ended.pairs[0].shown == SpeedPair(
        label="p8_g4",
        replicate=1,
        baseline=50.0,
        candidate=50.0,
        baseline_cost=1.25,
        candidate_cost=1.5,
    )
    assert OpenStudy(20).end(seed=1).baseline is None


def test_a_broken_launch_is_the_cause(tmp_path: Path) -> None:
    """A study that a launch ended has that launch's end as its cause, without the launch's name."""
    study = OpenStudy(20)
    crashed = replace(
        launch(tmp_path, "baseline", None), status="failed", reason="ended by signal 11 (SIGSEGV)"
    )
    study.add(crashed, launch(tmp_path, "full", None))
    ended = study.end(seed=1)
    assert ended.cause == "llm_bench: ended by signal 11 (SIGSEGV)"
    assert "(bench-" in ended.problems[0]
