"""The files of a run directory. All from one list of verdicts and the launches that were judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, JsonValue

from pytest_h2o.plan.knobs import KNOBS, Knobs, KnobValue
from pytest_h2o.plan.suites import named, reported
from pytest_h2o.report.bench_csv import write_csv
from pytest_h2o.report.demo_runs import demo_runs
from pytest_h2o.report.html import outcome, to_html
from pytest_h2o.report.judged import Gates, Judged
from pytest_h2o.report.manifest import manifest_entry
from pytest_h2o.report.models import GateVerdict, KnobInForce, Summary
from pytest_h2o.report.quality import CaseView, shown, view
from pytest_h2o.report.suite_reports import (
    all_in_one_report,
    case_folder,
    demo_report,
    demo_sides,
    demo_summaries,
    final_report,
    m3_report,
    m3_rows,
)
from pytest_h2o.report.summary import summary_markdown
from pytest_h2o.report.text import LONG, clean, markdown_row, markdown_text, summary_rows
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import UNITS, read_launch
from pytest_h2o.verdict import Verdict


def write_reports(
    root: Path, document: Summary, judged: Judged, expression: str, records: Sequence[LaunchRecord]
) -> None:
    """Write the session's record into ``root``, and the reports of suites of which some gate was
    judged.

    ``expression`` is the marker expression that the session selects gates by.
    """
    suites = reported(expression)
    _write_json(root / "summary.json", document)
    (root / "summary.md").write_text(markdown(document))
    (root / "report.html").write_text(to_html(document))
    write_metrics(root / "metrics.csv", records)
    for name in judged.bench_cases():
        _write_case(root / case_folder(name), view(judged, name), document.title)
    for suite, write in SUITE_WRITERS.items():
        if suite in suites and judged.suite(suite).verdicts:
            (root / suite).mkdir(exist_ok=True)
            write(root / suite, judged)


def judged_summary(  # noqa: PLR0913  the parts of a record
    title: str,
    judged: Judged,
    expression: str,
    records: Sequence[LaunchRecord],
    *,
    kit: str,
    root: Path,
) -> Summary:
    """The record of a session; ``expression`` is the marker expression that it selects gates by."""
    asked = named(expression)
    left = judged.not_judged(asked)
    knobs, verdicts = judged.lab.knobs, judged.verdicts
    document = summary(
        title, knobs, verdicts, records, kit=kit, root=root, suite=asked, not_judged=left
    )
    document.overall_pass &= judged.complete and judged.whole
    return document


def summary(  # noqa: PLR0913  the parts of a record
    title: str,
    knobs: Knobs,
    verdicts: Mapping[str, Verdict],
    records: Sequence[LaunchRecord] = (),
    *,
    kit: str = "v6",
    root: Path = Path(),
    suite: str = "",
    not_judged: Sequence[str] = (),
) -> Summary:
    """The record: what was tested, the knobs that were set, what they replaced, every verdict, and
    the outcome.
    """
    overridden = {key: value for record in records for key, value in record.overridden.items()}
    outcomes = Counter[str](verdict.outcome for verdict in verdicts.values())
    given = {
        name: knobs.with_source(name) for name in KNOBS if knobs.with_source(name)[1] != "default"
    }
    passed = Gates(list(verdicts.values()), knobs["DECODE_INCONCLUSIVE"] != "fail").all_passed
    return Summary(
        title=title,
        runtime="; ".join(dict.fromkeys(record.runtime for record in records if record.runtime)),
        inputs=_inputs(records),
        kit=kit,
        version=version("pytest-h2o"),
        run_directory=str(root.absolute()),
        written_utc=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        suite=suite,
        overall_pass=passed and not not_judged,
        not_judged=list(not_judged),
        outcomes=dict(outcomes),
        knobs={
            name: KnobInForce(value=_plain(value), source=source)
            for name, (value, source) in given.items()
        },
        overridden=json.loads(json.dumps(overridden)),
        gates=[
            GateVerdict(nodeid=nodeid, **asdict(verdict)) for nodeid, verdict in verdicts.items()
        ],
    )


def _inputs(records: Sequence[LaunchRecord]) -> dict[str, str]:
    """What all launches depend on, as hashes by name; several where a file was replaced between
    them.
    """
    seen: dict[str, dict[str, None]] = {}
    for record in records:
        for name, digest in record.inputs.items():
            if name != "prompt":  # each launch has its own
                seen.setdefault(name, {})[digest] = None
    return {name: ", ".join(digests) for name, digests in seen.items()}


def _write_case(folder: Path, case: CaseView, title: str) -> None:
    """What the original's runtime suite left: ``summary.md``, ``h2o_metrics.csv`` and
    ``manifest.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.md").write_text(summary_markdown(case, title))
    lines = [{**row.cells, "log_file": str(row.source)} for row in case.run.rows]
    if lines:
        write_csv(lines, folder / "h2o_metrics.csv")
    with suppress(
        KeyError
    ):  # the config of a recording may be lost, and then nothing is known to list
        entries = [
            manifest_entry(
                record.spec, record.returncode, config=record.config_path, log=record.table
            )
            for record in case.run.launches
        ]
        (folder / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n")


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
    path.write_text(document.model_dump_json(indent=2) + "\n")


def _write_lines(path: Path, documents: Iterable[BaseModel]) -> None:
    path.write_text("".join(document.model_dump_json() + "\n" for document in documents))


def _write_report(path: Path, document: BaseModel) -> None:
    """``path.json`` and its twin ``path.md``."""
    _write_json(path.with_suffix(".json"), document)
    path.with_suffix(".md").write_text(report_markdown(path.name, document.model_dump()))


def report_markdown(name: str, values: Mapping[str, object]) -> str:
    """A report as Markdown: its plain values as a list, each list or object below a heading of its
    own.
    """
    lines = [f"# {name}", ""]
    sections: list[str] = []
    for key, value in values.items():
        if not isinstance(value, list | dict):
            lines.append(f"- {key}: {shown(key, value)}")
            continue
        for label, item in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            if isinstance(item, dict):
                sections += [
                    "",
                    f"## {key}: {markdown_text(label)}",
                    "",
                    *(f"- {k}: {shown(k, v)}" for k, v in item.items()),
                ]
            else:
                lines.append(f"- {key}, {markdown_text(label)}: {shown(key, item)}")
    return "\n".join(lines + sections) + "\n"


def _plain(value: KnobValue | None) -> JsonValue:
    return list(value) if isinstance(value, tuple) else value


def markdown(document: Summary) -> str:
    """The summary table as Markdown, cells escaped."""
    header, *rows = summary_rows(document.gates, LONG)
    lines = [*map(markdown_row, [header, ["---"] * len(header), *rows])]
    return f"# {outcome(document)}\n\n{markdown_text(document.title)}\n\n" + "\n".join(lines) + "\n"


def write_metrics(path: Path, records: Sequence[LaunchRecord]) -> None:
    """One line per row that a launch printed, at least one per launch: how it ended, and the mean
    of every metric.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import, needed once at the end)

    lines = [line for record in records for line in _metric_lines(record)]
    known = ["decode_tps", *UNITS]
    present = dict.fromkeys(column for line in lines for column in line)
    ordered = sorted(present, key=lambda column: known.index(column) if column in known else -1)
    pd.DataFrame(lines, columns=ordered).to_csv(path, index=False)


def _metric_lines(record: LaunchRecord) -> list[dict[str, object]]:
    line: dict[str, object] = {
        "launch": clean(record.spec.name),
        "program": record.spec.program,
        "arm": record.spec.arm,
        "replicate": record.spec.replicate,
        "label": clean(record.spec.label),
        "status": record.status,
        "returncode": record.returncode,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
    }
    rows, _ = read_launch(record, ())
    means = [
        {name: float(f"{sample.mean:.6g}") for name, sample in row.samples.items()} for row in rows
    ]
    return [
        line | {"label": clean(row.label)} | mean for row, mean in zip(rows, means, strict=True)
    ] or [line]
