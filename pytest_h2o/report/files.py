"""The files of a run directory: summary.json, summary.md, metrics.csv. All from one list of verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pytest_h2o.gating import Verdict
from pytest_h2o.knobs import KNOBS, Knobs
from pytest_h2o.report.text import clean, summary_rows
from pytest_h2o.results import read_launch
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.store import ReplayStore


def write_reports(root: Path, title: str, knobs: Knobs, verdicts: Mapping[str, Verdict], launches: Path) -> None:
    """Write the session's record into ``root``; ``launches`` is the run directory whose launches were judged."""
    document = summary(title, knobs, verdicts)
    (root / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    (root / "summary.md").write_text(markdown(title, list(verdicts.values()), bool(document["overall_pass"])))
    write_metrics(root / "metrics.csv", ReplayStore(launches).records())


def summary(title: str, knobs: Knobs, verdicts: Mapping[str, Verdict]) -> dict[str, object]:
    """The record as JSON data: what was tested, the knobs that were set, every verdict, and the outcome."""
    outcomes = Counter(verdict.outcome for verdict in verdicts.values())
    tolerated = knobs["DECODE_INCONCLUSIVE"] == "xfail"
    given = {name: knobs.with_source(name) for name in KNOBS if knobs.with_source(name)[1] != "default"}
    return {
        "schema_version": 1,
        "title": title,
        "overall_pass": bool(verdicts) and not outcomes["fail"] and (tolerated or not outcomes["inconclusive"]),
        "outcomes": dict(outcomes),
        "knobs": {name: {"value": value, "source": source} for name, (value, source) in given.items()},
        "gates": [{"nodeid": nodeid, **asdict(verdict)} for nodeid, verdict in verdicts.items()],
    }


def markdown(title: str, verdicts: list[Verdict], overall: bool) -> str:
    """The summary table as Markdown, cells escaped."""
    header, *rows = summary_rows(verdicts)
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return f"# {'Accepted' if overall else 'Not accepted'}\n\n{clean(title)}\n\n" + "\n".join(lines) + "\n"


def write_metrics(path: Path, records: list[LaunchRecord]) -> None:
    """One line per launch: how it ended, and the mean of every metric that it printed."""
    import pandas as pd  # noqa: PLC0415  (slow to import, needed once at the end)

    lines = []
    for record in records:
        rows, _ = read_launch(record)
        line: dict[str, object] = {
            "launch": record.spec.name,
            "program": record.spec.program,
            "arm": record.spec.arm,
            "replicate": record.spec.replicate,
            "label": record.spec.label,
            "status": record.status,
            "returncode": record.returncode,
            "seconds": record.seconds,
            "cpu_seconds": record.cpu_seconds,
        }
        lines.append(line | {name: sample.mean for row in rows for name, sample in row.samples.items()})
    pd.DataFrame(lines).to_csv(path, index=False)


def _row(cells: list[str] | tuple[str, ...]) -> str:
    escaped = [cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for cell in cells]
    return "| " + " | ".join(escaped) + " |"
