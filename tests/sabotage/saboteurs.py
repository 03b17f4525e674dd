"""The table of saboteurs: a defect, the form it comes in, and the gates that must name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import defects
from imitator import Launch

Form = Literal["launched", "replayed"]


@dataclass(frozen=True)
class Saboteur:
    """``gate`` (its name and case) must fail, and its reason must contain ``words``.

    ``suite`` says which gates are run: those on ``bench`` cases or on real prompts (``demo``).
    """

    defect: Callable[[Launch], None]
    gate: str
    words: str
    form: Form = "replayed"
    suite: Literal["bench", "demo"] = "bench"

    @property
    def select(self) -> str:
        """The gates that are run: those of the case, of the pack, or on real prompts."""
        name, _, case = self.gate.removesuffix("]").partition("[")
        if name == "bucket_decode":  # all of them: buckets are judged as one family
            return name
        return (
            "llm_demo"
            if self.suite == "demo"
            else case
            if case in (FULL, STORE)
            else "every_launch"
        )

    @property
    def module(self) -> str:
        """Where the gate is."""
        bench = "test_runtime.py" if self.select in (FULL, STORE) else "test_m3.py"
        return "test_llm_demo.py" if self.suite == "demo" else bench

    @property
    def name(self) -> str:
        """The defect's name."""
        return self.defect.__name__


FULL, STORE, PROMPTS = "full_strict", "store_tuned", "llm_demo"


def bench(
    defect: Callable[[Launch], None],
    gate: str,
    words: str,
    case: str = FULL,
    form: Form = "replayed",
) -> Saboteur:
    return Saboteur(defect, f"{gate}[{case}]", words, form)


def demo(
    defect: Callable[[Launch], None],
    gate: str,
    words: str,
    case: str = PROMPTS,
    form: Form = "replayed",
) -> Saboteur:
    return Saboteur(defect, f"{gate}[{case}]", words, form, "demo")


SABOTEURS = [
    bench(
        defects.counts_dropped_plans,
        "lossy",
        "0 of 6 planned evictions were applied",
        form="launched",
    ),
    bench(defects.kv_never_shrinks, "lossy", "KV holds 560 tokens per layer after 560"),
    bench(defects.bytes_stay, "lossy", "MiB are held for"),
    bench(defects.effective_ratio_of_one, "lossy", "hold 1/1.02 of their tokens"),
    bench(
        defects.plans_again_and_again, "lossy", "plans were made and not applied", form="launched"
    ),
    bench(defects.ratio_from_target, "lossy", "lossy ratio 3.2 with"),
    bench(defects.ratio_without_plans, "lossy", "no [H2O] plan line was printed"),
    bench(defects.h2o_keys_ignored, "lossy", "H2O never triggered", form="launched"),
    bench(
        defects.config_overwritten,
        "settings",
        "kv_h2o_target_lossy_ratio is 2.0, asked for 3.2",
        form="launched",
    ),
    demo(defects.other_config_file, "settings", "config path is /opt/model/default.json"),
    bench(defects.recent_tokens_of_its_own, "settings", "recent=32, asked for 96"),
    bench(defects.never_decoded, "lossless_active", "decoding took 0"),
    bench(
        defects.decodes_to_something_else,
        "lossless_active",
        "0 of 3 blocks were decoded and compared equal",
    ),
    demo(defects.nothing_decompressed, "decompression_active", "0 MiB were decoded"),
    bench(defects.lossless_ratio_invented, "lossless_active", "ratio 4 of"),
    bench(defects.blocks_without_trace, "lossless_active", "no [H2O-LOSSLESS] line was printed"),
    bench(defects.restore_not_timed, "decode_drop", "outside the times it reports"),
    bench(
        defects.restore_longer_than_decode,
        "lossless_active",
        "restoring and waiting took 0.045 s",
        STORE,
    ),
    bench(defects.slower_clock, "settings", "reported times add up to"),
    demo(defects.tokens_requested, "decode_drop", "bytes of text for 512 decoded tokens"),
    demo(defects.stops_early, "decode_drop", "stopped early"),
    bench(defects.bench_stops_early, "decode_drop", "prompt and decoded tokens are 560"),
    bench(
        defects.baseline_with_h2o,
        "decode_drop",
        "the baseline shows h2o_lossy 3.1",
        form="launched",
    ),
    bench(defects.baseline_logs_plans, "decode_drop", "the baseline shows 1 eviction plans"),
    demo(defects.baseline_on_other_prompts, "decode_drop", "prompt tokens is"),
    bench(defects.baseline_with_one_thread, "decode_drop", "threads is 1, asked for 2"),
    bench(
        defects.baseline_of_another_model,
        "decode_drop",
        "model is weights, weights-large in the baseline",
    ),
    bench(defects.rebuilt_between, "decode_drop", "llm_bench changed since"),
    bench(defects.numbers_of_the_baseline, "decode_drop", "tok/s as bench-p512_g48x1-baseline"),
    bench(defects.stale_log, "every_launch_usable", "as bench-p512_g48x2-full-r1", "joint_full"),
    bench(defects.log_cut_off, "lossy", ", cut off"),
    bench(defects.no_log, "lossy", "the program printed no table", form="launched"),
    bench(defects.rows_twice, "lossy", "2 rows where 1 was launched", form="launched"),
    bench(defects.row_of_another_length, "lossy", "the row is p64_g48, launched was p512_g48"),
    bench(
        defects.one_repeat,
        "settings",
        "± 0 in both speeds: 2 repeats were asked for",
        form="launched",
    ),
    bench(defects.fallback_absent, "fallback", "no value for h2o_lossless_fallback"),
    bench(
        defects.fallback_negative,
        "fallback",
        "h2o_lossless_fallback is -1 ± 0 in p512_g48, which cannot be negative",
    ),
    bench(defects.fallback_now_and_then, "fallback", "h2o_lossless_fallback 0.33 is not <= 0"),
    bench(defects.queue_peak_absent, "queue_peak", "no value for h2o_lossless_queue_peak"),
    bench(defects.queue_peak_nan, "queue_peak", "h2o_lossless_queue_peak is nan ± nan"),
    bench(defects.queue_peak_negative, "queue_peak", "h2o_lossless_queue_peak is -1 ± 0"),
    bench(defects.queue_too_long, "queue_peak", "h2o_lossless_queue_peak 40 is not <= 8"),
    bench(
        defects.queue_not_a_number, "queue_peak", "h2o_lossless_queue_peak is 'many', not a number"
    ),
    bench(defects.infinite_speeds, "metric_columns", "decode_tps is inf ± nan", form="launched"),
    bench(defects.encodes_inline, "settings", "1 encode workers, most tasks queued or running: 0"),
    bench(defects.cache_never_hits, "settings", "280 lookups of 6 blocks and no hit", STORE),
    bench(defects.hits_without_blocks, "settings", "4 hits and 3 misses, and no block was encoded"),
    bench(defects.slow, "decode_drop", "slower than the baseline", form="launched"),
    bench(
        defects.slow_at_one_length,
        "decode_drop",
        "slower than the baseline at p1024_g48",
        form="launched",
    ),
    demo(defects.slow_bucket, "bucket_decode", "slower than the baseline", "512", "launched"),
    demo(defects.slow_at_length, "bucket_decode", "slower than the baseline", "2048", "launched"),
    bench(defects.blocks_of_192, "block_spans", "first blocks of 192 tokens, asked for 128"),
    bench(defects.other_mode, "settings", "mode=2, asked for full"),
    bench(defects.budget_in_exponents, "decompression_budget", "1200000 is not <= 30000 µs"),
    demo(defects.prompt_crashes, "launches", "ended by signal 11 (SIGSEGV)"),
    bench(defects.crashes, "lossy", "ended by signal 11 (SIGSEGV)", form="launched"),
    demo(defects.record_of_an_earlier_run, "launches", "by the metrics record it is"),
    demo(defects.skips_a_prompt, "launches", "0 prompt tokens: the program skips"),
    demo(defects.evicts_on_no_prompt, "eviction_active", "H2O never triggered"),
    demo(defects.init_error, "launches", "LLM init error", form="launched"),
    demo(defects.scrambled_text, "greedy_agreement", "surprise of"),
    demo(defects.one_word_for_ever, "greedy_agreement", "repeats itself"),
    demo(defects.one_answer_scrambled, "greedy_agreement", "prompt_2048_1: surprise of"),
    demo(defects.canned_answer, "greedy_agreement", "the same answer to"),
    bench(defects.fallback_in_lines_only, "lossless_active", "h2o_lossless_fallback is 0, and"),
    bench(defects.restores_fail, "lossless_active", "h2o_lossless_fallback is 0, and 20 lines"),
    bench(defects.restores_in_milliseconds, "lossless_active", "by the lines decoding took"),
    bench(defects.queue_in_lines_only, "settings", "lines reach queue=400"),
    demo(defects.best_layer_for_all, "decompression_active", "are recorded, the lines have"),
    demo(defects.evicted_tokens_inflated, "eviction_active", "evicted tokens are counted"),
    bench(defects.keeps_too_few, "lossy", "plans protect fewer tokens than sink and recent"),
    bench(defects.evicts_front_layers, "settings", "plans for layers 0, 1, asked for 2"),
    bench(defects.deletes_its_config, "settings", "config.json is gone", form="launched"),
    bench(defects.quantised_attention_in_table, "decode_drop", "attentionOption is Int8 Q,K,V"),
    demo(defects.more_tokens_than_asked, "decode_drop", "120 decoded tokens, asked for 64"),
    bench(
        defects.rewrites_the_baseline,
        "decode_drop",
        "log.md changed after the launch had ended",
        form="launched",
    ),
    demo(defects.samples_while_it_decodes, "decode_drop", "a token longer than its baseline"),
    demo(
        defects.reads_a_third, "decode_drop", "times as fast as its baseline, before any eviction"
    ),
    demo(
        defects.answers_another_prompt,
        "greedy_agreement",
        "the answer that the baseline gives to prompt_2048_1",
    ),
    demo(defects.decodes_faster_than_memory, "decompression_active", "MiB were decoded in 0.001"),
    demo(defects.record_is_a_pipe, "launches", "metrics.jsonl is no regular file", form="launched"),
]
