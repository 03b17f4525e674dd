"""What the pages say about a name: of a gate, knob, metric or suite, or a word of the reports."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

PAGES = Path(__file__).parent
# Each of these explains names: under its headings of one level, or in the rows of its tables.
HEADED = {"gate": ("gates.md", "###"), "word": ("words.md", "##")}
TABLES = {"suite": "suites.md", "knob": "knobs.md", "metric": "metrics.md"}
HEADING = re.compile(r"^(#{2,4}) (.+)$")
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


@dataclass(frozen=True)
class Explanation:
    """What is said about one name, as Markdown; ``kind`` is what the name is of."""

    name: str
    kind: str
    page: str
    text: str


@cache
def entries() -> list[Explanation]:
    """Everything that the pages explain."""
    found: list[Explanation] = []
    for kind, (page, level) in HEADED.items():
        found += _sections(kind, page, level)
    for kind, page in TABLES.items():
        found += _rows(kind, page, read_page(page))
    return found


def read_page(name: str) -> str:
    """A page without the marks of what is generated."""
    return COMMENT.sub("", (PAGES / name).read_text("utf-8"))


def explain(name: str) -> list[Explanation]:
    """The entries of a name, however it is written: as in a report, a node id or an assignment."""
    return [_with_gates(entry, entries()) for entry in _index().get(plain_name(name), [])]


@cache
def _index() -> dict[str, list[Explanation]]:
    """The entries by each of the ways in which they are called."""
    found: dict[str, list[Explanation]] = {}
    for entry in entries():
        for called in dict.fromkeys(_called(entry.name)):
            found.setdefault(called, []).append(entry)
    return found


def _with_gates(entry: Explanation, known: Sequence[Explanation]) -> Explanation:
    """A knob or metric with the gates that depend on it."""
    start = {"knob": "- knobs:", "metric": "- metrics:"}.get(entry.kind)
    if start is None:
        return entry
    gates = []
    for other in known:
        lines = other.text.splitlines() if other.kind == "gate" else []
        if any(line.startswith(start) and f"`{entry.name}`" in line for line in lines):
            gates.append(f"`{other.name}`")
    said = ", ".join(gates) or "none by itself"
    return replace(entry, text=f"{entry.text}\n- gates: {said}")


def _called(name: str) -> list[str]:
    """How a name is looked up: as a whole, or by what a comma separates in it."""
    return list(map(plain_name, (name, *name.split(","))))


def nearest(name: str, count: int = 5) -> list[str]:
    """The names that are most like one that nothing is said about."""
    names: dict[str, str] = {}
    for entry in entries():
        names |= dict.fromkeys(_called(entry.name), entry.name)
    wanted = plain_name(name)
    holding = sorted(known for known in names if wanted and wanted in known)
    alike = difflib.get_close_matches(wanted, names, count, 0.5)
    chosen = dict.fromkeys(names[known] for known in alike + holding)
    return list(chosen)[:count]


def plain_name(name: str) -> str:
    """``lossy`` of ``gates/test_runtime.py::test_lossy[full_strict]``, ``x`` of ``X=3``."""
    name = name.rpartition("::")[2]
    name = re.split(r"[\[=]", name, maxsplit=1)[0]
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    return name.removeprefix("test_")


def _sections(kind: str, page: str, level: str) -> Iterator[Explanation]:
    """A section for each heading of a level, up to the next heading."""
    name = ""
    lines: list[str] = []
    for line in chain(read_page(page).splitlines(), ["## end"]):
        heading = HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        if name:
            yield Explanation(name, kind, page, "\n".join(lines).strip())
        name = heading[2] if heading[1] == level else ""
        lines = []


def _rows(kind: str, page: str, text: str) -> Iterator[Explanation]:
    """A list of what each row of a table says, under the names in the table's header."""
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = list(map(str.strip, re.split(r"(?<!\\)\|", line)[1:-1]))
        header = header or cells
        if not cells[0].startswith("`"):
            continue
        said = zip(header[1:], cells[1:], strict=True)
        lines = [f"- {title}: {cell}" for title, cell in said if cell]
        yield Explanation(cells[0].strip("`"), kind, page, "\n".join(lines))
