"""Verdicts as text for a terminal: one failed gate, and all gates. Untrusted text is neutralised."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_h2o.gating import Verdict

WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "UNDECIDED", "skipped": "off"}


def clean(text: object, limit: int = 2000) -> str:
    """One line without control characters, cut to ``limit`` characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def number(value: float | None) -> str:
    """A number for a table: four significant digits, a dash when absent."""
    return "-" if value is None else f"{value:.4g}"


def percent_or_number(value: float | None, unit: str) -> str:
    """Shares as percentages, everything else as :func:`number`."""
    return f"{value:.1%}" if unit == "share" and value is not None else number(value)


def failure_table(verdict: Verdict, nodeid: str) -> str:
    """What was measured, what was required, by how much it missed, the log to open and the command to rerun."""
    value, target, margin = (
        percent_or_number(v, verdict.unit) for v in (verdict.value, verdict.target, verdict.margin)
    )
    unit = "" if verdict.unit in ("", "share") else f" {verdict.unit}"
    lines = [("reason", clean(verdict.reason))]
    if verdict.value is not None:
        lines += [("measured", f"{verdict.metric} = {value}{unit}")]
    if verdict.target is not None:
        knob = f"   ({verdict.knob})" if verdict.knob else ""
        lines += [("required", f"{verdict.operator} {target}{unit}{knob}")]
    if verdict.margin is not None and verdict.margin < 0:
        lines += [("missed by", f"{margin.removeprefix('-')}{unit}")]
    lines += [(f"  {clean(label, 60)}", clean(text, 200)) for label, text in verdict.rows]
    if verdict.evidence:
        lines += [("evidence", clean(verdict.evidence))]
    if verdict.source:
        lines += [("open", verdict.source)]
    lines += [("rerun", f'pytest "{nodeid}"')]
    width = max(len(name) for name, _ in lines)
    head = f"{verdict.gate} [{verdict.case}]: {WORDS[verdict.outcome]}"
    return "\n".join([head, *(f"  {name:<{width}}  {text}" for name, text in lines)])


def summary_rows(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """Header and one row per gate: verdict, gate, case, value, requirement, margin, note."""
    rows: list[tuple[str, ...]] = [("", "gate", "case", "value", "required", "margin", "note")]
    for verdict in verdicts:
        required = (
            f"{verdict.operator} {percent_or_number(verdict.target, verdict.unit)}"
            if verdict.target is not None
            else "-"
        )
        note = verdict.reason or (verdict.evidence if verdict.evidence.startswith("claimed") else "")
        rows.append(
            (
                WORDS[verdict.outcome],
                verdict.gate,
                verdict.case,
                percent_or_number(verdict.value, verdict.unit),
                required,
                percent_or_number(verdict.margin, verdict.unit),
                clean(note, 60),
            )
        )
    return rows


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns; the last column is left as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
