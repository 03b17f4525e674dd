"""A build beside another one: the same passes, slower and changed ones do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from staging import HERE, ROOT, TEMPLATES, Stage

# What the second build does otherwise than the one under test.
SECOND = """#!{python} -SE
import pathlib, sys
sys.path.insert(0, {here!r})
import imitator
{change}
imitator.main(pathlib.Path({templates!r}), "")
"""
FASTER = "imitator.DECODE_TPS['baseline'] *= 1.2; imitator.CANDIDATE_TPS *= 1.2\n"
SAVES_MORE = """
put = imitator.Launch.put
imitator.Launch.put = lambda self, name, mean, *rest: put(
    self, name, mean * 1.2 if name == "h2o_lossy" else mean, *rest)
"""
OTHER_TEXT = """
imitate = imitator.Launch.imitate
def written(self, template):
    imitate(self, template)
    head, mark, text = self.stdout.partition("prompt file is ")
    first, _, rest = text.partition("\\n")
    self.stdout = head + mark + first + "\\nQ" + rest[1:]
imitator.Launch.imitate = written
"""
GATES = ("build_decode", "build_texts", "release_decode", "release_texts", "release_numbers")


def second_build(stage: Stage, change: str, folder: Path) -> list[str]:
    """Options that name a second build with ``change``."""
    for program in ("llm_bench", "llm_demo"):
        path = folder / program
        path.write_text(
            SECOND.format(
                python=sys.executable, here=str(HERE), templates=str(TEMPLATES), change=change
            )
        )
        path.chmod(0o755)
    return [f"--h2o-baseline-llm-bench={folder / 'llm_bench'}"]


def judged(
    pytester: pytest.Pytester, arguments: Sequence[str], *more: str
) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each gate that compares builds."""
    select = " or ".join(GATES)
    pytester.runpytest_inprocess(
        "-k", select, str(ROOT / "gates" / "test_release.py"), *arguments, *more, "--h2o-out=runs"
    )
    summary = max(pytester.path.glob("runs/[0-9]*/summary.json"))
    verdicts = json.loads(summary.read_text())["gates"]
    return {each["gate"]: (each["outcome"], each["reason"]) for each in verdicts}


def outcomes(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {gate: outcome for gate, (outcome, _) in found.items()}


def test_builds_are_compared(stage: Stage, pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Speed, text and numbers of the second build are what the first is held to."""
    second = second_build(stage, FASTER + SAVES_MORE + OTHER_TEXT, tmp_path)
    found = judged(pytester, [*stage.arguments(), *second], "-m", "release")
    assert outcomes(found) == dict.fromkeys(GATES, "fail"), found


def test_equal_builds_pass_and_are_replayed(
    stage: Stage, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    """A replay judges what was launched, and needs no second build."""
    arguments = [*stage.arguments(), "-m", "release"]
    made = judged(pytester, [*arguments, *second_build(stage, "", tmp_path)])
    assert outcomes(made) == dict.fromkeys(GATES, "pass"), made
    session = max(pytester.path.glob("runs/[0-9]*/summary.json")).parent
    assert judged(pytester, [*arguments, "--h2o-replay", str(session)]) == made


def test_without_a_second_build(stage: Stage, pytester: pytest.Pytester) -> None:
    """The suite says what it needs; in the acceptance its gates are off."""
    result = pytester.runpytest_inprocess(
        "-m", "release", str(ROOT / "gates"), *stage.arguments(), "--h2o-out=runs"
    )
    result.stderr.fnmatch_lines(["*no second one is named; give --h2o-baseline-llm-bench*"])
    found = judged(pytester, stage.arguments(), "-m", "relations")
    assert found == dict.fromkeys(
        ("build_decode", "build_texts"), ("skipped", "turned off by RELATION_BUILD=0")
    )


def test_a_second_build_that_is_not_there(
    stage: Stage, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    """Nothing is launched; the message names the file."""
    missing = tmp_path / "llm_bench"
    result = pytester.runpytest_inprocess(
        "-m",
        "release",
        str(ROOT / "gates"),
        *stage.arguments(),
        f"--h2o-baseline-llm-bench={missing}",
    )
    result.stderr.fnmatch_lines([f"*the second build: llm_bench {missing} does not exist*"])


@pytest.mark.parametrize("source", ["env", "ini", "profile", "knob"])
def test_where_a_second_build_is_named(
    source: str,
    stage: Stage,
    pytester: pytest.Pytester,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Environment, ini file and profile name it as the command line does."""
    [option] = second_build(stage, "", tmp_path)
    path = option.partition("=")[2]
    arguments = stage.arguments()
    if source == "env":
        monkeypatch.setenv("H2O_BASELINE_LLM_BENCH", path)
    elif source == "ini":
        pytester.makeini(f"[pytest]\nh2o_baseline_llm_bench = {path}")
        arguments += ["-c", "tox.ini"]
    elif source == "profile":
        (pytester.path / "here.toml").write_text(f'h2o_baseline_llm_bench = "{path}"\n')
        arguments += ["--h2o-profile=here.toml"]
    else:
        arguments += ["--h2o-set", f"H2O_BASELINE_LLM_BENCH={path}"]
    result = pytester.runpytest_inprocess(
        "-m", "release", "--h2o-plan", str(ROOT / "gates"), *arguments
    )
    result.stdout.fnmatch_lines(["*bench-p512_g48*full-of-second-build-r1*"])
