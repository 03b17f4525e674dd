"""Run directories beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.cli import main
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.report.comparison import compare_runs
from pytest_h2o.report.files import summary
from pytest_h2o.report.github import failure_commands, step_summary
from pytest_h2o.report.models import Summary
from pytest_h2o.verdict import Verdict


def run(machine: str, lossy: float, speed: float, *knobs: str) -> Summary:
    """A session with a ratio and a time."""
    found = {
        "x::lossy": Verdict(
            gate="lossy", case="full", outcome="pass" if lossy >= 3 else "fail", value=lossy,
            target=3.0, operator=">=", margin=lossy - 3, unit="ratio", reason="a,b: 100%\n",
        ),
        "x::wait": Verdict(
            gate="wait", case="full", outcome="pass", value=speed, target=9.0, operator="<=",
            unit="µs",
        ),
    }  # fmt: skip
    document = summary("t", resolve(knobs), found)
    document.inputs = {"machine": machine, "model": "m"}
    return document


def test_identity_outcomes_values() -> None:
    """What differs is listed first, then changed outcomes, then values with their delta."""
    compared = compare_runs(["a", "b"], [run("m1", 3.5, 5), run("m1", 2.5, 4, "REPEAT=2")])
    assert compared.identity[1:] == [("REPEAT", "-", "2")]
    assert compared.outcomes[1:] == [("lossy", "full", "pass", "FAIL")]
    assert compared.values[1:] == [
        ("lossy", "full", "3.5", "2.5", "-1"),
        ("wait", "full", "5 µs", "4 µs", "-1 µs"),
    ]


@pytest.mark.parametrize(
    ("machines", "delta"), [(("m1", "m2"), "other machine"), (("", "m1"), "machine not known")]
)
def test_times_of_other_machines_are_not_compared(machines: tuple[str, str], delta: str) -> None:
    """A ratio has a delta everywhere, a time only on one machine."""
    compared = compare_runs(["a", "b"], [run(name, 3.5, 5) for name in machines])
    assert [row[-1] for row in compared.values[1:]] == ["0", delta]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables on the screen and in Markdown, and a page with a chart."""
    for name, lossy in (("one", 3.5), ("two", 2.5)):
        tmp_path.joinpath(name).mkdir()
        text = run("m1", lossy, 5).model_dump_json()
        tmp_path.joinpath(name, "summary.json").write_text(text)
    words = ["compare", str(tmp_path / "one"), str(tmp_path / "two")]
    page = tmp_path / "page.html"
    assert main([*words, "--html", str(page)]) == 0
    assert "lossy  full  pass  FAIL" in capsys.readouterr().out
    assert 'id="chart-compared"' in page.read_text("utf-8")
    assert main([*words, "--markdown"]) == 0
    assert "| lossy | full | pass | FAIL |" in capsys.readouterr().out
    assert main(words[:2]) == 2
    assert main(["compare", str(tmp_path), str(page)]) == 2


def test_github_reads_the_failures() -> None:
    """A workflow command is one line whatever the reason; the summary names cause and gate."""
    document = run("m1", 2.5, 5)
    [command] = failure_commands(document)
    assert command == "::error title=FAIL%3A lossy [full]::a,b: 100%25%0Alossy [full]"
    text = step_summary(document)
    assert text.startswith("## Not accepted: ")
    assert "- **FAIL** a,b: 100% (lossy \\[full])" in text
    assert "| pass | wait | 1 of 1 | full | measured 5 µs &lt;= 9 µs |" in text
