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
from pytest_h2o.plan.suites import SUITES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", README)


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
