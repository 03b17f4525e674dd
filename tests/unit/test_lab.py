"""The laboratory with a stand-in for the run store: what is launched, in which order, and what
studies decide.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from fake_store import FakeStore, Speed, by_arm

from pytest_h2o.evidence.unevicted import unevicted_evidence
from pytest_h2o.lab.decode import baseline_held
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.offline import absent_layers, kv_dump
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.specs import LaunchSpec


def make_lab(
    tmp_path: Path, speed: Speed = lambda _: 100.0, *settings: str, **attributes: object
) -> tuple[Lab, FakeStore]:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    store = FakeStore(tmp_path, speed, **attributes)  # type: ignore[arg-type]
    return Lab(tmp_path, resolve(settings, suite="final"), store.get, prompts), store


def test_a_case_that_does_not_exist(tmp_path: Path) -> None:
    """The message has the name asked for and those there are."""
    lab, _ = make_lab(tmp_path)
    with pytest.raises(
        ValueError, match="there is no case full; there are full_strict, store_tuned"
    ):
        lab.run("full")


def test_a_case_is_launched_once(tmp_path: Path) -> None:
    """Asking twice launches once, one process per prompt length."""
    lab, store = make_lab(tmp_path)
    lab.run("full_strict")
    run = lab.run("full_strict")
    assert store.launched == ["bench-p512_g128x3-full-r1", "bench-p1024_g128x3-full-r1"]
    assert run.highest("h2o_lossy").value == 3.1
    assert run.problems == ()


def test_equal_settings_share_launches(tmp_path: Path) -> None:
    """The first joint_full launch is the one of full_strict; the later ones are launches of their
    own.
    """
    lab, store = make_lab(tmp_path)
    for name in ("full_strict", "joint_full-1", "joint_full-2"):
        lab.run(name)
    assert [name.removeprefix("bench-") for name in store.launched] == [
        "p512_g128x3-full-r1",
        "p1024_g128x3-full-r1",
        "p512_g128x3-full-r2",
        "p1024_g128x3-full-r2",
    ]


def test_arms_are_interleaved(tmp_path: Path) -> None:
    """Once decode gates are selected, the arms of one length and replicate run next to each other,
    with a baseline.
    """
    lab, store = make_lab(tmp_path)
    lab.demand = Demand({"full_strict", "store_tuned"}, {"full_strict", "store_tuned"})
    lab.study("full_strict")
    lab.study("store_tuned")
    blocks = [store.launched[i : i + 3] for i in range(0, len(store.launched), 3)]
    assert len(blocks) == 4
    for block in blocks:
        assert len({name.split("-")[1] for name in block}) == 1
        assert {name.split("-")[2] for name in block} == {"full", "store", "baseline"}
    for name in ("full_strict", "store_tuned"):
        lab.run(name)
    assert sorted(store.launched) == sorted(spec.name for spec in lab.plan.planned())


@pytest.mark.parametrize(
    ("baseline", "candidate", "decision", "pairs"),
    [(100.0, 101.0, "pass", 4), (100.0, 90.0, "fail", 6), (100.0, 95.0, "inconclusive", 20)],
)
def test_study_decides_when_it_is_sure(
    tmp_path: Path, baseline: float, candidate: float, decision: str, pairs: int
) -> None:
    """Equal speed ends a study after four pairs, a clear loss after six; one at the limit runs to
    the cap, undecided.
    """

    def speed(spec: LaunchSpec) -> float:
        wobble = 1 + 0.001 * (-1) ** spec.replicate
        return baseline if spec.arm == "baseline" else candidate * wobble

    lab, _ = make_lab(tmp_path, speed)
    paired = lab.study("full_strict")
    assert paired.study is not None
    assert (paired.study.decision, paired.study.pairs) == (decision, pairs)


def test_later_pairs_have_baselines_of_their_own(tmp_path: Path) -> None:
    """After the first rounds every pair is launched together, in both orders, not against a
    baseline of long ago.
    """

    def speed(spec: LaunchSpec) -> float:
        return 100.0 if spec.arm == "baseline" else 95.0 + 0.1 * (-1) ** spec.replicate

    lab, store = make_lab(tmp_path, speed)
    lab.demand = Demand({"full_strict", "store_tuned"}, {"full_strict", "store_tuned"})
    for name in ("full_strict", "store_tuned"):
        lab.study(name)
    later = [name.split("-")[2:] for name in store.launched if int(name.rsplit("r", 1)[1]) > 2]
    pairs = [(first[0], second[0]) for first, second in zip(later[::2], later[1::2], strict=True)]
    assert set(pairs) == {
        ("full", "baseline"),
        ("baseline", "full"),
        ("store", "baseline"),
        ("baseline", "store"),
    }
    assert {name[2] for name in later if name[0] == "baseline"} == {"full", "store"}


def test_either_side_begins_as_often(tmp_path: Path) -> None:
    """Every two turns mirror each other, across prompt lengths, so that an even count of pairs is
    balanced.
    """
    lab, store = make_lab(tmp_path)
    lab.demand = Demand({"full_strict"}, {"full_strict"})
    lab.study("full_strict")
    arms = [name.split("-")[2] for name in store.launched]
    assert len(arms) == 8
    for turn in range(0, 8, 4):
        assert arms[turn : turn + 2] == arms[turn + 2 : turn + 4][::-1]


def test_launches_that_are_the_same_are_shared(tmp_path: Path) -> None:
    """With equal repeats, what the other gates look at is the candidate of a pair, and its baseline
    runs beside it.
    """
    lab, store = make_lab(tmp_path, lambda _: 100.0, "REPEAT=2", "DECODE_REPEAT=0")
    lab.demand = Demand({"full_strict"}, {"full_strict"})
    lab.run("full_strict")
    assert [name.split("-")[2] for name in store.launched].count("baseline") == 2
    before = list(store.launched)
    lab.study("full_strict")
    assert store.launched[:4] == before
    assert len(store.launched) == 8


def test_the_budget_is_launch_time(tmp_path: Path) -> None:
    """After the first rounds, pairs are measured while launches have taken less than the budget,
    and then no longer.
    """

    def speed(spec: LaunchSpec) -> float:
        return 100.0 if spec.arm == "baseline" else 95.0 + 0.1 * (-1) ** spec.replicate

    lab, _ = make_lab(tmp_path, speed, "DECODE_BUDGET_S=25", seconds=2.0)
    paired = lab.study("full_strict")
    assert paired.study is not None
    assert (len(paired.pairs), paired.study.pairs, paired.study.decision) == (
        12,
        12,
        "inconclusive",
    )


def test_study_of_a_broken_baseline_has_no_decision(tmp_path: Path) -> None:
    """A baseline that crashes leaves the study without a decision, with the reason, and is not
    tried again.
    """
    lab, store = make_lab(tmp_path, broken=frozenset({"baseline"}))
    paired = lab.study("full_strict")
    assert paired.study is None
    assert "ended by signal 11" in paired.problems[0]
    assert len(store.launched) == 4


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speeds_that_are_no_speeds(tmp_path: Path, speed: float) -> None:
    """Zero, negative, NaN and infinite speeds never enter a comparison."""
    lab, _ = make_lab(tmp_path, by_arm(full=speed))
    paired = lab.study("full_strict")
    assert paired.study is None
    assert paired.problems


def test_no_prompts_means_no_study(tmp_path: Path) -> None:
    """Without prompts there is nothing to compare, and that is said."""
    lab, _ = make_lab(tmp_path)
    assert lab.study("candidate").study is None
    assert not kv_dump(lab)[0]


def test_layers_that_a_dump_lacks(tmp_path: Path) -> None:
    """A program that leaves the layer out that codes badly is named; a dump that the user gives may
    be a part.
    """
    lab, _ = make_lab(tmp_path, by_arm(), "KV_LOSSLESS_FRONT_N=3")
    assert "nothing of layer 1;" in absent_layers(lab, {"selected_layers": [0, 2], "dump_dir": "d"})
    assert absent_layers(lab, {"selected_layers": [0, 1, 2]}) == ""
    given = Lab(tmp_path, resolve([f"DUMP_DIR={tmp_path}"]), lab.get, tmp_path)
    assert absent_layers(given, {"selected_layers": [0]}) == ""


def noisy(spec: LaunchSpec) -> float:
    """A speed that only the launch itself settles, 20 % to either side of 100."""
    return 80.0 + 40.0 * (int(spec.key, 16) % 1000) / 1000


@pytest.mark.parametrize(
    ("speed", "pairs", "standings"),
    [
        (by_arm(), 2, ["supported"]),
        (by_arm(baseline=87.0), 6, ["contradicted"]),
        (by_arm(baseline=96.0), 2, ["supported"]),
        (by_arm(baseline=118.0), 2, ["supported", "doubtful"]),
        (noisy, 20, ["doubtful"]),
    ],
)
def test_baseline_beside_a_candidate_with_nothing_to_evict(
    speed: Speed, pairs: int, standings: list[str], tmp_path: Path
) -> None:
    """A slow baseline is refuted, a slow candidate and noise are doubts; two pairs are enough
    where nothing looks slow.
    """
    lab, store = make_lab(tmp_path, speed)
    study = baseline_held(lab)
    found = unevicted_evidence(study, 0.05)
    assert [each.standing for each in found] == standings
    assert len(study.pairs) == pairs
    assert len(store.launched) == 2 * pairs


def test_a_relation_of_speeds_shares_the_baselines_of_decode_studies(tmp_path: Path) -> None:
    """Where cases are studied as well, its own launches are those of the candidate alone."""
    lab, store = make_lab(tmp_path)
    lab.demand = Demand(cases=["full_strict"], studies=["full_strict"], relations=["speed"])
    planned = {spec.name for spec in lab.plan.planned()}
    lab.study("full_strict")
    baseline_held(lab)
    own = [name for name in store.launched if "nothing-to-evict" in name]
    assert len(own) == 2
    assert set(store.launched) <= planned


def test_pairs_that_decide_nothing_are_measured_longer(tmp_path: Path) -> None:
    """Launches get twice as many repeats after every few rounds; those of the first look stay."""
    lab, store = make_lab(tmp_path, noisy, "DECODE_REPEAT=1", "PROMPTS=512")
    lab.study("full_strict")
    repeats = []
    for replicate in range(1, 21):
        [found] = {
            name.split("x")[1].split("-")[0]
            for name in store.launched
            if name.endswith(f"-full-r{replicate}")
        }
        repeats.append(int(found))
    assert repeats == [1] * 6 + [2] * 3 + [4] * 3 + [8] * 8


def test_longer_launches_decide_what_repeating_does_not(tmp_path: Path) -> None:
    """Honest speeds with noise that falls with what is measured end in a decision."""

    def speed(spec: LaunchSpec) -> float:
        noise = random.Random(f"{seed} {spec.key}").gauss(0, 0.12)
        return 100.0 * math.exp(noise / math.sqrt(spec.repeat or 1))

    undecided = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        lab, _ = make_lab(folder, speed, "DECODE_REPEAT=1", "PROMPTS=512")
        study = lab.study("full_strict").study
        assert study
        undecided += study.decision == "inconclusive"
    assert undecided < 10  # 16 where all pairs are of one length
