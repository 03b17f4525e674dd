"""The suites: which there are, and what those that are put together from others are made of."""

from __future__ import annotations

SUITES = {
    "runtime": "acceptance of single llm_bench cases: full_strict, store_tuned, full_coverage",
    "store_smoke": "store mode with its default settings on the first prompt length, without a "
    "decode study",
    "m3": "repeated launches: joint_full and joint_store",
    "llm_demo": "real prompts, baseline against candidate",
    "relations": "what must hold between launches of real prompts, whatever they claim",
    "release": "a build against the second one that --h2o-baseline-llm-bench names, same settings",
    "offline": "the lossless codec on dumped KV",
    "full_eval": "one llm_bench case and the offline evaluation in chunks of 128 tokens",
    "kv_quant": "quantised KV against plain KV: bytes, decode speed, held-out text, real prompts",
    "sweep": "every combination of the preset that --h2o-preset names",
    "final": "the whole acceptance: runtime, m3, llm_demo and relations",
    "all_in_one": "runtime with fixed, same_batch and rolling baselines, m3, llm_demo and final",
}
# The parts of all_in_one by the knob that turns each one off: bench cases of its own, or other
# suites.
CASE_PARTS = {
    "RUN_RUNTIME_FIXED": "runtime_fixed",
    "RUN_RUNTIME_SAME_BATCH": "runtime_same_batch",
    "RUN_RUNTIME_ROLLING": "runtime_rolling",
}
SUITE_PARTS = {"RUN_M3": "m3", "RUN_LLM_DEMO": "llm_demo", "RUN_FINAL": "final"}


def named(expression: str) -> str:
    """The suite whose name a marker expression is; empty if it is none."""
    return expression.strip() if expression.strip() in SUITES else ""


def selected(expression: str) -> str:
    """The suite that a marker expression asks for; ``final`` if it is not the name of one."""
    return named(expression) or "final"


def reported(expression: str) -> set[str]:
    """The suites that reports are written for: the one asked for with its parts; all that were
    judged, if unclear.
    """
    parts = {"final": {"m3", "llm_demo"}, "all_in_one": {"final", "m3", "llm_demo"}}
    name = named(expression)
    return {name} | parts.get(name, set()) if name else set(SUITES)
