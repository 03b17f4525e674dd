"""The command line: what it passes on, what it answers to wrong usage, and that help costs
nothing.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_h2o import cli

HEAVY = ("numpy", "pandas", "pydantic", "pytest", "zstandard", "filelock")
PRINT_HELP = f"""
import sys
from pytest_h2o import cli
for name in ["", *cli.COMMANDS]:
    cli.build_parser(name).format_help()
print([name for name in {HEAVY} if name in sys.modules])
"""
# A command in a list of examples, up to a closing bracket or to the two blanks before a comment.
EXAMPLE = re.compile(r"^  .*pytest-h2o (.+?)(?:\)|  |$)", re.MULTILINE)


def test_help_imports_nothing_heavy() -> None:
    """The help of the program and of every command is printed without numpy, pandas, pydantic or
    pytest.
    """
    result = subprocess.run(
        [sys.executable, "-c", PRINT_HELP], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_working_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has help with examples, and the parser takes each of them."""
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    found = EXAMPLE.findall(examples)
    assert len(found) >= 1
    for words in found:
        assert cli.build_parser(command).parse_args(shlex.split(words)).command == command


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-k", "lossy and store", "-n", "4", "--junitxml=report.xml"],
        ["-m", "runtime", "--", "some/path"],
        ["--help", "-v"],
        ["-x", "--h2o-set", "LOSSY_TARGET=3", "--json", "-h"],
    ],
)
@pytest.mark.parametrize("suite", cli.GATE_SUITES)
def test_suite_arguments_go_to_pytest(
    suite: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that follows a suite reaches pytest unchanged and last, and pytest's exit code comes
    back.
    """
    seen: list[list[str]] = []

    def run(words: list[str]) -> pytest.ExitCode:
        seen.append(words)
        return pytest.ExitCode.NO_TESTS_COLLECTED

    monkeypatch.setattr(pytest, "main", run)
    assert cli.main([suite, *arguments]) == 5
    [words] = seen
    assert words[len(words) - len(arguments) :] == arguments
    assert words[1:3] == ["-m", suite]
    assert Path(words[0], "test_runtime.py").is_file()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_a_suite_is_ours(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help alone explains the suite; pytest is not started."""
    with pytest.raises(SystemExit):
        cli.main(["final", flag])
    assert "pytest-h2o final -k lossy -n 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["finall"], "'finall'"),
        (["knobs", "--jsn"], "--jsn"),
        (["sweep"], "--preset"),
        (["parse"], "LOG"),
        (["report"], "RUN_DIR"),
        (
            ["offline", "dump", "--layer-ids", "1,a"],
            "argument --layer-ids: '1,a': expected integers, comma separated",
        ),
        (
            ["make-prompts", "--targets", "abc"],
            "argument --targets: 'abc': expected token counts, comma separated",
        ),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage names what is wrong and ends with 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the installed package."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"pytest-h2o {version('pytest-h2o')}\n"


def test_gates(capsys: pytest.CaptureFixture[str]) -> None:
    """`gates` prints one line, the directory that holds the gates."""
    assert cli.main(["gates"]) == 0
    assert Path(capsys.readouterr().out.removesuffix("\n"), "test_m3.py").is_file()


def test_reader_that_stops_early() -> None:
    """A closed pipe, as `| head` leaves it, ends the command without a traceback."""
    command = [sys.executable, "-m", "pytest_h2o.cli", "knobs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bash completes commands, and the options of each, from the script."""
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    typed = """
        source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        $(complete -p pytest-h2o | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo "${COMPREPLY[@]}"
    """
    for words, expected in ((["expl"], "explain"), (["sweep", "--pre"], "--preset")):
        command = ["bash", "-c", typed, str(script), "pytest-h2o", *words]
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert completed.stdout.split() == [expected]


def test_help_begins_with_what_people_do(capsys: pytest.CaptureFixture[str]) -> None:
    """The three commands that most need come before the list of all."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    first, _, _ = capsys.readouterr().out.partition("positional arguments")
    for command in ("doctor", "final", "explain"):
        assert f"pytest-h2o {command}" in first
