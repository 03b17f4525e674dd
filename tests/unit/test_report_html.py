"""The verdicts as a page: every gate is there, and nothing that a program said becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_blocks import file_block

from pytest_h2o.plan.knobs import resolve
from pytest_h2o.report import formats
from pytest_h2o.report.files import summary
from pytest_h2o.report.formats.summary_md import text as markdown
from pytest_h2o.report.page import to_html
from pytest_h2o.report.text import summary_rows
from pytest_h2o.verdict import ShownRow, Verdict

HOSTILE = ["<script>alert(1)</script>", "</td>", "&amp;", '"><img src=x>', "\x1b[31m"]
TEXT = st.text(max_size=30) | st.sampled_from(HOSTILE)
OUTCOMES = st.sampled_from(["pass", "fail", "inconclusive", "skipped"])
TAGS = {
    "html", "head", "meta", "link", "title", "style", "script", "body", "main", "header", "section",
    "article", "div", "h1", "h2", "h3", "p", "b", "pre", "code", "small", "br", "span", "label",
    "input", "button", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "details",
    "summary", "ul", "li", "a",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "title", "name", "content", "http-equiv", "rel", "class", "id", "href",
    "type", "placeholder", "colspan", "data-label", "data-key", "open",
}  # fmt: skip


class Page(HTMLParser):
    """Counts the rows, and collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.said = ""
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        self.ids.append(values.get("id") or "")

    def handle_data(self, data: str) -> None:
        self.said += data


def verdict(outcome: str, texts: list[str]) -> Verdict:
    gate, case, reason, source = texts
    rows = (ShownRow(case, reason),)
    values = {"outcome": outcome, "reason": reason, "source": f"/run/{source}", "rerun": source}
    return Verdict(gate=gate, case=case, rows=rows, **values)  # type: ignore[arg-type]


@given(
    st.lists(st.builds(verdict, OUTCOMES, st.lists(TEXT, min_size=4, max_size=4)), max_size=5), TEXT
)
def test_nothing_becomes_markup(verdicts: list[Verdict], title: str) -> None:
    """Whatever texts the verdicts hold, the page has one entry per gate and only the tags that it
    is built from.
    """
    record = summary(
        title, resolve(), {str(n): each for n, each in enumerate(verdicts)}, root=Path("/run")
    )
    page = Page(to_html(record))
    gates = len({each.gate for each in verdicts})
    assert sum(each.startswith("gate-") for each in page.ids) == gates
    assert page.tags.count("script") == 1
    assert set(page.tags) <= TAGS
    assert page.attributes <= ATTRIBUTES
    assert not [
        link
        for link in page.links
        if ":" in link or link.startswith("/") or ".." in link.split("/")
    ]


def test_what_a_page_says() -> None:
    """The outcome, the number that failed with its requirement, and the knob behind it."""
    failed = Verdict(
        gate="lossy", case="full_strict", metric="h2o_lossy", outcome="fail", value=2.5, target=3.0,
        operator=">=", margin=-0.5, unit="ratio", knob="LOSSY_TARGET", reason="too small",
    )  # fmt: skip
    page = Page(to_html(summary("embedded", resolve(["LOSSY_TARGET=3"]), {"x": failed})))
    for text in (
        "Not accepted",
        "embedded",
        "1 fail",
        "full_strict",
        "2.5",
        ">= 3",
        "too small",
        "LOSSY_TARGET",
    ):
        assert text in page.said


def test_a_page_leads_on() -> None:
    """Logs of the run directory are links from the page, others are names; how to repeat a gate is
    said, and where.
    """
    log = Verdict(
        gate="a",
        outcome="fail",
        source="/run/launches/p 1/lo#g.md",
        rerun="pytest 'gates/x.py::test_a[1]'",
    )
    others = [
        Verdict(gate="b", outcome="fail", source=source)
        for source in ("/else/log.md", "/run/../log.md", "log.md")
    ]
    verdicts = {str(number): verdict for number, verdict in enumerate([log, *others])}
    page = Page(to_html(summary("replay of x", resolve(), verdicts, root=Path("/run"))))
    outside = {link for link in page.links if not link.startswith("#")}
    assert outside == {"launches/p%201/lo%23g.md"}
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    assert len(inside) == 2
    said = page.said.replace("\n", "")
    for text in (
        "pytest 'gates/x.py::test_a[1]'",
        "run directory/run",
        "written 20",
        "knobs setnone",
    ):
        assert text in said


def test_notes_are_cut_on_the_screen_only() -> None:
    """What is too long for a terminal is whole in the files."""
    reason = "exit code 3: " + "a long story, " * 20 + "the end"
    failed = Verdict(gate="lossy", case="full", outcome="fail", reason=reason)
    assert summary_rows([failed])[1][-1] == reason[:59] + "…"
    document = summary("embedded", resolve(), {"x": failed})
    assert reason in markdown(document)
    assert reason in Page(to_html(document)).said


def test_a_format_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that lies among the formats is written with the others, and nothing names it."""
    added = tmp_path / "more"
    added.mkdir()
    added.joinpath("in_a_line.py").write_text(file_block("in_a_line.py"))
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(added)])
    formats.write_all(tmp_path, summary("some title", resolve(), {}))
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"summary.json", "summary.md", "badge.json", "line.txt"}
    assert tmp_path.joinpath("line.txt").read_text() == "some title: no gates\n"
