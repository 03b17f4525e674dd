"""What an offline evaluation found, and its JSON form."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec.planes import entropy
from pytest_h2o.offline.dump import DumpEntry, Skip
from pytest_h2o.offline.options import OfflineOptions

SCHEMA_VERSION = 3
MAX_LISTED_SKIPS = 1000
# One row in so many goes into the histograms: counting all would take half of the time.
HISTOGRAM_STEP = 16


def result_schema() -> dict[str, Any]:
    """The JSON schema of :meth:`DumpEvaluation.to_json`, which ships with the package."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
    return schema


@dataclass(slots=True)
class PlaneTally:
    """Sums over one byte plane: its bytes, those of its streams, blocks per predictor, the
    histogram of a sample.

    The sample is one row in :data:`HISTOGRAM_STEP`.
    """

    raw_bytes: int = 0
    stream_bytes: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    counts: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(256, np.intp))

    def add(self, other: "PlaneTally") -> None:
        """Add ``other`` to this."""
        self.raw_bytes += other.raw_bytes
        self.stream_bytes += other.stream_bytes
        self.modes.update(other.modes)
        self.counts += other.counts

    def to_json(self) -> dict[str, Any]:
        """Bytes, bits per byte next to the order-0 entropy of the sample, and predictor usage."""
        bits_per_byte = entropy_bits = None
        if self.raw_bytes:
            bits_per_byte = 8 * self.stream_bytes / self.raw_bytes
            entropy_bits = entropy(self.counts)
        return {
            "raw_bytes": self.raw_bytes,
            "stream_bytes": self.stream_bytes,
            "bits_per_byte": bits_per_byte,
            "entropy_bits_per_byte": entropy_bits,
            "mode_counts": dict(self.modes),
        }


@dataclass(slots=True)
class RowTally:
    """Bytes of the frames of a row codec, how many of them were derotated, and why it failed."""

    compressed_bytes: int = 0
    derotated: int = 0
    error: str = ""

    def add(self, other: "RowTally") -> None:
        """Add ``other`` to this."""
        self.compressed_bytes += other.compressed_bytes
        self.derotated += other.derotated
        self.error = self.error or other.error


@dataclass(slots=True)
class TensorTally:
    """Sums over K or V of a layer. ``meta_bytes`` are part of ``compressed_bytes``, the compatible
    accounting; ``container_bytes`` is what the decodable containers take.
    """

    raw_bytes: int = 0
    compressed_bytes: int = 0
    meta_bytes: int = 0
    container_bytes: int = 0
    hi: PlaneTally = field(default_factory=PlaneTally)
    lo: PlaneTally = field(default_factory=PlaneTally)
    rows: dict[str, RowTally] = field(default_factory=dict)

    def add(self, other: "TensorTally") -> None:
        """Add ``other`` to this."""
        self.raw_bytes += other.raw_bytes
        self.compressed_bytes += other.compressed_bytes
        self.meta_bytes += other.meta_bytes
        self.container_bytes += other.container_bytes
        self.hi.add(other.hi)
        self.lo.add(other.lo)
        for codec, tally in other.rows.items():
            self.rows.setdefault(codec, RowTally()).add(tally)

    @property
    def ratio(self) -> float | None:
        """Raw over compressed bytes in the compatible accounting; None when nothing was coded."""
        if not self.compressed_bytes:
            return None
        return self.raw_bytes / self.compressed_bytes

    @property
    def container_ratio(self) -> float | None:
        """Raw over container bytes; None when nothing was coded."""
        if not self.container_bytes:
            return None
        return self.raw_bytes / self.container_bytes

    def row_ratio(self, codec: str) -> float | None:
        """Raw bytes over those of ``codec``'s frames; None where it coded nothing or failed."""
        tally = self.rows.get(codec)
        if tally is None or tally.error or not tally.compressed_bytes:
            return None
        return self.raw_bytes / tally.compressed_bytes

    def to_json(self) -> dict[str, Any]:
        """Bytes and ratios of the tensor and of its planes."""
        values = self._sizes()
        if self.rows:
            values["codecs"] = {codec: self.row_ratio(codec) for codec in self.rows}
        return values

    def _sizes(self) -> dict[str, Any]:
        return {
            "raw_bytes": self.raw_bytes,
            "compressed_bytes": self.compressed_bytes,
            "container_bytes": self.container_bytes,
            "lossless_ratio": self.ratio,
            "container_ratio": self.container_ratio,
            "hi": self.hi.to_json(),
            "lo": self.lo.to_json(),
        }


@dataclass(slots=True)
class Continuity:
    """How well the selected entries of each run and layer follow one another along the sequence."""

    sequence_gaps: int = 0
    sequence_gap_tokens: int = 0
    sequence_overlaps: int = 0
    sequence_overlap_tokens: int = 0
    mixed_stage_groups: int = 0


@dataclass(frozen=True)
class DumpEvaluation:
    """The outcome of :func:`pytest_h2o.offline.evaluate.evaluate`.

    ``entries`` are the selected ones; those named in ``skipped`` could not be evaluated
    (completely). ``changed_values`` counts, by entry name, fp32 values that the cast to fp16
    altered. ``tensors`` is keyed by (layer, "k" or "v").
    """

    dump_dir: Path
    options: OfflineOptions
    scanned: int
    entries: list[DumpEntry]
    skipped: Mapping[str, Skip]
    changed_values: Mapping[str, int]
    groups: int
    chunks: int
    tensors: Mapping[tuple[int, str], TensorTally]
    continuity: Continuity

    def tally(self, tensors: str = "kv") -> TensorTally:
        """Sums over all layers of the given tensors: "k", "v" or both."""
        total = TensorTally()
        for (_, tensor), tally in self.tensors.items():
            if tensor in tensors:
                total.add(tally)
        return total

    @property
    def evaluated(self) -> list[DumpEntry]:
        """Entries whose every byte was coded (and, with ``verify``, decoded and compared)."""
        return [entry for entry in self.entries if entry.name not in self.skipped]

    @property
    def evaluated_share(self) -> float:
        """Evaluated entries over wanted ones: the evaluated and the skipped."""
        return _share(len(self.evaluated), len(self.skipped))

    @property
    def evaluated_byte_share(self) -> float:
        """Like ``evaluated_share``, by the fp16 bytes that the meta files declare, as far as they
        can be read.
        """
        evaluated = sum(entry.raw_bytes for entry in self.evaluated)
        skipped = sum(skip.raw_bytes for skip in self.skipped.values())
        return _share(evaluated, skipped)

    @property
    def lossless(self) -> bool:
        """Whether the coded values are the dumped ones: no fp32 value was altered by the cast to
        fp16.
        """
        return not self.changed_values

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values. Lossless ratios are 0 when nothing was coded, the others
        null.
        """
        return self._header() | self._sizes() | self._usage() | self._diagnostics() | self._extras()

    def _header(self) -> dict[str, Any]:
        options = self.options
        return {
            "schema_version": SCHEMA_VERSION,
            "dump_dir": str(self.dump_dir),
            "stage": options.stage,
            "scope": options.scope,
            "front_n": options.front_n,
            "layer_start": options.layer_start,
            "layer_end": options.layer_end,
            "layer_ids": sorted(options.layer_ids),
            "selected_layers": sorted({entry.layer_id for entry in self.entries}),
            "selected_entries": len(self.entries),
            "selected_dumps": len({entry.dump for entry in self.entries}),
            "entry_mode": options.entry_mode,
            "online_chunk_seq": options.online_chunk_seq,
            "online_framing_bytes": options.online_framing_bytes,
            "aggregate_by_stage": options.aggregate_by_stage,
            "aggregate_groups": self.groups,
            "online_chunks": self.chunks,
            "codec": "fp16_gear_predictive_zstd",
            "codec_mode": options.codec_mode,
            "bitshuffle": options.bitshuffle,
            "adaptive_block_seq": options.adaptive_block_seq,
            "k_hi_predictors": list(options.k_hi_predictors),
            "k_lo_predictors": list(options.k_lo_predictors),
            "v_hi_predictors": list(options.v_hi_predictors),
            "v_lo_predictors": list(options.v_lo_predictors),
            "zstd_level": options.zstd_level,
        }

    def _sizes(self) -> dict[str, Any]:
        k, v, both = self.tally("k"), self.tally("v"), self.tally()
        return {
            "k_raw_bytes": k.raw_bytes,
            "k_compressed_bytes": k.compressed_bytes,
            "v_raw_bytes": v.raw_bytes,
            "v_compressed_bytes": v.compressed_bytes,
            "k_chunk_meta_bytes": k.meta_bytes,
            "v_chunk_meta_bytes": v.meta_bytes,
            "raw_bytes": both.raw_bytes,
            "compressed_bytes": both.compressed_bytes,
            "k_lossless_ratio": k.ratio or 0.0,
            "v_lossless_ratio": v.ratio or 0.0,
            "lossless_ratio": both.ratio or 0.0,
            "weighted_lossless_ratio": both.ratio or 0.0,
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "k_hi_mode_counts": self.mode_counts("k", "hi"),
            "k_lo_mode_counts": self.mode_counts("k", "lo"),
            "v_hi_mode_counts": self.mode_counts("v", "hi"),
            "v_lo_mode_counts": self.mode_counts("v", "lo"),
        }

    def mode_counts(self, tensor: str, plane: str) -> dict[str, int]:
        """Blocks coded with each candidate predictor of ``tensor`` ("k", "v") and ``plane`` ("hi",
        "lo").
        """
        modes: Counter[str] = getattr(self.tally(tensor), plane).modes
        return {name: modes[name] for name in self.options.predictors(tensor, plane)}

    def _diagnostics(self) -> dict[str, Any]:
        reasons = Counter(skip.reason for skip in self.skipped.values())
        return {
            "scanned_entries": self.scanned,
            "converted_fp32_entries": sum(entry.bytes_per_elem == 4 for entry in self.evaluated),
            "skipped_entries": len(self.skipped),
            "skip_reasons": dict(reasons),
        }

    def _extras(self) -> dict[str, Any]:
        both, evaluated = self.tally(), self.evaluated
        extras: dict[str, Any] = {
            "fast": self.options.fast,
            "container_bytes": both.container_bytes,
            "container_ratio": both.container_ratio,
            "verified": self.options.verify and bool(evaluated),
            "lossless": self.lossless,
            "source_bytes": sum(entry.raw_bytes * entry.bytes_per_elem // 2 for entry in evaluated),
            "changed_entries": len(self.changed_values),
            "changed_values": sum(self.changed_values.values()),
            "evaluated_entries": len(evaluated),
            "evaluated_share": self.evaluated_share,
            "evaluated_byte_share": self.evaluated_byte_share,
        }
        extras |= asdict(self.continuity)
        extras["skipped"] = self._listed_skips()
        extras["layers"] = self._layers()
        extras["codecs"] = [self._codec(name) for name in self.options.codecs]
        return extras

    def _codec(self, name: str) -> dict[str, Any]:
        both, keys = self.tally(), self.tally("k")
        rows = keys.rows.get(name, RowTally())
        return {
            "codec": name,
            "lossless_ratio": both.row_ratio(name),
            "k_lossless_ratio": keys.row_ratio(name),
            "v_lossless_ratio": self.tally("v").row_ratio(name),
            "compressed_bytes": both.rows.get(name, RowTally()).compressed_bytes,
            "derotated": rows.derotated > 0,
            "error": both.rows.get(name, RowTally()).error,
        }

    def _listed_skips(self) -> list[dict[str, str]]:
        listed = []
        for name, skip in islice(self.skipped.items(), MAX_LISTED_SKIPS):
            listed.append({"name": name, "reason": skip.reason, "detail": skip.detail})
        return listed

    def _layers(self) -> list[dict[str, Any]]:
        layers = []
        for (layer, tensor), tally in sorted(self.tensors.items()):
            layers.append({"layer_id": layer, "tensor": tensor} | tally.to_json())
        return layers


def _share(done: int, missed: int) -> float:
    return done / max(1, done + missed)
