"""Rows of ``llm_bench`` tables as CSV, in the column order of the original kit."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from pytest_h2o.report.text import clean

COLUMNS = (
    "model", "modelSize", "backend", "threads", "llm_demo", "speed(tok/s)", "h2o_keep", "h2o_lossy",
    "h2o_lossless", "h2o_target_keep_effective", "h2o_floor_keep", "h2o_quantized_keep",
    "h2o_evict_us", "h2o_codec_us", "h2o_lossless_raw_mb", "h2o_lossless_comp_mb",
    "h2o_lossless_comp_us", "h2o_lossless_decomp_us", "h2o_lossless_queue_peak",
    "h2o_lossless_fallback", "h2o_lossless_backpressure_skip", "h2o_lossless_async_queue_peak",
    "h2o_lossless_async_wait_us", "h2o_lossless_decode_cache_hit", "h2o_lossless_decode_cache_miss",
    "log_file",
)  # fmt: skip
Line = Mapping[str, str]


def write_csv(lines: Sequence[Line], path: Path | None) -> None:
    """Write ``lines`` to ``path`` or stdout: known columns in the original's order, then the others
    by name.
    """
    present: set[str] = set()
    for line in lines:
        present.update(line)
    order = [column for column in COLUMNS if column in present]
    order += sorted(present.difference(COLUMNS))
    if path is None:
        _write(sys.stdout, order, lines)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        _write(file, order, lines)


def _write(file: TextIO, order: Sequence[str], lines: Iterable[Line]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(clean, order))
    for line in lines:
        writer.writerow([clean(line.get(column, "")) for column in order])
