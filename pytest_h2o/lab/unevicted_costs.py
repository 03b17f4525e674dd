"""What the baseline costs beside a candidate with nothing to evict: memory, and time on real
prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_h2o.evidence.memory import baseline_memory
from pytest_h2o.evidence.requests import requests_of
from pytest_h2o.evidence.unevicted import BASELINE
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.plan.relations import MODE, Arm, SameText, repeated
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Evidence

# So much longer for a token, three times in a row, is no noise.
SLOWER, ATTEMPTS = 1.3, 3


def unevicted_costs(texts: Texts, comparisons: Iterable[SameText]) -> Iterator[Evidence]:
    """What the arms of a relation show, whose launches are there."""
    short = _short_baselines(texts)
    found: list[tuple[LaunchRecord, LaunchRecord]] = []
    for pair in comparisons:
        candidate = pair.other
        baseline = short.get(candidate.spec.label, pair.expected)
        if baseline.spec.gen_tokens != candidate.spec.gen_tokens:
            continue
        yield from _slow_baseline(texts, baseline, candidate)
        if not _stores(candidate.spec):
            found.append((texts.of(baseline).record, texts.of(candidate).record))
    yield from baseline_memory(found)


def _slow_baseline(texts: Texts, baseline: Arm, candidate: Arm) -> Iterator[Evidence]:
    """A baseline that is far slower is launched again, and the candidate after it."""
    ratios: list[float] = []
    for _ in range(ATTEMPTS):
        before, after = _token_cost(texts, baseline), _token_cost(texts, candidate)
        if not before or not after or before <= SLOWER * after:
            return
        ratios.append(before / after)
        baseline, candidate = repeated(baseline), repeated(candidate)
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    text = f"{baseline.spec.label}: a token takes the baseline {shown} times as long"
    yield Evidence.of(BASELINE, False, f"{text} as the candidate with nothing to evict")


def _token_cost(texts: Texts, arm: Arm) -> float | None:
    """What a token of the answer took; None where nothing tells."""
    requests = requests_of(texts.of(arm).record)
    return requests[0].token_cost if requests else None


def _short_baselines(texts: Texts) -> dict[str, Arm]:
    """By label, baselines that decode no more than a relation needs, if they are launched anyway:
    what more tokens cost is no difference then.
    """
    if "greedy" not in texts.lab.demand.relations:
        return {}
    found: dict[str, Arm] = {}
    for pair in texts.lab.workload.relations.comparisons("greedy"):
        if not pair.other.spec.config.get("kv_h2o_enable"):
            found[pair.other.spec.label] = pair.other
    return found


def _stores(spec: LaunchSpec) -> bool:
    """Whether a launch holds encoded blocks in place of raw values, and so less."""
    return bool(spec.config.get("kv_lossless_enable")) and spec.config.get(MODE) == "store"
