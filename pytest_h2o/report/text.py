"""Verdicts as text for a terminal: one failed gate, and all gates. Untrusted text is
neutralised.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_h2o.docs.pages import explain
from pytest_h2o.metrics import quantity
from pytest_h2o.report.groups import by_cause, not_off
from pytest_h2o.verdict import NO_H2O, Verdict

WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "UNDECIDED", "skipped": "off"}
HEADER = ("", "gate", "case", "value", "required", "margin", "evidence", "note")
NOTE, LONG = 60, 2000  # characters of a note on a screen, and of any text
# Which launches a reason is of, as it says them behind its cause.
LAUNCHES = re.compile(r"\(([^()]*?)(?:; see [^()]*)?\)")
CLAIM = re.compile(r"\(contradicts: ([^()]*)\)")


def escaped(text: str) -> str:
    """Text that UTF-8 can hold: a path's bytes that are none, and lone surrogates, as ``\\xff``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def write_text(path: Path, text: str) -> None:
    """Write a report in UTF-8, whatever the locale is."""
    path.write_text(escaped(text), "utf-8")


def command_line(words: Iterable[str]) -> str:
    """Words as they are typed into a shell; what a terminal cannot show is written in escapes, as
    bash, zsh and ksh read them.
    """
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_typed, word.encode(errors='surrogateescape')))}'"


def _typed(byte: int) -> str:
    plain = 32 <= byte < 127 and chr(byte) not in "\\'"
    return chr(byte) if plain else f"\\x{byte:02x}"


def clean(text: object, limit: int = LONG) -> str:
    """One line without control characters, cut to ``limit`` characters."""
    line = escaped(str(text))
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def failure_table(verdict: Verdict, columns: int = 0) -> str:
    """What was measured, what was required, by how much it missed, the log to open and the command
    to rerun; on a screen of ``columns``, if they are given, but for commands, which are copied.
    """
    # The first line is all that many a viewer of JUnit files shows beside the test's name: the
    # conclusion, whole.
    name = f"{verdict.gate} [{verdict.case}]"
    first = verdict.reason.partition("\n")[0]
    head = clean(verdict.cause or first) or name
    lines = [("gate", name)]
    lines += _beyond(verdict.cause, first)
    lines += [line for line in details(verdict) if line[0] != "reason"]
    width = max(len(name) for name, _ in lines)
    if verdict.outcome != "fail":
        head = f"{WORDS[verdict.outcome]}: {head}"
    shown = wrapped(head, columns) if columns else [head]
    for name, text in lines:
        beginning = f"  {name:<{width}}  "
        if columns and name != "rerun":
            shown += hanging(text, columns, beginning)
        else:
            shown.append(f"{beginning}{text}")
    return "\n".join(shown)


def _beyond(cause: str, reason: str) -> list[tuple[str, str]]:
    """What a reason says beyond its cause, by name: which launches, or what else is against it."""
    if not cause or not reason:
        return []
    rest = reason
    for said in (cause, cause.partition(": ")[2]):  # a reason does not name the program
        if said and reason.startswith(said):
            rest = reason.removeprefix(said).strip("; ")
            break
    found: list[tuple[str, str]] = []
    for name, pattern in (("contradicts", CLAIM), ("launched", LAUNCHES), ("contradicts", CLAIM)):
        if found_at := pattern.match(rest):
            found.append((name, clean(found_at[1])))
            rest = rest[found_at.end() :].strip("; ")
    if rest:
        found.append(("reason", clean(rest)))
    return found


def shown_path(path: object) -> str:
    """A path for people, from where they are if it lies below; safe to print."""
    text = str(path)
    here = f"{Path.cwd()}/"
    return clean(text.removeprefix(here))


def details(verdict: Verdict) -> list[tuple[str, str]]:
    """Everything about a verdict by name: what was measured and required, every row, the evidence,
    the log to open.

    The last of a gate that did not pass is the command that repeats it.
    """
    lines: list[tuple[str, str]] = []
    name = "reason"
    for text in verdict.reason.split("\n") if verdict.reason else ():
        lines.append((name, clean(text)))
        name = ""
    if verdict.value is not None:
        value = quantity(verdict.value, verdict.unit)
        lines.append(("measured", f"{verdict.metric} = {value}"))
    if verdict.target is not None:
        knob = f"   ({verdict.knob})" if verdict.knob else ""
        target = quantity(verdict.target, verdict.unit)
        lines.append(("required", f"{verdict.operator} {target}{knob}"))
    if verdict.margin is not None and verdict.margin < 0:
        lines.append(("missed by", quantity(-verdict.margin, verdict.unit)))
    for row in verdict.rows:
        lines.append((f"  {clean(row.label, 60)}", clean(row.text, 200)))
    texts = {
        "evidence": verdict.evidence,
        "not evidenced": verdict.not_evidenced,
        "warning": verdict.warning,
        "host": verdict.host,
        "try": verdict.hint,
        "open": shown_path(verdict.source),
        "rerun": verdict.rerun,
        "explain": explained(verdict.gate),
    }
    for name, text in texts.items():
        if text:
            lines.append((name, clean(text)))
    return lines


def explained(gate: str) -> str:
    """The command that explains a gate; empty for one that the pages do not know."""
    known = any(entry.kind == "gate" for entry in explain(gate))
    return f"pytest-h2o explain {gate}" if known else ""


def plural(count: int, one: str, several: str = "") -> str:
    """A count with its noun; ``several`` where that of several is not made by an s."""
    if count == 1:
        return f"1 {one}"
    return f"{count} {several or one + 's'}"


def headline(verdicts: Sequence[Verdict], *, accepted: bool, suite: str, left: int) -> str:
    """How a session ended; ``left`` gates of ``suite`` were not judged. Acceptance is of all that
    was asked for.
    """
    if accepted:
        return f"Accepted: {suite}" if suite else "Accepted"
    if any(verdict.outcome in ("fail", "inconclusive") for verdict in verdicts):
        return f"Not accepted: {_counted(verdicts)}"
    count = f"{len(verdicts)} of {len(verdicts) + left} gates" if left else "single gates"
    if suite:
        count = f"{count} of {suite}"
    return f"No acceptance: {count} judged, none failed"


def _counted(verdicts: Sequence[Verdict]) -> str:
    """How many gates did not pass, of how many that were judged, and of how many causes."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    failed, undecided = counts["fail"], counts["inconclusive"]
    judged = len(verdicts) - counts["skipped"]
    gates = plural(judged, "gate")
    why = plural(len(by_cause(verdicts)), "cause")
    if failed and undecided:
        return f"{failed} failed, {undecided} undecided of {gates} ({why})"
    word = "failed" if failed else "undecided"
    return f"{failed or undecided} of {gates} {word} ({why})"


def summary_rows(verdicts: Sequence[Verdict], note: int = NOTE) -> list[tuple[str, ...]]:
    """Header and one row per gate, what failed last; the cases of a gate that a knob turns off
    share a row, as do the gates of a suite on a program without H2O.

    Notes are cut to ``note`` characters.
    """
    judged = [each for each in not_off(verdicts) if each.cause != NO_H2O]
    judged.sort(key=lambda verdict: verdict.outcome != "pass")
    rows = _rows_of_gates_off(verdicts) + _rows_without_h2o(verdicts)
    rows += map(verdict_row, judged)
    table: list[tuple[str, ...]] = [HEADER]
    for *cells, text in rows:
        table.append((*cells, clean(text, note)))
    return table


def _rows_of_gates_off(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """One row for all cases of a gate that a knob turns off."""
    rows: list[tuple[str, ...]] = []
    off = Counter((v.gate, v.knob, v.reason) for v in verdicts if v.outcome == "skipped")
    for (gate, _, why), count in off.items():
        rows.append((WORDS["skipped"], gate, plural(count, "case"), "-", "-", "-", "-", clean(why)))
    return rows


def _rows_without_h2o(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """One row for all gates of a suite that fail since the program has no H2O."""
    rows: list[tuple[str, ...]] = []
    for suites, count in Counter(v.suites for v in verdicts if v.cause == NO_H2O).items():
        rows.append((WORDS["fail"], plural(count, "gate"), suites, "-", "-", "-", "-", NO_H2O))
    return rows


def verdict_row(verdict: Verdict) -> tuple[str, ...]:
    """One gate in a table: outcome, gate, case, value, requirement, margin, evidence, note."""
    margin = quantity(verdict.margin, verdict.unit)
    if verdict.outcome == "fail" and (verdict.margin or 0) >= 0:
        # What failed has nothing to spare, whatever the number is.
        margin = "-"
    required = "-"
    if verdict.target is not None:
        required = f"{verdict.operator} {quantity(verdict.target, verdict.unit)}"
    evidence = verdict.standing or "-"
    if verdict.standing == "not evidenced":
        evidence = "claimed, not evidenced"
    note = verdict.reason or verdict.warning or verdict.not_evidenced
    return (
        WORDS[verdict.outcome],
        verdict.gate,
        verdict.case,
        quantity(verdict.value, verdict.unit),
        required,
        margin,
        evidence,
        clean(note),
    )


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns; the last column is left as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        cells = map(str.ljust, row, widths)
        lines.append("  ".join(cells).rstrip())
    return lines


def wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    """Lines of whole words: a path that is wider than the screen is left whole."""
    found = textwrap.wrap(
        text, max(columns, 20), initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return found or [""]


def hanging(text: str, columns: int, beginning: str) -> list[str]:
    """Lines of whole words behind a name, each as far in as the first."""
    indent = " " * len(beginning)
    found = textwrap.wrap(
        text, max(columns, len(indent) + 20), initial_indent=beginning, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return found or [beginning]


def markdown_text(text: object) -> str:
    """One line of Markdown in which nothing of ``text`` becomes HTML, a link, an image or code."""
    return re.sub(r"[\\|\[`]", r"\\\g<0>", clean(text)).replace("<", "&lt;")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its header first, cells neutralised and escaped."""
    header, *others = map(markdown_row, rows)
    ruler = markdown_row(["---"] * len(rows[0]))
    return "\n".join([header, ruler, *others])


def markdown_row(cells: Sequence[str]) -> str:
    """One row of a Markdown table, cells neutralised and escaped."""
    return "| " + " | ".join(map(markdown_text, cells)) + " |"
