"""Sums over what an offline evaluation coded: bytes and predictors of planes, rows and tensors."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_h2o.codec.planes import entropy

# One row in so many goes into the histograms: counting all would take half of the time.
HISTOGRAM_STEP = 16


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
