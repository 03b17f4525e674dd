"""Every number a launch can report: one row of :data:`METRICS` each, the only place to add a
column.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """Mean, sample standard deviation and repeats of one metric in one row; what was not printed is
    None.
    """

    mean: float
    std: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that the programs report.

    Attributes:
        name: canonical name.
        bench: header of its column in the ``llm_bench`` table, None if it has no column of its own.
        demo: its key in the ``llm_demo`` metrics record, None if it has none.
        demo_scale: factor from the record's unit to ``unit``.
    """

    name: str
    unit: str
    doc: str
    bench: str | None = None
    demo: str | None = None
    demo_scale: float = 1.0


_COMMON = (
    # Speeds share a column or are computed from token counts and times; the parsers name them.
    Metric("prefill_tps", "tok/s", "prompt tokens per second of prefill"),
    Metric("decode_tps", "tok/s", "generated tokens per second of decode, sampling time excluded"),
    Metric("combined_tps", "tok/s", "tokens per second over prefill and decode (ppN+tgM rows)"),
    Metric("load_s", "s", "time to load the model", bench="loadingTime(s)"),
    Metric("h2o_keep", "ratio", "kept over present tokens at the last eviction of one layer",
           bench="h2o_keep", demo="h2o_keep_ratio"),
    Metric("h2o_lossy", "ratio", "KV bytes before over after the last eviction of one layer",
           bench="h2o_lossy", demo="h2o_lossy_ratio"),
    Metric("h2o_lossless", "ratio", "raw over encoded bytes of all encoded blocks",
           bench="h2o_lossless", demo="h2o_lossless_ratio"),
    Metric("h2o_target_keep_effective", "ratio", "larger of target and floor over present tokens",
           bench="h2o_target_keep_effective"),
    Metric("h2o_floor_keep", "ratio", "sink and recent tokens over present "
                                      "tokens", bench="h2o_floor_keep"),
    Metric("h2o_quantized_keep", "ratio", "keep rounded up to whole blocks over present tokens",
           bench="h2o_quantized_keep"),
    Metric("h2o_evict_us", "µs", "planning time of the last eviction", bench="h2o_evict_us"),
    Metric("h2o_codec_us", "µs", "encode time of the last block", bench="h2o_codec_us"),
    Metric("h2o_lossless_raw_mb", "MiB", "bytes given to the encoder",
           bench="h2o_lossless_raw_mb", demo="h2o_lossless_raw_bytes", demo_scale=1 / MIB),
    Metric("h2o_lossless_comp_mb", "MiB", "bytes accounted after encoding",
           bench="h2o_lossless_comp_mb", demo="h2o_lossless_compressed_bytes", demo_scale=1 / MIB),
    Metric("h2o_lossless_comp_us", "µs", "encode time, summed",
           bench="h2o_lossless_comp_us", demo="h2o_lossless_compress_us"),
    Metric("h2o_lossless_decomp_us", "µs", "decode time of blocks, summed",
           bench="h2o_lossless_decomp_us", demo="h2o_lossless_decompress_us"),
    Metric("h2o_lossless_queue_peak", "blocks", "most blocks queued or retained in a layer",
           bench="h2o_lossless_queue_peak", demo="h2o_lossless_queue_depth_peak"),
    Metric("h2o_lossless_fallback", "blocks", "blocks that could not be encoded or decoded",
           bench="h2o_lossless_fallback", demo="h2o_lossless_fallback_count"),
    Metric("h2o_lossless_backpressure_skip", "blocks", "blocks not encoded because the queue was "
                                                       "full",
           bench="h2o_lossless_backpressure_skip", demo="h2o_lossless_backpressure_skip"),
    Metric("h2o_lossless_async_queue_peak", "tasks", "most encode tasks queued and running",
           bench="h2o_lossless_async_queue_peak", demo="h2o_lossless_async_queue_peak"),
    Metric("h2o_lossless_async_wait_us", "µs", "time decode waited for encode tasks, summed",
           bench="h2o_lossless_async_wait_us", demo="h2o_lossless_async_wait_us"),
    Metric("h2o_lossless_decode_cache_hit", "lookups", "decoded blocks found in the cache",
           bench="h2o_lossless_decode_cache_hit", demo="h2o_lossless_decode_cache_hit"),
    Metric("h2o_lossless_decode_cache_miss", "lookups", "decoded blocks not found in the cache",
           bench="h2o_lossless_decode_cache_miss", demo="h2o_lossless_decode_cache_miss"),
    Metric("prefill_us", "µs", "time of the prefill", demo="prefill_us"),
    Metric("decode_us", "µs", "time of all decode steps, sampling excluded", demo="decode_us"),
    Metric("sample_us", "µs", "time of sampling", demo="sample_us"),
    Metric("h2o_lossless_decompressed_mb", "MiB", "bytes decoded",
           demo="h2o_lossless_decompressed_bytes", demo_scale=1 / MIB),
    Metric("h2o_last_evict_tokens", "tokens", "tokens dropped by the last plan, 0 if the floor "
                                              "dominated",
           demo="h2o_last_evict_tokens"),
    Metric("h2o_total_evict_tokens", "tokens", "tokens dropped by all plans, later cancelled "
                                               "ones included",
           demo="h2o_total_evict_tokens"),
)  # fmt: skip
# The columns of an llm_bench table that the gates rest on.
H2O_COLUMNS = tuple(
    metric.name for metric in _COMMON if metric.bench and metric.name.startswith("h2o_")
)
# Only the embedded runtime reports these, after everything else.
_EMBEDDED = (
    Metric("h2o_evictions_planned", "plans", "eviction plans made",
           bench="h2o_evictions_planned", demo="h2o_evictions_planned"),
    Metric("h2o_evictions_applied", "plans", "eviction plans applied to the cache",
           bench="h2o_evictions_applied", demo="h2o_evictions_applied"),
    Metric("h2o_evictions_dropped", "plans", "eviction plans dropped before they were applied",
           bench="h2o_evictions_dropped", demo="h2o_evictions_dropped"),
    Metric("h2o_kv_tokens_end", "tokens", "mean KV length over all layers after the response",
           bench="h2o_kv_tokens_end", demo="h2o_kv_tokens_end"),
    Metric("h2o_kv_resident_mb", "MiB", "fp16 KV bytes held at the end, encoded blocks included",
           bench="h2o_kv_resident_mb", demo="h2o_kv_resident_mb"),
    Metric("h2o_kv_peak_mb", "MiB", "most fp16 KV bytes held at any time",
           bench="h2o_kv_peak_mb", demo="h2o_kv_peak_mb"),
    Metric("h2o_effective_ratio", "ratio", "full-cache over held KV bytes of the H2O layers at "
                                           "the end",
           bench="h2o_effective_ratio", demo="h2o_effective_ratio"),
    Metric("h2o_effective_ratio_mean", "ratio", "like h2o_effective_ratio, mean over decode steps",
           bench="h2o_effective_ratio_mean", demo="h2o_effective_ratio_mean"),
    Metric("h2o_lossless_blocks", "blocks", "blocks encoded",
           bench="h2o_lossless_blocks", demo="h2o_lossless_blocks"),
    Metric("h2o_lossless_cold_share", "share", "encoded over all cold tokens",
           bench="h2o_lossless_cold_share", demo="h2o_lossless_cold_share"),
    Metric("h2o_lossless_roundtrips", "blocks", "blocks decoded and compared equal",
           bench="h2o_lossless_roundtrips", demo="h2o_lossless_roundtrips"),
    Metric("h2o_lossless_encode_overlap", "share", "share of encode time that ran while decode ran",
           bench="h2o_lossless_encode_overlap", demo="h2o_lossless_encode_overlap"),
    Metric("decode_cost", "yardsticks", "time of a decoded token over that of a fixed "
                                        "calculation beside it",
           bench="decode_cost", demo="decode_cost"),
)  # fmt: skip
# Only the pymnn runtime reports this.
_PYMNN = (
    Metric("peak_memory_mb", "MiB", "most memory that the process held",
           bench="peak_memory_mb", demo="peak_memory_mb"),
)  # fmt: skip
METRICS: tuple[Metric, ...] = _COMMON + _EMBEDDED + _PYMNN
# What equal launches compute, whatever the machine does meanwhile: no times, queues or lookups.
SAME_EVERY_TIME = (
    "h2o_keep",
    "h2o_lossy",
    "h2o_lossless",
    "h2o_target_keep_effective",
    "h2o_floor_keep",
    "h2o_quantized_keep",
    "h2o_lossless_raw_mb",
    "h2o_lossless_comp_mb",
    "h2o_lossless_fallback",
    "h2o_last_evict_tokens",
    "h2o_total_evict_tokens",
    "h2o_evictions_planned",
    "h2o_evictions_applied",
    "h2o_evictions_dropped",
    "h2o_kv_tokens_end",
    "h2o_lossless_blocks",
)
BY_BENCH = {metric.bench: metric for metric in METRICS if metric.bench}
BY_DEMO = {metric.demo: metric for metric in METRICS if metric.demo}


def number(value: float | None, unit: str = "", digits: int = 4) -> str:
    """For people: no exponent from 0.0001 to ten million, shares in percent, a dash when absent."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{value:.{digits - 3}%}"
    return f"{value:.0f}" if 10 ** (digits - 1) <= abs(value) < 1e7 else f"{value:.{digits}g}"


def quantity(value: float | None, unit: str = "", digits: int = 4) -> str:
    """:func:`number` with its unit, where it has one."""
    return number(value, unit, digits) + (
        "" if value is None or unit in ("", "share", "ratio") else f" {unit}"
    )
