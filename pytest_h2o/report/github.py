"""What GitHub Actions shows of a session: the summary of the step, and annotations of failures."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_h2o.report.groups import BAD, ORDER, by_cause, by_gate, conclusion, hints, tightest
from pytest_h2o.report.models import Summary
from pytest_h2o.report.page import outcome
from pytest_h2o.report.screen import figures, needed_by
from pytest_h2o.report.text import WORDS, clean, markdown_table, markdown_text

# GitHub shows ten annotations of a step.
ANNOTATIONS = 10


def step_summary(document: Summary) -> str:
    """The outcome, every cause once, and one row per gate, as Markdown."""
    lines = [f"## {outcome(document)}", "", markdown_text(document.title), ""]
    for group in by_cause(document.gates):
        first = tightest(group)
        said = markdown_text(conclusion(first))
        lines.append(f"- **{WORDS[first.outcome]}** {said} ({markdown_text(needed_by(group))})")
        for hint in hints(group):
            lines.append(f"  - try: {markdown_text(hint)}")
    rows = [("", "gate", "passed", "tightest case", "measured")]
    groups = sorted(by_gate(document.gates), key=lambda each: ORDER.index(tightest(each).outcome))
    for gates in groups:
        worst = tightest(gates)
        passed = sum(each.outcome not in BAD for each in gates)
        count = f"{passed} of {len(gates)}"
        rows.append((WORDS[worst.outcome], worst.gate, count, worst.case, figures(worst)))
    lines += ["", markdown_table(rows), ""]
    return "\n".join(lines)


def failure_commands(document: Summary) -> Iterator[str]:
    """A workflow command for each cause of a failure."""
    for group in by_cause(document.gates)[:ANNOTATIONS]:
        first = tightest(group)
        kind = "error" if first.outcome == "fail" else "warning"
        parts = [clean(conclusion(first)), needed_by(group)]
        if first.hint:
            parts.append(f"try: {clean(first.hint)}")
        title = _property(
            f"{WORDS[first.outcome]}: {clean(first.gate, 60)} [{clean(first.case, 60)}]"
        )
        yield f"::{kind} title={title}::{_data(chr(10).join(parts))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
