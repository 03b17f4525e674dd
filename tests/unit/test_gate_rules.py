"""The gates against the original kit's rules, written down a second time as it states them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from gate_functions import DEMO, RUNTIME, StubLab, judge, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_h2o.lab.decode import held_against
from pytest_h2o.plan.knobs import Knobs, resolve

COUNTS = st.one_of(st.just(0.0), st.integers(0, 20).map(float), st.floats(0, 30))
TIMES = st.one_of(st.just(0.0), st.floats(0, 2e5))
COLUMNS = {
    "h2o_lossy": st.floats(1, 5),
    "h2o_lossless": st.one_of(st.just(1.0), st.floats(0.5, 3)),
    "decode_tps": st.one_of(st.just(0.0), st.floats(0.01, 20)),
    "h2o_lossless_raw_mb": st.floats(0, 4),
    "h2o_lossless_comp_mb": st.floats(0, 4),
    "h2o_lossless_comp_us": TIMES,
    "h2o_lossless_decomp_us": TIMES,
    "h2o_lossless_queue_peak": COUNTS,
    "h2o_lossless_fallback": COUNTS,
    "h2o_lossless_backpressure_skip": COUNTS,
    "h2o_lossless_async_queue_peak": COUNTS,
    "h2o_lossless_async_wait_us": TIMES,
    "h2o_lossless_decode_cache_hit": COUNTS,
    "h2o_lossless_decode_cache_miss": COUNTS,
    "h2o_floor_keep": st.floats(0.01, 1),
    "h2o_quantized_keep": st.floats(0.01, 1),
}
ROW = st.fixed_dictionaries(COLUMNS)
TABLE = st.lists(ROW, min_size=1, max_size=4)
LIMITS = {
    "MAX_LOSSLESS_DECOMP_US": st.sampled_from([-1.0, 1.0, 3e4, 7e4]),
    "MAX_LOSSLESS_QUEUE_PEAK": st.sampled_from([-1.0, 0.0, 8.0]),
    "MAX_LOSSLESS_FALLBACK": st.sampled_from([-1.0, 0.0, 2.0]),
    "MAX_LOSSLESS_BACKPRESSURE_SKIP": st.sampled_from([-1.0, 0.0, 5.0]),
    "MAX_LOSSLESS_ASYNC_WAIT_US": st.sampled_from([-1.0, 1.0, 5e4]),
    "LOSSY_TARGET": st.sampled_from([1.0, 3.0, 3.2]),
    "DECODE_BASELINE": st.floats(0.5, 20),
    "DECODE_DROP_TARGET": st.sampled_from([0.0, 0.05, 0.5]),
    **{
        f"REQUIRE_{name}": st.sampled_from([0, 1])
        for name in ("DECODE_CACHE_HIT", "ASYNC_QUEUE_ACTIVITY")
    },
    "REQUIRE_DECODE_CACHE_ACTIVITY": st.sampled_from([0, 1]),
}
SETTINGS = st.fixed_dictionaries(LIMITS)
LIMITED = {
    "decompression_budget": ("h2o_lossless_decomp_us", "MAX_LOSSLESS_DECOMP_US"),
    "queue_peak": ("h2o_lossless_queue_peak", "MAX_LOSSLESS_QUEUE_PEAK"),
    "fallback": ("h2o_lossless_fallback", "MAX_LOSSLESS_FALLBACK"),
    "backpressure": ("h2o_lossless_backpressure_skip", "MAX_LOSSLESS_BACKPRESSURE_SKIP"),
    "async_wait": ("h2o_lossless_async_wait_us", "MAX_LOSSLESS_ASYNC_WAIT_US"),
}


def as_knobs(values: dict[str, float], *more: str) -> Knobs:
    return resolve(
        [
            *(f"{name}={value}" for name, value in values.items()),
            "DECODE_BASELINE_MODE=fixed",
            *more,
        ]
    )


def original(rows: list[dict[str, float]], limits: dict[str, float]) -> dict[str, bool]:
    """What ``analyze`` and the runtime script decide, rule by rule; the value of a column is its
    maximum.
    """
    top = {name: max(row[name] for row in rows) for name in COLUMNS}
    baseline = limits["DECODE_BASELINE"]
    # A ratio that was reached is within reach, whatever the shares of the last trigger say.
    ceilings = [
        max(1 / max(row["h2o_floor_keep"], row["h2o_quantized_keep"], 1e-9), row["h2o_lossy"])
        for row in rows
    ]
    passed = {
        "lossy": top["h2o_lossy"] >= limits["LOSSY_TARGET"],
        "decode_drop": (baseline - top["decode_tps"]) / baseline <= limits["DECODE_DROP_TARGET"],
        "decompression_active": top["h2o_lossless_decomp_us"] > 0,
        "async_activity": not limits["REQUIRE_ASYNC_QUEUE_ACTIVITY"]
        or top["h2o_lossless_async_queue_peak"] > 0,
        "decode_cache_hit": not limits["REQUIRE_DECODE_CACHE_HIT"]
        or top["h2o_lossless_decode_cache_hit"] > 0,
        "decode_cache_activity": not limits["REQUIRE_DECODE_CACHE_ACTIVITY"]
        or any(
            row["h2o_lossless_decode_cache_hit"] + row["h2o_lossless_decode_cache_miss"] > 0
            for row in rows
        ),
        "metric_columns": True,
        "keep_feasible": any(ceiling >= limits["LOSSY_TARGET"] for ceiling in ceilings),
        "lossless_active": top["h2o_lossless"] > 1,
        "lossless_accounted": any(
            row["h2o_lossless_raw_mb"] > 0
            and row["h2o_lossless_comp_mb"] > 0
            and row["h2o_lossless_comp_us"] > 0
            for row in rows
        ),
    }
    for gate, (column, limit) in LIMITED.items():
        passed[gate] = limits[limit] < 0 or top[column] <= limits[limit]
    # Decoded blocks that the cache gave back leave no time, and the original failed such runs.
    passed["decompression_active"] |= any(
        row["h2o_lossless_decomp_us"] <= 0 < row["h2o_lossless_decode_cache_hit"] for row in rows
    )
    return passed


@settings(max_examples=30)
@given(TABLE, SETTINGS)
def test_bench_gates_agree(rows: list[dict[str, float]], limits: dict[str, float]) -> None:
    """Gate by gate, the decision on any table of numbers is the original's."""
    knobs = as_knobs(limits)
    run = make_run(rows)
    study = held_against(StubLab(knobs, run), "full_strict")  # type: ignore[arg-type]
    for gate, expected in original(rows, limits).items():
        fixtures = {"decode_study": study} if gate == "decode_drop" else {"run": run}
        verdict = judge(getattr(RUNTIME, f"test_{gate}"), knobs, **fixtures)
        assert (verdict.outcome in ("pass", "skipped")) == expected, (gate, verdict)


@settings(max_examples=20)
@given(
    TABLE,
    SETTINGS,
    st.sampled_from(sorted(COLUMNS)),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
def test_what_is_not_a_number_never_passes(
    rows: list[dict[str, float]], limits: dict[str, float], column: str, value: float | None
) -> None:
    """Where one row lacks a number, the gates that read its column fail; the original read 0, 1.2
    or NaN.
    """
    damaged = [dict(row) for row in rows]
    if value is None:
        del damaged[-1][column]
    else:
        damaged[-1][column] = value
    knobs = as_knobs(
        limits, "REQUIRE_DECODE_CACHE_HIT=1", "MAX_LOSSLESS_FALLBACK=1", "MAX_LOSSLESS_QUEUE_PEAK=1"
    )
    readers = {
        "h2o_lossy": "lossy", "h2o_lossless": "lossless_active",
        "h2o_lossless_decomp_us": "decompression_active", "h2o_lossless_queue_peak": "queue_peak",
        "h2o_lossless_fallback": "fallback", "h2o_floor_keep": "keep_feasible",
        "h2o_quantized_keep": "keep_feasible", "h2o_lossless_decode_cache_hit": "decode_cache_hit",
    }  # fmt: skip
    gate = readers.get(
        column, "lossless_accounted" if column.endswith(("_mb", "comp_us")) else "metric_columns"
    )
    verdict = judge(getattr(RUNTIME, f"test_{gate}"), knobs, run=make_run(damaged))
    assert verdict.outcome == "fail"
    assert column in verdict.reason


@settings(max_examples=20)
@given(TABLE, SETTINGS)
def test_all_rows_is_the_worst_of_single_rows(
    rows: list[dict[str, float]], limits: dict[str, float]
) -> None:
    """With REQUIRE_ALL_ROWS a gate passes exactly when each row alone would."""
    knobs = as_knobs(limits, "REQUIRE_ALL_ROWS=1")
    names = [
        "lossy",
        "keep_feasible",
        "lossless_active",
        "lossless_accounted",
        "decompression_active",
        "queue_peak",
        "async_activity",
        "decode_cache_activity",
        "decode_cache_hit",
        "decode_drop",
    ]
    for name in names:
        outcomes = []
        for run in (make_run(rows), *(make_run([row]) for row in rows)):
            study = held_against(StubLab(knobs, run), "full_strict")  # type: ignore[arg-type]
            fixtures = {"decode_study": study} if name == "decode_drop" else {"run": run}
            outcomes.append(
                judge(getattr(RUNTIME, f"test_{name}"), knobs, **fixtures).outcome != "fail"
            )
        assert outcomes[0] == all(outcomes[1:]), name


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(0.5, 50), st.floats(0.5, 50), st.integers(1, 500)),
        min_size=1,
        max_size=6,
    )
)
def test_prompts_agree(prompts: list[tuple[float, float, int]]) -> None:
    """The drop over all prompts and that of each bucket; the original averaged speeds instead of
    adding up time.
    """
    knobs = resolve(["DECODE_BASELINE_MODE=same_batch"], suite="llm_demo")
    sides = [
        [{"decode_tps": pair[side], "decode_tokens": pair[2]} for pair in prompts]
        for side in (0, 1)
    ]
    lab = StubLab(knobs, make_run(sides[1], "candidate"), make_run(sides[0], "candidate"))
    tokens = sum(count for _, _, count in prompts)
    before, after = (tokens / sum(pair[2] / pair[side] for pair in prompts) for side in (0, 1))
    study = held_against(lab, "candidate")  # type: ignore[arg-type]
    no_bench = SimpleNamespace(cases={})
    verdict = judge(DEMO.test_decode_drop, knobs, "candidate", lab=no_bench, demo_study=study)
    assert verdict.value == pytest.approx((before - after) / before)
    assert (verdict.outcome == "pass") == (verdict.value is not None and verdict.value <= 0.08)
    for number, (baseline, candidate, _) in enumerate(prompts):
        study = held_against(lab, "candidate", f"row{number}")  # type: ignore[arg-type]
        verdict = judge(DEMO.test_bucket_decode, knobs, "candidate", bucket_study=study)
        assert verdict.value == pytest.approx((baseline - candidate) / baseline, abs=1e-9)


@settings(max_examples=30)
@given(TABLE, TABLE, st.floats(0, 0.9))
def test_same_batch_agrees(
    candidate: list[dict[str, float]], baseline: list[dict[str, float]], target: float
) -> None:
    """With its knob, the fastest row against the fastest of the same rows in the baseline; without
    a speed there it is none.
    """
    words = ("DECODE_BASELINE_MODE=same_batch", "DECODE_FASTEST_ROW=1")
    knobs = resolve([*words, f"DECODE_DROP_TARGET={target}"])
    study = held_against(StubLab(knobs, make_run(candidate), make_run(baseline)), "full_strict")  # type: ignore[arg-type]
    verdict = judge(RUNTIME.test_decode_drop, knobs, decode_study=study)
    matched = baseline[: len(candidate)]
    best, before = (max(row["decode_tps"] for row in rows) for rows in (candidate, matched))
    within = before > 0 and (before - best) / before <= target
    assert (verdict.outcome == "pass") == (within and len(matched) == len(candidate))


@settings(max_examples=30)
@given(TABLE, TABLE, st.floats(0, 0.9))
def test_same_batch_judges_each_length(
    candidate: list[dict[str, float]], baseline: list[dict[str, float]], target: float
) -> None:
    """Every row must keep its own baseline's speed, and a row without one fails."""
    knobs = resolve(["DECODE_BASELINE_MODE=same_batch", f"DECODE_DROP_TARGET={target}"])
    study = held_against(StubLab(knobs, make_run(candidate), make_run(baseline)), "full_strict")  # type: ignore[arg-type]
    verdict = judge(RUNTIME.test_decode_drop, knobs, decode_study=study)
    speeds = [row["decode_tps"] for row in candidate]
    before = [row["decode_tps"] for row in baseline] + [0.0] * len(candidate)
    kept = [
        old > 0 and new >= old * (1 - target) * (1 - 1e-12)
        for new, old in zip(speeds, before, strict=False)
    ]
    assert (verdict.outcome == "pass") == all(kept)
