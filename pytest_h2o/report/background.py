"""What a page says beyond the verdicts and launches of its session."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_h2o.decode.history import Entry
from pytest_h2o.verdict import Verdict

RESULT_LIMIT = 16 * 2**20
TEST_LIMIT = 2**20


@dataclass(frozen=True, kw_only=True)
class Background:
    """What a page says beyond the verdicts: ``history`` of decode speeds with the ``window`` of its
    baseline, ``offline`` layers of the evaluator's result, and what each gate protects, by name.
    """

    history: Sequence[Entry] = ()
    window: int = 10
    offline: Sequence[Mapping[str, Any]] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)


def offline_layers(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """The layers in the offline result that the ratio over all tensors was judged by; none where
    another evaluator wrote it.
    """
    for verdict in verdicts:
        if verdict.metric == "lossless_ratio" and verdict.source.endswith(".json"):
            return _layers(Path(verdict.source))
    return []


def _layers(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(RESULT_LIMIT))
    except (OSError, ValueError, RecursionError):
        return []
    layers = found.get("layers") if isinstance(found, dict) else None
    if not isinstance(layers, list):
        return []
    return [each for each in layers if isinstance(each, dict)]


def gate_meanings(rootdir: Path, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """What each gate protects: the docstring of its test, which the node ids lead to."""
    meanings: dict[str, str] = {}
    modules: dict[str, dict[str, str]] = {}
    for nodeid, verdict in verdicts.items():
        if verdict.gate in meanings:
            continue
        module, _, rest = nodeid.partition("::")
        if module not in modules:
            modules[module] = _docstrings(rootdir / module)
        function = rest.rpartition("::")[2].partition("[")[0]
        meanings[verdict.gate] = modules[module].get(function, "")
    return meanings


def _docstrings(path: Path) -> dict[str, str]:
    """The first paragraph of each function's docstring, by name."""
    try:
        with path.open("rb") as file:
            tree = ast.parse(file.read(TEST_LIMIT))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            found[node.name] = " ".join(text.partition("\n\n")[0].split())
    return found
