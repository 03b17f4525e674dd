"""Claims checked against what else the runtime printed. Pure; every check says which output it needs."""

from __future__ import annotations

from pytest_h2o.gating import Evidence
from pytest_h2o.results import Run


def eviction_evidence(run: Run) -> list[Evidence]:
    """A lossy ratio is only true where KV shrank: plan lines against later ``kv=`` values and dropped-plan lines.

    Needs ``[H2O]`` lines (``kv_h2o_log_stats``) or the ``h2o_evictions_*`` metrics.
    """
    found = [*_from_log_lines(run), *_from_counters(run)]
    return found or [Evidence(holds=None, text="neither [H2O] lines nor eviction counters were printed")]


def _from_log_lines(run: Run) -> list[Evidence]:
    found: list[Evidence] = []
    for record, facts in zip(run.launches, run.facts, strict=True):
        layers = facts.layers.values()
        plans = sum(layer.plans for layer in layers)
        stale = sum(layer.stale_plans for layer in layers)
        shrank = sum(layer.followed_by_smaller_kv for layer in layers)
        if plans and stale * 2 > plans:
            text = f"{stale} of {plans} eviction plans were dropped as stale, and KV grew to {facts.max_kv} tokens"
            found.append(Evidence(holds=False, text=f"{record.spec.name}: {text} ({record.stdout})"))
        elif shrank:
            found.append(Evidence(holds=True, text=f"{record.spec.name}: KV shrank after {shrank} of {plans} plans"))
    return found


def _from_counters(run: Run) -> list[Evidence]:
    planned = {row.label: sample.mean for row, sample in run.samples("h2o_evictions_planned")}
    found: list[Evidence] = []
    for row, applied in run.samples("h2o_evictions_applied"):
        plans = planned.get(row.label)
        if plans:
            text = f"{row.label}: {applied.mean:g} of {plans:g} planned evictions were applied"
            found.append(Evidence(holds=applied.mean >= plans, text=text))
    return found
