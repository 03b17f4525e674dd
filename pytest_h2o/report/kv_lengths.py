"""The KV length of each layer over the decoded tokens of one launch, read from its log lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_h2o.parsers.lines import read_pieces
from pytest_h2o.parsers.loglines import AGAIN_TOKENS, H2O, STALE_PLAN, segments
from pytest_h2o.parsers.rows import ParseError, Row
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch

MAX_LAYERS, MAX_PLANS = 64, 2000
_PLAN = re.compile(r"layer=([0-9]{1,4}) .*?\bkv=([0-9]{1,9}) .*?\bevict=([0-9]{1,9})\b")
_STALE = re.compile(r"layer=([0-9]{1,4})\b")


@dataclass
class EvictionPlan:
    """A plan of one layer that met ``kv`` tokens to drop ``evict`` of them, when ``decoded`` tokens
    were generated; not every one is applied.
    """

    layer: int
    kv: int
    evict: int
    decoded: int
    applied: bool = True


@dataclass(frozen=True, kw_only=True)
class KvPoint:
    """The length of a layer's cache when ``decoded`` tokens were generated; ``event`` says what
    happened there: ``evicted``, ``dropped plan`` or nothing.
    """

    layer: int
    decoded: int
    tokens: int
    event: str = ""


@dataclass(frozen=True)
class KvTrace:
    """What one launch's log tells; ``prompt`` and ``decoded`` are the lengths of its only row."""

    label: str
    prompt: int
    decoded: int
    points: Sequence[KvPoint]


def longest_trace(records: Iterable[LaunchRecord]) -> KvTrace | None:
    """The trace of the launch with the longest prompt among those that printed one row, one
    response and eviction plans.
    """
    found: list[tuple[int, LaunchRecord, Row]] = []
    for record in records:
        if record.spec.line_by_line or not record.spec.config.get("kv_h2o_enable"):
            continue
        rows = read_launch(record, ())[0]
        if len(rows) == 1 and record.status == "ok" and (record.repeat or 1) == 1:
            found.append((rows[0].prompt_tokens or 0, record, rows[0]))
    # A few suffice: those that follow are shorter still.
    for prompt, record, row in sorted(found, key=lambda item: -item[0])[:8]:
        if not prompt or not row.decode_tokens:
            continue
        try:
            plans = eviction_plans(record, prompt)
        except ParseError:
            continue
        if plans:
            points = list(kv_points(plans, prompt, row.decode_tokens))
            return KvTrace(row.label, prompt, row.decode_tokens, points)
    return None


def eviction_plans(record: LaunchRecord, prompt: int) -> list[EvictionPlan]:
    """The plans in a launch's stdout, in order, of a response to ``prompt`` tokens.

    Raises ParseError if the file cannot be read.
    """
    log = _PlanLog(prompt)
    for segment in segments(read_pieces(record.stdout)):
        if segment.mark == STALE_PLAN and (stale := _STALE.search(segment.text)):
            log.drop(int(stale[1]))
        elif segment.mark == H2O and (plan := _PLAN.search(segment.text)):
            log.plan(*map(int, plan.groups()))
    return log.plans


class _PlanLog:
    """Follows the lines; what a layer lost so far tells how many tokens were decoded at its next
    one.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.plans: list[EvictionPlan] = []
        self.last: dict[int, EvictionPlan] = {}
        self.lost: Counter[int] = Counter()
        self.clock = 0

    def drop(self, layer: int) -> None:
        """The last plan of a layer is not applied."""
        plan = self.last.get(layer)
        if plan and plan.applied:
            plan.applied = False
            self.lost[layer] -= plan.evict

    def plan(self, layer: int, kv: int, evict: int) -> None:
        """A plan counts as applied until its layer shows otherwise."""
        if len(self.plans) >= MAX_PLANS or (
            layer not in self.last and len(self.last) >= MAX_LAYERS
        ):
            return
        if self._made_again(layer, kv):
            self.drop(layer)
        decoded = max(kv + self.lost[layer] - self.prompt, 0)
        self.clock = max(self.clock, decoded)
        plan = EvictionPlan(layer, kv, min(evict, kv), decoded)
        self.lost[layer] += plan.evict
        self.last[layer] = plan
        self.plans.append(plan)

    def _made_again(self, layer: int, kv: int) -> bool:
        """Whether the layer soon plans again without being shorter, at a time that fits those of
        the other layers; one that was shortened and grew again would lie behind them.
        """
        last = self.last.get(layer)
        if last is None or not last.applied or not 0 <= kv - last.kv <= AGAIN_TOKENS:
            return False
        return kv + self.lost[layer] - last.evict - self.prompt >= self.clock


def kv_points(plans: Iterable[EvictionPlan], prompt: int, decoded: int) -> Iterator[KvPoint]:
    """The corners of each layer's curve; what a layer has lost tells how far decoding was."""
    by_layer: dict[int, list[EvictionPlan]] = {}
    for plan in plans:
        by_layer.setdefault(plan.layer, []).append(plan)
    for layer, own in sorted(by_layer.items()):
        lost = 0
        yield KvPoint(layer=layer, decoded=0, tokens=prompt)
        for plan in own:
            now = min(plan.decoded, decoded)
            if not plan.applied:
                yield KvPoint(layer=layer, decoded=now, tokens=plan.kv, event="dropped plan")
                continue
            lost += plan.evict
            yield KvPoint(layer=layer, decoded=now, tokens=plan.kv)
            yield KvPoint(layer=layer, decoded=now, tokens=plan.kv - plan.evict, event="evicted")
        yield KvPoint(layer=layer, decoded=decoded, tokens=max(prompt + decoded - lost, 0))
