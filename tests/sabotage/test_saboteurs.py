"""Every saboteur is caught by a gate that names its defect, and no honest session is accused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from golden import RUNS
from imitator import stored
from original import DROP, LOSSY_TARGET, Row, accepts, decode, rows_of, values
from saboteurs import SABOTEURS, Saboteur
from staging import ACCEPTANCE, ROOT, Judge, Score, Stage


def replayed(honest_session: Path, target: Path, saboteur: Saboteur) -> Path:
    """A copy of the honest session in which every launch has the defect."""
    program = "bench-*" if saboteur.suite == "bench" else "demo-*"
    for directory in sorted(honest_session.glob(f"launches/{program}")):
        copy = Path(shutil.copytree(directory, target / "launches" / directory.name))
        launch = stored(copy)
        saboteur.defect(launch)
        launch.save()
    return target


@pytest.mark.parametrize("saboteur", SABOTEURS, ids=lambda saboteur: saboteur.name)
def test_saboteur_is_caught(  # noqa: PLR0913, PLR0917  a fixture each
    saboteur: Saboteur,
    honest_session: Path,
    stage: Stage,
    judge: Judge,
    score: Score,
    tmp_path: Path,
) -> None:
    """The gate in charge fails, and its reason names the defect."""
    if saboteur.form == "replayed":
        session = replayed(honest_session, tmp_path / "session", saboteur)
        judged = judge(
            [*stage.arguments(), "--h2o-replay", str(session)], saboteur.select, saboteur.module
        )
    else:
        judged = judge(stage.arguments(saboteur.name), saboteur.select, saboteur.module)
        session = judged.directory
    outcome, reason = judged.gates[saboteur.gate]
    score.gates[saboteur.name] = outcome == "fail" and saboteur.words in reason
    score.original[saboteur.name] = not accepts(session)
    assert score.gates[saboteur.name], (
        f"{saboteur.gate} was {outcome}: {reason}\nfailed: {judged.failed}"
    )


def test_honest_session_is_accepted_again(honest_session: Path, stage: Stage, judge: Judge) -> None:
    """Replayed, the honest session passes every gate again, as it passes the original's rules."""
    assert judge([*stage.arguments(), "--h2o-replay", str(honest_session)], ACCEPTANCE).failed == {}
    assert accepts(honest_session)


def _without(text: str) -> Callable[[Path], None]:
    def remove(prompts: Path) -> None:
        for path in prompts.glob(f"*{text}*.txt"):
            path.unlink()

    return remove


def _comment(prompts: Path) -> None:
    (prompts / "prompt_512_2.txt").write_text("# a heading\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(
            _without("prompt"), "holds no file that matches prompt_*.txt", id="zero_prompts"
        ),
        pytest.param(_comment, "prompt_512_2.txt: ", id="ignored_prompt"),
        pytest.param(
            _without("_2048_"), "bucket 2048: PROMPT_BUCKET_LIST names it", id="missing_bucket"
        ),
    ],
)
def test_prompts_that_are_not_there(  # noqa: PLR0913, PLR0917  a fixture each
    damage: Callable[[Path], None],
    words: str,
    honest_session: Path,
    stage: Stage,
    judge: Judge,
    score: Score,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Prompts that are missing, or that the program would ignore, fail the prompt gate with their
    names.
    """
    prompts = Path(shutil.copytree(stage.directory / "prompts", tmp_path / "prompts"))
    damage(prompts)
    arguments = [
        *stage.arguments(),
        "--h2o-replay",
        str(honest_session),
        "--prompt-dir",
        str(prompts),
    ]
    reason = judge(arguments, "test_prompts").failed["prompts[llm_demo]"]
    name = request.node.callspec.id
    score.gates[name] = words in reason
    score.original[name] = (
        name == "zero_prompts"
    )  # the original stops without prompts, and misses no other
    assert score.gates[name], reason


def test_threshold_in_another_unit(stage: Stage, score: Score, pytester: pytest.Pytester) -> None:
    """A share given in percent is a usage error that names the knob, its range and its unit; the
    original takes it.
    """
    result = pytester.runpytest_inprocess(
        str(ROOT / "gates"), *stage.arguments(), "--h2o-set", "DECODE_DROP_TARGET=5"
    )
    score.original["threshold_in_percent"] = False
    score.gates["threshold_in_percent"] = result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*DECODE_DROP_TARGET='5': expected a number at least 0 and at most 0.99 (share)"]
    )


def test_history_of_failures(stage: Stage, judge: Judge, score: Score) -> None:
    """Sessions that fail do not become the baseline of the next; the original's rolling median
    takes them all.
    """
    settings = ["DECODE_BASELINE_ROLLING_MIN_SAMPLES=1", "DECODE_BASELINE_ROLLING_WINDOW=3"]
    arguments = [word for setting in settings for word in ("--h2o-set", setting)]
    every = "full_strict or store_tuned"
    honest = judge(
        [*stage.arguments(), *arguments, "--h2o-set", "DECODE_BASELINE_MODE=same_batch"], every
    )
    assert honest.failed == {}
    arguments += [*stage.arguments("slow"), "--h2o-set", "DECODE_BASELINE_MODE=rolling"]
    sessions = [judge(arguments, every) for _ in range(3)]
    reasons = [session.failed.get("decode_drop[full_strict]", "") for session in sessions]
    score.gates["history_of_failures"] = all("decode_drop 25." in reason for reason in reasons)
    speeds = [best_decode(session.directory) for session in (honest, *sessions)]
    score.original["history_of_failures"] = 1 - speeds[3] / median(speeds[:3]) > DROP
    assert score.gates["history_of_failures"], reasons


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bench_claims_without_eviction", "dropped as stale"),
        ("bench_never_triggered", "H2O never triggered"),
    ],
)
def test_recorded_saboteurs(
    name: str, words: str, judge: Judge, score: Score, stage: Stage
) -> None:
    """What a real program once claimed is contradicted by its own log; the original passed the
    first.
    """
    arguments = [*stage.arguments(), "--h2o-replay", str(RUNS / name)]
    reason = judge(arguments, "lossy").failed[f"lossy[{name}]"]
    score.gates[name] = words in reason
    score.original[name] = max(values(rows_of_run(name), "h2o_lossy")) < LOSSY_TARGET
    assert score.gates[name], reason


def best_decode(session: Path) -> float:
    """The fastest row of the candidate of ``full_strict``."""
    return max(
        decode(row)
        for path in session.glob("launches/bench-*-full-r1/log.md")
        for row in rows_of(path)
    )


def rows_of_run(name: str) -> list[Row]:
    return [row for path in sorted((RUNS / name / "logs").glob("*.log")) for row in rows_of(path)]
