"""What the pages take from the code: `python -m pytest_h2o.docs.generated` writes it anew.

It stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; all else is written by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from pytest_h2o.docs.gate_facts import GateFacts, shipped_gates
from pytest_h2o.docs.pages import PAGES
from pytest_h2o.keys import KEYS
from pytest_h2o.metrics import METRICS
from pytest_h2o.plan.knobs import KNOBS, Knob, KnobValue
from pytest_h2o.runtimes.registry import BUILT_IN

BLOCK = re.compile(r"<!-- generated: (.+?) -->\n.*?<!-- end -->", re.DOTALL)
EVERY_CASE = "bench_case"
NOT_WRITTEN = "**Why it fails, and what to do.** Open the file that the failure names."


def refreshed(page: str, text: str) -> str:
    """A page with what is generated made anew; gates without a section get one at the end."""
    blocks = all_blocks()
    if page == "gates.md":
        for name in blocks:
            if name.startswith("gate ") and f"<!-- generated: {name} -->" not in text:
                title = name.removeprefix("gate ")
                section = f"<!-- generated: {name} -->\n<!-- end -->\n\n{NOT_WRITTEN}\n"
                text = f"{text.rstrip()}\n\n### {title}\n\n{section}"

    def made(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- generated: {name} -->\n{blocks[name]}\n<!-- end -->"

    return BLOCK.sub(made, text)


@cache
def all_blocks() -> dict[str, str]:
    """Everything that is generated, by name."""
    gates: dict[str, list[GateFacts]] = defaultdict(list)
    for facts in shipped_gates():
        gates[facts.name].append(facts)
    blocks: dict[str, str] = {}
    for name, functions in gates.items():
        blocks[f"gate {name}"] = gate_section(functions)
    return blocks | {
        "gates": gate_list(gates),
        "knobs": knob_table(),
        "metrics": metric_table(),
    }


def gate_section(functions: Sequence[GateFacts]) -> str:
    """What the code says about a gate, which may be a function in several files."""
    parts: list[str] = []
    for facts in functions:
        parts += facts.doc
        parts.append("\n".join(_gate_lines(facts)))
    return "\n\n".join(parts)


def _gate_lines(facts: GateFacts) -> list[str]:
    suites = [f"`{name}`" for name in facts.suites]
    if not suites or {"run", "decode_study", EVERY_CASE} & facts.fixtures.keys():
        suites.append("each `llm_bench` case of the suite that runs")
    lines = [
        f"- test: `{facts.file}::test_{facts.name}`",
        f"- suites: {', '.join(suites)}",
    ]
    for name, text in facts.fixtures.items():
        lines.append(f"- looks at: {text} (`{name}`)")
    if facts.metrics:
        lines.append(f"- metrics: {_code(facts.metrics)}")
    for name, text in facts.checks.items():
        lines.append(f"- evidence: {text} (`{name}`)")
    if facts.knobs:
        lines.append(f"- knobs: {_code(facts.knobs)}")
    return lines


def gate_list(gates: dict[str, list[GateFacts]]) -> str:
    """A table of all gates, each with the first sentence of its docstring."""
    rows = [("gate", "requirement", "knobs")]
    for name, functions in gates.items():
        sentence = functions[0].doc[0]
        knobs: dict[str, None] = {}
        for facts in functions:
            knobs |= dict.fromkeys(filter(_is_own, facts.knobs))
        rows.append((f"[{name}](#{name})", sentence, _code(knobs)))
    return table(rows)


def _is_own(knob: str) -> bool:
    return knob not in ("REQUIRE_ALL_ROWS", "DECODE_MAX_PAIRS", "DECODE_BUDGET_S")


def metric_table() -> str:
    """The table of metrics."""
    rows = [("metric", "unit", "meaning", "column of llm_bench", "key of llm_demo")]
    for metric in METRICS:
        rows.append(
            (f"`{metric.name}`", metric.unit, metric.doc, metric.bench or "", metric.demo or "")
        )
    return table(rows)


def knob_table() -> str:
    """The table of knobs."""
    rows = [("knob", "default", "accepts", "meaning", "kit")]
    for knob in KNOBS.values():
        rows.append((f"`{knob.name}`", default_text(knob), knob.accepts, knob.doc, knob.kit))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first one is its header."""
    lines: list[str] = []
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("<", "&lt;") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |")
    return "\n".join(lines)


def default_text(knob: Knob) -> str:
    """The default, and those of single suites, of the runtimes that ship, and of the engine and
    presets where they leave out the key that the knob writes.
    """
    others = dict(knob.suites)
    for runtime, kind in BUILT_IN.items():
        if knob.name in kind.defaults:
            others[runtime] = kind.defaults[knob.name]
    if knob.key is not None:
        others |= KEYS[knob.key].differing
    texts = [_text(knob.default)]
    for where, value in others.items():
        texts.append(f"{where}: {_text(value)}")
    return "; ".join(texts)


def _text(value: KnobValue) -> str:
    """A value as one would set it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, bool | float) else str(value)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the generated parts of all pages."""
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text("utf-8")
        path.write_text(refreshed(path.name, text), "utf-8")


if __name__ == "__main__":
    main()
