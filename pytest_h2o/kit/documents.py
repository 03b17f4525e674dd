"""The JSON documents of a run directory, with the original kit's keys; their schemas ship in
``kit/schemas``.

A number that was not measured and a gate that was not judged are ``null``. A gate that its knob
turns off passes, as in the original. ``not_judged`` names the gates of a suite that were not
selected or not reached: with any of them, ``overall_pass`` is false. ``python -m
pytest_h2o.kit.documents DIRECTORY`` writes the schemas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, create_model

from pytest_h2o.kit.manifest import H2O_COLUMNS, OTHER_COLUMNS, OWN_COLUMNS
from pytest_h2o.report.models import Document, write_schemas

Number = float | None
Flag = bool | None
Status = Literal["PASS", "FAIL"]


class CaseResult(Document):
    """What every row about an ``llm_bench`` case holds."""

    case: str
    summary: str
    quality_status: Status
    overall_pass: bool
    decode_pass: Flag
    runtime_decomp_pass: Flag
    runtime_queue_peak_pass: Flag
    runtime_fallback_pass: Flag
    decode_best: Number
    decode_drop_ratio: Number
    lossy_best: Number
    lossless_online_value: Number
    runtime_decomp_best_us: Number
    runtime_queue_peak_best: Number
    runtime_fallback_best: Number
    runtime_backpressure_skip_best: Number


class M3Row(CaseResult):
    """One line of ``m3/results.jsonl``."""

    runtime_mode: str
    run: int


class M3Case(Document):
    """The launches of one joint case together."""

    runs: int
    overall_pass_runs: int
    decode_best_min: Number
    decode_best_max: Number
    decode_drop_ratio_max: Number
    runtime_decomp_best_us_max: Number
    runtime_queue_peak_best_max: Number
    runtime_fallback_best_max: Number
    runtime_backpressure_skip_best_max: Number


class M3Report(Document):
    """``m3/m3_report.json``."""

    overall_pass: bool
    total_runs: int
    overall_pass_runs: int
    cases: dict[str, M3Case]
    not_judged: list[str]


class DemoRun(Document):
    """One line of ``llm_demo/<tag>_runs.jsonl``: one prompt, in the metrics record and (``cli``) in
    the summary.
    """

    run_index: int
    run_tag: Literal["baseline", "candidate"]
    prompt_file: str
    prompt_bucket: str
    returncode: int | None
    effective_returncode: int
    status_reason: str
    has_cli_summary_metrics: bool
    has_jsonl_summary_metrics: bool
    prompt_tokens: Number
    decode_tokens: Number
    prefill_s: Number
    decode_s: Number
    prefill_tps: Number
    decode_tps: Number
    h2o_metrics: dict[str, Number]
    cli_prompt_tokens: Number
    cli_decode_tokens: Number
    cli_prefill_s: Number
    cli_decode_s: Number
    stdout_log: str
    stderr_log: str
    metrics_jsonl: str


class DemoStatistics(Document):
    """Statistics over the launches of prompts that ended well; ``total_runs`` counts the others
    too.
    """

    total_runs: int
    pass_runs: int
    decode_tps_avg: Number
    decode_tps_min: Number
    decode_tps_max: Number
    h2o_keep_ratio_avg: Number
    h2o_lossy_ratio_avg: Number
    h2o_lossless_ratio_avg: Number
    h2o_runtime_total_ratio_avg: Number
    h2o_lossless_raw_mb_avg: Number
    h2o_lossless_comp_mb_avg: Number
    runtime_decomp_us_max: Number
    decode_cache_hit_max: Number
    overall_pass: bool


class DemoSummary(DemoStatistics):
    """``llm_demo/<tag>_summary.json``: one side of the comparison."""

    run_tag: Literal["baseline", "candidate"]
    bucket_order: list[str]
    bucket_stats: dict[str, DemoStatistics]


class DemoBucket(Document):
    """Baseline and candidate on the prompts of one bucket."""

    baseline_runs: int
    candidate_runs: int
    baseline_decode_tps_avg: Number
    candidate_decode_tps_avg: Number
    decode_drop_ratio: Number
    decode_gate_enabled: bool
    decode_pass: Flag
    baseline_lossy_ratio_avg: Number
    candidate_lossy_ratio_avg: Number
    baseline_runtime_total_ratio_avg: Number
    candidate_runtime_total_ratio_avg: Number


class DemoReport(Document):
    """``llm_demo/llm_demo_report.json``."""

    overall_pass: bool
    baseline_summary: str
    candidate_summary: str
    baseline_decode_tps_avg: Number
    candidate_decode_tps_avg: Number
    decode_drop_ratio: Number
    decode_drop_target: Number
    decode_pass: Flag
    baseline_keep_ratio_avg: Number
    candidate_keep_ratio_avg: Number
    baseline_lossy_ratio_avg: Number
    candidate_lossy_ratio_avg: Number
    baseline_lossless_ratio_avg: Number
    candidate_lossless_ratio_avg: Number
    baseline_runtime_total_ratio_avg: Number
    candidate_runtime_total_ratio_avg: Number
    require_runtime_decomp: bool
    runtime_decomp_best_us: Number
    runtime_decomp_pass: Flag
    require_decode_cache_hit: bool
    decode_cache_hit_best: Number
    decode_cache_hit_pass: Flag
    require_bucket_decode_pass: bool
    bucket_decode_pass: Flag
    bucket_decode_failures: list[str]
    bucket_report: dict[str, DemoBucket]
    baseline_overall_pass: bool
    candidate_overall_pass: bool
    not_judged: list[str]


class RuntimeRow(CaseResult):
    """A ``runtime`` case in ``final/results.jsonl``."""

    suite: Literal["runtime"] = "runtime"
    lossy_pass: Flag
    lossless_online_pass: Flag


class M3PackRow(Document):
    """The m3 pack in ``final/results.jsonl``."""

    suite: Literal["m3"] = "m3"
    case: str
    summary: str
    overall_pass: bool
    total_runs: int
    overall_pass_runs: int
    joint_full_decode_best_min: Number
    joint_full_decode_best_max: Number
    joint_full_runtime_decomp_best_us_max: Number
    joint_store_decode_best_min: Number
    joint_store_decode_best_max: Number
    joint_store_runtime_decomp_best_us_max: Number


class DemoPackRow(Document):
    """The real prompts in ``final/results.jsonl``."""

    suite: Literal["llm_demo"] = "llm_demo"
    case: str
    summary: str
    overall_pass: bool
    baseline_decode_tps_avg: Number
    candidate_decode_tps_avg: Number
    decode_drop_ratio: Number
    decode_drop_target: Number
    runtime_decomp_best_us: Number
    decode_cache_hit_best: Number


class FinalReport(Document):
    """``final/final_report.json``."""

    overall_pass: bool
    total_cases: int
    runtime_cases: int
    m3_cases: int
    llm_demo_cases: int
    rows: list[RuntimeRow | M3PackRow | DemoPackRow]
    not_judged: list[str]


class SuitePart(Document):
    """What every row of ``all_in_one`` holds; ``out_dir`` is the part's folder, ``return_code`` 0
    if it passed.
    """

    suite: str
    case: str
    return_code: int
    overall_pass: bool
    summary: str
    out_dir: str


class RuntimePart(SuitePart):
    """A runtime case with one kind of decode baseline."""

    suite: Literal["runtime"] = "runtime"
    baseline_mode: str
    decode_baseline: Number
    decode_baseline_source: str
    decode_baseline_samples: int
    decode_best: Number
    decode_drop_ratio: Number
    lossy_best: Number
    lossless_online_value: Number
    runtime_decomp_best_us: Number
    runtime_queue_peak_best: Number
    runtime_fallback_best: Number
    runtime_backpressure_skip_best: Number


class M3Part(SuitePart):
    """The m3 pack as a part."""

    suite: Literal["m3"] = "m3"
    report_json: str
    total_runs: int
    overall_pass_runs: int


class DemoPart(SuitePart):
    """The real prompts as a part."""

    suite: Literal["llm_demo"] = "llm_demo"
    report_json: str
    baseline_decode_tps_avg: Number
    candidate_decode_tps_avg: Number
    decode_drop_ratio: Number
    candidate_runtime_total_ratio_avg: Number
    runtime_decomp_best_us: Number
    bucket_decode_pass: Flag


class FinalPart(SuitePart):
    """The acceptance as a part."""

    suite: Literal["final"] = "final"
    report_json: str
    total_cases: int
    runtime_cases: int
    m3_cases: int
    llm_demo_cases: int


class AllInOneReport(Document):
    """``all_in_one/all_in_one_report.json``."""

    overall_pass: bool
    total_cases: int
    suite_counts: dict[str, int]
    rows: list[RuntimePart | M3Part | DemoPart | FinalPart]
    not_judged: list[str]


def _manifest_fields() -> dict[str, Any]:
    """The columns of a launch; those that the original does not have may be absent."""
    fields: dict[str, Any] = {
        "run_id": (str, ...), "prompt_len": (int, ...), "gen_len": (int, ...)
    }  # fmt: skip
    for key in H2O_COLUMNS:
        fields[key.column] = (type(key.engine), ...)
    fields |= {"disable_h2o": (bool, ...), "disable_lossless": (bool, ...)}
    for key in OTHER_COLUMNS:
        fields[key.column] = (type(key.engine), ...)
    for key in OWN_COLUMNS:
        fields[key.column] = (type(key.engine), key.engine)
    last = {"config": (str, ...), "log": (str | None, ...), "return_code": (int | None, ...)}
    return fields | last


ManifestEntry = create_model(
    "ManifestEntry",
    __base__=Document,
    __module__=__name__,
    __doc__="One launch of ``manifest.json``, in the order of the original sweep's keys.",
    **_manifest_fields(),
)


SCHEMAS: dict[str, type[BaseModel]] = {
    "m3_row": M3Row,
    "m3_report": M3Report,
    "llm_demo_run": DemoRun,
    "llm_demo_summary": DemoSummary,
    "llm_demo_report": DemoReport,
    "final_report": FinalReport,
    "all_in_one_report": AllInOneReport,
}


if __name__ == "__main__":
    write_schemas(SCHEMAS, Path(sys.argv[1]))
