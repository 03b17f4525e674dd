"""What an offline evaluation found."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_h2o.offline.dump import DumpEntry, Skip
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result_json import json_values
from pytest_h2o.offline.tallies import TensorTally


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
        return json_values(self)

    def mode_counts(self, tensor: str, plane: str) -> dict[str, int]:
        """Blocks coded with each candidate predictor of ``tensor`` ("k", "v") and ``plane`` ("hi",
        "lo").
        """
        modes: Counter[str] = getattr(self.tally(tensor), plane).modes
        return {name: modes[name] for name in self.options.predictors(tensor, plane)}


def _share(done: int, missed: int) -> float:
    return done / max(1, done + missed)
