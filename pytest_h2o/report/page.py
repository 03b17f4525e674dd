"""``report.html``: a session as one self-contained page. Whatever a program or a file said is
escaped.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from pytest_h2o.metrics import quantity
from pytest_h2o.report.background import Background
from pytest_h2o.report.charts import session_charts, shared_studies
from pytest_h2o.report.groups import (
    BAD,
    ORDER,
    by_cause,
    by_gate,
    conclusion,
    not_off,
    spare_share,
    tightest,
)
from pytest_h2o.report.models import GateVerdict, Summary
from pytest_h2o.report.outputs import record_of, tail_of
from pytest_h2o.report.rendering import render
from pytest_h2o.report.side_by_side import side_by_side
from pytest_h2o.report.text import WORDS, clean, details, headline, verdict_row
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Verdict

MARKS = {"pass": "✔", "fail": "✘", "inconclusive": "?", "skipped": "○"}
# What a card shows: the gates to take the tightest of, the first of those that were judged.
CARDS: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"KV memory, lossy": ("lossy",)},
    {
        "KV memory, lossless": (
            "online_sim_lossless",
            "lossless",
            "upper_bound_lossless",
            "lossless_active",
        )
    },
    {"Decode, worst case": ("decode_drop", "bucket_decode")},
    {
        "Perplexity under eviction": ("quality_under_eviction",),
        "Same text as the baseline": ("greedy_agreement",),
    },
)
SHOWN_CASES = 12
SHOWN_APART = ("open", "measured", "required", "missed by", "rerun")


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
class LinkedPlace:
    """A file, and where it lies from the page; ``link`` is empty outside the run directory."""

    text: str
    link: str


@dataclass(frozen=True)
class Failure:
    """Failures of one root: ``cause`` in words, and each gate with what it showed; ``anchor`` leads
    to its gate.
    """

    cause: str
    anchor: str
    verdict: GateVerdict
    measured: str
    required: str
    lines: Sequence[tuple[str, str]]
    place: LinkedPlace | None
    tail: str
    argv: str
    meaning: str
    others: Sequence[tuple[GateVerdict, str]]
    left_out: int

    @property
    def more(self) -> int:
        """How many gates share the cause with the first."""
        return len(self.others) + self.left_out


@dataclass(frozen=True)
class CaseLine:
    """Verdicts of a gate that rest on the same study, or a single one."""

    cases: str
    verdict: GateVerdict
    cells: Sequence[str]
    lines: Sequence[tuple[str, str]]
    place: LinkedPlace | None


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
    hashes = dict(summary.inputs)
    machine = hashes.pop("machine", "")
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
        machine=machine,
        hashes=hashes,
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
    return "fail" if any(gate.outcome in BAD for gate in summary.gates) else "undecided"


def _facts(summary: Summary, records: Sequence[LaunchRecord]) -> Iterable[str]:
    """Counts, duration, launches, when, and by what."""
    names = ("pass", "fail", "inconclusive", "skipped")
    counts = [f"{summary.outcomes.get(name, 0)} {WORDS[name].lower()}" for name in names]
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
    """The tightest verdict of each kind of gate that was judged."""
    found: list[Card] = []
    for kinds in CARDS:
        for title, gates in kinds.items():
            judged = [each for each in not_off(verdicts) if each.gate in gates]
            if judged:
                found.append(_card(title, tightest(judged), len(judged)))
                break
    return found


def _card(title: str, verdict: Verdict, count: int) -> Card:
    note = f"{clean(verdict.gate, 60)}, {clean(verdict.case, 60)}"
    if count > 1:
        note = f"{note}, tightest of {count}"
    return Card(
        title, verdict.outcome, _in_words(verdict), _required(verdict), spare_share(verdict), note
    )


def _in_words(verdict: Verdict) -> str:
    """A value and which way it points."""
    value, unit = verdict.value, verdict.unit
    if value is None:
        return "not measured"
    if verdict.metric == "decode_drop":
        word = "slower" if value > 0 else "faster"
        return f"{quantity(abs(value), unit)} {word}"
    if verdict.metric == "perplexity_increase" and value > 0:
        return f"+{quantity(value, unit)}"
    return f"{quantity(value, unit)}×" if unit == "ratio" else quantity(value, unit)


def _failures(
    verdicts: Sequence[GateVerdict],
    records: Sequence[LaunchRecord],
    root: Path,
    meanings: Mapping[str, str],
) -> Iterable[Failure]:
    """One for each cause; a value that missed its target is a cause of its own, per gate."""
    for group in by_cause(verdicts):
        yield _failure(group, records, root, meanings)


def _failure(
    group: Sequence[GateVerdict],
    records: Sequence[LaunchRecord],
    root: Path,
    meanings: Mapping[str, str],
) -> Failure:
    first = tightest(group)
    record = record_of(first, records)
    cause = clean(conclusion(first))
    others = [(each, _beyond(each, cause)) for each in group if each is not first]
    lines = _lines(first, SHOWN_APART)
    return Failure(
        cause=cause,
        anchor=anchor(first.gate),
        verdict=first,
        measured=_in_words(first) if first.value is not None else "",
        required=_missed(first),
        lines=[(name, text) for name, text in lines if text != cause],
        place=_place(first.source, root),
        tail=tail_of(record) if record else "",
        argv=clean(shlex.join(record.argv), 20_000) if record else "",
        meaning=meanings.get(first.gate, ""),
        others=others[:SHOWN_CASES],
        left_out=max(0, len(others) - SHOWN_CASES),
    )


def _beyond(verdict: Verdict, cause: str) -> str:
    """What a reason says that the cause does not."""
    return clean(verdict.reason).removeprefix(cause).strip(" ;:")


def _required(verdict: Verdict) -> str:
    """What a value was held against."""
    if verdict.target is None:
        return ""
    return f"required {verdict.operator} {quantity(verdict.target, verdict.unit)}"


def _missed(verdict: Verdict) -> str:
    """What a value was held against, by which knob, and by how much it missed."""
    text = _required(verdict)
    if verdict.knob:
        text = f"{text} ({clean(verdict.knob, 60)})"
    if verdict.margin is not None and verdict.margin < 0:
        text = f"{text}, missed by {quantity(-verdict.margin, verdict.unit)}"
    return text


def anchor(gate: str) -> str:
    """The id of a gate's row, whatever it is called."""
    return f"gate-{sha256(gate.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _lines(verdict: Verdict, apart: Collection[str] = ("open",)) -> list[tuple[str, str]]:
    """The details but those shown ``apart``, as is the source, which is a link."""
    return [(name.strip(), text) for name, text in details(verdict) if name not in apart]


def _place(source: str, root: Path) -> LinkedPlace | None:
    """A file of the run directory as a link beside the page; the name alone of any other."""
    if not source:
        return None
    path = Path(source)
    inside = path.relative_to(root) if path.is_relative_to(root) else None
    if inside is None or ".." in inside.parts:
        return LinkedPlace(clean(source), "")
    return LinkedPlace(clean(inside), quote(bytes(inside)))


def _gates(
    verdicts: Sequence[GateVerdict], root: Path, meanings: Mapping[str, str]
) -> Iterable[GateLine]:
    groups = sorted(by_gate(verdicts), key=lambda group: ORDER.index(tightest(group).outcome))
    for group in groups:
        yield _gate(group, root, meanings)


def _gate(group: Sequence[GateVerdict], root: Path, meanings: Mapping[str, str]) -> GateLine:
    worst = tightest(group)
    same = sum(each.outcome == worst.outcome for each in group)
    return GateLine(
        clean(worst.gate, 200),
        anchor(worst.gate),
        worst.outcome,
        MARKS[worst.outcome],
        f"{WORDS[worst.outcome]} {same} of {len(group)}",
        worst,
        _dashed(worst),
        spare_share(worst),
        meanings.get(worst.gate, ""),
        list(_cases(group, root)),
    )


def _dashed(verdict: Verdict) -> list[str]:
    """The cells of a verdict, with a dash that shows where there is none."""
    dashes = {"-": "–"}
    return [dashes.get(cell, cell) for cell in verdict_row(verdict)]


def _cases(group: Sequence[GateVerdict], root: Path) -> Iterable[CaseLine]:
    ordered = sorted(group, key=lambda each: ORDER.index(each.outcome))
    for same in shared_studies(ordered):
        first = same[0]
        cases = ", ".join(dict.fromkeys(clean(each.case, 200) for each in same))
        yield CaseLine(
            cases, first, verdict_row(first), _lines(first), _place(first.source, root)
        )  # fmt: skip
