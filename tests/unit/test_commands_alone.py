"""Every command works with what `pip install -e .` brings, started in the checkout, whose tests
need more than that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import venv
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest

from pytest_h2o.cli import COMMANDS, GATE_SUITES

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
MODEL = ROOT / "pytest_h2o" / "engine" / "weights" / "config.json"
ENTRY = {
    "ts_utc": "2026-01-31T12:00:00Z", "key": "final", "decode_best": 100.0, "overall_pass": True,
    "summary": "", "case": "full_strict", "identity": {},
}  # fmt: skip
ARGUMENTS = {
    "gates": [],
    "explain": ["lossy"],
    "completion": ["bash"],
    "knobs": ["--json"],
    "presets": ["target_speed"],
    "bench": ["--prompts", "64", "--dry-run", "--out", "{tmp}/bench"],
    "sweep": ["--preset", "target_speed", "--dry-run", "--out", "{tmp}/sweep"],
    "parse": ["tests/data/runs/bench_full/logs", "-o", "{tmp}/metrics.csv"],
    "offline": ["{tmp}/dump"],
    "prompts": [],
    "make_prompts": ["--corpus", "prompts", "--config", str(MODEL), "--targets", "64",
                     "--per-target", "1", "--out-dir", "{tmp}/prompts"],
    "baseline": ["{tmp}/history.jsonl"],
    "report": ["{tmp}/run"],
    "compare": ["{tmp}/run", "{tmp}/run"],
    "schema": ["profile"],
    "doctor": ["--h2o-out", "{tmp}/runs", "-p", "no:cacheprovider"],
}  # fmt: skip
JUDGE = ["-k", "lossy", "--h2o-replay", "tests/data/runs/bench_full", "--h2o-out", "{tmp}/judged"]


def installed_with(name: str, seen: set[str]) -> set[str]:
    """The distributions that come with ``name`` when no extra is asked for, by canonical name."""
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    if canonical in seen:
        return seen
    seen.add(canonical)
    try:
        needed = requires(name) or []
    except PackageNotFoundError:  # of another system or Python
        return seen
    for requirement in needed:
        words = re.match(r"[\w.-]+", requirement)
        if words and "extra ==" not in requirement:
            installed_with(words[0], seen)
    return seen


def link(name: str, site: Path) -> None:
    """Put an installed distribution into another directory of packages as well."""
    try:
        installed = distribution(name)
    except PackageNotFoundError:  # of another system or Python
        return
    tops = {path.parts[0] for path in installed.files or ()}
    for top in tops - {"..", "__pycache__"}:
        (site / top).symlink_to(str(installed.locate_file(top)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the commands read, and a virtual environment without the extras."""
    tmp = tmp_path_factory.mktemp("alone")
    venv.create(tmp / "env", symlinks=True)
    [site] = tmp.glob("env/lib/python*/site-packages")
    for name in installed_with("pytest-h2o", set()):
        link(name, site)
    (tmp / "history.jsonl").write_text(json.dumps(ENTRY) + "\n")
    with tarfile.open(DATA / "offline" / "kv_dump.tar.gz") as archive:
        archive.extractall(tmp / "dump", filter="data")
    return tmp


def python(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python of that environment, started in the checkout."""
    words = [word.replace("{tmp}", str(place)) for word in arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [place / "env" / "bin" / "python", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def run(place: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in that environment; it must do its work without a traceback."""
    ended = python(place, "-m", "pytest_h2o.cli", command, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


@pytest.mark.parametrize("module", ["hypothesis", "scipy", "mypy", "ruff"])
def test_the_extras_are_not_there(place: Path, module: str) -> None:
    """What the tests need cannot be imported, and what the plugin needs can."""
    ended = python(place, "-c", f"import numpy, pytest_h2o, {module}")
    assert f"No module named '{module}'" in ended.stderr


def test_every_command_is_here() -> None:
    """A new command has a line in the table."""
    assert set(ARGUMENTS) == {*COMMANDS, "doctor"}


@pytest.mark.parametrize("suite", GATE_SUITES)
def test_suites_are_collected(place: Path, suite: str) -> None:
    """The gates of every suite are found and can be imported."""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--h2o-set", "RUN_RUNTIME_FIXED=0"]
    assert "test_" in run(place, suite, *options).stdout


@pytest.mark.parametrize("command", ARGUMENTS)
def test_commands(place: Path, command: str) -> None:
    """Each command does its work; a report is that of recorded output."""
    if command in ("report", "compare") and not (place / "run").exists():
        run(place, "runtime", "-p", "no:cacheprovider", *JUDGE)
        [judged] = (place / "judged").iterdir()
        judged.rename(place / "run")
    run(place, command, *ARGUMENTS[command])
