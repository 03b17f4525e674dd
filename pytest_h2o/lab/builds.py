"""The build under test beside a second one with the same settings: speed, text and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from statistics import median

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence.second_build import text_evidence_of_builds
from pytest_h2o.evidence.written_texts import Written, difference
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.text_relation import NO_TEXT
from pytest_h2o.plan.cases import BUILDS_FULL, BUILDS_PLAIN
from pytest_h2o.plan.relations import Arm
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.suites import on_kind
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause, read_launches
from pytest_h2o.verdict import Evidence, Measured, ShownRow

# What must not shrink from one build to the next.
NUMBERS = ("h2o_lossy", "h2o_lossless")


@dataclass(frozen=True)
class BuildTexts:
    """What could not be compared and why, and what the answers of two builds showed."""

    problems: tuple[str, ...] = ()
    cause: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass
class Builds:
    """Two builds with the same settings, ``plain`` with H2O off, on a ``kind`` of host; each part
    is launched when it is asked for.
    """

    lab: Lab
    plain: bool
    kind: str = ""

    @property
    def on(self) -> bool:
        """Whether there is a second build to launch."""
        return self.lab.workload.relations.relates("builds")

    @cached_property
    def study(self) -> PairedStudy:
        """The decode speed of the build under test against that of the second one."""
        if not self.on:
            return PairedStudy((), None, (), None)
        name = BUILDS_PLAIN if self.plain else BUILDS_FULL
        return self.lab.study(on_kind(name, self.kind))

    @cached_property
    def texts(self) -> BuildTexts:
        """What both wrote to the same prompts."""
        pairs = self._pairs(plain=self.plain)
        if not pairs:
            work = self.lab.workload
            return BuildTexts((work.nothing_to_run(),), work.without_prompts)
        found = self._answers(plain=self.plain)
        for each in chain.from_iterable(found):
            if each.problem:
                return BuildTexts((each.problem,), launch_cause(each.record))
        if not any(second.text.strip() for second, _ in found):
            return BuildTexts((NO_TEXT,))
        least = self.lab.knobs.number("MIN_BUILD_AGREEMENT")
        drawn = Texts(self.lab).drawn(Arm(pairs[0][1]))
        plain: list[tuple[Written, Written]] = []
        if not self.plain and any(difference(*answers) for answers in found):
            plain = self._answers(plain=True)
        evidence = text_evidence_of_builds(found, least, drawn, plain)
        return BuildTexts(evidence=(evidence,))

    def _pairs(self, *, plain: bool) -> list[tuple[LaunchSpec, LaunchSpec]]:
        """The launches of both builds over the prompts, on the kind of host."""
        return self.lab.workload.on(self.kind).relations.of_builds(plain=plain)

    def _answers(self, *, plain: bool) -> list[tuple[Written, Written]]:
        """What the second build and that under test write to each prompt, until one fails to."""
        texts = Texts(self.lab)
        found: list[tuple[Written, Written]] = []
        for own, second in self._pairs(plain=plain):
            written = texts.of(Arm(second)), texts.of(Arm(own))
            found.append(written)
            if any(each.problem for each in written):
                break
        return found

    @property
    def loss(self) -> Measured:
        """The largest share that the build under test loses of what the second one saves."""
        measured = Measured(metric="build_loss", value=None, unit="share", source=self.study.source)
        if self.study.problems:
            missing = "; ".join(self.study.problems)
            return replace(measured, missing=missing, cause=self.study.cause)
        rows: list[ShownRow] = []
        for metric in NUMBERS:
            medians = [_median(metric, side) for side in zip(*self.study.records, strict=True)]
            for build, found in zip(("second build", "build under test"), medians, strict=True):
                if not found:
                    return replace(measured, missing=f"the {build} reports no {metric}")
            second, own = medians
            rows.append(ShownRow(metric, f"{second:.4g} -> {own:.4g}", 1 - own / second))
        worst = max(row.value for row in rows if row.value is not None)
        return replace(measured, value=worst, rows=tuple(rows))


def _median(metric: str, records: Sequence[LaunchRecord]) -> float:
    """The median of a metric's lowest values in some launches; 0 if one of them has none."""
    values: list[float] = []
    for record in records:
        value = read_launches(record.name, [record]).lowest(metric).value
        if value is None:
            return 0.0
        values.append(value)
    return median(values)
