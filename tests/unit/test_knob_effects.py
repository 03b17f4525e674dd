"""Every knob has an effect: for each there is one setting that changes what is launched, read or
decided.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from fake_store import FakeStore, Speed, by_arm
from gate_functions import (
    DEMO,
    KV_QUANT,
    M3,
    MEMORY,
    OFFLINE,
    QUALITY,
    RELEASE,
    RUNTIME,
    judge,
    make_run,
)
from quantised_texts import texts_of

from pytest_h2o.data import bundled
from pytest_h2o.decode.history import append_history
from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.decode.study import Study
from pytest_h2o.evidence.order import little_evidence
from pytest_h2o.evidence.second_build import text_evidence_of_builds
from pytest_h2o.evidence.written_texts import Written
from pytest_h2o.kit.versions import composed
from pytest_h2o.lab.decode import Comparison, held_against, history_entries, keep_history
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.offline import Evaluation, _options
from pytest_h2o.lab.recall import judged
from pytest_h2o.lab.unseen_prompts import write_prompts
from pytest_h2o.plan.cases import all_cases, launches
from pytest_h2o.plan.knobs import KNOBS, Knob, Knobs, resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.relations import RELATIONS
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes import EmbeddedRuntime, programs_by_work
from pytest_h2o.runtimes.placement import PlacedRuntime, placed
from pytest_h2o.runtimes.programs import BOTH
from pytest_h2o.session.forecast import Forecast
from pytest_h2o.session.gate import Gate
from pytest_h2o.session.session import Session
from pytest_h2o.session.time_budget import TimeBudget
from pytest_h2o.verdict import Measured, Verdict

PROGRAMS = programs_by_work(BOTH)
Effect = Callable[[Sequence[str], Path], object]
GOOD = {
    "decode_tps": 10.0, "h2o_lossy": 3.1, "h2o_lossless": 1.4, "h2o_lossless_decomp_us": 50.0,
    "h2o_lossless_queue_peak": 5.0, "h2o_lossless_fallback": 0.0,
    "h2o_lossless_backpressure_skip": 2.0, "h2o_lossless_async_queue_peak": 0.0,
    "h2o_lossless_async_wait_us": 50.0, "h2o_lossless_decode_cache_hit": 0.0,
    "h2o_lossless_decode_cache_miss": 0.0,
}  # fmt: skip


def make_lab(
    settings: Sequence[str], tmp_path: Path, suite: str = "final", speed: Speed | None = None
) -> tuple[Lab, FakeStore]:
    store = FakeStore(tmp_path, speed or by_arm())
    tmp_path.mkdir(exist_ok=True, parents=True)
    lab = Lab(
        tmp_path,
        resolve(settings, suite=suite),
        store.get,
        bundled("prompts"),
        history=tmp_path / "history.jsonl",
    )
    return lab, store


def plan(settings: Sequence[str], tmp_path: Path) -> object:
    """Everything that a session of all gates would launch."""
    lab, _ = make_lab(settings, tmp_path)
    names = frozenset(lab.cases)
    lab.demand = Demand(names, names, dumps={""}, qualities={""}, relations=RELATIONS)
    return [lab.cases.keys(), lab.plan.planned()]


def order(case: str, suite: str) -> Effect:
    """In which order a case and its baseline are launched."""

    def effect(settings: Sequence[str], tmp_path: Path) -> object:
        lab, store = make_lab(settings, tmp_path, suite)
        lab.demand = Demand({case}, {case})
        held_against(lab, case)
        return store.launched

    return effect


def verdict(
    function: Callable[..., None], case: str = "full_strict", **numbers: float | None
) -> Effect:
    """What a gate decides on one row of good numbers with some replaced, or without those that are
    None.
    """
    row = {name: value for name, value in {**GOOD, **numbers}.items() if value is not None}
    fixture = "demo" if function.__module__.endswith("llm_demo") else "run"

    def effect(settings: Sequence[str], tmp_path: Path) -> object:
        return judge(
            function, resolve(settings, suite="final"), case, **{fixture: make_run([row])}
        ).outcome

    return effect


def agreed(settings: Sequence[str], tmp_path: Path) -> object:
    """What the agreement gate decides on answers that part after half of their characters."""
    knobs, runs = resolve(settings, suite="final"), []
    for arm, text in (("baseline", "one two"), ("candidate", "one four")):
        (spec,) = launches(
            all_cases(knobs, programs=PROGRAMS)["candidate"],
            knobs,
            [bundled("prompts") / "prompt_128_1.txt"],
        )
        paths = standard_paths(tmp_path / arm)
        paths["directory"].mkdir(parents=True)
        paths["stdout"].write_text(f"\nprompt file is p\n{text}\n{'#' * 33}\n")
        runs.append(Run(arm, (LaunchRecord(spec=spec, status="ok", reason="", **paths),), (), ()))
    return judge(
        DEMO.test_greedy_agreement, knobs, "candidate", demo=runs[1], demo_baseline=runs[0]
    ).outcome


def repeated(settings: Sequence[str], tmp_path: Path) -> object:
    """What is decided on two launches whose speeds lie 40 % apart."""
    runs = [make_run([{"decode_tps": speed}], "joint_full-1") for speed in (80.0, 120.0)]
    knobs = resolve(settings, suite="m3")
    return judge(M3.test_stable, knobs, "joint_full-1", joint="joint_full", joint_runs=runs).outcome


def memory(settings: Sequence[str], tmp_path: Path) -> object:
    """What the memory gates decide where peaks are a fifth above what they may be."""
    knobs = resolve(settings, suite="final")
    high = Measured(metric="memory", value=0.2, unit="share")
    patched = {"memory_increase": lambda _: high, "memory_growth": lambda _: high}
    with patch.multiple(MEMORY, **patched):
        peak = judge(
            MEMORY.test_memory_peak,
            knobs,
            decode_study=PairedStudy((), None, (), None),
            lab=SimpleNamespace(recording=None),
            run=Run("full_strict", (), (), ()),
        )
        growth = judge(MEMORY.test_memory_growth, knobs, run=Run("full_strict", (), (), ()))
    return peak.outcome, growth.outcome


def little(settings: Sequence[str], _: Path) -> object:
    """What is said of three answers of which a tenth stays."""
    least = resolve(settings).number("MIN_MILD_AGREEMENT")
    return little_evidence(dict.fromkeys("abc", 0.1), least).standing


def recalled(settings: Sequence[str], tmp_path: Path) -> object:
    """What is said where three of ten words are not continued."""
    lab, _ = make_lab(settings, tmp_path)
    spec = next(iter(lab.workload.launches(lab.cases["candidate"])))
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(tmp_path))  # type: ignore[arg-type]
    full, less = Written(record, "a b c d e f g h i j"), Written(record, "a b c d e f g")
    most = lab.knobs.number("MAX_RECALL_DROP")
    [evidence] = judged(list("abcdefghij"), full, less, most).evidence
    return evidence.standing


def unseen_texts(settings: Sequence[str], tmp_path: Path) -> object:
    """The prompts that are made for a session."""
    lab, _ = make_lab(settings, tmp_path)
    write_prompts(lab)
    return [path.read_text() for path in sorted(lab.workload.unseen_dir.glob("*.txt"))]


def quality(settings: Sequence[str], tmp_path: Path) -> object:
    """What the quality gate decides on a rise of perplexity by a fifth."""
    knobs = resolve(["REQUIRE_QUALITY=1", *settings], suite="final")
    lab, _ = make_lab(["REQUIRE_QUALITY=1"], tmp_path)
    (spec,) = lab.workload.quality_launches()
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(tmp_path))
    rows = [
        ("full", 1.0, 10.0, 0.0, 20.0),
        ("h2o", 3.2, 12.0, 0.1, 21.0),
        ("window", 3.2, 13.0, 0.2, 22.0),
    ]
    keys = ("policy", "target", "perplexity", "divergence", "recall_perplexity")
    report = [dict(zip(keys, row, strict=True), effective_ratio=2.7) for row in rows]
    (tmp_path / "quality.json").write_text(json.dumps({"quality": report}))
    return judge(QUALITY.test_quality_under_eviction, knobs, lab=lab, quality=record).outcome


def compared(
    case: str,
    drop: float,
    suite: str = "final",
    gate: Callable[..., None] = RUNTIME.test_decode_drop,
) -> Effect:
    """What a decode gate decides on a drop."""
    comparison = Comparison(Measured(metric="decode_drop", value=drop))
    fixture = {RUNTIME.test_decode_drop: "decode_study", DEMO.test_decode_drop: "demo_study"}.get(
        gate, "bucket_study"
    )
    fixtures: dict[str, Any] = {fixture: comparison}
    if gate is DEMO.test_decode_drop:
        fixtures["lab"] = SimpleNamespace(cases={})
    return lambda settings, _: judge(gate, resolve(settings, suite=suite), case, **fixtures).outcome


def offline(function: Callable[..., None], **values: object) -> Effect:
    """What an offline gate decides on a result."""
    evaluation = Evaluation({"verified": True, "lossless": True, **values})
    fixture = "upper_bound" if "upper" in function.__name__ else "online_sim"
    more: dict[str, object] = {"tensor": "k"} if "tensor" in function.__name__ else {}
    more |= {"online_sim": evaluation} if fixture == "upper_bound" else {}
    return lambda settings, _: (
        judge(function, resolve(settings), **{fixture: evaluation}, **more).outcome
    )


def offline_options(settings: Sequence[str], tmp_path: Path) -> object:
    """How the offline evaluation cuts and codes."""
    return _options(make_lab(settings, tmp_path)[0], "online_sim")


def rolling(settings: Sequence[str], tmp_path: Path) -> object:
    """What a case is held against after four sessions of different speed, one of which failed."""
    words = [
        "DECODE_BASELINE_MODE=rolling",
        "DECODE_BASELINE_ROLLING_MIN_SAMPLES=2",
        "DECODE_BASELINE=50",
    ]
    failed_too = ["DECODE_BASELINE_HISTORY_FAILED=1", "DECODE_BASELINE_KEY=mine"]
    for speed in (10.0, 20.0, 30.0, 40.0):
        lab, _ = make_lab(
            [*words, *failed_too[:1]], tmp_path / str(speed), speed=by_arm(full=speed)
        )
        outcomes = [
            Verdict(
                gate="decode_drop", case="full_strict", outcome="fail" if speed == 40.0 else "pass"
            )
        ]
        append_history(tmp_path / "history.jsonl", history_entries(lab, outcomes, tmp_path))
    lab, _ = make_lab([*words, *settings], tmp_path)
    comparison = held_against(lab, "full_strict")
    assert isinstance(comparison, Comparison)
    return comparison.measured.value


def kept(settings: Sequence[str], tmp_path: Path) -> object:
    """Whether a session leaves an entry in the history."""
    lab, _ = make_lab(settings, tmp_path)
    keep_history(
        lab, [Verdict(gate="decode_drop", case="full_strict", outcome="pass")], tmp_path, ()
    )
    return (tmp_path / "history.jsonl").exists()


def fixed(settings: Sequence[str], tmp_path: Path) -> object:
    """What a case is held against with a fixed baseline."""
    comparison = held_against(
        make_lab(["DECODE_BASELINE_MODE=fixed", *settings], tmp_path)[0], "full_strict"
    )
    assert isinstance(comparison, Comparison)
    return comparison.measured.value


def beside(settings: Sequence[str], tmp_path: Path) -> object:
    """The drop against launches of the session where a long prompt loses more."""

    def speed(spec: LaunchSpec) -> float:
        length = spec.prompt_tokens or 0
        return 100.0 if spec.arm == "baseline" else 100.0 - length / 100

    comparison = held_against(make_lab(settings, tmp_path, speed=speed)[0], "full_strict")
    assert isinstance(comparison, Comparison)
    return comparison.measured.value


def pairs(settings: Sequence[str], tmp_path: Path) -> object:
    """After how many pairs a study that decides nothing ends."""

    def speed(spec: LaunchSpec) -> float:
        return 100.0 if spec.arm == "baseline" else 95.0 * (1 + 0.001 * (-1) ** spec.replicate)

    study = make_lab(settings, tmp_path, speed=speed)[0].study("full_strict").study
    assert study
    return study.pairs


def undecided(settings: Sequence[str], tmp_path: Path) -> object:
    """How a test ends whose study decides nothing."""
    study = Study(20, 0.05, 0.01, 0.09, "inconclusive", 0.5)
    try:
        judge_raising(resolve(settings), PairedStudy((), study, (), None))
    except BaseException as ending:  # pytest's outcomes are no Exceptions
        return type(ending).__name__
    return "returned"


def quantised(gate: str) -> Effect:
    """What a gate of quantised KV decides on a divergence of 0.1 and a ratio of 1.4."""

    def effect(settings: Sequence[str], tmp_path: Path) -> object:
        text = texts_of(tmp_path, "k_int8", perplexity=15, divergence=0.1, kv_bytes=8192 / 1.4)
        fixtures: dict[str, object] = {"quant_text": text}
        if gate == "test_kv_bytes":
            fixtures |= {"quant_plain_run": make_run([]), "quant_run": make_run([])}
        return judge(
            getattr(KV_QUANT, gate), resolve(settings, suite="kv_quant"), "k_int8", **fixtures
        ).outcome

    return effect


def builds_text(settings: Sequence[str], tmp_path: Path) -> object:
    """What answers show that part after a quarter."""
    lab, _ = make_lab(settings, tmp_path)
    spec = next(iter(lab.workload.launches(lab.cases["candidate"])))
    record = LaunchRecord(spec=spec, status="ok", reason="", **standard_paths(tmp_path))  # type: ignore[arg-type]
    second, own = Written(record, "abcd" * 9, 9), Written(record, "abcd" * 2 + "x" * 28, 9)
    least = lab.knobs.number("MIN_BUILD_AGREEMENT")
    return text_evidence_of_builds([(second, own)], least, "").standing


def builds_loss(settings: Sequence[str], tmp_path: Path) -> object:
    """What a gate decides on a loss of 0.05."""
    loss = Measured(metric="build_loss", value=0.05, unit="share")
    builds: Any = SimpleNamespace(loss=loss)
    return judge(
        RELEASE.test_release_numbers, resolve(settings), "builds_full", full_builds=builds
    ).outcome


def judge_raising(knobs: Knobs, paired: PairedStudy) -> None:
    """The decode gate, with pytest's outcome let through."""
    node: Any = SimpleNamespace(user_properties=[], iter_markers=lambda: iter(()))
    Gate("decode_drop", "full_strict", knobs, node, "pytest").passes_study(
        paired, "DECODE_DROP_TARGET"
    )


def launched(settings: Sequence[str], tmp_path: Path) -> object:
    """The command of a launch."""
    lab, _ = make_lab([], tmp_path)
    spec = next(spec for spec in lab.workload.launches(lab.cases["full_strict"], 1))
    command = placed(EmbeddedRuntime("for the test"), resolve(settings)).command(spec, tmp_path)
    return command.argv, command.env


def copied(settings: Sequence[str], _: Path) -> object:
    """What copies to a host and back."""
    runtime = placed(EmbeddedRuntime("for the test"), resolve(settings))
    assert isinstance(runtime, PlacedRuntime)
    carrier = runtime.on("a", "").placement.carrier()
    return carrier.to_host(Path("x"), "/y"), carrier.all_to_here("/y", Path("x"))


def in_time(settings: Sequence[str], tmp_path: Path) -> object:
    """Whether a launch of an hour is made."""
    forecast = Forecast()
    forecast.expect(["bench-a"], {"bench-a": 3600.0})
    return TimeBudget(resolve(settings).text("H2O_BUDGET")).allows("bench-a", forecast)


def parts(settings: Sequence[str], tmp_path: Path) -> object:
    """Which suites are parts of all_in_one."""
    knobs = resolve(settings)
    return [composed({mark}, "v6", knobs.on) for mark in ("m3", "llm_demo", "runtime")]


@dataclass(frozen=True)
class Turned:
    """A setting that changes an effect; ``first`` holds in both cases."""

    effect: Effect
    value: str
    first: tuple[str, ...] = ()


BUDGETS = {
    "FULL": "full_strict",
    "STORE": "store_tuned",
    "COVERAGE": "full_coverage",
    "M3": "joint_full-1",
}
EFFECTS: Mapping[str, Turned] = {
    **{name: Turned(plan, value) for name, value in {
        "PROMPTS": "64", "GENS": "8", "REPEAT": "5", "THREADS": "1", "BACKEND": "metal",
        "ATTENTION_OPTION": "1", "FULL_RUNS": "1", "STORE_RUNS": "2", "M3_FULL_RUNS": "1",
        "M3_STORE_RUNS": "2", "LAUNCH_TIMEOUT_S": "5", "DECODE_TOKENS": "8", "DUMP_DIR": "dump",
        "KV_DUMP_PROMPTS": "1", "DECODE_REPEAT": "2", "RUN_RUNTIME_FIXED": "0",
        "RUN_RUNTIME_SAME_BATCH": "0", "RUN_RUNTIME_ROLLING": "0",
        "PROMPT_PATTERN": "prompt_128_*.txt", "PROMPT_BUCKET_LIST": "2048,512",
        "PROMPT_SAMPLE_MODE": "sequential", "PROMPT_MANIFEST": "none.txt", "MAX_PROMPTS": "2",
        "MAX_PROMPTS_PER_BUCKET": "1", "DECODE_BASELINE_MODE": "fixed", "RELATION_PROMPTS": "2",
        "RELATION_TOKENS": "8", "RELATION_LOSSLESS": "0", "RELATION_UNEVICTED": "0",
        "RELATION_GREEDY": "0", "RELATION_STRANGERS": "0", "RELATION_UNSEEN": "0",
        "RELATION_ORDER": "0", "RELATION_RECALL": "0",
        "RELATION_HEAVY": "0", "RELATION_SPEED": "0", "RELATION_BUILD": "0",
    }.items()},
    "RUN_FINAL": Turned(parts, "0"),
    # These suites are part of final too.
    **{name: Turned(parts, "0", ("RUN_FINAL=0",)) for name in ("RUN_M3", "RUN_LLM_DEMO")},
    "H2O_BUDGET": Turned(in_time, "1s"),
    "H2O_LAUNCHER": Turned(launched, "nice -n 5"),
    "H2O_HOSTS": Turned(plan, "a,b"),
    "H2O_COPY": Turned(launched, "/tmp/copies", ("H2O_HOSTS=a", "H2O_LAUNCHER=ssh {host}")),
    "H2O_COPY_TO": Turned(copied, "cp {source} {target}", ("H2O_LAUNCHER=ssh {host}",)),
    "H2O_COPY_FROM": Turned(
        copied, "cp -r {source} {target}", ("H2O_LAUNCHER=x", "H2O_COPY_TO=cp {source} {target}")
    ),
    "H2O_CPUS": Turned(launched, "0"),
    "H2O_LAUNCH_ENV": Turned(launched, "OMP_NUM_THREADS=1"),
    "LOSSY_TARGET": Turned(verdict(RUNTIME.test_lossy), "3.2"),
    "REQUIRE_ALL_ROWS": Turned(
        lambda settings, _: judge(
            RUNTIME.test_lossy, resolve(settings), run=make_run([GOOD, {**GOOD, "h2o_lossy": 2.0}])
        ).outcome, "1",
    ),
    "LOSSLESS_TARGET": Turned(
        offline(OFFLINE.test_online_sim_lossless, lossless_ratio=1.35), "1.4"
    ),
    "LOSSLESS_TENSOR_TARGET": Turned(
        offline(OFFLINE.test_tensor_lossless, k_lossless_ratio=1.35), "1.4"
    ),
    "LOSSLESS_UPPER_BOUND_TARGET": Turned(
        offline(OFFLINE.test_upper_bound_lossless, lossless_ratio=1.35), "1.4"
    ),
    "EVALUATED_SHARE_TARGET": Turned(
        offline(OFFLINE.test_offline_complete, evaluated_share=0.9, evaluated_byte_share=0.9), "0.8"
    ),
    "ONLINE_CHUNK_SEQ": Turned(offline_options, "7"),
    "ONLINE_FRAMING_BYTES": Turned(offline_options, "7"),
    "ADAPTIVE_BLOCK_SEQ": Turned(offline_options, "7"),
    "ROPE_BASE": Turned(offline_options, "10000"),
    "ROPE_LAYOUT": Turned(offline_options, "interleaved"),
    "LOSSLESS_CODEC": Turned(
        offline(
            OFFLINE.test_online_sim_lossless,
            lossless_ratio=1.25,
            codecs=[{"codec": "row_reference", "lossless_ratio": 1.6, "error": ""}],
        ),
        "row_reference",
    ),
    "DECODE_DROP_TARGET": Turned(compared("full_strict", 0.06), "0.1"),
    "LLM_DEMO_DECODE_DROP_TARGET": Turned(
        compared("candidate", 0.09, gate=DEMO.test_decode_drop), "0.1"
    ),
    "REQUIRE_BUCKET_DECODE_PASS": Turned(
        compared("candidate", 0.09, gate=DEMO.test_bucket_decode), "0"
    ),
    "LLM_DEMO_REQUIRE_BUCKET_DECODE_PASS": Turned(
        compared("candidate", 0.09, gate=DEMO.test_bucket_decode), "0"
    ),
    "DECODE_BASELINE": Turned(fixed, "50"),
    "DECODE_FASTEST_ROW": Turned(
        beside, "1", ("DECODE_BASELINE_MODE=same_batch", "PROMPTS=64,128")
    ),
    "DECODE_BASELINE_ROLLING_WINDOW": Turned(rolling, "2"),
    "DECODE_BASELINE_ROLLING_MIN_SAMPLES": Turned(rolling, "4"),
    "DECODE_BASELINE_KEY": Turned(rolling, "mine"),
    "DECODE_BASELINE_HISTORY_FAILED": Turned(rolling, "1"),
    "UPDATE_DECODE_BASELINE_HISTORY": Turned(kept, "0"),
    "RUN_ORDER": Turned(order("full_strict", "runtime"), "candidate_first"),
    "DECODE_SEED": Turned(order("full_strict", "final"), "2"),
    "DECODE_MAX_PAIRS": Turned(pairs, "10"),
    "DECODE_BUDGET_S": Turned(pairs, "0"),
    "DECODE_INCONCLUSIVE": Turned(undecided, "xfail"),
    "MAX_LOSSLESS_QUEUE_PEAK": Turned(verdict(RUNTIME.test_queue_peak), "4"),
    "MAX_LOSSLESS_FALLBACK": Turned(verdict(RUNTIME.test_fallback, h2o_lossless_fallback=1.0), "1"),
    "MAX_LOSSLESS_BACKPRESSURE_SKIP": Turned(verdict(RUNTIME.test_backpressure), "1"),
    "MAX_LOSSLESS_DECOMP_US": Turned(verdict(RUNTIME.test_decompression_budget), "20"),
    "MAX_LOSSLESS_ASYNC_WAIT_US": Turned(verdict(RUNTIME.test_async_wait), "20"),
    **{f"{name}_DECOMP_BUDGET_US": Turned(verdict(RUNTIME.test_decompression_budget, case), "20")
       for name, case in BUDGETS.items()},
    "REQUIRE_ASYNC_QUEUE_ACTIVITY": Turned(verdict(RUNTIME.test_async_activity), "1"),
    "REQUIRE_DECODE_CACHE_ACTIVITY": Turned(verdict(RUNTIME.test_decode_cache_activity), "1"),
    "REQUIRE_DECODE_CACHE_HIT": Turned(verdict(RUNTIME.test_decode_cache_hit), "1"),
    "REQUIRE_RUNTIME_DECOMP": Turned(
        verdict(DEMO.test_decompression_active, "candidate", h2o_lossless_decomp_us=0.0), "0"
    ),
    "LLM_DEMO_REQUIRE_RUNTIME_DECOMP": Turned(
        verdict(DEMO.test_decompression_active, "candidate", h2o_lossless_decomp_us=0.0), "0"
    ),
    "LLM_DEMO_REQUIRE_DECODE_CACHE_HIT": Turned(
        verdict(DEMO.test_decode_cache_hit, "candidate"), "1"
    ),
    "KV_QUANT_OPTIONS": Turned(plan, "2"),
    "MAX_KV_DIVERGENCE": Turned(quantised("test_divergence"), "0.2"),
    "KV_BYTES_TARGET": Turned(quantised("test_kv_bytes"), "1.5"),
    "REQUIRE_QUALITY": Turned(plan, "1"),
    "MAX_PERPLEXITY_INCREASE": Turned(quality, "0.3"),
    "MAX_MEMORY_INCREASE": Turned(memory, "0.3"),
    "MAX_MEMORY_GROWTH": Turned(memory, "0.3"),
    "MAX_SPEED_SPREAD": Turned(repeated, "0.2"),
    "MIN_MILD_AGREEMENT": Turned(little, "0.1"),
    "MIN_BUILD_AGREEMENT": Turned(builds_text, "0.1"),
    "MAX_BUILD_LOSS": Turned(builds_loss, "0.1"),
    "MAX_RECALL_DROP": Turned(recalled, "0.3"),
    "UNSEEN_SEED": Turned(unseen_texts, "7", ("UNSEEN_SEED=8",)),
    "MIN_GREEDY_AGREEMENT": Turned(agreed, "0.8"),
    "STRICT_RUNTIME_METRIC_COLUMNS": Turned(
        verdict(RUNTIME.test_metric_columns, h2o_lossless_queue_peak=None), "0"
    ),
}  # fmt: skip
# These say where something lies, and are read with the options of a session.
PLACES = {
    "LLM_BENCH": lambda session: session.runtime.describe(),
    "LLM_DEMO": lambda session: session.runtime.describe(),
    "MODEL_CONFIG": lambda session: session.runtime.describe(),
    "H2O_BASELINE_LLM_BENCH": lambda session: session.runtime.describe(),
    "H2O_BASELINE_LLM_DEMO": lambda session: session.runtime.describe(),
    "PROMPT_DIR": lambda session: session.lab.prompt_dir,
    "OUT": lambda session: session.root.name,
    "BASE_OUT": lambda session: session.root.name,
    "DECODE_BASELINE_HISTORY": lambda session: session.lab.history,
}


def configs(settings: Sequence[str]) -> list[Mapping[str, object]]:
    """The configs of all cases, in every runtime mode."""
    found: list[Mapping[str, object]] = []
    for mode in ("full", "store"):
        knobs = resolve([f"KV_LOSSLESS_RUNTIME_MODE={mode}", *settings])
        found += [
            launch.config
            for case in all_cases(knobs, programs=PROGRAMS).values()
            for launch in launches(case, knobs, [Path("prompt_128_1.txt")])
        ]
    return found


def another(knob: Knob) -> str:
    """A value that is not the default."""
    if knob.choices:
        return next(choice for choice in knob.choices if choice != knob.default)
    if isinstance(knob.default, bool):
        return str(int(not knob.default))
    if isinstance(knob.default, float):
        return str(0.5 if knob.high == 1 else knob.default + 1)
    return str(knob.default + 2) if isinstance(knob.default, int) else "raw"


def test_every_knob_is_in_the_table() -> None:
    """A knob without a row here would be accepted and perhaps ignored."""
    written = {name for name, knob in KNOBS.items() if knob.key}
    assert written | EFFECTS.keys() | PLACES.keys() == KNOBS.keys()


@pytest.mark.parametrize("name", [name for name, knob in KNOBS.items() if knob.key])
def test_config_knobs(name: str) -> None:
    """A knob of the engine's config changes that key in the configs of some launches, and no other
    key.
    """
    key, before, after = KNOBS[name].key, configs([]), configs([f"{name}={another(KNOBS[name])}"])
    changed = {
        k
        for old, new in zip(before, after, strict=True)
        for k in old | new
        if old.get(k) != new.get(k)
    }
    automatic = {
        "kv_lossless_front_sample_token_interval",
        "kv_lossless_store_disable_front",
        "kv_lossless_store_bootstrap_tokens",
        "kv_lossless_store_grouped_step_tokens",
    }
    assert key in changed
    assert changed - {key} <= (automatic if name == "KV_LOSSLESS_RUNTIME_MODE" else set())


@pytest.mark.parametrize("name", EFFECTS)
def test_effects(name: str, tmp_path: Path) -> None:
    """Turning the knob changes what is launched or decided."""
    turned = EFFECTS[name]
    before = turned.effect(turned.first, tmp_path / "before")
    assert turned.effect([*turned.first, f"{name}={turned.value}"], tmp_path / "after") != before


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str, pytester: pytest.Pytester) -> None:
    """A path that is set is the one that a session uses; a program comes with its model."""
    for file in ("llm_bench", "llm_demo", "config.json"):
        pytester.path.joinpath(file).write_text("{}")
    pytester.path.joinpath("launches").mkdir()
    first = {"MODEL_CONFIG": ["LLM_BENCH=llm_bench"], "LLM_BENCH": ["MODEL_CONFIG=config.json"]}
    first["LLM_DEMO"] = first["LLM_BENCH"]
    words = [
        *first.get(name, []),
        f"{name}=config.json" if name == "MODEL_CONFIG" else f"{name}={name.lower()}",
    ]

    def place(settings: Sequence[str]) -> object:
        arguments = [f"--h2o-set={word}" for word in settings]
        config = pytester.parseconfig("--h2o-replay=.", *arguments)
        return PLACES[name](Session.from_config(config))

    assert place(words) != place([])
