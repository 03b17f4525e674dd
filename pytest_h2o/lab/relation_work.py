"""The launches of relations: what is compared with what, and over which prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_h2o.plan.cases import baseline_of, of_second_build
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.prompts import Prompt
from pytest_h2o.plan.relations import (
    RELATIONS,
    TURNS,
    Arm,
    SameText,
    mild_only,
    ratios,
    recalled,
    same_text,
    stored,
)
from pytest_h2o.plan.specs import LaunchSpec

# The file with all unseen prompts, a line each.
LINES = "unseen_lines.txt"
# The one whose end repeats a passage begins so.
RECALL = "recall_"
# Further prompts, short ones first, that are answered under a little eviction.
MORE_MILD_PROMPTS = 4
# Further prompts that are made anew where known ones are all answered as without eviction.
MORE_UNSEEN_PROMPTS = 4
# Prompts, short ones first, that two builds answer.
BUILD_PROMPTS = 6


@dataclass(frozen=True)
class RelationWork:
    """The launches that are held against one another, made of those of the candidate.

    Attributes:
        prompts: the selected real prompts.
        buckets: the buckets of these, in order.
        candidates: the launches of the candidate, one over each prompt.
        unseen_dir: where the prompts lie that are made for this session.
        recorded: whether all this is a recording, to which no relation adds launches.
    """

    knobs: Knobs
    prompts: Sequence[Prompt]
    buckets: Sequence[str]
    candidates: Sequence[LaunchSpec]
    unseen_dir: Path
    recorded: bool = False

    def comparisons(self, relation: str) -> list[SameText]:
        """The arms of a relation that must write the same text; none where it is off."""
        tokens = self.knobs.integer("RELATION_TOKENS")
        if relation == "recall":
            prompts = self.renewed_prompts()[:1] if self.relates(relation) else []
            paths = [self.unseen_dir / f"{RECALL}{prompt.path.name}" for prompt in prompts]
            return [recalled(self.candidates[0], path, tokens) for path in paths]
        return same_text(relation, self._related(relation), tokens)

    def ratios(self) -> list[tuple[LaunchSpec, dict[float, Arm]]]:
        """The candidate over each prompt of a relation, and the same at several target ratios.

        Over further prompts only a little is evicted: a single answer may change early by chance.
        """
        tokens = self.knobs.integer("RELATION_TOKENS")
        found = [(spec, ratios(spec, tokens)) for spec in self._related("order")[::TURNS]]
        own = [spec.label for spec, _ in found]
        more = [spec for spec in self._related("order", all_prompts=True) if spec.label not in own]
        for spec in more[:MORE_MILD_PROMPTS]:
            found.append((spec, mild_only(ratios(spec, tokens))))
        return found

    def of_builds(self, *, plain: bool) -> list[tuple[LaunchSpec, LaunchSpec]]:
        """Real prompts answered by the build under test and by the second one, with H2O off or as
        the candidate has it; the second one decodes no more than a relation needs.
        """
        tokens = self.knobs.integer("RELATION_TOKENS")
        pairs: list[tuple[LaunchSpec, LaunchSpec]] = []
        for spec in self._related("builds", all_prompts=True)[:BUILD_PROMPTS]:
            own = baseline_of(spec) if plain else spec
            short = replace(own, gen_tokens=min(tokens, own.gen_tokens))
            pairs.append((own, of_second_build(short)))
        return pairs

    def _related(self, relation: str, *, all_prompts: bool = False) -> list[LaunchSpec]:
        """The candidate over the prompts of a relation, or all that could be; none where it is
        off.
        """
        if not self.relates(relation):
            return []
        specs = {spec.label: spec for spec in self.candidates}
        prompts = self._evicted_prompts() if all_prompts else self.relation_prompts
        return [specs[prompt.stem] for prompt in prompts]

    def launches(self, relation: str) -> list[LaunchSpec]:
        """The launches of a relation, with those that are made anyway."""
        if relation == "unseen":
            unseen = self.unseen_launches(relation)
            return unseen + [baseline_of(spec) for spec in unseen]
        if relation == "strangers":
            return self.unseen_launches(relation) + self.line_by_line()
        if relation == "speed":
            return []  # pairs, planned with those of the decode studies
        specs: list[LaunchSpec] = []
        if relation in ("builds", "release"):
            for own_and_second in self.of_builds(plain=relation == "builds"):
                specs += own_and_second
            return specs
        if relation == "order":
            for candidate, arms in self.ratios():
                specs.append(baseline_of(candidate))
                specs += [arm.spec for arm in arms.values()]
            return specs
        for pair in self.comparisons(relation):
            specs += pair.specs
        return specs

    def relates(self, relation: str) -> bool:
        """Whether a relation is asked for; none is in a recording."""
        return not self.recorded and self.knobs.on(RELATIONS[relation])

    def unseen_launches(self, relation: str, *, more: bool = False) -> list[LaunchSpec]:
        """The candidate over prompts that are made for this session, longer ones first, or over
        some ``more`` of them.
        """
        if not self.relates(relation):
            return []
        specs: list[LaunchSpec] = []
        for prompt in reversed(self.renewed_prompts(more=more)):
            path = self.unseen_dir / f"unseen_{prompt.path.name}"
            specs.append(replace(self._for_unseen, prompt_file=path))
        return specs

    def line_by_line(self) -> list[LaunchSpec]:
        """The candidate over the same prompts, one after the other in one process; its lossless
        coding, if it has any, in store mode, where blocks of one request could serve another.
        """
        if not self.unseen_launches("strangers"):
            return []
        candidate = self._for_unseen
        config = dict(candidate.config)
        if config.get("kv_lossless_enable"):
            config |= stored(candidate)
        path = self.unseen_dir / LINES
        together = replace(candidate, config=config, prompt_file=path, line_by_line=True)
        return [replace(together, arm="line-by-line")]

    @property
    def _for_unseen(self) -> LaunchSpec:
        """The candidate's launch, with text enough to tell whether it is text."""
        first = self.candidates[0]
        tokens = min(first.gen_tokens, 2 * self.knobs.integer("RELATION_TOKENS"))
        return replace(first, gen_tokens=tokens)

    def renewed_prompts(self, *, more: bool = False) -> list[Prompt]:
        """The real prompts that others are made of: as many as relations have, short ones first;
        or the next few.
        """
        prompts, count = self._evicted_prompts(), len(self.relation_prompts)
        if more:
            return prompts[count : count + MORE_UNSEEN_PROMPTS]
        return prompts[:count]

    @property
    def relation_prompts(self) -> list[Prompt]:
        """The first real prompts of each bucket in which something can be evicted or encoded."""
        most = self.knobs.integer("RELATION_PROMPTS")
        taken: Counter[str] = Counter()
        chosen: list[Prompt] = []
        for prompt in self._evicted_prompts():
            taken[prompt.bucket] += 1
            if taken[prompt.bucket] <= most:
                chosen.append(prompt)
        return chosen

    def _evicted_prompts(self) -> list[Prompt]:
        least = self.knobs.integer("H2O_TRIGGER_MIN") - self.knobs.integer("RELATION_TOKENS")
        return _of_length(self.prompts, self.buckets, least)


def _of_length(prompts: Sequence[Prompt], buckets: Sequence[str], least: int) -> list[Prompt]:
    """All real prompts of so many tokens, in which something can be evicted, bucket by bucket; the
    first of all if there is none.
    """
    chosen: list[Prompt] = []
    for bucket in buckets:
        if not bucket.isdigit() or int(bucket) >= least:
            chosen += [each for each in prompts if each.bucket == bucket]
    return chosen or list(prompts[:1])
