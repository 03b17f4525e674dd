"""Pairs of candidate and baseline measurements, read from launches or rows, and the study that they
make.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from pytest_h2o.decode.study import LEAST_PAIRS, Study, holm, judge
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.rows import Row
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, launch_cause, read_launches
from pytest_h2o.verdict import BaselineSpeed, SpeedPair

# So many pairs that all look well are enough for :func:`screen`.
SCREEN_PAIRS = 2


@dataclass(frozen=True)
class Pair:
    """One candidate launch beside one baseline launch on the same work.

    Speeds are in tokens/s. Costs are times per token in runs of a yardstick (``decode_cost``), None
    where the runtime has none.
    ``records`` are the launches, baseline first, where they are known.
    """

    label: str
    baseline: float
    candidate: float
    baseline_cost: float | None = None
    candidate_cost: float | None = None
    records: tuple[LaunchRecord, LaunchRecord] | None = None

    @property
    def difference(self) -> float:
        """``ln(candidate / baseline)`` of the speeds: negative when the candidate is slower."""
        return math.log(self.candidate) - math.log(self.baseline)

    @property
    def relative(self) -> float | None:
        """The same of the speeds against the yardstick."""
        if self.baseline_cost is None or self.candidate_cost is None:
            return None
        return math.log(self.baseline_cost) - math.log(self.candidate_cost)

    @property
    def shown(self) -> SpeedPair:
        """What a verdict keeps of it."""
        return SpeedPair(
            label=self.label,
            replicate=self.records[1].spec.replicate if self.records else None,
            baseline=self.baseline,
            candidate=self.candidate,
            baseline_cost=self.baseline_cost,
            candidate_cost=self.candidate_cost,
        )

    def __str__(self) -> str:
        speeds = f"{self.baseline:.2f} -> {self.candidate:.2f} tok/s"
        if self.baseline_cost is None or self.candidate_cost is None:
            return speeds
        return f"{speeds}, {self.baseline_cost:.3f} -> {self.candidate_cost:.3f} yardsticks a token"


@dataclass(frozen=True)
class PairedStudy:
    """The pairs of one case and what they decide; ``problems`` says why there is no decision,
    ``cause`` what is at the root of it.

    ``plain`` is what the bare speeds say where ``study`` is about speeds against the yardstick.
    ``ended`` says why no more pairs were measured, if it was neither the decision nor the cap.
    """

    pairs: tuple[Pair, ...]
    study: Study | None
    problems: tuple[str, ...]
    source: Path | None
    plain: Study | None = None
    seed: int | None = None
    cause: str = ""
    ended: str = ""

    @property
    def records(self) -> list[tuple[LaunchRecord, LaunchRecord]]:
        """The launches of each pair, baseline first, where they are known."""
        return [pair.records for pair in self.pairs if pair.records]

    @property
    def baseline(self) -> BaselineSpeed | None:
        """The median speed of the baseline's launches."""
        if not self.pairs:
            return None
        speed = median(pair.baseline for pair in self.pairs)
        return BaselineSpeed(value=speed, source="paired", samples=len(self.pairs))


@dataclass
class OpenStudy:
    """A study that is being measured, until it is decided or has ``most`` pairs."""

    most: int
    pairs: list[Pair] = field(default_factory=list)
    study: Study | None = None
    plain: Study | None = None
    problems: list[str] = field(default_factory=list)
    source: Path | None = None
    cause: str = ""
    ended: str = ""

    @property
    def open(self) -> bool:
        """Whether more pairs could decide it."""
        return not self.decided and not self.problems and len(self.pairs) < self.most

    @property
    def decided(self) -> bool:
        """Whether it passed or failed."""
        return self.study is not None and self.study.decision != "inconclusive"

    def add(self, baseline: LaunchRecord, candidate: LaunchRecord) -> None:
        """Take in one more pair of launches; one that cannot be compared ends the study without a
        decision.
        """
        pair, problems = read_pair(baseline, candidate)
        self.source = self.source or candidate.directory.parent
        if pair:
            self.pairs.append(pair)
        else:
            self.problems, self.source = problems, candidate.directory
            self.cause = launch_cause(baseline) or launch_cause(candidate)

    def end(self, seed: int) -> PairedStudy:
        """The study as it is."""
        return PairedStudy(
            pairs=tuple(self.pairs),
            study=None if self.problems else self.study,
            problems=tuple(self.problems),
            source=self.source,
            plain=self.plain,
            seed=seed,
            cause=self.cause,
            ended=self.ended,
        )


def look(studies: Mapping[str, OpenStudy], target: float, *, each_label: bool = False) -> None:
    """Decide what can be decided of a family of studies; what was decided stays.

    Each passes on its own, since all of them must; that any fails is held to Holm's procedure, so
    that more studies do not make more false alarms. ``each_label`` is that of :func:`study_pairs`.
    """
    undecided = {name: study for name, study in studies.items() if not study.decided}
    for study in undecided.values():
        if not study.problems and len(study.pairs) >= LEAST_PAIRS:
            study.study, study.plain = study_pairs(study.pairs, target, each_label=each_label)
    slow = holm({name: study.study.p_fast for name, study in studies.items() if study.study})
    for name, study in undecided.items():
        if study.study and study.study.decision == "fail" and name not in slow:
            study.study = replace(study.study, decision="inconclusive")


def study_pairs(
    pairs: Sequence[Pair], target: float, *, each_label: bool = False
) -> tuple[Study, Study | None]:
    """The study of some pairs, against the yardstick if every pair has it, and then that of the
    bare speeds as well.

    A yardstick cannot see what slows the whole process. So where the bare speeds surely fail,
    nothing passes yet. With ``each_label`` every label is a part of the work that may be slow.
    """
    labels = [pair.label if each_label else "" for pair in pairs]
    plain = _judge([pair.difference for pair in pairs], labels, target)
    costs = [pair.relative for pair in pairs if pair.relative is not None]
    if len(costs) < len(pairs):
        return plain, None
    study = _judge(costs, labels, target)
    if study.decision == "pass" and plain.decision == "fail":
        study = replace(study, decision="inconclusive", doubtful=plain.doubtful)
    return study, plain


def screen(pairs: Sequence[Pair], target: float) -> Study | None:
    """A pass if not one of some pairs has a drop of ``target``; the bounds are those of the pairs.

    This is for requirements that a failure is looked for in: a pass needs no proof.
    """
    differences = [pair.difference for pair in pairs]
    costs = [pair.relative for pair in pairs if pair.relative is not None]
    if len(costs) == len(pairs):
        differences = costs
    if min(differences) <= math.log1p(-target):
        return None
    study, _ = study_pairs(pairs, target)
    low, high = 1 - math.exp(max(differences)), 1 - math.exp(min(differences))
    return replace(study, drop_low=low, drop_high=high, decision="pass")


def _judge(differences: Sequence[float], labels: Sequence[str], target: float) -> Study:
    parts: dict[str, list[float]] = {}
    for label, difference in zip(labels, differences, strict=True):
        parts.setdefault(label, []).append(difference)
    return judge(parts, target)


def read_pair(baseline: LaunchRecord, candidate: LaunchRecord) -> tuple[Pair | None, list[str]]:
    """The decode speeds of a pair of launches, or why they cannot be compared."""
    runs = [read_launches(record.spec.name, [record]) for record in (baseline, candidate)]
    speeds, problems = _of_both(runs, "decode_tps")
    costs: list[float | None] = [None, None]
    if all(run.samples("decode_cost") for run in runs):
        costs, more = _of_both(runs, "decode_cost")
        problems += more
    before, after = speeds
    if problems or before is None or after is None:
        return None, problems
    cost_before, cost_after = costs
    records = (baseline, candidate)
    return Pair(candidate.spec.label, before, after, cost_before, cost_after, records), []


def _of_both(runs: Sequence[Run], metric: str) -> tuple[list[float | None], list[str]]:
    """The value of a metric in each run, and why some of them are nothing to divide by."""
    values: list[float | None] = []
    problems: list[str] = []
    for run in runs:
        measured = run.lowest(metric)
        values.append(measured.value)
        if measured.missing:
            problems.append(measured.missing)
        elif not measured.value or measured.value <= 0:
            problems.append(f"{run.case}: {metric} is {measured.value} {measured.unit}")
    return values, problems


def row_problems(baseline: Run, candidate: Run) -> list[str]:
    """Why not every row of the candidate can be compared with the baseline's; empty if they can."""
    if not baseline.problems and not candidate.problems:
        alone = unmatched(baseline, candidate)
        if alone:
            return [alone]
    problems = []
    for side, run in (("", candidate), ("baseline: ", baseline)):
        text = _no_speed(run)
        if text:
            problems.append(text if run.problems else side + text)
    return problems


def unmatched(baseline: Run, candidate: Run) -> str:
    """The candidate's rows that have no row of the same label in the baseline, as a reason; empty
    without any.
    """
    has, needs = (Counter(row.label for row in run.rows) for run in (baseline, candidate))
    alone = needs - has
    return f"the baseline holds no row of {', '.join(alone)}" if alone else ""


def row_pairs(baseline: Run, candidate: Run) -> Iterator[Pair]:
    """Candidate rows beside baseline rows of the same label, the first with the first."""
    beside: dict[str, list[tuple[Row, Sample]]] = {}
    for row, sample in baseline.samples("decode_tps"):
        beside.setdefault(row.label, []).append((row, sample))
    for row, sample in candidate.samples("decode_tps"):
        if beside.get(row.label):
            other, speed = beside[row.label].pop(0)
            before, after = baseline.launch_of(other), candidate.launch_of(row)
            records = (before, after) if before and after else None
            yield Pair(row.label, speed.mean, sample.mean, records=records)


def _no_speed(run: Run) -> str:
    """Why not every row has a decode speed to divide by, or nothing."""
    missing = run.missing("decode_tps")
    still = [row.label for row, sample in run.samples("decode_tps") if sample.mean <= 0]
    if still and not missing:
        return f"decode_tps is not above 0 in {', '.join(still)}"
    return missing
