"""What to try: where a value missed its target by its knob, else by the gate; else by the cause."""

from __future__ import annotations

from pytest_h2o.plan.knobs import Knobs

SPEED = (
    "a longer H2O_UPDATE_INTERVAL evicts less often, more KV_LOSSLESS_ASYNC_THREADS encode beside "
    "the decoding; the limit is {knob}"
)
BY_KNOB = {
    "LOSSY_TARGET": "a higher --h2o-set H2O_TARGET_LOSSY_RATIO=... (now {H2O_TARGET_LOSSY_RATIO}), "
    "fewer H2O_RECENT_TOKENS and H2O_SINK_TOKENS, or longer PROMPTS",
    "LOSSLESS_TARGET": "pytest-h2o offline DUMP_DIR shows each layer and codec; the limit is "
    "{knob}, what is coded is KV_LOSSLESS_FRONT_N",
    "LOSSLESS_UPPER_BOUND_TARGET": "another codec (LOSSLESS_CODEC): whole sequences are the best "
    "that this one can do",
    "LOSSLESS_TENSOR_TARGET": "pytest-h2o offline DUMP_DIR shows which layers grow; leave them out "
    "with KV_LOSSLESS_FRONT_N",
    "EVALUATED_SHARE_TARGET": "the reasons above name what could not be read of the dump; dump it "
    "again",
    "DECODE_DROP_TARGET": SPEED,
    "LLM_DEMO_DECODE_DROP_TARGET": SPEED,
    "MAX_PERPLEXITY_INCREASE": "a lower H2O_TARGET_LOSSY_RATIO (now {H2O_TARGET_LOSSY_RATIO}) or "
    "more H2O_RECENT_TOKENS",
    "MIN_GREEDY_AGREEMENT": "a lower H2O_TARGET_LOSSY_RATIO (now {H2O_TARGET_LOSSY_RATIO}); the "
    "report shows the texts side by side",
    "MAX_LOSSLESS_QUEUE_PEAK": "more KV_LOSSLESS_ASYNC_THREADS, or a higher {knob}",
    "MAX_LOSSLESS_ASYNC_WAIT_US": "more KV_LOSSLESS_ASYNC_THREADS, or a higher {knob}",
    "MAX_LOSSLESS_DECOMP_US": "a decode cache (KV_LOSSLESS_DECODE_CACHE_BLOCKS) saves decoding; "
    "the limit is {knob}",
    "MAX_MEMORY_INCREASE": "look for KV that is kept beside its compressed form; "
    "the limit is {knob}",
    "MAX_MEMORY_GROWTH": "look for what a request leaves behind; the limit is {knob}",
}
MORE_BITS = "an ATTENTION_OPTION that keeps more bits (2: K and V int8); the limit is {knob}"
# Nothing is evicted there.
BY_SUITE = {
    "kv_quant": {
        "DECODE_DROP_TARGET": "longer PROMPTS, where fewer bytes of KV save more than unpacking "
        "them costs; the limit is {knob}",
        "MAX_PERPLEXITY_INCREASE": MORE_BITS,
        "MAX_KV_DIVERGENCE": MORE_BITS,
        "MIN_GREEDY_AGREEMENT": MORE_BITS,
    },
}
BY_GATE = {
    "eviction_active": "longer prompts, or a lower H2O_TRIGGER_MIN and H2O_RECENT_TOKENS",
    "keep_feasible": "fewer H2O_RECENT_TOKENS and H2O_SINK_TOKENS, or longer PROMPTS",
    "lossless_active": "a KV_LOSSLESS_FRONT_N above 0, and prompts longer than "
    "KV_LOSSLESS_BLOCK_TOKENS",
    "decompression_active": "REQUIRE_RUNTIME_DECOMP=0 leaves this out where nothing reads blocks "
    "back",
    "metric_columns": "a binary built with the H2O columns; STRICT_RUNTIME_METRIC_COLUMNS=0 leaves "
    "this out",
}
BY_HAND = "the command given as 'by hand', which repeats this launch alone"
# By what a cause says, the first that is found in it.
BY_CAUSE = {
    "LAUNCH_TIMEOUT_S": "a longer --h2o-set LAUNCH_TIMEOUT_S=... (now {LAUNCH_TIMEOUT_S}) if the "
    f"program was still at work; {BY_HAND}",
    "SIGKILL": f"shorter PROMPTS, or a machine with more memory; {BY_HAND}",
    "SIGSEGV": f"see whether every file that the config names is there; {BY_HAND}",
    "ended by signal": BY_HAND,
    "first character is '#'": "a prompt that begins with another character, or none of these",
    "prompt file is": "see whether that file is there and holds text",
    "exit code": BY_HAND,
    "printed no table": f"{BY_HAND}: it must be an llm_bench that writes to -fp or to stdout",
    "the row is": f"{BY_HAND}: it must print a row of the lengths that it is asked for",
    "cells where the header": "see whether the disk is full, or something else wrote to the table; "
    f"{BY_HAND}",
    "it looks older": "a binary built with this column; STRICT_RUNTIME_METRIC_COLUMNS=0 leaves out "
    "that all are there",
    "not a number": f"{BY_HAND}; see there whether the model was loaded",
    "no model was loaded": BY_HAND,
    "no KV dump": "-m 'SUITE and not offline' leaves the offline gates out",
    "no metrics record": "an llm_demo that knows --metrics-jsonl; stock ones write no record",
    "holds no row of": "a baseline of the same prompt and decode lengths (-p, -n)",
    "time prefill": "llm_bench -kv true, which times prefill and decode of one request",
    "never triggered": "longer PROMPTS, or a lower H2O_TRIGGER_MIN and H2O_RECENT_TOKENS",
    "dropped as stale": "see whether llm_config.json of the model has layer_nums: without it plans "
    "are made and dropped",
    "repeats itself": "a lower H2O_TARGET_LOSSY_RATIO or more H2O_RECENT_TOKENS; the report shows "
    "the texts side by side",
    "in the baseline": "both sides with the same program, model and options",
    "claimed, not evidenced": "what stands in brackets; without --h2o-require-evidence a claim is "
    "enough",
}


def hint_of_cause(cause: str, knobs: Knobs) -> str:
    """What to try where a gate was not judged, or was refuted; empty where nothing is known."""
    for said, text in BY_CAUSE.items():
        if said in cause:
            return text.format(LAUNCH_TIMEOUT_S=f"{knobs.number('LAUNCH_TIMEOUT_S'):g}")
    return ""


def hint_for(gate: str, knob: str, knobs: Knobs, suites: str = "") -> str:
    """What to try for a gate of ``suites`` (comma separated) that missed the target of ``knob``;
    empty where nothing is known.
    """
    of_suite = BY_SUITE.get(suites, {})
    text = of_suite.get(knob) or BY_KNOB.get(knob) or BY_GATE.get(gate, "")
    if not text:
        return f"the limit is {knob}" if knob else ""
    ratio = knobs.number("H2O_TARGET_LOSSY_RATIO")
    return text.format(knob=knob, H2O_TARGET_LOSSY_RATIO=f"{ratio:g}")
