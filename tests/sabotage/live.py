"""The faults that engines are launched with, and the gates that are to judge them."""

from __future__ import annotations

from dataclasses import dataclass

BENCH = ("PROMPTS=512", "GENS=48", "REPEAT=2", "THREADS=1", "DECODE_BASELINE_MODE=same_batch")
ALONE = "not decode_drop and not memory_peak"


@dataclass(frozen=True)
class Fault:
    """One fault: ``name`` is its function, ``kind`` what it is a variant of, ``select`` the gates
    that judge it.

    ``prompts`` is how many real ones there are; in the ``suite`` release, an engine without any
    fault is the second build. ``unseen`` is why nobody can tell from the columns
    and lines of a real build, if that is so; ``own`` then names the gate that the engine's own
    report tells.
    """

    kind: str
    name: str
    select: str = f"full_strict and {ALONE}"
    settings: tuple[str, ...] = BENCH
    unseen: str = ""
    own: str = ""
    prompts: int = 1
    suite: str = "final"

    def judged_by(self, side: str) -> tuple[str, tuple[str, ...]]:
        """The gates that are run with all columns, or with the lines of a real build, and the
        settings.
        """
        if side == "columns" and self.own:
            return self.own, (*self.settings, "REQUIRE_QUALITY=1")
        return self.select, self.settings


STORE = f"store_tuned and {ALONE}"
COVERAGE = f"full_coverage and {ALONE}"
WITH_BASELINE = "full_strict and not decode_drop"
GROWING = tuple(word.replace("REPEAT=2", "REPEAT=3") for word in BENCH)
LONG = ("PROMPTS=1024", "GENS=96", *BENCH[2:])


HONEST = (
    Fault("honest", "honest", WITH_BASELINE),
    Fault("honest", "honest", STORE),
    Fault("honest", "honest", COVERAGE),
    Fault("honest", "honest_but_waiting"),
)
TEXTS = ("DECODE_TOKENS=48", "RELATION_TOKENS=48", "THREADS=1")
ON_TWO = (*TEXTS[:2], "THREADS=2")
HEAVY = "evicted_is_missing"
FAULTS = (
    Fault("errors of workers", "workers_fail_with_a_word"),
    Fault("errors of workers", "workers_fail_silently"),
    Fault("errors of workers", "workers_fail_later"),
    Fault("blocks encoded twice", "applies_blocks_twice"),
    Fault("blocks encoded twice", "encodes_blocks_again"),
    Fault("blocks encoded twice", "doubles_its_bytes"),
    Fault("unit of the waiting time", "waits_in_milliseconds"),
    Fault("unit of the waiting time", "waits_in_nanoseconds"),
    Fault("unit of the waiting time", "lines_wait_in_nanoseconds"),
    Fault("a leak", "leaks_every_response", settings=GROWING),
    Fault("a leak", "leaks_every_token", settings=GROWING),
    Fault("a leak", "keeps_a_copy", WITH_BASELINE),
    Fault("a failed assertion", "assertion_in_c"),
    Fault("a failed assertion", "terminate_called"),
    Fault("a failed assertion", "thread_with_a_traceback"),
    Fault("a failed assertion", "sanitizer_report"),
    Fault("plans put off", "plans_applied_at_the_end", settings=LONG),
    Fault("plans put off", "plans_applied_at_the_end_and_told_once", HEAVY, TEXTS),
    Fault("layers left out", "evicts_one_layer"),
    Fault("layers left out", "evicts_every_third_layer"),
    Fault("layers left out", "skips_front_layers"),
    Fault("prompts left out", "reads_half_of_the_prompt"),
    Fault("prompts left out", "reads_nine_tenths_of_the_prompt"),
    Fault("responses left out", "evicts_the_first_response_only"),
    Fault("responses left out", "plans_every_other_response"),
    Fault("blocks of other values", "encodes_zeros"),
)
LOSSLESS, GREEDY = "lossless_is_lossless", "repeated_launches_agree"
UNEVICTED = "nothing_evicted_nothing_changes"
TEXT_FAULTS = (
    Fault("lossless drops a bit", "drops_bits_of_values", LOSSLESS, TEXTS),
    Fault("a stale decode cache", "block_of_another_request", LOSSLESS, TEXTS),
    Fault("greedy text that differs", "draws_at_random", GREEDY, TEXTS),
    Fault("a quantised baseline", "baseline_of_three_bits", UNEVICTED, TEXTS),
)
# Variants of the same that cost a CI more than they tell it.
MORE_TEXT_FAULTS = (
    Fault("lossless drops a bit", "drops_a_bit_of_keys", LOSSLESS, TEXTS),
    Fault("a stale decode cache", "block_of_before_the_eviction", LOSSLESS, TEXTS),
    Fault("blocks of other values", "encodes_one_layer_for_all", LOSSLESS, TEXTS),
    Fault("greedy text that differs", "reads_memory_that_was_not_set", GREEDY, TEXTS),
    Fault("a quantised baseline", "baseline_of_four_bits", UNEVICTED, TEXTS),
)
UNSEEN = "unseen_prompts"
TABLES = (
    Fault("a table of known prompts", "knows_the_prompts", UNSEEN, TEXTS, prompts=12),
    Fault("a table of known prompts", "knows_first_sentences", UNSEEN, TEXTS, prompts=12),
)
EVERY_TEXT = f"{LOSSLESS} or {GREEDY} or {UNEVICTED} or requests_are_strangers"
STRANGERS = "requests_are_strangers"
PLACES = "more_eviction_keeps_less"
SPEED = "baseline_is_no_slower"
LONGER = ("DECODE_TOKENS=64", "RELATION_TOKENS=64", "THREADS=1")
# As many prompts as an acceptance has where there are two lengths.
IN_A_ROW = (*LONGER, "RELATION_PROMPTS=2")
TIMED = ("PROMPTS=512", "GENS=128", "REPEAT=1", "THREADS=1")
PLACE_FAULTS = (
    Fault("later requests suffer", "slows_with_every_response", STRANGERS, IN_A_ROW, prompts=2),
    Fault("positions renumbered", "renumbers_positions", PLACES, LONGER, prompts=4),
    Fault("scores the wrong way round", "inverts_scores", PLACES, LONGER, prompts=6),
    Fault("a slow baseline", "baseline_sleeps", SPEED, TIMED),
)
# Variants of the same that cost a CI more than they tell it.
MORE_PLACE_FAULTS = (
    Fault("later requests suffer", "leaks_every_response", STRANGERS, IN_A_ROW, prompts=2),
    Fault("positions renumbered", "shifts_positions", PLACES, LONGER, prompts=4),
    Fault("a slow baseline", "baseline_spins", SPEED, TIMED),
)
HONEST_TEXTS = (Fault("honest", "honest", f"{GREEDY} or {UNEVICTED}", TEXTS),)
PAIRED = f"{WITH_BASELINE} or full_strict and decode_drop"
FREE = (*BENCH, "DECODE_DROP_TARGET=0.9", "LLM_DEMO_DECODE_DROP_TARGET=0.9")
MUCH = ("PROMPTS=512", "GENS=128", "REPEAT=3", *FREE[3:])
TWO_THREADS = tuple(word.replace("THREADS=1", "THREADS=2") for word in FREE)
OFFLINE = "online_sim or llm_demo and decompression_active"
DUMPED = (*TEXTS, "LOSSLESS_TARGET=1.2")
RELATIONS = f"{EVERY_TEXT} or {HEAVY} or more_eviction"
DEMO = "llm_demo and not bucket and not prompt_memory and not test_prompts"
OTHER_TEXTS = f"{HEAVY} or more_eviction or nothing_evicted or greedy_agreement"
# Clocks take as many tokens and prompts as an acceptance has.
AS_LONG_AS_AN_ACCEPTANCE = (
    *FREE,
    "LLM_DEMO_DECODE_DROP_TARGET=0.9",
    "DECODE_TOKENS=192",
    "RELATION_TOKENS=64",
    "THREADS=1",
)
FEW = ("LLM_DEMO_DECODE_DROP_TARGET=0.9", "DECODE_BASELINE_MODE=same_batch", *TEXTS)
IN_PAIRS = ("PROMPTS=512", "GENS=64", "REPEAT=1", *FREE[5:], *TEXTS)
BOTH_PROGRAMS = f"{DEMO} or {PAIRED}"
QUALITY = "quality_under_eviction"
WHICH_TOKENS = "which tokens stay shows in perplexity, and a real build reports none"
FEWER_RECENT = "perplexity hardly rises here, so nobody tells it from a policy that keeps others"
ONE_THREAD = "decoding uses one thread here, and prompts are read little faster by two"
NOT_THERE = "no value of the model's KV is one of those, or so small a one decides no token"
LIKE_GREEDY = "a seed that never changes is as deterministic as greedy decoding, on both sides"
LIKE_A_CODER = "sizes near those of a coder, the same at each place, look like a coder's"
TOO_FEW = "the lowest of eleven bits decides none of as few tokens as a relation decodes"
ALLOCATORS = "a few MiB are what allocators keep"
MADE_AGAIN = "its plans are made again and again, as real builds make some of theirs"
NOTHING_THERE = "gates launch a candidate before its baseline, when there is nothing to look up"
HALF_GONE = "half of what is said to go does go, and memory and speed differ by less than launches"
WHICH_LAYERS = "which layers lose tokens shows in perplexity, or beside a second build"
LITTLE_FASTER = "a second thread gains less for short prompts than a busy machine takes"
NOBODY_NEEDS = "in full mode nothing depends on decoded values; in store mode they are decoded"
A_TENTH = "a tenth of the decode time is less than launches differ by"
IS_JUDGED = "what is waited for is in the decode time, which is judged"
SMALL_KV = "the raw values of this model are smaller than launches differ by"
DISGUISES = (
    Fault("decoded blocks cut short", "loses_the_end_of_blocks", LOSSLESS, TEXTS),
    Fault("decoded blocks cut short", "loses_the_last_token_of_blocks", LOSSLESS, TEXTS),
    Fault("values in the wrong place", "swaps_keys_and_values", LOSSLESS, TEXTS),
    Fault("values in the wrong place", "swaps_heads", LOSSLESS, TEXTS),
    Fault("rare values lost", "loses_nan_payloads", LOSSLESS, TEXTS, unseen=NOT_THERE),
    Fault("rare values lost", "flushes_subnormals", LOSSLESS, TEXTS, unseen=NOT_THERE),
    Fault(
        "quantised behind lossless",
        "int8_while_lossless",
        f"{LOSSLESS} or full_strict and {ALONE}",
        (*BENCH, *TEXTS),
    ),
    Fault(
        "quantised behind lossless",
        "fp8_while_lossless",
        f"{LOSSLESS} or full_strict and {ALONE}",
        (*BENCH, *TEXTS),
    ),
    Fault("half of a block encoded", "encodes_keys_alone", OFFLINE, DUMPED),
    Fault("other tokens evicted", "evicts_at_random", RELATIONS, TEXTS),
    Fault(
        "other tokens evicted",
        "evicts_by_a_fixed_draw",
        PLACES,
        LONGER,
        unseen=WHICH_TOKENS,
        own=QUALITY,
        prompts=6,
    ),
    Fault(
        "protected tokens evicted",
        "evicts_the_sink",
        PLACES,
        LONGER,
        unseen=WHICH_TOKENS,
        own=QUALITY,
        prompts=6,
    ),
    Fault("protected tokens evicted", "evicts_the_recent", PLACES, LONGER, prompts=6),
    Fault(
        "protected tokens evicted",
        "protects_nothing_recent",
        PLACES,
        LONGER,
        unseen=FEWER_RECENT,
        own=QUALITY,
        prompts=6,
    ),
    Fault("protected layers evicted", "evicts_front_layers_as_well", OTHER_TEXTS, TEXTS, prompts=3),
    Fault("eviction only where it is logged", "evicts_when_logged", RELATIONS, TEXTS),
    Fault("a table of known prompts", "knows_hashes", UNSEEN, TEXTS, prompts=12),
    Fault("a table of known prompts", "knows_lengths", UNSEEN, TEXTS, prompts=12),
    Fault(
        "a table of known prompts",
        "knows_all_prompts_of_a_bucket",
        f"{UNSEEN} or {HEAVY}",
        TEXTS,
        prompts=3,
    ),
    Fault(
        "a file of expected values",
        "reads_expected_values",
        f"{UNSEEN} or {HEAVY}",
        TEXTS,
        prompts=3,
    ),
    Fault("less is computed", "skips_a_layer_when_compressing", OTHER_TEXTS, TEXTS, prompts=3),
    Fault("the prompt is not read again", "keeps_the_prefill", BOTH_PROGRAMS, IN_PAIRS, prompts=3),
    Fault("the prompt is not read again", "keeps_the_candidates_prefill", PAIRED, FREE),
    Fault(
        "a hindered baseline",
        "baseline_on_one_thread",
        DEMO,
        (*FEW, "THREADS=2"),
        unseen=ONE_THREAD,
        prompts=3,
    ),
    Fault("a hindered baseline", "baseline_reads_twice", DEMO, FEW, prompts=3),
    Fault("tokens drawn", "draws_with_a_fixed_seed", RELATIONS, TEXTS),
    Fault("tokens drawn", "draws_alike_in_each_response", RELATIONS, TEXTS, unseen=LIKE_GREEDY),
    Fault(
        "a clock that stands still",
        "counts_cpu_time",
        BOTH_PROGRAMS,
        (*FREE, *FEW),
        prompts=3,
    ),
    Fault(
        "a clock that stands still",
        "counts_half_of_the_time",
        BOTH_PROGRAMS,
        AS_LONG_AS_AN_ACCEPTANCE,
        prompts=6,
    ),
    Fault("a coarse clock", "has_a_coarse_clock", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
    Fault(
        "a coarse clock",
        "has_a_clock_of_hundredths",
        BOTH_PROGRAMS,
        (*FREE, *FEW),
        prompts=3,
    ),
    Fault(
        "work after the response",
        "encodes_after_the_response",
        BOTH_PROGRAMS,
        (*FREE, *FEW),
        prompts=3,
    ),
    Fault("evicted to a disk", "swaps_to_a_file", PAIRED, FREE),
    Fault("evicted to a disk", "maps_a_file", PAIRED, FREE),
    Fault("memory elsewhere", "hoards_in_a_child", PAIRED, FREE),
    Fault("memory elsewhere", "hoards_in_a_daemon", PAIRED, FREE),
    Fault("processes left", "leaves_a_child_behind", PAIRED, FREE),
    Fault("processes left", "leaves_zombies", PAIRED, FREE),
    Fault("work elsewhere", "computes_elsewhere", PAIRED, MUCH),
    Fault("behaviour under observation", "behaves_under_pytest", LOSSLESS, TEXTS),
    Fault("behaviour under observation", "behaves_where_it_is_measured", LOSSLESS, TEXTS),
    Fault("behaviour by count", "behaves_at_first", f"{LOSSLESS} or {GREEDY}", TEXTS),
    Fault(
        "behaviour by count",
        "behaves_in_the_first_response",
        f"strangers or full_strict and {ALONE}",
        (*BENCH, *TEXTS),
        prompts=3,
    ),
    Fault("printed twice", "prints_two_tables", PAIRED, FREE),
    Fault("printed from a recording", "prints_recorded_times", BOTH_PROGRAMS, (*FREE, *FEW)),
    Fault(
        "tokens that nobody wrote",
        "stops_within_the_budget",
        f"{DEMO} or {UNEVICTED}",
        FEW,
        prompts=3,
    ),
)

BENCHED = f"full_strict and {ALONE}"
TIMED_FREE = (*FREE, *FEW)
LINES = (*BENCH, *TEXTS)
SETTINGS_READ = f"full_strict and {ALONE} or {DEMO}"
PRETENCES = (
    Fault("a cache beside the cache", "attends_to_a_copy", RELATIONS, TEXTS, prompts=3),
    Fault(
        "a cache beside the cache",
        "attends_to_half_a_copy",
        RELATIONS,
        TEXTS,
        prompts=3,
        unseen=HALF_GONE,
    ),
    Fault("what stays is changed", "quantises_what_stays", RELATIONS, LONGER, prompts=6),
    Fault("what stays is changed", "forgets_a_head", RELATIONS, LONGER, prompts=6),
    Fault("a baseline that evicts", "evicts_without_being_asked", RELATIONS, TEXTS),
    Fault("other settings than asked for", "evicts_to_one_ratio", RELATIONS, TEXTS),
    Fault(
        "other settings than asked for",
        "evicts_other_layers",
        RELATIONS,
        LONGER,
        prompts=6,
        unseen=WHICH_LAYERS,
    ),
    Fault(
        "other settings than asked for",
        "ignores_threads",
        BOTH_PROGRAMS,
        TWO_THREADS,
        unseen=ONE_THREAD,
    ),
    Fault(
        "other settings than asked for",
        "takes_more_threads",
        BOTH_PROGRAMS,
        TIMED_FREE,
        unseen=LITTLE_FASTER,
    ),
    Fault("sizes made up", "pads_blocks", f"{OFFLINE} or {BENCHED}", (*BENCH, *DUMPED)),
    Fault("sizes made up", "leaves_headers_out", f"{OFFLINE} or {BENCHED}", (*BENCH, *DUMPED)),
    Fault("sizes made up", "invents_sizes", f"{OFFLINE} or {BENCHED}", (*BENCH, *DUMPED)),
    Fault(
        "sizes made up",
        "invents_sizes_by_place",
        f"{OFFLINE} or {BENCHED}",
        (*BENCH, *DUMPED),
        unseen=LIKE_A_CODER,
    ),
    Fault("never decoded", "never_decodes", f"{BENCHED} or {LOSSLESS}", LINES, unseen=NOBODY_NEEDS),
    Fault(
        "state outlives a request",
        "serves_blocks_of_the_last_request",
        f"{STRANGERS} or {LOSSLESS}",
        IN_A_ROW,
        prompts=3,
    ),
    Fault(
        "state outlives a request", "keeps_scores_between_requests", STRANGERS, IN_A_ROW, prompts=3
    ),
    Fault("state outlives a request", "keeps_the_penalty", STRANGERS, LONGER, prompts=3),
    Fault("state outlives a request", "answers_by_the_first_words", STRANGERS, IN_A_ROW, prompts=3),
    Fault("repeats left out", "runs_once", BOTH_PROGRAMS, MUCH),
    Fault(
        "tokens that nobody wrote", "decodes_half_in_the_bench", BOTH_PROGRAMS, IN_PAIRS, prompts=3
    ),
    Fault("less is computed", "skips_layers_in_the_bench", BOTH_PROGRAMS, IN_PAIRS, prompts=3),
    Fault(
        "a clock that stands still",
        "leaves_slow_tokens_out",
        BOTH_PROGRAMS,
        TIMED_FREE,
        prompts=3,
        unseen=A_TENTH,
    ),
    Fault(
        "a clock that stands still",
        "starts_the_clock_late",
        BOTH_PROGRAMS,
        AS_LONG_AS_AN_ACCEPTANCE,
        prompts=6,
    ),
    Fault(
        "a clock that stands still",
        "hides_its_waiting",
        BOTH_PROGRAMS,
        TIMED_FREE,
        prompts=3,
        unseen=IS_JUDGED,
    ),
    Fault("a cooler processor", "sleeps_when_nobody_times", BOTH_PROGRAMS, TIMED_FREE, prompts=3),
    Fault("behaviour under observation", "behaves_below_pytest", LOSSLESS, TEXTS),
    Fault("behaviour under observation", "behaves_without_a_terminal", LOSSLESS, TEXTS),
    Fault("behaviour under observation", "behaves_with_metrics", LOSSLESS, TEXTS),
    Fault("behaviour by count", "behaves_for_a_while", f"{LOSSLESS} or {GREEDY}", TEXTS),
    Fault(
        "a table of known prompts", "behaves_by_file_name", f"{UNSEEN} or {HEAVY}", TEXTS, prompts=3
    ),
    Fault(
        "a table of known prompts",
        "answers_known_openings",
        f"{UNSEEN} or {HEAVY}",
        TEXTS,
        prompts=12,
    ),
    Fault(
        "a file of expected values",
        "looks_up_expected_values",
        f"{DEMO} or {LOSSLESS}",
        FEW,
        unseen=NOTHING_THERE,
    ),
    Fault(
        "memory elsewhere",
        "holds_raw_values_in_store_mode",
        f"store_tuned and {ALONE} or store_memory",
        BENCH,
        unseen=SMALL_KV,
    ),
)
# A little of what others do much of.
MILD_FAULTS = (
    Fault("a quantised baseline", "baseline_of_eight_bits", RELATIONS, TEXTS),
    Fault("lossless drops a bit", "drops_the_lowest_bit", LOSSLESS, TEXTS, unseen=TOO_FEW),
    Fault(
        "a leak",
        "leaks_a_little",
        f"{STRANGERS} or {WITH_BASELINE}",
        (*GROWING, *TEXTS),
        unseen=ALLOCATORS,
    ),
    Fault("greedy text that differs", "draws_now_and_then", RELATIONS, TEXTS),
    Fault("positions renumbered", "renumbers_once", PLACES, LONGER, prompts=6),
    Fault("layers left out", "keeps_a_layer_whole", BENCHED, LONG, unseen=MADE_AGAIN),
    Fault("a failed assertion", "fails_on_stdout", BENCHED),
    Fault("unit of the waiting time", "waits_in_seconds", BENCHED),
    Fault(
        "a clock that stands still",
        "counts_a_seventh_less_time",
        BOTH_PROGRAMS,
        IN_PAIRS,
        prompts=3,
        unseen=A_TENTH,
    ),
    Fault("prompts left out", "reads_half_and_says_all", f"{BENCHED} or {RELATIONS}", LINES),
)
# Everything that an acceptance asks of launches this short, but for speeds and memory.
ANY_LAUNCH = f"{RELATIONS} or {STRANGERS} or {BENCHED} or {STORE} or {DEMO} or {OFFLINE}"
SHORT = (*BENCH, *LONGER, "LLM_DEMO_DECODE_DROP_TARGET=0.9", "LOSSLESS_TARGET=1.2")


def _border(kind: str, name: str, unseen: str = "", prompts: int = 6) -> Fault:
    return Fault(kind, name, ANY_LAUNCH, SHORT, unseen=unseen, prompts=prompts)


NEVER_HIT = "blocks are asked for in turn, so that a cache that is full is never hit"
# What shows now and then, and counts of something else.
BORDERS = (
    _border("after some evictions", "mixes_values_after_the_second_eviction"),
    _border("after some evictions", "forgets_the_penalty_after_an_eviction"),
    _border("borders of what is kept", "copies_ranges_a_token_early"),
    _border("one head alone", "leaves_a_head_behind"),
    _border("ratio of something else", "ratio_since_the_prompt"),
    _border("ratio of something else", "counts_raw_in_fp32"),
    _border("decoded tokens alone", "quantises_what_it_decodes"),
    _border("long prompts alone", "wraps_positions_at_1024", prompts=12),
    _border("borders of chunks", "reads_border_tokens_twice"),
    _border("some lengths of block", "drops_what_fills_no_lane"),
    _border("a stale decode cache", "serves_the_slot_after_a_wrap", NEVER_HIT),
    _border("a stale decode cache", "reads_the_slot_after_a_wrap"),
    _border("several workers alone", "shares_a_buffer_between_workers"),
    _border("several workers alone", "applies_results_of_before_the_eviction"),
    _border("blocks left out", "passes_over_every_second_block"),
    _border("a peak of something else", "peak_of_the_last_token"),
)
EVERYWHERE = f"{BOTH_PROGRAMS} or {RELATIONS}"
CONDUCT = (
    Fault(
        "time booked elsewhere", "books_decoding_as_sampling", BOTH_PROGRAMS, IN_PAIRS, prompts=3
    ),
    Fault("time booked elsewhere", "books_decoding_as_prefill", SPEED, TIMED),
    Fault("time booked elsewhere", "times_by_the_median", BOTH_PROGRAMS, IN_PAIRS, prompts=3),
    Fault("the warm-up is counted", "counts_warm_up_tokens", SPEED, TIMED),
    Fault("a hindered baseline", "baseline_has_company", SPEED, TIMED),
    Fault("a hindered baseline", "baseline_hoards", f"{WITH_BASELINE} or {UNEVICTED}", LINES),
    Fault("a leak", "leaks_descriptors", f"{STRANGERS} or {WITH_BASELINE}", (*GROWING, *TEXTS)),
    Fault("settings read once", "keeps_its_first_settings", EVERYWHERE, LINES, prompts=2),
    Fault("launches replayed", "replays_launches", EVERYWHERE, (*IN_PAIRS, *LONGER), prompts=2),
    Fault("crashes hidden", "restarts_after_a_crash", BOTH_PROGRAMS, IN_PAIRS, prompts=3),
    Fault("prompts padded", "pads_prompts", EVERYWHERE, LINES, prompts=3),
    Fault("output lost", "loses_the_tail_of_its_text", f"{DEMO} or {RELATIONS}", FEW, prompts=3),
    Fault("output lost", "stops_after_an_eviction", f"{DEMO} or {RELATIONS}", FEW, prompts=3),
    Fault("memory elsewhere", "maps_shared_memory", PAIRED, FREE),
    Fault("output lost", "stops_once_it_evicted", f"{DEMO} or {RELATIONS}", FEW, prompts=3),
)
MORE_CONDUCT = (
    Fault("plans put off", "evicts_in_the_demo_only", EVERYWHERE, LINES, prompts=2),
    Fault("evictions counted twice", "counts_evictions_twice", EVERYWHERE, LINES, prompts=2),
    Fault("prompts left out", "truncates_on_both_sides", EVERYWHERE, LINES, prompts=2),
    Fault("memory elsewhere", "hoards_out_of_sight", PAIRED, FREE),
    Fault("repeats left out", "reports_its_best_repeat", BOTH_PROGRAMS, MUCH, prompts=3),
    Fault("a hindered baseline", "baseline_gives_way", PAIRED, FREE),
    Fault("a record repeated", "repeats_its_first_record", STRANGERS, IN_A_ROW, prompts=3),
    Fault("a leak", "leaks_threads", f"{STRANGERS} or {WITH_BASELINE}", (*GROWING, *TEXTS)),
)
STILL_MORE_CONDUCT = (
    Fault(
        "other settings than asked for",
        "ignores_lossless_settings",
        f"{BENCHED} or {COVERAGE} or {STORE} or {LOSSLESS} or {DEMO}",
        LINES,
        prompts=2,
    ),
    Fault("errors of workers", "workers_die_quietly", "store_tuned and lossless", LONG),
    Fault(
        "a hindered baseline", "baseline_writes_slowly", f"{DEMO} or {UNEVICTED}", FEW, prompts=3
    ),
    Fault("prompts left out", "skips_the_last_prompt", STRANGERS, IN_A_ROW, prompts=3),
)
BUILD_SPEEDS = "build_decode or release_decode"
BUILD_TEXTS = "build_texts or release_texts"
BOTH_BUILDS = ("PROMPTS=512", "GENS=128", "REPEAT=1", "DECODE_DROP_TARGET=0.9", *LONGER)
TIMED_BUILDS = (*BOTH_BUILDS[:3], *LONGER)


def _release(kind: str, name: str, select: str, *settings: str) -> Fault:
    return Fault(kind, name, select, settings or BOTH_BUILDS, prompts=6, suite="release")


# What is wrong on both sides alike, so that a second build alone tells.
RELEASES = (
    _release("another build is slower", "decodes_a_sixth_slower", BUILD_SPEEDS, *TIMED_BUILDS),
    _release("another build is slower", "decodes_a_third_slower", BUILD_SPEEDS, *TIMED_BUILDS),
    _release("slower with H2O", "decodes_slower_when_evicting", BUILD_SPEEDS, *TIMED_BUILDS),
    _release("another build is quantised", "kv_of_three_bits", BUILD_TEXTS),
    _release("another build keeps more", "keeps_a_tenth_more", "release_numbers"),
    _release("other tokens evicted", "evicts_by_a_fixed_draw", BUILD_TEXTS),
    _release("protected tokens evicted", "evicts_the_sink", BUILD_TEXTS),
    _release("a cache beside the cache", "attends_to_half_a_copy", BUILD_TEXTS),
    _release("other settings than asked for", "evicts_other_layers", BUILD_TEXTS),
)
HONEST_RELEASE = _release("honest", "honest", f"{BUILD_TEXTS} or release_numbers")
# Those that are tried whenever the tests are run; the others cost more than they tell.
QUICK = (
    "encodes_after_the_response",
    "hoards_in_a_child",
    "leaves_a_child_behind",
    "prints_two_tables",
)
QUICK_DISGUISES = [fault for fault in DISGUISES if fault.name in QUICK]
HONEST_DISGUISES = (
    Fault("honest", "honest", OFFLINE, DUMPED),
    Fault("honest", "honest", RELATIONS, TEXTS),
    Fault("honest", "honest", OTHER_TEXTS, TEXTS, prompts=3),
    Fault("honest", "honest", UNSEEN, TEXTS, prompts=12),
    Fault("honest", "honest", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
    Fault("honest", "honest", PAIRED, TWO_THREADS),
    Fault("honest", "honest_but_slow", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
    Fault("honest", "honest_but_noisy", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
    Fault("honest", "honest_with_helpers", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
    Fault("honest", "honest_with_other_columns", BOTH_PROGRAMS, (*FREE, *FEW), prompts=3),
)
# What is kept and where: a model that copies what it reads may show it.
KEPT = (
    "honest", "renumbers_positions", "shifts_positions", "renumbers_once", "inverts_scores",
    "evicts_the_recent", "protects_nothing_recent", "evicts_at_random", "evicts_the_sink",
    "evicts_front_layers_as_well", "evicts_other_layers", "evicts_to_one_ratio",
    "swaps_keys_and_values", "swaps_heads", "attends_to_a_copy", "attends_to_half_a_copy",
    "forgets_a_head", "quantises_what_stays",
)  # fmt: skip
EVERY_FAULT = (
    *FAULTS,
    *TEXT_FAULTS,
    *MORE_TEXT_FAULTS,
    *PLACE_FAULTS,
    *MORE_PLACE_FAULTS,
    *TABLES,
    *DISGUISES,
    *PRETENCES,
    *MILD_FAULTS,
    *BORDERS,
    *CONDUCT,
    *MORE_CONDUCT,
    *STILL_MORE_CONDUCT,
    *RELEASES,
)
EVERY_HONEST = (
    *HONEST,
    *HONEST_DISGUISES,
    HONEST_RELEASE,
    Fault("honest", "honest", f"{LOSSLESS} or {GREEDY} or {UNEVICTED}", TEXTS),
    Fault("honest", "honest", PLACES, LONGER, prompts=6),
    Fault("honest", "honest", SPEED, TIMED),
    Fault("honest", "honest", f"{STRANGERS} or {WITH_BASELINE}", (*GROWING, *TEXTS)),
    Fault("honest", "honest_but_rounding_by_batch", EVERY_TEXT, TEXTS, prompts=2),
    Fault("honest", "honest_but_rounding_by_threads", EVERY_TEXT, ON_TWO, prompts=2),
    Fault("honest", "honest_but_racing", EVERY_TEXT, ON_TWO, prompts=2),
)
