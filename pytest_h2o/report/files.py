"""The files of a run directory. All from one list of verdicts and the launches that were judged."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from pytest_h2o.plan.knobs import KNOBS, Knobs, KnobValue
from pytest_h2o.plan.suites import named
from pytest_h2o.report.background import Background
from pytest_h2o.report.formats import write_all
from pytest_h2o.report.frames import metric_means
from pytest_h2o.report.judged import Gates, Judged
from pytest_h2o.report.models import GateVerdict, KnobInForce, Summary
from pytest_h2o.report.page import to_html
from pytest_h2o.report.text import (
    write_text,
)
from pytest_h2o.runs.hosts_file import HOSTS_FILE, read_hosts
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Verdict


def write_reports(
    root: Path,
    document: Summary,
    records: Sequence[LaunchRecord],
    background: Background | None = None,
) -> None:
    """Write the session's record into ``root``."""
    write_all(root, document)
    write_text(root / "report.html", to_html(document, records, background))
    write_metrics(root / "metrics.csv", records)


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
    left = judged.not_judged(asked) + judged.launches_left
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
    overridden: dict[str, object] = {}
    for record in records:
        overridden.update(record.overridden)
    outcomes = Counter[str](verdict.outcome for verdict in verdicts.values())
    runtimes = dict.fromkeys(record.runtime for record in records if record.runtime)
    passed = Gates(list(verdicts.values()), knobs["DECODE_INCONCLUSIVE"] != "fail").all_passed
    return Summary(
        title=title,
        runtime="; ".join(runtimes),
        inputs=_inputs(records),
        kit=kit,
        version=version("pytest-h2o"),
        run_directory=str(root.absolute()),
        written_utc=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        suite=suite,
        overall_pass=passed and not not_judged,
        not_judged=list(not_judged),
        outcomes=dict(outcomes),
        knobs=_knobs(knobs),
        overridden=json.loads(json.dumps(overridden)),
        hosts=_hosts(records, root),
        gates=[GateVerdict.of(nodeid, verdict) for nodeid, verdict in verdicts.items()],
    )


def _knobs(knobs: Knobs) -> dict[str, KnobInForce]:
    """The knobs that are not at their default."""
    given: dict[str, KnobInForce] = {}
    for name in KNOBS:
        value, source = knobs.with_source(name)
        if source != "default":
            given[name] = KnobInForce(value=_plain(value), source=source)
    return given


def _hosts(records: Sequence[LaunchRecord], root: Path) -> dict[str, str]:
    """What each named host did, in words."""
    counts = Counter[str](record.host for record in records if record.host)
    kept = read_hosts(root / HOSTS_FILE)
    broken = {each.host for each in kept.breaks}
    found = {}
    for name in sorted(counts.keys() | kept.gone.keys() | broken):
        found[name] = f"{counts[name]} launches"
        for each in kept.breaks:
            if each.host == name:
                found[name] += f"; {each.launch} was launched again: {each.why}"
        if name in kept.gone:
            found[name] += f"; taken out, its launches were made again elsewhere: {kept.gone[name]}"
    return found


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


def _plain(value: KnobValue | None) -> JsonValue:
    return list(value) if isinstance(value, tuple) else value


def write_metrics(path: Path, records: Sequence[LaunchRecord]) -> None:
    """One line per row that a launch printed, at least one per launch: how it ended, and the mean
    of every metric.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(metric_means(records))
