"""The same prompts at several target ratios: what is kept, and what is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_h2o.evidence.look import settle
from pytest_h2o.evidence.order import NEEDS, kept_evidence
from pytest_h2o.evidence.relations import Written, same_share
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.relations import NO_TEXT
from pytest_h2o.lab.texts import Texts
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import baseline_of
from pytest_h2o.plan.relations import Arm
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.results import launch_cause, read_launches
from pytest_h2o.verdict import Evidence, Measured, ShownRow


@dataclass(frozen=True)
class TargetRatios:
    """How far answers stay the baseline's under a little eviction, best of the prompts, and whether
    more eviction keeps less.
    """

    agreement: Measured
    evidence: list[Evidence]


def target_ratios(lab: Lab) -> TargetRatios:
    """Launch the prompts of the relation at each ratio and compare."""
    agreement = Measured(metric="mild_agreement", value=None, unit="share")
    found: list[Evidence] = []
    rows: list[ShownRow] = []
    work = lab.workload.ratios()
    if not work:
        missing = lab.workload.nothing_to_run()
        cause = lab.workload.without_prompts
        return TargetRatios(replace(agreement, missing=missing, cause=cause), [])
    for candidate, arms in work:
        texts = {ratio: Texts(lab).of(arm) for ratio, arm in arms.items()}
        baseline = Texts(lab).of(Arm(baseline_of(candidate)))
        written = [baseline, *texts.values()]
        if problem := _problem(written):
            broken = next((each for each in written if each.problem), baseline)
            cause = launch_cause(broken.record)
            return TargetRatios(replace(agreement, missing=problem, cause=cause), [])
        found += kept_evidence(candidate.label, _rows(texts))
        rows.append(_shown(candidate, baseline, texts))
    values = [row.value for row in rows if row.value is not None]
    best = replace(agreement, value=max(values), rows=tuple(rows))
    return TargetRatios(best, settle(found, NEEDS))


def _problem(texts: list[Written]) -> str:
    """Why some launches cannot be compared."""
    for each in texts:
        if each.problem:
            return each.problem
    return "" if any(each.text.strip() for each in texts) else NO_TEXT


def _rows(texts: dict[float, Written]) -> dict[float, Row]:
    """The row of each launch, all of which ended well."""
    rows: dict[float, Row] = {}
    for ratio, each in texts.items():
        rows[ratio] = read_launches(each.record.name, [each.record]).rows[0]
    return rows


def _shown(candidate: LaunchSpec, baseline: Written, texts: dict[float, Written]) -> ShownRow:
    """The share of an answer that stays as it was, at each ratio; that of the second one counts."""
    shares = {ratio: same_share(baseline, texts[ratio]) for ratio in sorted(texts)}
    text = ", ".join(f"{share:.1%} at {ratio:g}" for ratio, share in shares.items())
    second = sorted(shares)[:2][-1]
    return ShownRow(candidate.label, text, shares[second])
