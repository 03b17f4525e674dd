"""What the code says about each gate that ships, read from its source without importing it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.data import PACKAGE, bundled
from pytest_h2o.metrics import METRICS
from pytest_h2o.plan.knobs import KNOBS

METRIC_NAMES = {metric.name for metric in METRICS}
STUDY_KNOBS = ("DECODE_BASELINE_MODE", "DECODE_MAX_PAIRS", "DECODE_BUDGET_S", "DECODE_INCONCLUSIVE")
# What a gate that uses these depends on as well.
IMPLIED = {"every_row": ("REQUIRE_ALL_ROWS",), "passes_study": STUDY_KNOBS}
WORD = re.compile(r"\w+")
# Fixtures that say nothing of what a gate looks at.
TOOLS = ("gate", "lab")


@dataclass(frozen=True)
class GateFacts:
    """One gate function: ``name`` is without ``test_``, ``doc`` its docstring by paragraphs.

    ``fixtures`` and ``checks`` say what it looks at and what evidence is looked for, by name.
    """

    name: str
    file: str
    doc: tuple[str, ...]
    suites: tuple[str, ...]
    fixtures: dict[str, str]
    checks: dict[str, str]
    metrics: tuple[str, ...]
    knobs: tuple[str, ...]


def shipped_gates() -> Iterator[GateFacts]:
    """Every gate that ships, file by file."""
    fixtures = dict(_first_sentences(PACKAGE / "fixtures.py"))
    for name in TOOLS:
        del fixtures[name]
    checks: dict[str, str] = {}
    for path in sorted((PACKAGE / "evidence").glob("*.py")):
        for name, sentence in _first_sentences(path):
            if name.endswith("_evidence"):
                checks[name] = sentence
    for path in sorted(bundled("gates").glob("test_*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield _facts(path, module, node, fixtures, checks)


def _facts(
    path: Path,
    module: ast.Module,
    node: ast.FunctionDef,
    fixtures: dict[str, str],
    checks: dict[str, str],
) -> GateFacts:
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    used = _words_used(module, node)
    named = list(used)
    for word, implied in IMPLIED.items():
        if word in used:
            named += implied
    asked = [argument.arg for argument in node.args.args]
    return GateFacts(
        name=node.name.removeprefix("test_"),
        file=f"gates/{path.name}",
        doc=tuple(map(_in_markdown, doc.split("\n\n"))),
        suites=tuple(_marks(module, node)),
        fixtures=_known(asked, fixtures),
        checks=_known(used, checks),
        metrics=tuple(name for name in used if name in METRIC_NAMES),
        knobs=tuple(dict.fromkeys(name for name in named if name in KNOBS)),
    )


def _first_sentences(path: Path) -> Iterator[tuple[str, str]]:
    """What each function of a file is for."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            doc = inspect.cleandoc(ast.get_docstring(node) or "")
            yield node.name, _in_markdown(doc.split("\n\n")[0])


def _in_markdown(text: str) -> str:
    """A paragraph of a docstring on one line, its code and knobs marked as in Markdown."""
    line = text.replace("\n", " ").replace("``", "`")
    pieces = line.split("`")
    for index in range(0, len(pieces), 2):
        pieces[index] = WORD.sub(_marked, pieces[index])
    return "`".join(pieces)


def _marked(word: re.Match[str]) -> str:
    return f"`{word[0]}`" if word[0] in KNOBS else word[0]


def _known(names: Iterable[str], meanings: Mapping[str, str]) -> dict[str, str]:
    return {name: meanings[name] for name in names if name in meanings}


def _marks(module: ast.Module, node: ast.FunctionDef) -> list[str]:
    """The suites that marks name, those of the whole file included."""
    marked: list[ast.AST] = list(node.decorator_list)
    for statement in module.body:
        if isinstance(statement, ast.Assign) and "pytestmark" in ast.unparse(statement):
            marked.append(statement.value)
    text = " ".join(map(ast.unparse, marked))
    return [name for name in re.findall(r"pytest\.mark\.(\w+)", text) if name != "parametrize"]


def _words_used(module: ast.Module, node: ast.FunctionDef) -> list[str]:
    """Names, attributes and words of texts in a function and in what of its file it uses."""
    own: dict[str, ast.AST] = {}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef):
            own[statement.name] = statement
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            own[statement.targets[0].id] = statement.value
    words: dict[str, None] = {}
    waiting: list[ast.AST] = [node]
    while waiting:
        for word in _words_of(waiting.pop()):
            if word in own and word not in words:
                waiting.append(own[word])
            words[word] = None
    return list(words)


def _words_of(tree: ast.AST) -> Iterator[str]:
    for each in ast.walk(tree):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield from WORD.findall(each.value)
