"""The reports of m3, llm_demo, final and all_in_one, made from the verdicts of a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, product
from statistics import fmean
from typing import Any, TypeVar

from pytest_h2o.kit.documents import (
    AllInOneReport,
    DemoBucket,
    DemoPackRow,
    DemoPart,
    DemoReport,
    DemoStatistics,
    DemoSummary,
    FinalPart,
    FinalReport,
    M3Case,
    M3PackRow,
    M3Part,
    M3Report,
    M3Row,
    Number,
    RuntimePart,
    RuntimeRow,
)
from pytest_h2o.kit.quality_gate import view
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.cases import BASELINE
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.suites import SUITE_PARTS, on_kind
from pytest_h2o.report.judged import Gates, Judged
from pytest_h2o.report.models import Document
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Verdict

JOINT = ("joint_full", "joint_store")
DEMO = "candidate"
Part = TypeVar("Part", M3Part, DemoPart, FinalPart)


def case_folder(name: str) -> str:
    """Where the files of a case are, in the run directory."""
    return f"cases/{name}"


def m3_rows(judged: Judged) -> list[M3Row]:
    """One row per launch of a joint case."""
    rows = []
    for name in judged.cases_of("m3"):
        case = judged.lab.cases[name]
        mode = case.knobs(judged.lab.knobs).text("KV_LOSSLESS_RUNTIME_MODE")
        result = view(judged, name).result(f"{case_folder(name)}/summary.md")
        group, _, kind = name.partition("@")
        joint = on_kind(group.rpartition("-")[0], kind)
        own = {"case": joint, "runtime_mode": mode, "run": case.replicate}
        rows.append(M3Row.model_validate(result.model_dump() | own))
    return rows


def m3_report(judged: Judged) -> M3Report:
    """The joint cases together."""
    rows = m3_rows(judged)
    cases = {}
    for kind, joint in product(judged.lab.workload.kinds or [""], JOINT):
        name = on_kind(joint, kind)
        if mine := [row for row in rows if row.case == name]:
            cases[name] = _m3_case(mine)
    return M3Report(
        overall_pass=judged.accepted("m3"),
        total_runs=len(rows),
        overall_pass_runs=sum(row.overall_pass for row in rows),
        cases=cases,
        not_judged=judged.not_judged("m3"),
    )


def _m3_case(rows: Sequence[M3Row]) -> M3Case:
    def known(key: str) -> list[float]:
        return [getattr(row, key) for row in rows if getattr(row, key) is not None]

    def largest(key: str) -> Number:
        return max(known(key), default=None)

    return M3Case(
        runs=len(rows),
        overall_pass_runs=sum(row.overall_pass for row in rows),
        decode_best_min=min(known("decode_best"), default=None),
        decode_best_max=largest("decode_best"),
        decode_drop_ratio_max=largest("decode_drop_ratio"),
        runtime_decomp_best_us_max=largest("runtime_decomp_best_us"),
        runtime_queue_peak_best_max=largest("runtime_queue_peak_best"),
        runtime_fallback_best_max=largest("runtime_fallback_best"),
        runtime_backpressure_skip_best_max=largest("runtime_backpressure_skip_best"),
    )


def statistics(rows: Sequence[Row], launched: int) -> DemoStatistics:
    """Statistics over the rows of the launches that ended well."""

    def values(metric: str) -> list[float]:
        return [row.samples[metric].mean for row in rows if metric in row.samples]

    totals: list[float] = []
    for row in rows:
        lossy, lossless = row.samples.get("h2o_lossy"), row.samples.get("h2o_lossless")
        if lossy and lossless:
            totals.append(lossy.mean * lossless.mean)
    speeds = values("decode_tps")
    return DemoStatistics(
        total_runs=launched,
        pass_runs=len(rows),
        decode_tps_avg=_mean(speeds),
        decode_tps_min=min(speeds, default=None),
        decode_tps_max=max(speeds, default=None),
        h2o_keep_ratio_avg=_mean(values("h2o_keep")),
        h2o_lossy_ratio_avg=_mean(values("h2o_lossy")),
        h2o_lossless_ratio_avg=_mean(values("h2o_lossless")),
        h2o_runtime_total_ratio_avg=_mean(totals),
        h2o_lossless_raw_mb_avg=_mean(values("h2o_lossless_raw_mb")),
        h2o_lossless_comp_mb_avg=_mean(values("h2o_lossless_comp_mb")),
        runtime_decomp_us_max=max(values("h2o_lossless_decomp_us"), default=None),
        decode_cache_hit_max=max(values("h2o_lossless_decode_cache_hit"), default=None),
        overall_pass=0 < launched == len(rows),
    )


def demo_summaries(judged: Judged) -> dict[str, DemoSummary]:
    """Baseline and candidate over the real prompts, as a whole and by bucket."""
    found: dict[str, DemoSummary] = {}
    for tag, run in demo_sides(judged).items():
        found[tag] = _demo_summary(judged, tag, run)
    return found


def demo_sides(judged: Judged) -> dict[str, Run]:
    """The launches of baseline and candidate."""
    return {BASELINE: judged.lab.baseline_run(DEMO), DEMO: judged.run(DEMO)}


def _demo_summary(judged: Judged, tag: str, run: Run) -> DemoSummary:
    buckets = {prompt.stem: prompt.bucket for prompt in judged.lab.prompts.prompts}
    order = judged.lab.buckets
    launched = Counter(buckets.get(record.label) for record in run.launches)
    parts = {}
    for bucket in order:
        rows = [row for row in run.rows if buckets.get(row.label) == bucket]
        parts[bucket] = statistics(rows, launched[bucket])
    whole = statistics(run.rows, len(run.launches))
    return DemoSummary(run_tag=tag, bucket_order=order, bucket_stats=parts, **whole.model_dump())  # type: ignore[arg-type]


def demo_report(judged: Judged) -> DemoReport:
    """Candidate against baseline on real prompts."""
    base, candidate = demo_summaries(judged).values()
    gates = judged.suite("llm_demo")
    knobs = judged.lab.cases[DEMO].knobs(judged.lab.knobs)
    drop = gates.verdict("decode_drop")
    buckets: dict[str, DemoBucket] = {}
    for bucket in judged.lab.buckets:
        buckets[bucket] = _bucket(judged, knobs, bucket, base, candidate)
    slower = [name for name, bucket in buckets.items() if bucket.decode_pass is False]
    return DemoReport(
        overall_pass=judged.accepted("llm_demo"),
        baseline_summary="baseline_summary.json",
        candidate_summary="candidate_summary.json",
        decode_drop_ratio=drop.value if drop else None,
        decode_drop_target=drop.target if drop else None,
        decode_pass=gates.passed("decode_drop"),
        require_runtime_decomp=knobs.on("REQUIRE_RUNTIME_DECOMP"),
        runtime_decomp_best_us=candidate.runtime_decomp_us_max,
        runtime_decomp_pass=gates.passed("decompression_active"),
        require_decode_cache_hit=knobs.on("REQUIRE_DECODE_CACHE_HIT"),
        decode_cache_hit_best=candidate.decode_cache_hit_max,
        decode_cache_hit_pass=gates.passed("decode_cache_hit"),
        require_bucket_decode_pass=knobs.on("REQUIRE_BUCKET_DECODE_PASS"),
        bucket_decode_pass=gates.passed("bucket_decode"),
        bucket_decode_failures=slower,
        bucket_report=buckets,
        baseline_overall_pass=base.overall_pass,
        candidate_overall_pass=candidate.overall_pass,
        not_judged=judged.not_judged("llm_demo"),
        **_averages(base, candidate, DEMO_AVERAGES),
    )


BUCKET_AVERAGES = {
    "decode_tps_avg": "decode_tps_avg",
    "lossy_ratio_avg": "h2o_lossy_ratio_avg",
    "runtime_total_ratio_avg": "h2o_runtime_total_ratio_avg",
}
DEMO_AVERAGES = BUCKET_AVERAGES | {
    "keep_ratio_avg": "h2o_keep_ratio_avg",
    "lossless_ratio_avg": "h2o_lossless_ratio_avg",
}


def _averages(
    base: DemoStatistics, candidate: DemoStatistics, keys: dict[str, str]
) -> dict[str, Any]:
    averages = {}
    for key, name in keys.items():
        averages[f"baseline_{key}"] = getattr(base, name)
        averages[f"candidate_{key}"] = getattr(candidate, name)
    return averages


def _bucket(
    judged: Judged, knobs: Knobs, bucket: str, base: DemoSummary, candidate: DemoSummary
) -> DemoBucket:
    kind = judged.lab.cases[DEMO].kind if judged.lab.workload.kinds else ""
    ours: list[Verdict] = []
    for verdict in judged.suite("llm_demo").verdicts:
        if verdict.case == on_kind(bucket, kind) and verdict.gate == "bucket_decode":
            ours.append(verdict)
    gates = Gates(ours, judged.tolerated)
    before, after = base.bucket_stats[bucket], candidate.bucket_stats[bucket]
    return DemoBucket(
        baseline_runs=before.total_runs,
        candidate_runs=after.total_runs,
        decode_drop_ratio=gates.value("bucket_decode"),
        decode_gate_enabled=knobs.on("REQUIRE_BUCKET_DECODE_PASS"),
        decode_pass=gates.passed("bucket_decode"),
        **_averages(before, after, BUCKET_AVERAGES),
    )


def final_report(judged: Judged) -> FinalReport:
    """The acceptance: one row per runtime case, one for m3, one for the real prompts, each if any
    gate was judged.
    """
    rows: list[RuntimeRow | M3PackRow | DemoPackRow] = []
    for name in judged.cases_of("runtime"):
        rows.append(_runtime_row(judged, name))
    if judged.suite("m3").verdicts:
        rows.append(_m3_pack(m3_report(judged)))
    if "llm_demo" in _suites_in(judged, "final"):
        rows.append(_demo_pack(demo_report(judged)))
    suites = Counter(row.suite for row in rows)
    return FinalReport(
        overall_pass=judged.accepted("final"),
        total_cases=len(rows),
        runtime_cases=suites["runtime"],
        m3_cases=suites["m3"],
        llm_demo_cases=suites["llm_demo"],
        rows=rows,
        not_judged=judged.not_judged("final"),
    )


def _runtime_row(judged: Judged, name: str) -> RuntimeRow:
    result = view(judged, name).result(f"{case_folder(name)}/summary.md")
    return RuntimeRow(
        **result.model_dump(),
        lossy_pass=judged.case(name).passed("lossy"),
        lossless_online_pass=judged.suite("offline").passed("online_sim_lossless"),
    )


def _suites_in(judged: Judged, suite: str) -> set[str]:
    found: set[str] = set()
    for verdict in judged.suite(suite).verdicts:
        found.update(verdict.suite_names)
    return found


def _m3_pack(report: M3Report) -> M3PackRow:
    joint: dict[str, Any] = {}
    for case in JOINT:
        for key in ("decode_best_min", "decode_best_max", "runtime_decomp_best_us_max"):
            joint[f"{case}_{key}"] = getattr(report.cases.get(case), key, None)
    return M3PackRow(
        case="m3_pack",
        summary="m3/m3_report.json",
        overall_pass=report.overall_pass,
        total_runs=report.total_runs,
        overall_pass_runs=report.overall_pass_runs,
        **joint,
    )


def _demo_pack(report: DemoReport) -> DemoPackRow:
    return DemoPackRow(
        case="llm_demo_real_prompt_pack",
        summary="llm_demo/llm_demo_report.json",
        **_shared(report, DemoPackRow),
    )


def all_in_one_report(judged: Judged) -> AllInOneReport:
    """Every part that no knob turns off."""
    rows = list(chain(_runtime_parts(judged), _suite_parts(judged)))
    return AllInOneReport(
        overall_pass=judged.accepted("all_in_one"),
        total_cases=len(rows),
        suite_counts=dict(Counter(row.suite for row in rows)),
        rows=rows,
        not_judged=judged.not_judged("all_in_one"),
    )


def _runtime_parts(judged: Judged) -> Iterable[RuntimePart]:
    for name in judged.cases_of("all_in_one"):
        folder = case_folder(name)
        case = view(judged, name)
        result = case.result(f"{folder}/summary.md")
        drop = case.gates.verdict("decode_drop")
        baseline = drop.baseline if drop else None
        yield RuntimePart(
            **_shared(result, RuntimePart),
            return_code=int(not result.overall_pass),
            out_dir=folder,
            baseline_mode=name.removeprefix("runtime_"),
            decode_baseline=baseline.value if baseline else None,
            decode_baseline_source=baseline.source if baseline else "",
            decode_baseline_samples=baseline.samples if baseline else 0,
        )


def _suite_parts(judged: Judged) -> Iterable[M3Part | DemoPart | FinalPart]:
    on: set[str] = set()
    for knob, part in SUITE_PARTS.items():
        if judged.lab.knobs.on(knob) and judged.suite(part).verdicts:
            on.add(part)
    if "m3" in on:
        yield _part(M3Part, "m3_pack", "m3", m3_report(judged))
    if "llm_demo" in on:
        yield _part(DemoPart, "llm_demo_real_prompt_pack", "llm_demo", demo_report(judged))
    if "final" in on:
        yield _part(FinalPart, "final_acceptance_pack", "final", final_report(judged))


def _part(
    kind: type[Part], case: str, folder: str, report: M3Report | DemoReport | FinalReport
) -> Part:
    file = f"{folder}/{folder}_report.json"
    own: dict[str, Any] = {"case": case, "out_dir": folder, "summary": file, "report_json": file}
    own["return_code"] = int(not report.overall_pass)
    return kind.model_validate(own | _shared(report, kind))


def _shared(source: Document, kind: type[Document]) -> dict[str, Any]:
    """What a document of ``kind`` has from another: the values of equal names."""
    names = type(source).model_fields.keys() & kind.model_fields.keys()
    return {name: getattr(source, name) for name in names}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
