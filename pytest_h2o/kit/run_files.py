"""The files that the original kit left, one folder per case and suite, from what was judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from pytest_h2o.kit.bench_csv import write_csv
from pytest_h2o.kit.case_summary import summary_markdown
from pytest_h2o.kit.demo_runs import demo_runs
from pytest_h2o.kit.manifest import manifest_entry
from pytest_h2o.kit.quality_gate import CaseView, bullets, shown, view
from pytest_h2o.kit.suite_reports import (
    all_in_one_report,
    case_folder,
    demo_report,
    demo_sides,
    demo_summaries,
    final_report,
    m3_report,
    m3_rows,
)
from pytest_h2o.plan.suites import reported
from pytest_h2o.report.judged import Judged
from pytest_h2o.report.models import json_text
from pytest_h2o.report.text import markdown_text, write_text
from pytest_h2o.runs.records import LaunchRecord


def write_kit_reports(root: Path, judged: Judged, expression: str, title: str) -> None:
    """Write the reports of the cases and suites of which some gate was judged into ``root``.

    ``expression`` is the marker expression that the session selects gates by.
    """
    suites = reported(expression)
    for name in judged.bench_cases():
        _write_case(root / case_folder(name), view(judged, name), title)
    for suite, write in SUITE_WRITERS.items():
        if suite in suites and judged.suite(suite).verdicts:
            (root / suite).mkdir(exist_ok=True)
            write(root / suite, judged)


def _write_case(folder: Path, case: CaseView, title: str) -> None:
    """What the original's runtime suite left: ``summary.md``, ``h2o_metrics.csv`` and
    ``manifest.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "summary.md", summary_markdown(case, title))
    lines = [{**row.cells, "log_file": str(row.source)} for row in case.run.rows]
    if lines:
        write_csv(lines, folder / "h2o_metrics.csv")
    # The config of a recording may be lost, and then nothing is known to list.
    with suppress(KeyError):
        entries = [_manifest_entry(record) for record in case.run.launches]
        write_text(folder / "manifest.json", json.dumps(entries, indent=2) + "\n")


def _manifest_entry(record: LaunchRecord) -> dict[str, object]:
    config, log = record.config_path, record.table
    return manifest_entry(record.spec, record.returncode, config=config, log=log)


def _write_m3(folder: Path, judged: Judged) -> None:
    _write_lines(folder / "results.jsonl", m3_rows(judged))
    _write_report(folder / "m3_report", m3_report(judged))


def _write_demo(folder: Path, judged: Judged) -> None:
    for tag, run in demo_sides(judged).items():
        _write_lines(folder / f"{tag}_runs.jsonl", demo_runs(tag, run))
    for tag, document in demo_summaries(judged).items():
        _write_json(folder / f"{tag}_summary.json", document)
    _write_report(folder / "llm_demo_report", demo_report(judged))


def _write_final(folder: Path, judged: Judged) -> None:
    report = final_report(judged)
    _write_lines(folder / "results.jsonl", report.rows)
    _write_report(folder / "final_report", report)


def _write_all_in_one(folder: Path, judged: Judged) -> None:
    report = all_in_one_report(judged)
    _write_lines(folder / "all_in_one_results.jsonl", report.rows)
    _write_report(folder / "all_in_one_report", report)


SUITE_WRITERS: Mapping[str, Callable[[Path, Judged], None]] = {
    "m3": _write_m3,
    "llm_demo": _write_demo,
    "final": _write_final,
    "all_in_one": _write_all_in_one,
}


def _write_json(path: Path, document: BaseModel) -> None:
    write_text(path, json_text(document, indent=2) + "\n")


def _write_lines(path: Path, documents: Iterable[BaseModel]) -> None:
    write_text(path, "".join(json_text(document) + "\n" for document in documents))


def _write_report(path: Path, document: BaseModel) -> None:
    """``path.json`` and its twin ``path.md``."""
    _write_json(path.with_suffix(".json"), document)
    write_text(path.with_suffix(".md"), report_markdown(path.name, document.model_dump()))


def report_markdown(name: str, values: Mapping[str, object]) -> str:
    """A report as Markdown: its plain values as a list, each object below a heading of its own."""
    lines = [f"# {name}", ""]
    sections: list[str] = []
    for key, value in values.items():
        if not isinstance(value, list | dict):
            lines.append(f"- {key}: {shown(key, value)}")
            continue
        for label, item in _labelled(value):
            if isinstance(item, dict):
                sections += _section(f"{key}: {label}", item)
            else:
                lines.append(f"- {key}, {label}: {shown(key, item)}")
    return "\n".join(lines + sections) + "\n"


def _labelled(value: list[object] | dict[str, object]) -> list[tuple[str, object]]:
    """The items of an object by key, those of a list by number from 1."""
    items = value.items() if isinstance(value, dict) else enumerate(value, start=1)
    return [(markdown_text(label), item) for label, item in items]


def _section(title: str, values: Mapping[str, object]) -> list[str]:
    lines = ["", f"## {title}", ""]
    return lines + bullets(values)
