"""The README names what there is: commands, suites, gates, knobs, and the two commands that the
checks run.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pytest_h2o.cli import COMMANDS, GATE_SUITES, main
from pytest_h2o.commands.knobs import markdown
from pytest_h2o.plan.presets import preset_names
from pytest_h2o.plan.suites import SUITES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", README)
SCRIPTS = (
    "run_h2o_{}_bench.py", "sweep_h2o_{}.py", "parse_h2o_{}_log.py", "analyze_h2o_{}.py", "test_{}_runtime.sh",
    "test_{}_m3.sh", "test_{}_final.sh",
)  # fmt: skip
SINGLE = (
    "offline_lossless_fp16.py", "run_full_eval.sh", "run_llm_demo_real_prompt.py", "test_v6_llm_demo.sh",
    "test_v6_all_in_one.sh", "run_llm_demo_batch.py", "convert_fp16.py", "gen_prompts.py",
)  # fmt: skip


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_commands_that_are_checked() -> None:
    """Exactly two commands set up an environment and run what is accepted."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [line.rpartition("&&")[2].split()[:2] for line in lines] == [
        [".venv/bin/pytest", "gates"],
        [".venv/bin/pytest", "tests"],
    ]


def test_knob_table() -> None:
    """The table is what `pytest-h2o knobs --markdown` prints."""
    begin, end = "<!-- pytest-h2o knobs --markdown -->\n", "\n<!-- end of knobs -->"
    assert README.partition(begin)[2].partition(end)[0] == markdown()


def test_suites() -> None:
    """Every suite has a line."""
    assert re.findall(r"^\| `(\w+)` \|", section("Suites"), re.MULTILINE) == list(SUITES)


def test_gates() -> None:
    """Every gate is in the table, and no other."""
    functions = {
        node.name
        for path in (ROOT / "gates").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert set(re.findall(r"`(test_\w+)", section("Gates").partition("###")[0])) == functions


def test_commands() -> None:
    """Every command has a line."""
    listed = re.findall(
        r"^\| `pytest-h2o (\w+)", section("Commands").partition("###")[0], re.MULTILINE
    )
    assert set(listed) == {*COMMANDS, "doctor", "final"}


@pytest.mark.parametrize(
    "command", sorted({text for text in CODE if text.startswith("pytest-h2o ")})
)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that the text shows has a help that knows its options."""
    words = command.split()[1:]
    if words[0] == "SUITE":
        return
    assert words[0] in {*COMMANDS, *GATE_SUITES, "doctor"}
    with pytest.raises(SystemExit) as ended:
        main([words[0], "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        word for word in words[1:] if word.startswith("-") and words[0] not in GATE_SUITES
    ):
        assert option in text


def test_script_table() -> None:
    """Every script of the original kit has its command, which names suites, presets and options
    that exist.
    """
    rows = re.findall(
        r"^\| (`[^|]+) \| ([^|]+) \|$",
        section("Commands").partition("### If you used")[2],
        re.MULTILINE,
    )
    scripts = {name for names, _ in rows for name in re.findall(r"`(\S+)`", names)}
    versions = [f"{name.format(v)}" for name in SCRIPTS for v in ("v5", "v6")]
    assert scripts == {*versions, *SINGLE}
    for _, commands in rows:
        assert set(re.findall(r"-m (\w+)", commands)) <= set(SUITES)
        assert set(re.findall(r"preset (\w+)", commands)) <= set(preset_names())
