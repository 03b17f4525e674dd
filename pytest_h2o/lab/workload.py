"""The work of a session: its cases, its prompts, and the launches that each case consists of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from pytest_h2o.lab.recordings import Recording
from pytest_h2o.lab.relation_work import RelationWork
from pytest_h2o.plan.cases import (
    CANDIDATE,
    Case,
    all_cases,
    baseline_of,
    dump_launch,
    launches,
)
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.prompts import PromptSelection, select_prompts
from pytest_h2o.plan.relations import RELATIONS
from pytest_h2o.plan.seats import kinds_apart, parse_hosts
from pytest_h2o.plan.specs import LaunchSpec, Work
from pytest_h2o.plan.suites import on_kind
from pytest_h2o.runtimes import programs_by_work
from pytest_h2o.runtimes.base import CAPABILITIES, Capability
from pytest_h2o.runtimes.programs import BOTH


@dataclass
class Workload:
    """What can be launched, or what was recorded; nothing here depends on what gates ask for.

    ``kind`` is the kind of host that dumps, held-out texts and relations are launched on, the first
    one where it is empty.
    """

    knobs: Knobs
    prompt_dir: Path
    combinations: Sequence[LaunchSpec] = ()
    recording: Recording | None = None
    programs: Mapping[Work, str] = field(default_factory=lambda: programs_by_work(BOTH))
    reports: Collection[Capability] = frozenset(CAPABILITIES)
    unseen_dir: Path = Path("unseen_prompts")
    kind: str = ""
    _specs: dict[tuple[str, int, int | None], list[LaunchSpec]] = field(default_factory=dict)

    @cached_property
    def cases(self) -> Mapping[str, Case]:
        """Every case by name."""
        if self.recording:
            return self.recording.cases(self.knobs)
        return all_cases(self.knobs, self.combinations, self.programs)

    @cached_property
    def prompts(self) -> PromptSelection:
        """The real prompts that the knobs select, and what was wrong with the others."""
        if self.recording:
            return self.recording.prompts
        return select_prompts(self.prompt_dir, self.knobs)

    @property
    def buckets(self) -> list[str]:
        """The buckets of the selected prompts, in order."""
        return list(dict.fromkeys(prompt.bucket for prompt in self.prompts.prompts))

    @property
    def kinds(self) -> list[str]:
        """The kinds of hosts that are judged apart; none of a recording."""
        return [] if self.recording else kinds_apart(parse_hosts(self.knobs.text("H2O_HOSTS")))

    def labels(self, bucket: str) -> list[str]:
        """The labels of the launches over the prompts of one bucket."""
        return [prompt.stem for prompt in self.prompts.prompts if prompt.bucket == bucket]

    def baseline_mode(self, name: str) -> str:
        """What the decode speed of a case is held against: DECODE_BASELINE_MODE, as the case has
        it.

        Real prompts have no other baseline than launches of this session.
        """
        case = self.cases[name]
        mode = case.knobs(self.knobs).text("DECODE_BASELINE_MODE")
        if case.work == "prompts" and mode != "paired":
            return "same_batch"
        return mode

    def launches(
        self, case: Case, replicate: int | None = None, repeat: int | None = None
    ) -> list[LaunchSpec]:
        """The launches of a case, made once: all looks at them are at the same objects."""
        replicate = replicate or case.replicate
        key = case.name, replicate, repeat
        if key not in self._specs:
            paths = [prompt.path for prompt in self.prompts.prompts]
            self._specs[key] = launches(case, self.knobs, paths, replicate=replicate, repeat=repeat)
        return self._specs[key]

    def batch(self, case: Case) -> list[LaunchSpec]:
        """A case's launches and those of a baseline in the same session, in RUN_ORDER; none if it
        has none there.
        """
        if self.baseline_mode(case.name) != "same_batch":
            return []
        candidates = self.launches(case)
        baselines = [baseline_of(spec) for spec in candidates]
        return in_order(self.knobs.text("RUN_ORDER"), baselines, candidates)

    def dump_launches(self) -> list[LaunchSpec]:
        """The launches that write the KV dump; none if one is given."""
        if self.knobs.text("DUMP_DIR") or "kv_dump" not in self.reports:
            return []
        chosen = self.prompts.prompts[: self.knobs.integer("KV_DUMP_PROMPTS")]
        candidate = self.cases[on_kind(CANDIDATE, self.kind)]
        return [dump_launch(candidate, self.knobs, prompt.path) for prompt in chosen]

    def quality_launches(self) -> list[LaunchSpec]:
        """The launch that predicts a held-out text; none in a recording, or where it is off
        or not reported.
        """
        if self.recording or not self.knobs.on("REQUIRE_QUALITY"):
            return []
        if "quality" not in self.reports:
            return []
        first = self.launches(self.cases[on_kind("full_strict", self.kind)], 1, 1)[0]
        return [replace(first, quality=True)]

    def on(self, kind: str) -> Workload:
        """The same work on a kind of host."""
        found = copy(self)  # what was made so far stays
        found.kind = kind
        return found

    @property
    def relations(self) -> RelationWork:
        """The launches of relations, made of those of the candidate."""
        return RelationWork(
            self.knobs,
            self.prompts.prompts,
            self.buckets,
            self.launches(self.cases[on_kind(CANDIDATE, self.kind)]),
            self.unseen_dir,
            recorded=self.recording is not None,
        )

    def has(self, spec: LaunchSpec) -> bool:
        """Whether a launch is one that a case or relation asks for, or its baseline, however often;
        of another arm, whether it is over a length or prompt of those.
        """
        if spec.quality or spec.arm not in self._asked["arm"]:
            return spec.quality or spec.label in self._asked["label"]
        return _once(spec) in self._asked["work"]

    @cached_property
    def _asked(self) -> dict[str, set[str]]:
        return _asked_for(self)

    def text_launches(self, case: Case) -> tuple[LaunchSpec, LaunchSpec]:
        """The launches that predict a held-out text: with plain KV, and as ``case`` has it."""
        first = self.launches(case, 1, 1)[0]
        program = self.programs.get("text", first.program)
        candidate = replace(first, program=program, quality=True)
        return baseline_of(candidate), candidate

    def nothing_to_run(self, bucket: str = "") -> str:
        """Why there is no launch of real prompts: what was wrong with them, or with where they were
        looked for.
        """
        where = f" in bucket {bucket}" if bucket else ""
        return f"no prompt to run{where}: {self.without_prompts}"

    @property
    def without_prompts(self) -> str:
        """What all gates on real prompts fail by where none can be run."""
        if problems := self.prompts.describe_problems():
            return problems
        if self.recording:
            trouble = self.recording.trouble(self.cases[CANDIDATE])
            return trouble or f"{self.recording.directory} has no launch of a real prompt"
        return f"none was found in {self.prompt_dir}"


def _asked_for(work: Workload) -> dict[str, set[str]]:
    """The arms, labels and works of all launches that a case or relation may ask for."""
    specs: list[LaunchSpec] = []
    for case in work.cases.values():
        specs += work.launches(case)
    specs += [baseline_of(candidate) for candidate in specs]
    for kind in ("", *work.kinds):
        for relation in RELATIONS:
            specs += work.on(kind).relations.launches(relation)
    asked: dict[str, set[str]] = {"arm": set(), "label": set(), "work": set()}
    for spec in specs:
        asked["arm"].add(spec.arm)
        asked["label"].add(spec.label)
        asked["work"].add(_once(spec))
    return asked


def _once(spec: LaunchSpec) -> str:
    """What a launch does, whichever of its repeats it is, and wherever its prompt lies."""
    prompt = Path(spec.prompt_file.name) if spec.prompt_file else None
    once = replace(spec, prompt_file=prompt, replicate=1, repeat=None, paired_with="")
    return once.key


def in_order(
    order: str, baseline: Sequence[LaunchSpec], candidate: Sequence[LaunchSpec]
) -> list[LaunchSpec]:
    """All launches of one side first, or of each work's two launches now one and now the other
    first.

    Where one side comes first, warm-up and drift favour one of them.
    """
    if order == "baseline_first":
        return list(chain(baseline, candidate))
    if order == "candidate_first":
        return list(chain(candidate, baseline))
    ordered: list[LaunchSpec] = []
    for number, pair in enumerate(zip(baseline, candidate, strict=True)):
        ordered += pair if number % 2 == 0 else pair[::-1]
    return ordered
