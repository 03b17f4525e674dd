"""Verdicts, and how a measurement becomes one. Pure: no file is read and nothing is launched
here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from pytest_h2o.metrics import number, quantity

Outcome = Literal["pass", "fail", "inconclusive", "skipped"]
Standing = Literal["supported", "not evidenced", "doubtful", "contradicted"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)
# The cause of all failures on a program that cannot do what most suites judge.
NO_H2O = "the program has no H2O: kv_h2o_* keys were ignored; suite kv_quant judges what it can do"
Operator = Literal[">=", "<=", ">"]


# The launches that an observation is of, behind it: others share its cause.
LAUNCHES = re.compile(r" \([^()]*-r[0-9]+(?:@[A-Za-z0-9_.-]+)?\)$")
# The property that holds what is no plain value, as JSON text.
DATA = "h2o_data"
NUMBERS = ("value", "target", "margin")


@dataclass(frozen=True)
class ShownRow:
    """What one row showed, in words, and the number itself where it is one."""

    label: str
    text: str
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was read for one metric: the value that counts and every row it was chosen from.

    ``missing`` says why there is no value; a measurement with a reason in ``missing`` never passes.
    ``cause`` is the root of that, or of a value that cannot do, which others share. ``limits`` says
    what keeps the value from being better, where that is known.
    """

    metric: str
    value: float | None
    unit: str = ""
    source: Path | None = None
    rows: tuple[ShownRow, ...] = ()
    missing: str = ""
    cause: str = ""
    limits: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An independent look at one claim and what it showed; ``not evidenced`` where the output does
    not allow one.
    """

    claim: str
    standing: Standing
    text: str

    @classmethod
    def of(cls, claim: str, holds: bool, text: str) -> Evidence:
        """What an observation that allows a judgement showed."""
        return cls(claim=claim, standing="supported" if holds else "contradicted", text=text)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The confidence interval of a value, in its unit; None where nothing bounds it."""

    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True, kw_only=True)
class SpeedPair:
    """Decode speeds in tokens/s on the same work; costs are times per token in yardsticks.

    ``replicate`` is that of the candidate's launch, None where it is not known.
    """

    label: str
    replicate: int | None
    baseline: float
    candidate: float
    baseline_cost: float | None = None
    candidate_cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineSpeed:
    """The decode speed that a value was held against, in tokens/s, and from how many samples."""

    value: float
    source: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one gate for one case, with everything a reader needs to trust or contest
    it.

    ``cause`` is the root of a failure, in words that all failures of this root share; empty where a
    value missed its target. ``hint`` is what to try. ``claims`` are what ``evidence``,
    ``not_evidenced`` and ``warning`` say in words. ``host`` is where the launches were made, by
    kind; empty for this machine.
    """

    gate: str = ""
    case: str = ""
    metric: str = ""
    outcome: Outcome
    value: float | None = None
    target: float | None = None
    operator: str = ""
    margin: float | None = None
    unit: str = ""
    source: str = ""
    knob: str = ""
    reason: str = ""
    cause: str = ""
    hint: str = ""
    standing: str = ""
    evidence: str = ""
    not_evidenced: str = ""
    warning: str = ""
    suites: str = ""
    rerun: str = ""
    host: str = ""
    interval: Interval | None = None
    baseline: BaselineSpeed | None = None
    rows: tuple[ShownRow, ...] = ()
    pairs: tuple[SpeedPair, ...] = ()
    claims: tuple[Evidence, ...] = ()

    @property
    def suite_names(self) -> list[str]:
        """The suites that the gate is in."""
        return [name for name in self.suites.split(",") if name]

    def properties(self) -> list[tuple[str, str | float]]:
        """The verdict as JUnit properties: plain builtins, absent values left out.

        What is nested is JSON text in the property ``h2o_data``; ``rows`` repeats the rows for
        people, and is not read back.
        """
        given = {name: value for name, value in asdict(self).items() if value not in (None, "", ())}
        nested = {name: given.pop(name) for name in NESTED if name in given}
        if self.rows:
            given["rows"] = "; ".join(f"{row.label}: {row.text}" for row in self.rows)
        if nested:
            given[DATA] = json.dumps(nested)
        return list(given.items())

    @classmethod
    def from_properties(cls, properties: Mapping[str, object]) -> Verdict:
        """Rebuild a verdict from a test report's properties, whose numbers may be texts.

        Raises ValueError or TypeError if they are of no verdict.
        """
        values = _parts(json.loads(str(properties.get(DATA, "{}"))))
        for each in fields(cls):
            if each.name in properties and each.name not in NESTED:
                values[each.name] = properties[each.name]
        for name in NUMBERS:
            if values.get(name) is not None:
                values[name] = float(values[name])
        return cls(**values)


PARTS: Mapping[str, type[Interval | BaselineSpeed]] = {
    "interval": Interval,
    "baseline": BaselineSpeed,
}
LISTS: Mapping[str, type[ShownRow | SpeedPair | Evidence]] = {
    "rows": ShownRow,
    "pairs": SpeedPair,
    "claims": Evidence,
}
NESTED = (*PARTS, *LISTS)


def _parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is nested in a verdict, from plain JSON values."""
    parts: dict[str, Any] = {}
    for name, part in PARTS.items():
        if name in data:
            parts[name] = part(**data[name])
    for name, item in LISTS.items():
        if name in data:
            parts[name] = tuple(item(**values) for values in data[name])
    return parts


def compare(measured: Measured, operator: Operator, target: float) -> Verdict:
    """Judge one number; a missing value or one that is not finite fails with the reason."""
    value = measured.value
    verdict = Verdict(
        metric=measured.metric,
        outcome="fail",
        value=value,
        target=target,
        operator=operator,
        unit=measured.unit,
        source=str(measured.source or ""),
        rows=measured.rows,
    )
    if measured.missing or value is None or not math.isfinite(value):
        reason = measured.missing or f"{measured.metric} is {value}, not a number to compare"
        return replace(verdict, reason=reason, cause=measured.cause or root_of([reason]))
    margin = margin_of(value, operator, target)
    if margin > 0 or (margin == 0 and operator != ">"):
        return replace(verdict, outcome="pass", margin=margin)
    required = f"{operator} {quantity(target, measured.unit, 6)}"
    reason = f"{measured.metric} {number(value, measured.unit, 6)} is not {required}"
    if measured.limits:
        reason = f"{reason}: {measured.limits}"
    return replace(verdict, margin=margin, reason=reason, cause=measured.cause)


def root_of(reasons: Sequence[str]) -> str:
    """The cause of a failure of which only the reasons are known: the first line of the first."""
    lines = reasons[0].splitlines() if reasons else []
    return lines[0] if lines else ""


def margin_of(value: float, operator: Operator, target: float) -> float:
    """By how much a requirement is met, negative if it is not; without the last digits, which are
    rounding errors.
    """
    if math.isclose(value, target, rel_tol=1e-12):
        return 0.0
    margin = target - value if operator == "<=" else value - target
    return float(f"{margin:.9g}")


def weigh(verdict: Verdict, evidence: Sequence[Evidence], *, require: bool = False) -> Verdict:
    """Add evidence to a verdict: one contradiction fails it, a claim without evidence only if
    ``require`` asks for it.

    The verdict's ``standing`` is the worst of all claims.
    """
    if verdict.target is not None and verdict.value is None:
        # Where nothing was measured nothing is claimed.
        evidence = [item for item in evidence if item.standing != "not evidenced"]
    if not evidence:
        return verdict
    said: dict[Standing, list[Evidence]] = {standing: [] for standing in STANDINGS}
    for item in evidence:
        said[item.standing].append(item)
    supports = [verdict.evidence]
    supports += [item.text for item in said["supported"]]
    unknown = [f"{item.claim} ({item.text})" for item in said["not evidenced"]]
    doubts = [f"{item.text} (casts doubt on: {item.claim})" for item in said["doubtful"]]
    against = _contradictions(said["contradicted"])
    causes = [LAUNCHES.sub("", item.text) for item in said["contradicted"]]
    if require:
        claimed = [f"claimed, not evidenced: {text}" for text in unknown]
        against += claimed
        causes += claimed
    verdict = replace(
        verdict,
        standing=max((item.standing for item in evidence), key=STANDINGS.index),
        evidence=_joined(supports),
        not_evidenced=_joined(unknown),
        warning=_joined(doubts),
        claims=tuple(evidence),
    )
    if not against:
        return verdict
    return replace(
        verdict,
        outcome="fail",
        reason=_joined(chain(against, [verdict.reason])),
        cause=verdict.cause or root_of(causes),
    )


def _contradictions(items: Sequence[Evidence]) -> list[str]:
    """What is against each claim, in one reason a claim."""
    texts: dict[str, list[str]] = {}
    for item in items:
        texts.setdefault(item.claim, []).append(item.text)
    return [f"{_joined(said)} (contradicts: {claim})" for claim, said in texts.items()]


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(filter(None, texts))
