"""The ``Quality Gate`` of one ``llm_bench`` case: the original's keys in the original's order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.kit.documents import CaseResult
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.report.judged import Gates, Judged
from pytest_h2o.report.text import markdown_text
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Verdict

Pairs = Iterator[tuple[str, object]]
RATIO_KEYS = ("decode_drop_ratio", "decode_drop_target")
LIMITS = {
    "queue_peak": "MAX_LOSSLESS_QUEUE_PEAK",
    "fallback": "MAX_LOSSLESS_FALLBACK",
    "backpressure_skip": "MAX_LOSSLESS_BACKPRESSURE_SKIP",
}
GATES = {"backpressure_skip": "backpressure"}


@dataclass(frozen=True)
class CaseView:
    """One case: ``gates`` are its own verdicts and the offline ones of its suite, ``offline`` all
    offline verdicts.

    ``left`` are those of its gates that were not judged, ``whole`` is false if others may not have
    been collected; in either case it has not passed.
    """

    name: str
    gates: Gates
    offline: Gates
    run: Run
    knobs: Knobs
    left: Sequence[str] = ()
    whole: bool = True

    @property
    def passed(self) -> bool:
        """Whether every gate was judged and passed."""
        return self.gates.all_passed and self.whole and not self.left

    def best(self, metric: str, gate: str = "") -> float | None:
        """What the gate measured, else the largest value of any row; None if there is none."""
        value = self.gates.value(gate) if gate else None
        return self.run.highest(metric).value if value is None else value

    def result(self, summary: str) -> CaseResult:
        """The numbers and flags that every row about the case holds."""
        return CaseResult(
            case=self.name,
            summary=summary,
            quality_status="PASS" if self.passed else "FAIL",
            overall_pass=self.passed,
            decode_pass=self.gates.passed("decode_drop"),
            runtime_decomp_pass=self.gates.passed("decompression_active", "decompression_budget"),
            runtime_queue_peak_pass=self.gates.passed("queue_peak"),
            runtime_fallback_pass=self.gates.passed("fallback"),
            decode_best=self.best("decode_tps"),
            decode_drop_ratio=self.gates.value("decode_drop"),
            lossy_best=self.best("h2o_lossy", "lossy"),
            lossless_online_value=self.offline.value("online_sim_lossless"),
            runtime_decomp_best_us=self.best("h2o_lossless_decomp_us", "decompression_budget"),
            runtime_queue_peak_best=self.best("h2o_lossless_queue_peak", "queue_peak"),
            runtime_fallback_best=self.best("h2o_lossless_fallback", "fallback"),
            runtime_backpressure_skip_best=self.best(
                "h2o_lossless_backpressure_skip", "backpressure"
            ),
        )


def view(judged: Judged, name: str) -> CaseView:
    """A case of a session."""
    case = judged.lab.cases[name]
    own = list(judged.case(name).verdicts) + _shared_study(judged, name)
    offline = list(judged.suite("offline").verdicts)
    shared = [verdict for verdict in offline if case.suite in verdict.suite_names]
    return CaseView(
        name=name,
        gates=Gates(own + shared, judged.tolerated),
        offline=Gates(own + offline, judged.tolerated),
        run=judged.run(name),
        knobs=case.knobs(judged.lab.knobs),
        left=judged.not_judged_of(name, case.suite),
        whole=judged.whole,
    )


def _shared_study(judged: Judged, name: str) -> list[Verdict]:
    """The decode verdict of a repeated case, which is judged with the first repeat."""
    if judged.lab.cases[name].replicate == 1 or not judged.lab.shares_study(name):
        return []
    first = judged.case(f"{name.rpartition('-')[0]}-1").verdicts
    return [verdict for verdict in first if verdict.gate == "decode_drop"]


def quality_gate(case: CaseView) -> dict[str, object]:
    """The keys of the ``Quality Gate`` section; None where nothing was measured or judged."""
    result = case.result("")
    keys: dict[str, object] = {"quality_status": result.quality_status}
    keys.update(_ratios(case, result))
    keys.update(_activity(case, result))
    keys.update(_passes(case))
    keys.update(_limits(case))
    keys["runtime_decomp_pass"] = result.runtime_decomp_pass
    keys["overall_pass"] = result.overall_pass
    keys.update(_decode(case, result))
    keys.update(_selected(case))
    return keys


def _ratios(case: CaseView, result: CaseResult) -> Pairs:
    online = case.offline.passed("online_sim_lossless")
    yield "lossy_target", case.knobs.number("LOSSY_TARGET")
    yield "lossy_best", result.lossy_best
    yield "lossy_pass", case.gates.passed("lossy")
    yield "lossless_target", case.knobs.number("LOSSLESS_TARGET")
    yield "lossless_selected_source", "offline_online_sim"
    yield "lossless_selected_value", result.lossless_online_value
    yield "lossless_selected_pass", online
    yield "lossless_online_value", result.lossless_online_value
    yield "lossless_online_pass", online


def _activity(case: CaseView, result: CaseResult) -> Pairs:
    yield "runtime_decomp_required", True
    yield "runtime_decomp_best_us", result.runtime_decomp_best_us
    yield from _columns(case)
    yield "runtime_decomp_gate_enabled", case.knobs.on("MAX_LOSSLESS_DECOMP_US")
    if case.knobs.on("MAX_LOSSLESS_DECOMP_US"):
        yield "runtime_decomp_target_us", case.knobs.number("MAX_LOSSLESS_DECOMP_US")
    queue_peak = case.best("h2o_lossless_async_queue_peak", "async_activity")
    yield "runtime_async_queue_peak_best", queue_peak
    yield "runtime_async_queue_activity_required", case.knobs.on("REQUIRE_ASYNC_QUEUE_ACTIVITY")
    yield "runtime_async_wait_best_us", case.best("h2o_lossless_async_wait_us", "async_wait")
    yield "runtime_async_wait_gate_enabled", case.knobs.on("MAX_LOSSLESS_ASYNC_WAIT_US")
    if case.knobs.on("MAX_LOSSLESS_ASYNC_WAIT_US"):
        yield "runtime_async_wait_target_us", case.knobs.number("MAX_LOSSLESS_ASYNC_WAIT_US")
    hit, miss = "h2o_lossless_decode_cache_hit", "h2o_lossless_decode_cache_miss"
    yield "runtime_decode_cache_hit_best", case.best(hit, "decode_cache_hit")
    yield "runtime_decode_cache_miss_best", case.best(miss)
    yield "runtime_decode_cache_activity_best", case.run.best_sum(hit, miss, every_row=False).value
    yield "runtime_decode_cache_required", case.knobs.on("REQUIRE_DECODE_CACHE_HIT")
    yield "runtime_decode_cache_activity_required", case.knobs.on("REQUIRE_DECODE_CACHE_ACTIVITY")


def _columns(case: CaseView) -> Pairs:
    verdict = case.gates.verdict("metric_columns")
    missing = verdict.reason if verdict and verdict.outcome == "fail" else "none"
    passed = case.gates.passed("metric_columns")
    yield "runtime_metric_columns_strict", case.knobs.on("STRICT_RUNTIME_METRIC_COLUMNS")
    yield "runtime_metric_columns_ok", passed
    yield "runtime_metric_columns_pass", passed
    yield "runtime_metric_missing_columns", missing


def _passes(case: CaseView) -> Pairs:
    yield "runtime_decomp_required_pass", case.gates.passed("decompression_active")
    yield "runtime_decomp_budget_pass", case.gates.passed("decompression_budget")
    yield "runtime_async_queue_activity_pass", case.gates.passed("async_activity")
    yield "runtime_async_wait_pass", case.gates.passed("async_wait")
    yield "runtime_decode_cache_required_pass", case.gates.passed("decode_cache_hit")
    yield "runtime_decode_cache_activity_pass", case.gates.passed("decode_cache_activity")


def _limits(case: CaseView) -> Pairs:
    for name in LIMITS:
        yield f"runtime_{name}_best", case.best(f"h2o_lossless_{name}", GATES.get(name, name))
    for name, knob in LIMITS.items():
        yield f"runtime_{name}_gate_enabled", case.knobs.on(knob)
        if case.knobs.on(knob):
            yield f"runtime_{name}_target", case.knobs.number(knob)
        yield f"runtime_{name}_pass", case.gates.passed(GATES.get(name, name))


def _decode(case: CaseView, result: CaseResult) -> Pairs:
    """The keys of the decode speed; without a baseline there are none, as in the original."""
    verdict = case.gates.verdict("decode_drop")
    if verdict is None or verdict.baseline is None:
        return
    yield "decode_baseline", verdict.baseline.value
    yield "decode_baseline_source", verdict.baseline.source
    yield "decode_baseline_samples", verdict.baseline.samples
    yield "decode_best", result.decode_best
    yield "decode_drop_ratio", result.decode_drop_ratio
    yield "decode_drop_target", verdict.target
    yield "decode_pass", result.decode_pass


def _selected(case: CaseView) -> Pairs:
    """What the offline evaluations looked at, where there are any."""
    for prefix, gate in (("upper", "upper_bound_lossless"), ("online", "online_sim_lossless")):
        verdict = case.offline.verdict(gate)
        source = Path(verdict.source) if verdict else Path()
        if source.suffix == ".json":
            with suppress(OSError, ValueError, KeyError, TypeError):
                values = json.loads(source.read_bytes())
                yield f"{prefix}_selected_entries", values["selected_entries"]
                yield f"{prefix}_selected_layers", ",".join(map(str, values["selected_layers"]))
                yield f"{prefix}_selected_json", str(source)


def bullets(values: Mapping[str, object]) -> list[str]:
    """Values by key as a Markdown list."""
    return [f"- {key}: {shown(key, value)}" for key, value in values.items()]


def shown(key: str, value: object) -> str:
    """A value as the original writes it: true and false, four decimals (six for drops); ``n/a``
    where there is none.
    """
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return markdown_text(value)
    return f"{value:.6f}" if key in RATIO_KEYS else f"{value:.4f}"
