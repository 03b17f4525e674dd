"""What one response measured, and the names under which the two programs print it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

MIB = 2**20


@dataclass(slots=True)
class Metrics:
    """All numbers of one response; a fresh one is made for each. Ratios are 1 and counters 0 until
    something happens.

    Unit by suffix: ``_us`` microseconds, ``_bytes`` bytes; the rest are ratios or counts.
    """

    keep: float = 1.0
    lossy: float = 1.0
    target_keep_effective: float = 1.0
    floor_keep: float = 1.0
    quantized_keep: float = 1.0
    evict_us: float = 0.0
    last_evict_tokens: int = 0
    total_evict_tokens: int = 0
    evictions_planned: int = 0
    evictions_applied: int = 0
    kv_tokens_end: float = 0.0
    kv_resident_bytes: int = 0
    kv_peak_bytes: int = 0
    effective_ratio: float = 1.0
    effective_ratio_mean: float = 1.0
    raw_bytes: int = 0
    comp_bytes: int = 0
    decompressed_bytes: int = 0
    codec_us: float = 0.0
    comp_us: float = 0.0
    decomp_us: float = 0.0
    queue_peak: int = 0
    fallback: int = 0
    backpressure_skip: int = 0
    async_queue_peak: int = 0
    async_wait_us: float = 0.0
    cache_hit: int = 0
    cache_miss: int = 0
    blocks: int = 0
    cold_share: float = 0.0
    roundtrips: int = 0
    encode_overlap: float = 0.0
    decode_cost: float = 0.0

    @property
    def evictions_dropped(self) -> int:
        """Plans that were announced and never carried out."""
        return self.evictions_planned - self.evictions_applied

    @property
    def lossless(self) -> float:
        """Raw over encoded bytes of everything that was encoded; 1 if nothing was."""
        if not self.raw_bytes or not self.comp_bytes:
            return 1.0
        return self.raw_bytes / self.comp_bytes


class Column(NamedTuple):
    """One column of the bench table: header, where its value is, how many decimals it prints, key
    in the JSON file.
    """

    header: str
    attribute: str
    decimals: int
    scale: float = 1.0
    json: str = ""

    def read(self, metrics: Metrics) -> float:
        """The value in the column's unit."""
        return float(getattr(metrics, self.attribute)) * self.scale

    @property
    def key(self) -> str:
        """Key of the JSON file."""
        return self.json or self.header


COLUMNS = (
    Column("h2o_keep", "keep", 4, json="h2o_keep_ratio"),
    Column("h2o_lossy", "lossy", 3, json="h2o_lossy_ratio"),
    Column("h2o_lossless", "lossless", 3, json="h2o_lossless_ratio"),
    Column("h2o_target_keep_effective", "target_keep_effective", 4),
    Column("h2o_floor_keep", "floor_keep", 4),
    Column("h2o_quantized_keep", "quantized_keep", 4),
    Column("h2o_evict_us", "evict_us", 2),
    Column("h2o_codec_us", "codec_us", 2),
    Column("h2o_lossless_raw_mb", "raw_bytes", 2, 1 / MIB),
    Column("h2o_lossless_comp_mb", "comp_bytes", 2, 1 / MIB),
    Column("h2o_lossless_comp_us", "comp_us", 2),
    Column("h2o_lossless_decomp_us", "decomp_us", 2),
    Column("h2o_lossless_queue_peak", "queue_peak", 2),
    Column("h2o_lossless_fallback", "fallback", 2),
    Column("h2o_lossless_backpressure_skip", "backpressure_skip", 2),
    Column("h2o_lossless_async_queue_peak", "async_queue_peak", 2),
    Column("h2o_lossless_async_wait_us", "async_wait_us", 2),
    Column("h2o_lossless_decode_cache_hit", "cache_hit", 2),
    Column("h2o_lossless_decode_cache_miss", "cache_miss", 2),
)
# What other programs do not print: last in the table and in the demo record, under the same names.
EXTRA_COLUMNS = (
    Column("h2o_evictions_planned", "evictions_planned", 2),
    Column("h2o_evictions_applied", "evictions_applied", 2),
    Column("h2o_evictions_dropped", "evictions_dropped", 2),
    Column("h2o_kv_tokens_end", "kv_tokens_end", 2),
    Column("h2o_kv_resident_mb", "kv_resident_bytes", 4, 1 / MIB),
    Column("h2o_kv_peak_mb", "kv_peak_bytes", 4, 1 / MIB),
    Column("h2o_effective_ratio", "effective_ratio", 3),
    Column("h2o_effective_ratio_mean", "effective_ratio_mean", 3),
    Column("h2o_lossless_blocks", "blocks", 2),
    Column("h2o_lossless_cold_share", "cold_share", 4),
    Column("h2o_lossless_roundtrips", "roundtrips", 2),
    Column("h2o_lossless_encode_overlap", "encode_overlap", 4),
    Column("decode_cost", "decode_cost", 4),
)
_DEMO_RATIOS = {
    "h2o_keep_ratio": "keep",
    "h2o_lossy_ratio": "lossy",
    "h2o_lossless_ratio": "lossless",
}
_DEMO_COUNTS = {
    "h2o_lossless_raw_bytes": "raw_bytes",
    "h2o_lossless_compressed_bytes": "comp_bytes",
    "h2o_lossless_decompressed_bytes": "decompressed_bytes",
    "h2o_lossless_compress_us": "comp_us",
    "h2o_lossless_decompress_us": "decomp_us",
    "h2o_lossless_queue_depth_peak": "queue_peak",
    "h2o_lossless_fallback_count": "fallback",
    "h2o_lossless_backpressure_skip": "backpressure_skip",
    "h2o_lossless_async_queue_peak": "async_queue_peak",
    "h2o_lossless_async_wait_us": "async_wait_us",
    "h2o_lossless_decode_cache_hit": "cache_hit",
    "h2o_lossless_decode_cache_miss": "cache_miss",
    "h2o_last_evict_tokens": "last_evict_tokens",
    "h2o_total_evict_tokens": "total_evict_tokens",
}


@dataclass(frozen=True, slots=True)
class Response:
    """One answered prompt. Times are wall microseconds; ``tokens`` holds what was sampled, a stop
    token included.
    """

    prompt_tokens: int
    tokens: tuple[int, ...]
    prefill_us: float
    decode_us: float
    sample_us: float
    metrics: Metrics = field(default_factory=Metrics)


def demo_record(index: int, response: Response) -> dict[str, float]:
    """The JSONL record of a demo prompt, keys in the order that its readers know, ours last."""
    metrics = response.metrics
    record: dict[str, float] = {
        "prompt_index": index,
        "prompt_tokens": response.prompt_tokens,
        "decode_tokens": len(response.tokens),
        "prefill_us": int(response.prefill_us),
        "decode_us": int(response.decode_us),
        "sample_us": int(response.sample_us),
    }
    for key, name in _DEMO_RATIOS.items():
        record[key] = _six_digits(getattr(metrics, name))
    for key, name in _DEMO_COUNTS.items():
        record[key] = int(getattr(metrics, name))
    for column in EXTRA_COLUMNS:
        record[column.header] = _six_digits(column.read(metrics))
    return record


def _six_digits(value: float) -> float:
    """As a C++ stream prints it: six significant digits, no decimal point on whole numbers."""
    rounded = float(f"{value:.6g}")
    if rounded.is_integer():
        return int(rounded)
    return rounded
