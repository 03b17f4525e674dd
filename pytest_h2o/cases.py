"""The named ways to run: each case of the ``runtime``, ``m3`` and ``llm_demo`` suites and the launches it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from pytest_h2o.knobs import Knobs, KnobValue, baseline_config, engine_config
from pytest_h2o.specs import LaunchSpec, Program

BASELINE = "baseline"
STORE_TUNING: dict[str, KnobValue] = {
    "KV_LOSSLESS_STORE_DISABLE_FRONT": 1,
    "KV_LOSSLESS_STORE_BOOTSTRAP_TOKENS": 16,
    "KV_LOSSLESS_STORE_GROUPED_STEP_TOKENS": 384,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One named way to run.

    ``arm`` names the settings, so that cases which run the same settings share launches; ``replicate`` is the launch
    of that arm a case looks at. ``fixed`` knobs define the case, ``defaults`` may be overridden by the user.
    """

    name: str
    suite: str
    arm: str
    program: Program = "llm_bench"
    replicate: int = 1
    defaults: Mapping[str, KnobValue] = field(default_factory=dict)
    fixed: Mapping[str, KnobValue] = field(default_factory=dict)

    def knobs(self, knobs: Knobs) -> Knobs:
        """``knobs`` as this case sees them."""
        return knobs.for_case(self.defaults, self.fixed)


def all_cases(knobs: Knobs) -> dict[str, Case]:
    """Every case by name; the m3 cases are as many as FULL_RUNS and STORE_RUNS ask for."""
    full: dict[str, KnobValue] = {"KV_LOSSLESS_RUNTIME_MODE": "full"}
    store: dict[str, KnobValue] = {"KV_LOSSLESS_RUNTIME_MODE": "store"}
    coverage: dict[str, KnobValue] = {
        **full,
        "KV_LOSSLESS_KEPT_SAMPLE_LAYERS": 0,
        "KV_LOSSLESS_KEPT_SAMPLE_TOKEN_INTERVAL": 0,
    }
    cases = [
        Case(name="full_strict", suite="runtime", arm="full", fixed=full, defaults=_budget(knobs, "FULL")),
        Case(
            name="store_tuned",
            suite="runtime",
            arm="store",
            fixed=store,
            defaults=STORE_TUNING | _budget(knobs, "STORE"),
        ),
        Case(
            name="full_coverage", suite="runtime", arm="coverage", fixed=coverage, defaults=_budget(knobs, "COVERAGE")
        ),
    ]
    for number in range(1, knobs.integer("FULL_RUNS") + 1):
        cases.append(
            Case(
                name=f"joint_full-{number}",
                suite="m3",
                arm="full",
                replicate=number,
                fixed=full,
                defaults=_budget(knobs, "M3"),
            )
        )
    for number in range(1, knobs.integer("STORE_RUNS") + 1):
        cases.append(
            Case(
                name=f"joint_store-{number}",
                suite="m3",
                arm="store",
                replicate=number,
                fixed=store,
                defaults=STORE_TUNING | _budget(knobs, "M3"),
            )
        )
    cases.append(Case(name="candidate", suite="llm_demo", arm="candidate", program="llm_demo"))
    return {case.name: case for case in cases}


def _budget(knobs: Knobs, prefix: str) -> dict[str, KnobValue]:
    return {"MAX_LOSSLESS_DECOMP_US": knobs[f"{prefix}_DECOMP_BUDGET_US"]}


def launches(
    case: Case, knobs: Knobs, prompts: Sequence[Path], *, replicate: int | None = None, repeat: int | None = None
) -> list[LaunchSpec]:
    """The launches of one run: one per prompt and generation length (``llm_bench``), one per prompt (``llm_demo``)."""
    knobs = case.knobs(knobs)
    common = LaunchSpec(
        program=case.program,
        arm=case.arm,
        replicate=replicate or case.replicate,
        config=engine_config(knobs),
        gen_tokens=knobs.integer("DECODE_TOKENS"),
        threads=knobs.integer("THREADS"),
        backend=knobs.text("BACKEND"),
        attention_option=knobs.integer("ATTENTION_OPTION"),
        timeout_s=knobs.number("LAUNCH_TIMEOUT_S"),
    )
    if case.program == "llm_demo":
        return [replace(common, prompt_file=prompt) for prompt in prompts]
    common = replace(common, repeat=repeat or knobs.integer("REPEAT"))
    lengths = product(knobs.integers("PROMPTS"), knobs.integers("GENS"))
    return [replace(common, prompt_tokens=prompt, gen_tokens=gen) for prompt, gen in lengths]


def baseline_of(candidate: LaunchSpec, paired_with: str = "") -> LaunchSpec:
    """The same launch with H2O and lossless off."""
    return replace(candidate, arm=BASELINE, config=baseline_config(), paired_with=paired_with)


def dump_launch(case: Case, knobs: Knobs, prompt: Path) -> LaunchSpec:
    """A launch with H2O and lossless off that writes its KV to ``kv_dump`` in its launch directory."""
    (launch,) = launches(case, knobs, [prompt])
    env = {"MNN_KV_DUMP_DIR": "{directory}/kv_dump", "MNN_KV_DUMP_RUN_ID": prompt.stem, "MNN_KV_DUMP_STAGE": "both"}
    return replace(baseline_of(launch), arm="kv_dump", gen_tokens=96, env=env)
