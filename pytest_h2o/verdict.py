"""Verdicts, and how a measurement becomes one. Pure: no file is read and nothing is launched
here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

from pytest_h2o.metrics import number, quantity

Outcome = Literal["pass", "fail", "inconclusive", "skipped"]
Standing = Literal["supported", "not evidenced", "doubtful", "contradicted"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)
Operator = Literal[">=", "<=", ">"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was read for one metric: the value that counts and every row it was chosen from.

    ``missing`` says why there is no value; a measurement with a reason in ``missing`` never passes.
    ``limits`` says what keeps the value from being better, where that is known.
    """

    metric: str
    value: float | None
    unit: str = ""
    source: Path | None = None
    rows: tuple[tuple[str, str], ...] = ()
    missing: str = ""
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
class Verdict:
    """The outcome of one gate for one case, with everything a reader needs to trust or contest
    it.
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
    standing: str = ""
    evidence: str = ""
    not_evidenced: str = ""
    warning: str = ""
    suites: str = ""
    rerun: str = ""
    rows: tuple[tuple[str, str], ...] = field(default=())

    def properties(self) -> list[tuple[str, str | float]]:
        """The verdict as JUnit properties: plain builtins, absent values left out, rows joined into
        one text.
        """
        values = {k: v for k, v in asdict(self).items() if k != "rows" and v not in (None, "")}
        if self.rows:
            values["rows"] = "; ".join(f"{label}: {text}" for label, text in self.rows)
        return list(values.items())

    @classmethod
    def from_properties(cls, properties: Mapping[str, object]) -> Verdict:
        """Rebuild a verdict from a test report's properties."""
        known = {f.name for f in fields(cls)} - {"rows"}
        values = {name: value for name, value in properties.items() if name in known}
        rows = tuple(
            tuple(part.partition(": ")[::2])
            for part in str(properties.get("rows", "")).split("; ")
            if part
        )
        return cls(**values, rows=rows)  # type: ignore[arg-type]


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
        return replace(
            verdict,
            reason=measured.missing or f"{measured.metric} is {value}, not a number to compare",
        )
    margin = margin_of(value, operator, target)
    if margin > 0 or (margin == 0 and operator != ">"):
        return replace(verdict, outcome="pass", margin=margin)
    missed = (
        f"{number(value, measured.unit, 6)} is not {operator} {quantity(target, measured.unit, 6)}"
    )
    reason = f"{measured.metric} {missed}"
    return replace(
        verdict, margin=margin, reason=f"{reason}: {measured.limits}" if measured.limits else reason
    )


def margin_of(value: float, operator: Operator, target: float) -> float:
    """By how much a requirement is met, negative if it is not; without the last digits, which are
    rounding errors.
    """
    if math.isclose(value, target, rel_tol=1e-12):
        return 0.0
    return float(f"{target - value if operator == '<=' else value - target:.9g}")


def weigh(verdict: Verdict, evidence: Sequence[Evidence], *, require: bool = False) -> Verdict:
    """Add evidence to a verdict: one contradiction fails it, a claim without evidence only if
    ``require`` asks for it.

    The verdict's ``standing`` is the worst of all claims.
    """
    if (
        verdict.target is not None and verdict.value is None
    ):  # where nothing was measured nothing is claimed
        evidence = [item for item in evidence if item.standing != "not evidenced"]
    if not evidence:
        return verdict
    said = {
        standing: [item for item in evidence if item.standing == standing] for standing in STANDINGS
    }
    against = [f"{item.text} (contradicts: {item.claim})" for item in said["contradicted"]]
    if require:
        against += [
            f"claimed, not evidenced: {item.claim} ({item.text})" for item in said["not evidenced"]
        ]
    verdict = replace(
        verdict,
        standing=max((item.standing for item in evidence), key=STANDINGS.index),
        evidence="; ".join(
            [*filter(None, [verdict.evidence]), *(item.text for item in said["supported"])]
        ),
        not_evidenced="; ".join(f"{item.claim} ({item.text})" for item in said["not evidenced"]),
        warning="; ".join(
            f"{item.text} (casts doubt on: {item.claim})" for item in said["doubtful"]
        ),
    )
    if not against:
        return verdict
    return replace(
        verdict,
        outcome="fail",
        reason="; ".join([*against, *([verdict.reason] if verdict.reason else [])]),
    )
