"""The session's laboratory: turns what gates ask for into launches, each made once, and hands out
what they showed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from pytest_h2o.decode.pairs import (
    OpenStudy,
    PairedStudy,
    look,
    row_pairs,
    row_problems,
    study_pairs,
)
from pytest_h2o.decode.study import LOOKS, launch_order
from pytest_h2o.lab.recordings import Recording
from pytest_h2o.plan.cases import Case, all_cases, baseline_of, dump_launch, has_dump, launches
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.prompts import PromptSelection, select_prompts
from pytest_h2o.plan.specs import LaunchSpec, Work
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, located, read_run
from pytest_h2o.runtimes import programs_by_work
from pytest_h2o.runtimes.base import CAPABILITIES, Capability
from pytest_h2o.runtimes.programs import BOTH

Store = Callable[[LaunchSpec], LaunchRecord]


@dataclass
class Lab:
    """Everything gates need: cases, launches, decode studies, prompts and the offline evaluation.

    ``looked_at``, ``studied`` and ``compared`` name the cases whose launches, decode speed and
    baseline the selected gates ask about, ``dumped`` says whether a KV dump is needed, ``scored``
    whether a held-out text is predicted. They are known before the first launch, so that the
    launches of all arms can be interleaved. ``combinations`` are those of a sweep. ``programs`` says what is
    launched for each kind of work, ``reports`` what launches can tell. A ``recording``
    takes the place of all launches, with what was recorded in ``baseline`` to compare its decode
    speed with; ``replay`` is the directory of any earlier run that is judged again. ``history`` is
    the file with the decode speeds of earlier sessions.
    """

    root: Path
    knobs: Knobs
    get: Store
    prompt_dir: Path
    looked_at: Collection[str] = ()
    studied: Collection[str] = ()
    compared: Collection[str] = ()
    dumped: bool = False
    scored: bool = False
    combinations: Sequence[LaunchSpec] = ()
    programs: Mapping[Work, str] = field(default_factory=lambda: programs_by_work(BOTH))
    reports: Collection[Capability] = frozenset(CAPABILITIES)
    replay: Path | None = None
    recording: Recording | None = None
    baseline: Recording | None = None
    history: Path | None = None
    _spent_s: float = 0.0
    _specs: dict[tuple[str, int, int | None], list[LaunchSpec]] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)
    _studies: dict[tuple[str, str], PairedStudy] = field(default_factory=dict)

    @cached_property
    def cases(self) -> Mapping[str, Case]:
        """Every case by name."""
        return (
            self.recording.cases(self.knobs)
            if self.recording
            else all_cases(self.knobs, self.combinations, self.programs)
        )

    @cached_property
    def prompts(self) -> PromptSelection:
        """The real prompts that the knobs select, and what was wrong with the others."""
        return (
            self.recording.prompts
            if self.recording
            else select_prompts(self.prompt_dir, self.knobs)
        )

    @property
    def buckets(self) -> list[str]:
        """The buckets of the selected prompts, in order."""
        return list(dict.fromkeys(prompt.bucket for prompt in self.prompts.prompts))

    def run(self, name: str, bucket: str = "") -> Run:
        """The launches of a case, or of its prompts in one bucket, made on first use; ValueError
        for another name.
        """
        if name not in self.cases:
            raise ValueError(f"there is no case {name}; there are {', '.join(self.cases)}")
        if self.recording:
            return self._part(self.recording.run(self.cases[name]), bucket)
        if name not in self._runs:
            case = self.cases[name]
            for spec in self._batch(case) if name in self.studied else ():
                self.get(spec)
            records = [
                self._get_in_place(case, spec) for spec in self._launches(case, case.replicate)
            ]
            run = read_run(name, records)
            self._runs[name] = run if records else replace(run, problems=(self._nothing_to_run(),))
        return self._part(self._runs[name], bucket)

    def baseline_run(self, name: str, bucket: str = "") -> Run:
        """The launches of the same work with H2O off, made on first use."""
        case = self.cases[name]
        if not self.recording:
            records = [self.get(baseline_of(spec)) for spec in self._launches(case, case.replicate)]
            return self._part(read_run(name, records), bucket)
        if self.baseline is None:
            reason = (
                "a recording has no baseline beside its launches; name one with "
                "--h2o-replay-baseline DIR"
            )
            return Run(name, (), (), (reason,))
        run = self._part(self.baseline.run(case), bucket)
        h2o = (f"{self.baseline.directory} was run with H2O on",) if self.baseline.has_h2o else ()
        return replace(
            run, problems=tuple(f"baseline: {problem}" for problem in (*run.problems, *h2o))
        )

    def baseline_mode(self, name: str) -> str:
        """What the decode speed of a case is held against: DECODE_BASELINE_MODE, as the case has
        it.

        Real prompts have no other baseline than launches of this session.
        """
        case = self.cases[name]
        mode = case.knobs(self.knobs).text("DECODE_BASELINE_MODE")
        return "same_batch" if case.work == "prompts" and mode != "paired" else mode

    def reading(self, get: Store) -> Lab:
        """This laboratory over a store that launches nothing."""
        return replace(self, get=get, _runs={}, _studies={})

    def study(self, name: str, bucket: str = "") -> PairedStudy:
        """Measure candidate against baseline in pairs until a planned look decides, or the cap is
        reached.
        """
        if (name, bucket) not in self._studies and self.recording:
            self._studies[name, bucket] = self._recorded(self.cases[name], bucket)
        elif (name, bucket) not in self._studies:
            family = [*self.buckets, bucket] if bucket else [""]
            found = self._measure(self.cases[name], list(dict.fromkeys(family)))
            self._studies |= {(name, each): study for each, study in found.items()}
        return self._studies[name, bucket]

    def planned(self) -> list[LaunchSpec]:
        """The launches that the selected gates need at least, without repeats."""
        specs = {spec.key: spec for spec in self._dump_launches()} if self.dumped else {}
        specs |= {spec.key: spec for spec in self._quality_launches() if self.scored}
        for name in self.looked_at:
            specs |= {
                spec.key: spec
                for spec in self._launches(self.cases[name], self.cases[name].replicate)
            }
        for name in self.compared:
            candidates = self._launches(self.cases[name], self.cases[name].replicate)
            specs |= {spec.key: spec for spec in map(baseline_of, candidates)}
        for name in self.studied:
            specs |= {spec.key: spec for spec in self._batch(self.cases[name])}
        for name in self._paired:
            case = self.cases[name]
            for replicate in range(1, self._first_look(case) + 1):
                pairs = self._pairs(case, replicate)
                specs |= {spec.key: spec for pair in pairs for spec in pair}
        return list(specs.values())

    def quality(self) -> LaunchRecord | None:
        """The launch that predicts a held-out text; None where it is turned off, or in a
        recording.
        """
        return next((self.get(spec) for spec in self._quality_launches()), None)

    def kv_dump(self) -> tuple[Path | None, str]:
        """The directory of the KV dump under judgement, or None and the reason why there is
        none.
        """
        if given := self.knobs.text("DUMP_DIR"):
            return (
                (Path(given), "")
                if Path(given).is_dir()
                else (None, f"DUMP_DIR={given} is not a directory")
            )
        if self.recording:
            return None, f"no KV dump in {self.recording.directory}; give DUMP_DIR"
        if not self.prompts.prompts:
            return None, self._nothing_to_run()
        if "kv_dump" not in self.reports:
            return None, "the runtime writes no KV dump; give DUMP_DIR"
        records = [self.get(spec) for spec in self._dump_launches()]
        without: dict[str, list[LaunchRecord]] = {}
        for record in records:
            without.setdefault(_no_dump(record), []).append(record)
        without.pop("", None)
        reasons = [
            located(why, alike[0].directory, *(each.name for each in alike))
            for why, alike in without.items()
        ]
        return (None, "; ".join(reasons)) if reasons else (records[0].directory.parent, "")

    def once(self, name: str, compute: Callable[[], dict[str, object]]) -> dict[str, object]:
        """A JSON result computed once per session, shared by all workers, kept as ``name`` in the
        run directory.
        """
        path = self.root / name
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(compute(), indent=2) + "\n")
                partial.replace(path)
        result: dict[str, object] = json.loads(path.read_text())
        return result

    def _nothing_to_run(self, bucket: str = "") -> str:
        """Why there is no launch of real prompts: what was wrong with them, or with where they were
        looked for.
        """
        of = f" in bucket {bucket}" if bucket else ""
        return (
            f"no prompt to run{of}: "
            f"{self.prompts.describe_problems() or f'none was found in {self.prompt_dir}'}"
        )

    @property
    def _paired(self) -> list[str]:
        """The studied cases that are measured in pairs."""
        return [name for name in self.studied if self.baseline_mode(name) == "paired"]

    def _batch(self, case: Case) -> list[LaunchSpec]:
        """A case's launches and those of a baseline in the same session, in RUN_ORDER; none if it
        has none there.
        """
        if self.baseline_mode(case.name) != "same_batch":
            return []
        candidates = self._launches(case, case.replicate)
        return in_order(
            self.knobs.text("RUN_ORDER"), [baseline_of(spec) for spec in candidates], candidates
        )

    def _dump_launches(self) -> list[LaunchSpec]:
        if self.knobs.text("DUMP_DIR") or "kv_dump" not in self.reports:
            return []
        chosen = self.prompts.prompts[: self.knobs.integer("KV_DUMP_PROMPTS")]
        return [dump_launch(self.cases["candidate"], self.knobs, prompt.path) for prompt in chosen]

    def _quality_launches(self) -> list[LaunchSpec]:
        if self.recording or not self.knobs.on("REQUIRE_QUALITY"):
            return []
        (first, *_) = self._launches(self.cases["full_strict"], 1, 1)
        return [replace(first, quality=True)]

    def _launches(self, case: Case, replicate: int, repeat: int | None = None) -> list[LaunchSpec]:
        key = case.name, replicate, repeat
        if key not in self._specs:
            paths = [prompt.path for prompt in self.prompts.prompts]
            self._specs[key] = launches(case, self.knobs, paths, replicate=replicate, repeat=repeat)
        return self._specs[key]

    def _pairs(self, case: Case, replicate: int) -> list[tuple[LaunchSpec, LaunchSpec]]:
        """Baseline and candidate on the same work; up to the first look all arms share one
        baseline.
        """
        candidates = self._launches(case, replicate, self.knobs.integer("DECODE_REPEAT") or None)
        paired_with = case.arm if replicate > self._first_look(case) else ""
        return [(baseline_of(candidate, paired_with), candidate) for candidate in candidates]

    def _get_in_place(self, case: Case, spec: LaunchSpec) -> LaunchRecord:
        """A launch, beside its baseline if it is the candidate of a pair as well."""
        early = case.name in self._paired and spec.replicate <= self._first_look(case)
        in_pair = early and any(
            candidate == spec for _, candidate in self._pairs(case, spec.replicate)
        )
        return self._get_beside_others(case, spec) if in_pair else self.get(spec)

    def _get_beside_others(self, case: Case, candidate: LaunchSpec) -> LaunchRecord:
        """Make a launch together with its neighbours: all arms on the same work, baseline included,
        in seeded order.
        """
        block = {spec.arm: spec for spec in self._neighbours(case, candidate)}
        group, labels = self._group(case, candidate)
        turn = (candidate.replicate - 1) * len(labels) + labels.index(candidate.label)
        for arm in launch_order(list(block), turn, self.knobs.integer("DECODE_SEED"), group):
            self.get(block[arm])
        return self.get(candidate)

    def _group(self, case: Case, candidate: LaunchSpec) -> tuple[str, list[str]]:
        """The launches whose orders mirror each other, by label: all lengths, or the prompts of
        one bucket.
        """
        for prompt in self.prompts.prompts if case.work == "prompts" else ():
            if prompt.stem == candidate.label:
                return prompt.bucket, [
                    other.stem for other in self.prompts.prompts if other.bucket == prompt.bucket
                ]
        return case.program, [spec.label for spec in self._launches(case, 1)]

    def _neighbours(self, case: Case, candidate: LaunchSpec) -> Iterator[LaunchSpec]:
        shared = candidate.replicate <= self._first_look(case)
        for name in sorted({case.name, *(self._paired if shared else ())}):
            if self.cases[name].work == case.work:
                for pair in self._pairs(self.cases[name], candidate.replicate):
                    yield from (spec for spec in pair if spec.label == candidate.label)

    def _first_look(self, case: Case) -> int:
        """Replicates until the first planned look."""
        per_replicate = (
            len(self._launches(case, 1)) if case.work == "lengths" else self._smallest_bucket()
        )
        return math.ceil(LOOKS[0] / max(1, per_replicate))

    def _smallest_bucket(self) -> int:
        buckets = [prompt.bucket for prompt in self.prompts.prompts]
        return min((buckets.count(bucket) for bucket in set(buckets)), default=0)

    def _measure(self, case: Case, buckets: Sequence[str]) -> dict[str, PairedStudy]:
        """The studies of some buckets, a family: pairs until a look, the cap or the budget ends
        each of them.
        """
        target = case.knobs(self.knobs).number(case.drop_knob)
        looks = [look for look in LOOKS if look <= self.knobs.integer("DECODE_MAX_PAIRS")]
        studies = {bucket: OpenStudy(list(looks)) for bucket in buckets}
        replicate = 0
        while running := [bucket for bucket, study in studies.items() if study.open]:
            looked = all(studies[bucket].study for bucket in running)
            if looked and self._spent_s >= self.knobs.number("DECODE_BUDGET_S"):
                for bucket in running:  # the next look is the last
                    studies[bucket].looks = [len(studies[bucket].pairs)]
                look(studies, target, each_label=_by_length(case))
                break
            replicate += 1
            for bucket in running:
                self._add_pairs(studies[bucket], case, replicate, bucket)
            look(studies, target, each_label=_by_length(case))
        return {
            bucket: study.end(self.knobs.integer("DECODE_SEED"))
            for bucket, study in studies.items()
        }

    def _add_pairs(self, study: OpenStudy, case: Case, replicate: int, bucket: str) -> None:
        records = self._pair_records(case, replicate, bucket)
        study.problems += [] if records else [self._nothing_to_run(bucket)]
        for pair in records:
            # Of the launches themselves: what the machine did between them is not to change what is
            # decided.
            self._spent_s += sum(record.seconds or 0.0 for record in pair) if study.study else 0.0
            study.add(*pair)

    def _recorded(self, case: Case, bucket: str) -> PairedStudy:
        """A study of the recorded rows: each beside the recorded baseline's row of the same
        name.
        """
        run, other = self.run(case.name, bucket), self.baseline_run(case.name, bucket)
        if problems := row_problems(other, run):
            return PairedStudy((), None, tuple(problems), run.source)
        pairs = tuple(row_pairs(other, run))
        target = case.knobs(self.knobs).number(case.drop_knob)
        return PairedStudy(
            pairs, study_pairs(pairs, target, each_label=_by_length(case))[0], (), run.source
        )

    def _pair_records(
        self, case: Case, replicate: int, bucket: str
    ) -> list[tuple[LaunchRecord, LaunchRecord]]:
        labels = self._labels(bucket)
        pairs = [
            pair for pair in self._pairs(case, replicate) if not bucket or pair[1].label in labels
        ]
        return [
            (self._get_beside_others(case, candidate), self.get(baseline))[::-1]
            for baseline, candidate in pairs
        ]

    def _part(self, run: Run, bucket: str) -> Run:
        """The launches over the prompts of one bucket, so that trouble with another's does not
        count.
        """
        if not bucket or not run.launches:
            return run
        labels = self._labels(bucket)
        return read_run(run.case, [record for record in run.launches if record.label in labels])

    def _labels(self, bucket: str) -> set[str]:
        return {prompt.stem for prompt in self.prompts.prompts if prompt.bucket == bucket}


def _by_length(case: Case) -> bool:
    """Whether every label is a prompt length, to be judged on its own; real prompts are judged by
    bucket.
    """
    return case.work == "lengths"


def in_order(
    order: str, baseline: Sequence[LaunchSpec], candidate: Sequence[LaunchSpec]
) -> list[LaunchSpec]:
    """All launches of one side first, or of each work's two launches now one and now the other
    first.

    The original ran the baseline of ``llm_demo`` first and that of ``llm_bench`` last, so that
    warm-up and drift favoured one side.
    """
    if order != "interleaved":
        return [*baseline, *candidate] if order == "baseline_first" else [*candidate, *baseline]
    pairs = zip(baseline, candidate, strict=True)
    return [
        spec
        for number, pair in enumerate(pairs)
        for spec in (pair if number % 2 == 0 else pair[::-1])
    ]


def _no_dump(record: LaunchRecord) -> str:
    """Why a launch left no KV dump; empty if it did."""
    if record.status != "ok":
        return record.reason
    if not has_dump(record.directory):
        return "the program wrote no KV dump; use a build with the KV dump switch, or give DUMP_DIR"
    return ""
