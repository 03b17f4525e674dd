"""What exists for the sake of the v5 and v6 kits is in kit/ and on one page that ships."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_h2o.data import PACKAGE
from pytest_h2o.kit import demo_runs
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.presets import preset_names
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.suites import SUITES
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes.base import Output, Rows
from pytest_h2o.runtimes.programs import LlmDemo

ROOT = Path(__file__).parents[2]
PAGE = PACKAGE / "docs" / "kit.md"
ALLOWED = (PACKAGE / "kit", PAGE, PACKAGE / "engine" / "weights")  # the last holds texts of others
SUFFIXES = {".py", ".md", ".json", ".html", ".toml", ".txt"}
ORIGINAL = re.compile(r"\boriginal(?:ly|s|'s)?\b", re.IGNORECASE)
VERSION = re.compile(r"\bv[56]\b", re.IGNORECASE)
SCRIPTS = (
    "run_h2o_{}_bench.py", "sweep_h2o_{}.py", "parse_h2o_{}_log.py", "analyze_h2o_{}.py",
    "test_{}_runtime.sh", "test_{}_m3.sh", "test_{}_final.sh",
)  # fmt: skip
SINGLE = (
    "offline_lossless_fp16.py", "run_full_eval.sh", "run_llm_demo_real_prompt.py",
    "test_v6_llm_demo.sh", "test_v6_all_in_one.sh", "run_llm_demo_batch.py", "convert_fp16.py",
    "gen_prompts.py",
)  # fmt: skip


def elsewhere() -> Iterator[Path]:
    """The files of the package and of the gates that need no other kit to be understood."""
    for path in [*PACKAGE.rglob("*"), *(ROOT / "gates").rglob("*")]:
        allowed = any(path.is_relative_to(place) for place in ALLOWED)
        if path.suffix in SUFFIXES and not allowed:
            yield path


def prose(path: Path) -> Iterator[str]:
    """The comments and docstrings of a Python file."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""


def test_only_kit_names_the_original() -> None:
    """No other file argues with the scripts that were there before."""
    lines = [
        f"{path}: {line.strip()}"
        for path in elsewhere()
        for line in path.read_text("utf-8").splitlines()
        if ORIGINAL.search(line)
    ]
    assert lines == []


def test_only_kit_argues_with_versions() -> None:
    """Comments and docstrings elsewhere give reasons that need no version of a kit."""
    texts = [
        f"{path}: {text}"
        for path in elsewhere()
        if path.suffix == ".py"
        for text in prose(path)
        if VERSION.search(text)
    ]
    assert texts == []


@pytest.mark.parametrize("text", ["as in the original.", "Originally 6.60", "the original's rule"])
def test_the_search_finds(text: str) -> None:
    """The words that are looked for are found, and those that contain them are not."""
    assert ORIGINAL.search(text)
    assert not ORIGINAL.search("item.originalname")


def test_script_table() -> None:
    """Every script of the original kit has its command, which names suites, presets and options
    that exist.
    """
    rows = re.findall(
        r"^\| (`[^|]+) \| ([^|]+) \|$",
        PAGE.read_text().partition("## Scripts\n")[2].partition("\n## ")[0],
        re.MULTILINE,
    )
    scripts = {name for names, _ in rows for name in re.findall(r"`(\S+)`", names)}
    versions = [f"{name.format(v)}" for name in SCRIPTS for v in ("v5", "v6")]
    assert scripts == {*versions, *SINGLE}
    for _, commands in rows:
        assert set(re.findall(r"-m (\w+)", commands)) <= set(SUITES)
        assert set(re.findall(r"preset (\w+)", commands)) <= set(preset_names())


def test_real_prompts_are_read_by_the_program_that_ran_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines about real prompts hold what the launch's own program reads, and nulls where it
    cannot.
    """

    class Loud(LlmDemo):
        def read(self, output: Output, *, fresh: bool) -> Rows:
            samples = {"decode_tps": Sample(float(output.stdout.read_text()), None)}
            return [Row("demo", output.spec.label, 7, 9, samples, {}, output.stdout, 1, ())], []

    monkeypatch.setattr(demo_runs, "find_program", lambda name: {"loud": Loud()}[name])
    spec = LaunchSpec(
        program="loud",
        arm="candidate",
        replicate=1,
        config={},
        gen_tokens=9,
        prompt_file=tmp_path / "a.txt",
    )
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(tmp_path))
    texts = ["12.5", "not a number"]
    found = []
    for text in texts:
        record.stdout.write_text(text)
        found += demo_runs.demo_runs("candidate", Run("candidate", (record,), (), ()))
    assert [(each.prompt_tokens, each.decode_tps) for each in found] == [(7, 12.5), (None, None)]
