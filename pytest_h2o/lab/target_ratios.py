"""The same prompts at several target ratios: what is kept, and what is written."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_h2o.evidence.eviction import RATIO, eviction_evidence
from pytest_h2o.evidence.look import settle
from pytest_h2o.evidence.order import (
    NEEDS,
    agreement_evidence,
    kept_evidence,
    little_evidence,
)
from pytest_h2o.evidence.written_texts import Written, same_share
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.text_relation import NO_TEXT
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import CANDIDATE, baseline_of
from pytest_h2o.plan.relations import Arm, mild_only
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause, read_launches
from pytest_h2o.verdict import Evidence, ShownRow


@dataclass(frozen=True)
class TargetRatios:
    """What could not be compared and why in words that others share, what each answer has in common
    with the baseline's, and what the launches showed.
    """

    problems: list[str]
    cause: str = ""
    rows: tuple[ShownRow, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def target_ratios(lab: Lab) -> TargetRatios:
    """Launch the prompts of the relation at each ratio and compare."""
    work = lab.workload.relations.ratios()
    if not work:
        return TargetRatios([lab.workload.nothing_to_run()], lab.workload.without_prompts)
    found: list[Evidence] = []
    rows: list[ShownRow] = []
    little: dict[str, float] = {}
    all_shares: list[dict[float, float]] = []
    evicted: list[LaunchRecord] = []
    steps: list[LaunchRecord] = []
    for candidate, arms in work:
        texts = {ratio: Texts(lab).of(arm) for ratio, arm in arms.items()}
        baseline = Texts(lab).of(Arm(baseline_of(candidate)))
        if broken := _broken([baseline, *texts.values()]):
            return TargetRatios([broken.problem], launch_cause(broken.record))
        found += kept_evidence(candidate.label, _rows(texts))
        shares = {ratio: same_share(baseline, texts[ratio]) for ratio in sorted(texts)}
        all_shares.append(shares)
        if len(arms) > 1:
            evicted.append(texts[max(texts)].record)
        little_ratio = next(iter(mild_only(arms)))
        steps.append(texts[little_ratio].record)
        mild = shares[little_ratio]
        if baseline.text.strip():
            little[candidate.label] = mild
        text = ", ".join(f"{share:.1%} at {ratio:g}" for ratio, share in shares.items())
        rows.append(ShownRow(candidate.label, text, mild))
    if not little:
        return TargetRatios([NO_TEXT])
    found.append(little_evidence(little, lab.knobs.number("MIN_MILD_AGREEMENT")))
    found += agreement_evidence(all_shares)
    # As the candidate's other launches must, these plan in every H2O layer and apply it.
    found += eviction_evidence(read_launches(CANDIDATE, evicted))
    # Where layers evict again and again their plans may be cancelled, but no ratio adds up.
    for item in eviction_evidence(read_launches(CANDIDATE, steps)):
        if item.claim == RATIO and item.standing == "contradicted":
            found.append(item)
    return TargetRatios([], rows=tuple(rows), evidence=tuple(settle(found, NEEDS)))


def _broken(texts: list[Written]) -> Written | None:
    """The first launch that cannot be compared."""
    for each in texts:
        if each.problem:
            return each
    return None


def _rows(texts: dict[float, Written]) -> dict[float, Row]:
    """The row of each launch, all of which ended well."""
    rows: dict[float, Row] = {}
    for ratio, each in texts.items():
        rows[ratio] = read_launches(each.record.name, [each.record]).rows[0]
    return rows
