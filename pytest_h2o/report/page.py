"""``report.html``: a session as one self-contained page. Whatever a program or a file said is
escaped.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pytest_h2o.metrics import quantity
from pytest_h2o.parsers.lines import printable
from pytest_h2o.report.background import Background
from pytest_h2o.report.charts import session_charts, shared_studies
from pytest_h2o.report.models import GateVerdict, Summary
from pytest_h2o.report.rendering import render
from pytest_h2o.report.text import WORDS, clean, details, headline, verdict_row
from pytest_h2o.report.texts import side_by_side
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Verdict

V = TypeVar("V", bound=Verdict)
ORDER = ("fail", "inconclusive", "pass", "skipped")
MARKS = {"pass": "✔", "fail": "✘", "inconclusive": "?", "skipped": "○"}
# What a card shows: title, the gates to take the tightest of, whether they say how good it is.
CARDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("KV memory, lossy", ("lossy",)),
    ("KV, lossless", ("online_sim_lossless", "lossless", "upper_bound_lossless", "lossless_active")),
    ("Decode drop", ("decode_drop", "bucket_decode")),
    ("Quality", ("quality_under_eviction", "greedy_agreement")),
)  # fmt: skip
TAIL_BYTES, TAIL_LINES = 6000, 15
SHOWN_CASES = 12


@dataclass(frozen=True)
class Card:
    """A number that people ask for first; ``spare`` is what is left to the limit, in % of it."""

    title: str
    outcome: str
    value: str
    required: str
    spare: float | None
    note: str


@dataclass(frozen=True)
class Place:
    """A file, and where it lies from the page; ``link`` is empty outside the run directory."""

    text: str
    link: str


@dataclass(frozen=True)
class Failure:
    """Failures of one root: ``cause`` in words, and each gate with what it showed."""

    cause: str
    verdict: GateVerdict
    lines: Sequence[tuple[str, str]]
    place: Place | None
    tail: str
    argv: str
    meaning: str
    others: Sequence[GateVerdict]
    left_out: int


@dataclass(frozen=True)
class CaseLine:
    """Verdicts of a gate that rest on the same study, or a single one."""

    cases: str
    verdict: GateVerdict
    cells: Sequence[str]
    lines: Sequence[tuple[str, str]]
    place: Place | None


@dataclass(frozen=True)
class GateLine:
    """A gate with its tightest case."""

    gate: str
    anchor: str
    outcome: str
    mark: str
    count: str
    tightest: GateVerdict
    cells: Sequence[str]
    spare: float | None
    meaning: str
    cases: Sequence[CaseLine]


def to_html(
    summary: Summary,
    records: Sequence[LaunchRecord] = (),
    background: Background | None = None,
) -> str:
    """The page of a session and the launches that it judged."""
    known = background or Background()
    root = Path(summary.run_directory)
    charts = session_charts(summary.gates, records, known.history, known.offline, known.window)
    return render(
        "session.html",
        charts=charts,
        title=outcome(summary),
        state=_state(summary),
        summary=summary,
        facts=list(_facts(summary, records)),
        cards=cards(summary.gates),
        failures=list(_failures(summary.gates, records, root, known.meanings)),
        gates=list(_gates(summary.gates, root, known.meanings)),
        texts=side_by_side(records),
        replaced={name: str(value) for name, value in summary.overridden.items()},
        words=WORDS,
    )


def outcome(summary: Summary) -> str:
    """The outcome in words."""
    left = len(summary.not_judged)
    return headline(summary.gates, accepted=summary.overall_pass, suite=summary.suite, left=left)


def _state(summary: Summary) -> str:
    if summary.overall_pass:
        return "pass"
    bad = {gate.outcome for gate in summary.gates} & {"fail", "inconclusive"}
    return "fail" if bad else "undecided"


def _facts(summary: Summary, records: Sequence[LaunchRecord]) -> Iterable[str]:
    """Counts, duration, launches, when, and by what."""
    counts = [f"{summary.outcomes.get(name, 0)} {WORDS[name]}" for name in ("pass", "fail", "inconclusive", "skipped")]  # fmt: skip
    yield " · ".join(counts)
    seconds = sum(record.seconds or 0.0 for record in records)
    if records:
        minutes, rest = divmod(round(seconds), 60)
        reused = sum(record.reused_from is not None for record in records)
        again = f" ({reused} reused)" if reused else ""
        yield f"{len(records)} launches{again}, {minutes} min {rest} s in them"
    yield f"written {summary.written_utc.replace('T', ' ').replace('Z', ' UTC')}"
    yield f"kit {summary.kit}, pytest-h2o {summary.version}"


def cards(verdicts: Sequence[Verdict]) -> list[Card]:
    """The tightest verdict of the first gate of each kind that measured something."""
    found: list[Card] = []
    for title, gates in CARDS:
        for gate in gates:
            judged = [each for each in verdicts if each.gate == gate and each.outcome != "skipped"]
            if judged:
                found.append(_card(title, tightest(judged), len(judged)))
                break
    return found


def _card(title: str, verdict: Verdict, count: int) -> Card:
    required, note = "", verdict.gate
    if verdict.target is not None:
        required = f"required {verdict.operator} {quantity(verdict.target, verdict.unit)}"
        if verdict.knob:
            required = f"{required} ({clean(verdict.knob, 60)})"
    note = f"{clean(verdict.gate, 60)}, {clean(verdict.case, 60)}"
    if count > 1:
        note = f"{note}, tightest of {count}"
    value = quantity(verdict.value, verdict.unit) if verdict.value is not None else "not measured"
    return Card(title, verdict.outcome, value, required, spare_share(verdict), note)


def spare_share(verdict: Verdict) -> float | None:
    """The margin in % of the limit; None where the limit is 0 or either is not known."""
    if verdict.margin is None or not verdict.target:
        return None
    return round(100 * verdict.margin / abs(verdict.target), 1)


def tightest(verdicts: Sequence[V]) -> V:
    """The worst: what failed before what did not, then the least to spare."""

    def rank(verdict: V) -> tuple[int, float]:
        spare = spare_share(verdict)
        if spare is None:
            spare = float("inf") if verdict.margin is None else verdict.margin
        return ORDER.index(verdict.outcome), spare

    return min(verdicts, key=rank)


def _failures(
    verdicts: Sequence[GateVerdict],
    records: Sequence[LaunchRecord],
    root: Path,
    meanings: Mapping[str, str],
) -> Iterable[Failure]:
    """One for each cause; a value that missed its target is a cause of its own, per gate."""
    groups: dict[tuple[str, ...], list[GateVerdict]] = {}
    for verdict in sorted(verdicts, key=lambda each: ORDER.index(each.outcome)):
        if verdict.outcome in ("fail", "inconclusive"):
            missed = (verdict.outcome, verdict.gate)
            groups.setdefault((verdict.cause,) if verdict.cause else missed, []).append(verdict)
    for group in groups.values():
        first = tightest(group)
        record = _record_of(first, records)
        yield Failure(
            clean(first.cause or first.reason.partition("\n")[0] or first.gate),
            first,
            _lines(first),
            _place(first.source, root),
            _tail(record) if record else "",
            clean(shlex.join(record.argv), 20_000) if record else "",
            meanings.get(first.gate, ""),
            [each for each in group if each is not first][:SHOWN_CASES],
            max(0, len(group) - 1 - SHOWN_CASES),
        )


def _lines(verdict: Verdict) -> list[tuple[str, str]]:
    """The details but the source, which is a link."""
    return [(name.strip(), text) for name, text in details(verdict) if name != "open"]


def _record_of(verdict: Verdict, records: Sequence[LaunchRecord]) -> LaunchRecord | None:
    """The launch that wrote the verdict's source."""
    source = Path(verdict.source)
    for record in records:
        if verdict.source and (
            source == record.directory or source in (*record.files, record.stderr)
        ):
            return record
    return None


def _tail(record: LaunchRecord) -> str:
    """The last lines of what a launch printed, stderr after stdout."""
    texts = [_end_of(path) for path in (record.stdout, record.stderr)]
    return "\n".join(text for text in texts if text)


def _end_of(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(printable(line[:400]) for line in text.splitlines()[-TAIL_LINES:])


def _place(source: str, root: Path) -> Place | None:
    """A file of the run directory as a link beside the page; the name alone of any other."""
    if not source:
        return None
    path = Path(source)
    inside = path.relative_to(root) if path.is_relative_to(root) else None
    if inside is None or ".." in inside.parts:
        return Place(clean(source), "")
    return Place(clean(inside), quote(bytes(inside)))


def _gates(
    verdicts: Sequence[GateVerdict], root: Path, meanings: Mapping[str, str]
) -> Iterable[GateLine]:
    by_gate: dict[str, list[GateVerdict]] = {}
    for verdict in verdicts:
        by_gate.setdefault(verdict.gate, []).append(verdict)
    lines = [_gate(number, group, root, meanings) for number, group in enumerate(by_gate.values())]
    return sorted(lines, key=lambda line: ORDER.index(line.outcome))


def _gate(
    number: int, group: Sequence[GateVerdict], root: Path, meanings: Mapping[str, str]
) -> GateLine:
    worst = tightest(group)
    same = sum(each.outcome == worst.outcome for each in group)
    return GateLine(
        clean(worst.gate, 200),
        f"gate-{number}",
        worst.outcome,
        MARKS[worst.outcome],
        f"{WORDS[worst.outcome]} {same} of {len(group)}",
        worst,
        verdict_row(worst),
        spare_share(worst),
        meanings.get(worst.gate, ""),
        list(_cases(group, root)),
    )


def _cases(group: Sequence[GateVerdict], root: Path) -> Iterable[CaseLine]:
    ordered = sorted(group, key=lambda each: ORDER.index(each.outcome))
    for same, _ in shared_studies(ordered):
        first = same[0]
        cases = ", ".join(dict.fromkeys(clean(each.case, 200) for each in same))
        yield CaseLine(
            cases, first, verdict_row(first), _lines(first), _place(first.source, root)
        )  # fmt: skip
