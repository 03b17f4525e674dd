"""The memory of the baseline beside that of a candidate with nothing to evict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_h2o.evidence.memory import baseline_memory
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.plan.relations import MODE, SameText
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Evidence


def unevicted_memory(texts: Texts, comparisons: Iterable[SameText]) -> Iterator[Evidence]:
    """What the arms of a relation show, whose launches are there."""
    short = _short_baselines(texts)
    found: list[tuple[LaunchRecord, LaunchRecord]] = []
    for pair in comparisons:
        candidate = pair.other.spec
        baseline = short.get(candidate.label, pair.expected.spec)
        if baseline.gen_tokens == candidate.gen_tokens and not _stores(candidate):
            found.append((texts.lab.get(baseline), texts.lab.get(candidate)))
    yield from baseline_memory(found)


def _short_baselines(texts: Texts) -> dict[str, LaunchSpec]:
    """By label, baselines that decode no more than a relation needs, if they are launched anyway:
    what more tokens hold is no difference then.
    """
    if "greedy" not in texts.lab.demand.relations:
        return {}
    found: dict[str, LaunchSpec] = {}
    for pair in texts.lab.workload.relations.comparisons("greedy"):
        spec = pair.other.spec
        if not spec.config.get("kv_h2o_enable"):
            found[spec.label] = spec
    return found


def _stores(spec: LaunchSpec) -> bool:
    """Whether a launch holds encoded blocks in place of raw values, and so less."""
    return bool(spec.config.get("kv_lossless_enable")) and spec.config.get(MODE) == "store"
