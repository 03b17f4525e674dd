"""The ``pytest-h2o`` command: imports the module of the command that was asked for, and no
other.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from pytest_h2o.commands import fail
from pytest_h2o.plan.suites import SUITES

DESCRIPTION = """Acceptance gates for KV-cache compression in LLM runtimes.

The three things people do:
  pytest-h2o doctor                         what would a run from here use, and does it work?
  pytest-h2o final --junitxml=report.xml    is this build accepted?
  pytest-h2o explain lossy                  what does this gate, knob or word mean, what do I do?
"""
EXAMPLES = """more examples:
  pytest-h2o final -k lossy                       arguments after the suite go to pytest
  pytest $(pytest-h2o gates) -m final             the same with pytest itself
  pytest-h2o final --h2o-replay h2o-runs/latest   judge an earlier run again, launch nothing
  pytest-h2o sweep --preset target_store_v6       every combination of a preset, each launched once
  pytest-h2o COMMAND --help                       options and examples of a command
"""
SUITE_EXAMPLES = """Every argument goes to pytest as it is; pytest --help lists them.

examples:
  pytest-h2o {suite} --junitxml=report.xml
  pytest-h2o {suite} -k lossy -n 2
  pytest-h2o {suite} --llm-bench build/llm_bench --model-config model/config.json
  pytest-h2o {suite} --h2o-set LOSSY_TARGET=3.2
  pytest-h2o {suite} --h2o-replay RUN_DIR
"""
DOCTOR = "check what a run from here would use, and launch each program once"
DOCTOR_EXAMPLES = """\
Every argument goes to pytest as it is, so that the gates read the same settings: options, then
the environment, a profile, the ini file, and at last ./build_h2o_v6/ and ./build/. The exit code is
0 when every gate can be evaluated.

examples:
  pytest-h2o doctor
  pytest-h2o doctor --h2o-profile server
  pytest-h2o doctor --llm-bench build/llm_bench --model-config model/config.json

The profile NAME is the file h2o-profiles/NAME.toml of the working directory or of the nearest one
above it; a PATH is taken as it is. Relative paths in it start at the file.
Each key may be left out:

  llm_bench = "../build/llm_bench"
  llm_demo = "../build/llm_demo"
  model_config = "/models/llama2/config.json"
  prompt_dir = "../prompts"

  [knobs]                       # see pytest-h2o knobs
  THREADS = 8
  H2O_LAUNCHER = "srun -N1 --exclusive"
  H2O_CPUS = "0-7"

  [env]                         # of every launch
  LD_LIBRARY_PATH = "/opt/mnn/lib"

A launcher runs the programs elsewhere. It must see the run directory, the prompts and the model
under the same paths. ssh and adb get the command as one word, quoted for the shell on the other
side; every other launcher gets it as words, or quoted in place of {command}, as in: docker exec -i
c sh -c {command}. Quoted, the program and its children end with the connection, if standard input
reaches the other side (not with ssh -n, or docker without -i) and it has setsid; one that makes
itself a daemon there is out of reach. What srun leaves on a node is up to its own settings.
"""
# The plugin's package is loaded before pytest, by this command.
IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
# A project may collect other names; the gates have these.
NAMES = ("-o", "python_files=test_*.py", "-o", "python_functions=test_*")
EVERY = "*"
# Each is a module of pytest_h2o.commands.
COMMANDS = {
    "explain": "say what a gate, knob, metric, suite or word of the reports means",
    "gates": "print the directory of the gates that ship",
    "knobs": "list every setting",
    "presets": "list the sweep presets and what they combine",
    "bench": "launch every combination of the values on the command line once",
    "sweep": "launch every combination of a preset once",
    "parse": "turn logs of llm_bench into a CSV file",
    "offline": "evaluate the lossless codec on a KV dump",
    "prompts": "list the real prompts that would be run, and those that cannot be",
    "make_prompts": "write prompt files of given token counts from a corpus",
    "baseline": "print the history of decode speeds that a rolling baseline is taken from",
    "report": "print the summary of an earlier run directory",
    "compare": "compare run directories: what was tested, outcomes, values",
    "schema": "print the JSON Schema of a file, such as a profile or preset",
    "completion": "print a completion script for a shell",
}

# Where a suite and a command have one name, the command has it here and the suite is `pytest gates
# -m NAME`.
GATE_SUITES = {name: text for name, text in SUITES.items() if name not in COMMANDS}


INVALID = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """Says what a word that is no choice was probably meant to be."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with 2."""
        if found := INVALID.search(message):
            names = [name.strip(" '") for name in found[2].split(",")]
            near = get_close_matches(found[1], names, n=1)
            message = f"{message}; did you mean {near[0]}?" if near else message
        super().error(message)


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The command line; only the ``chosen`` command has its options, ``*`` gives them to all."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="pytest-h2o",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    version = _version() if chosen == "--version" else ""  # which is slow to find
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for suite, text in GATE_SUITES.items():
        commands.add_parser(
            suite,
            help=f"run the {suite} gates with pytest: {text}",
            usage=f"pytest-h2o {suite} [PYTEST_ARGUMENT ...]",
            description=f"Run the {suite} gates with pytest: {text}.",
            epilog=SUITE_EXAMPLES.format(suite=suite),
            formatter_class=raw,
        )
    commands.add_parser(
        "doctor",
        help=DOCTOR,
        usage="pytest-h2o doctor [PYTEST_ARGUMENT ...]",
        description=f"{DOCTOR.capitalize()}.",
        epilog=DOCTOR_EXAMPLES,
        formatter_class=raw,
    )
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=raw
        )
        if chosen in (name, EVERY):
            module = import_module(f"pytest_h2o.commands.{name}")
            module.add_arguments(command)
            command.epilog = module.EXAMPLES
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code is 0 when all went well, 1 when a result is bad, 2 for wrong usage
    or input, pytest's own for a suite.
    """
    if argv is None:
        argv = sys.argv[1:]
    words = list(argv)
    first = words[0] if words else ""
    name = first.replace("-", "_")
    if name in GATE_SUITES or name in COMMANDS:
        words[0] = first = name  # make-prompts is make_prompts
    others = words[1:]
    if others not in (["-h"], ["--help"]):
        if first == "doctor":
            return run_pytest(["--h2o-doctor"], others)
        if first in GATE_SUITES:
            return run_pytest(["-m", first], others)
    parser = build_parser(EVERY if first == "completion" else first)
    arguments = parser.parse_args(words)
    arguments.parser = parser  # completion is made from it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # its locale may lack what is printed
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(import_module(f"pytest_h2o.commands.{arguments.command}").run(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror}")


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415

    return f"pytest-h2o {version('pytest-h2o')}"


def run_pytest(chosen: Sequence[str], arguments: Sequence[str]) -> int:
    """Run the bundled gates from the working directory: its ini file counts, and the cache lies
    there.
    """
    import pytest  # noqa: PLC0415

    from pytest_h2o.data import bundled, project_ini  # noqa: PLC0415

    ini = project_ini(Path.cwd())
    ours = [str(bundled("gates")), *chosen, "--strict-markers", "--rootdir=.", "-W", IMPORTED]
    if ini:
        ours += NAMES
        ours += ["-c", str(ini)]
    return int(pytest.main(ours + list(arguments)))


if __name__ == "__main__":
    sys.exit(main())
