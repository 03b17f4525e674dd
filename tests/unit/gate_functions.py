"""Calls gate functions on numbers that a test makes up, and returns their verdicts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import Case, all_cases
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.runs.results import Run
from pytest_h2o.session.gate import Gate
from pytest_h2o.verdict import Verdict

GATES = Path(__file__).parents[2] / "gates"
Table = Iterable[Mapping[str, float]]


def module(name: str) -> ModuleType:
    """A module of the ``gates`` directory, which is no package."""
    spec = importlib.util.spec_from_file_location(f"gates_{name}", GATES / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


NAMES = (
    "test_runtime",
    "test_llm_demo",
    "test_offline",
    "test_quality",
    "test_memory",
    "test_relations",
    "test_kv_quant",
    "test_release",
    "test_m3",
)
RUNTIME, DEMO, OFFLINE, QUALITY, MEMORY, RELATIONS, KV_QUANT, RELEASE, M3 = map(module, NAMES)


def make_run(table: Table, case: str = "full_strict") -> Run:
    """A run of one row per mapping of metrics to means; ``decode_tokens`` is no metric."""
    rows = [
        Row(
            kind="bench", label=f"row{number}", prompt_tokens=512,
            decode_tokens=int(values.get("decode_tokens", 128)),
            samples={name: Sample(values[name]) for name in values if name != "decode_tokens"},
            cells={}, source=Path("log.md"), line=number, problems=(),
        )
        for number, values in enumerate(table)
    ]  # fmt: skip
    return Run(case, (), tuple(rows), ())


@dataclass
class StubLab:
    """What gates ask of a laboratory, answered with given runs."""

    knobs: Knobs
    candidate: Run
    baseline: Run = field(default_factory=lambda: make_run([]))
    history: Path | None = None

    @property
    def cases(self) -> dict[str, Case]:
        return all_cases(self.knobs)

    def run(self, name: str, bucket: str = "") -> Run:
        return part(self.candidate, bucket)

    def baseline_run(self, name: str, bucket: str = "") -> Run:
        return part(self.baseline, bucket)

    def baseline_mode(self, name: str) -> str:
        mode = self.cases[name].knobs(self.knobs).text("DECODE_BASELINE_MODE")
        return "same_batch" if name == "candidate" and mode != "paired" else mode


def part(run: Run, bucket: str) -> Run:
    """The rows whose label is the bucket's name."""
    return replace(run, rows=tuple(row for row in run.rows if bucket in ("", row.label)))


def judge(
    function: Callable[..., None],
    knobs: Knobs,
    case: str = "full_strict",
    *,
    require_evidence: bool = False,
    **fixtures: Any,
) -> Verdict:
    """The verdict of a gate function, whatever it ends with."""
    node = SimpleNamespace(user_properties=[], iter_markers=lambda: iter(()))
    gate = Gate(
        function.__name__.removeprefix("test_"),
        case,
        all_cases(knobs)[case].knobs(knobs),
        node,
        "pytest",
        require_evidence,
    )  # type: ignore[arg-type]
    with suppress(pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception):
        function(gate=gate, **fixtures)
    return Verdict.from_properties(dict(node.user_properties))
