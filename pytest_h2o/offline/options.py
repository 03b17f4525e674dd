"""Options of the offline evaluation, and the sets that the gates use."""

import os
from dataclasses import dataclass
from typing import Any

from pytest_h2o.codec import K_PREDICTORS, ROW_CODECS, V_PREDICTORS
from pytest_h2o.offline import OfflineError

STAGES = ("prefill", "decode", "both")
SCOPES = ("front_n", "layer_range", "layer_ids")
ENTRY_MODES = ("per_meta", "aggregate", "chunked", "chunked_grouped")
COMPATIBLE_MODES = ("legacy", "adaptive_v22")
CODEC_MODES = (*COMPATIBLE_MODES, *ROW_CODECS)
PREDICTOR_OPTIONS = ("k_hi_predictors", "k_lo_predictors", "v_hi_predictors", "v_lo_predictors")

_LEGACY_PREDICTORS = {"hi": ("delta_seq",), "lo": ("raw",)}
ROPE_LAYOUTS = ("half", "interleaved")
_CHOICES = {
    "stage": STAGES,
    "scope": SCOPES,
    "entry_mode": ENTRY_MODES,
    "codec_mode": CODEC_MODES,
    "rope_layout": ROPE_LAYOUTS,
}
_NOT_NEGATIVE = ("layer_start", "min_seq_len", "max_seq_len", "online_framing_bytes", "threads")


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """What to select from a dump and how to code it. OfflineError names the first option that makes
    no sense.

    ``layer_end`` -1 leaves the range open; ``max_seq_len`` 0 sets no limit; ``online_chunk_seq`` <=
    0 makes one chunk; ``threads`` 0 uses every CPU the process may run on. ``fast`` ranks
    predictors by an entropy estimate instead of compressing with each, so sizes may differ
    slightly. ``verify`` decodes everything and compares.

    ``codec_mode`` is the coding whose ratios are reported: one of the two compatible ones, or a row
    codec. ``codecs`` are measured beside it. Keys are derotated by the RoPE base and
    layout of an entry's meta file; where it names none, by ``rope_base`` (0: not) and
    ``rope_layout``.
    """

    stage: str = "both"
    scope: str = "front_n"
    front_n: int = 2
    layer_start: int = 2
    layer_end: int = -1
    layer_ids: tuple[int, ...] = ()
    zstd_level: int = 3
    strict_fp16: bool = False
    min_seq_len: int = 0
    max_seq_len: int = 0
    entry_mode: str = "per_meta"
    online_chunk_seq: int = 0
    online_framing_bytes: int = 16
    aggregate_by_stage: bool = False
    codec_mode: str = "adaptive_v22"
    adaptive_block_seq: int = 64
    bitshuffle: bool = False
    k_hi_predictors: tuple[str, ...] = K_PREDICTORS
    k_lo_predictors: tuple[str, ...] = K_PREDICTORS
    v_hi_predictors: tuple[str, ...] = V_PREDICTORS
    v_lo_predictors: tuple[str, ...] = V_PREDICTORS
    codecs: tuple[str, ...] = ()
    rope_base: float = 0.0
    rope_layout: str = "half"
    fast: bool = False
    verify: bool = True
    threads: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(choices)}", value)
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            _require(value >= 0, name, "0 or more", value)
        if self.scope == "front_n":
            _require(self.front_n > 0, "front_n", "more than 0", self.front_n)
        if self.scope == "layer_ids":
            _require(bool(self.layer_ids), "layer_ids", "at least one layer", "none")
        range_holds = self.layer_end < 0 or self.layer_end >= self.layer_start
        _require(range_holds, "layer_end", "-1 or from layer_start on", self.layer_end)
        rows = self.adaptive_block_seq
        _require(0 < rows < 1 << 31, "adaptive_block_seq", "1 to 2^31-1", rows)
        _require(1 <= self.zstd_level <= 22, "zstd_level", "1 to 22", self.zstd_level)
        for name in self.codecs:
            _require(name in ROW_CODECS, "codec", f"of {', '.join(ROW_CODECS)}", name)
        object.__setattr__(self, "codecs", tuple(dict.fromkeys(self.codecs)))
        base = self.rope_base
        _require(base == 0 or 1 < base < 1e30, "rope_base", "0 or above 1", base)
        for name in PREDICTOR_OPTIONS:
            object.__setattr__(self, name, _distinct_predictors(name, getattr(self, name)))

    def in_scope(self, layer: int) -> bool:
        """Whether ``layer`` is to be evaluated."""
        if self.scope == "front_n":
            return 0 <= layer < self.front_n
        if self.scope == "layer_range":
            return self.layer_start <= layer and (self.layer_end < 0 or layer <= self.layer_end)
        return layer in self.layer_ids

    def wants_length(self, seq_len: int) -> bool:
        """Whether an entry of ``seq_len`` tokens passes the length filters."""
        return seq_len >= self.min_seq_len and (not self.max_seq_len or seq_len <= self.max_seq_len)

    @property
    def grouped(self) -> bool:
        """Whether the entries of a run and layer are joined along the sequence."""
        return self.entry_mode in ("aggregate", "chunked_grouped")

    @property
    def chunked(self) -> bool:
        """Whether tensors are cut into chunks of ``online_chunk_seq`` tokens."""
        return self.entry_mode in ("chunked", "chunked_grouped")

    def predictors(self, tensor: str, plane: str) -> tuple[str, ...]:
        """Candidates for ``tensor`` ("k", "v") and ``plane`` ("hi", "lo") in the codec mode."""
        if self.codec_mode == "legacy":
            return _LEGACY_PREDICTORS[plane]
        names: tuple[str, ...] = getattr(self, f"{tensor}_{plane}_predictors")
        return names

    @property
    def row_codecs(self) -> tuple[str, ...]:
        """The row codecs to measure: that of the codec mode, and those beside it."""
        modes = tuple(mode for mode in ROW_CODECS if mode == self.codec_mode)
        return tuple(dict.fromkeys(modes + self.codecs))

    def worker_count(self) -> int:
        """Threads to use."""
        return self.threads or len(os.sched_getaffinity(0))


def online_sim_options(
    front_n: int,
    chunk_seq: int = 192,
    framing_bytes: int = 8,
    block_seq: int = 64,
    **codecs: Any,
) -> OfflineOptions:
    """What a runtime that encodes ``chunk_seq`` tokens at a time could reach: the gated number;
    ``codecs`` are the options of those to measure beside it.
    """
    return OfflineOptions(
        front_n=front_n,
        entry_mode="chunked_grouped",
        online_chunk_seq=chunk_seq,
        online_framing_bytes=framing_bytes,
        adaptive_block_seq=block_seq,
        **codecs,
    )


def upper_bound_options(front_n: int) -> OfflineOptions:
    """Whole tensors coded at once, prefill and decode apart; seldom less than what chunks of both
    together reach.
    """
    return OfflineOptions(front_n=front_n, entry_mode="aggregate", aggregate_by_stage=True)


def _require(holds: bool, name: str, wanted: str, value: object) -> None:
    if not holds:
        raise OfflineError(f"{name}: expected {wanted}, got {value!r}")


def _distinct_predictors(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    from pytest_h2o.codec.predictors import check_predictors  # noqa: PLC0415 - numpy, not needed to build a parser

    _require(bool(names), name, "at least one predictor", "none")
    try:
        return check_predictors(names)
    except ValueError as error:
        raise OfflineError(f"{name}: {error}") from error
