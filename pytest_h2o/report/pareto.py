"""The combinations of a sweep against each other: compression against decode speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from pytest_h2o.parsers.rows import Row

LEGEND = "* = no other combination of the same lengths is both smaller and faster"


def brief(row: Row) -> str:
    """The three numbers of a row that are compared."""
    decode, lossy, lossless = _numbers(row)
    return f"decode {decode} tok/s, lossy {lossy}, lossless {lossless}"


def comparison(rows: Mapping[str, Row]) -> list[tuple[str, ...]]:
    """Header and one row per launch, smallest KV first among those of the same lengths; the Pareto
    front is marked.
    """
    lines: list[tuple[str, ...]] = [
        ("", "run", "lengths", "decode tok/s", "lossy", "lossless", "lossy x lossless")
    ]
    for label in dict.fromkeys(row.label for row in rows.values()):
        points = {run_id: point(row) for run_id, row in rows.items() if row.label == label}
        best = front(filter(None, points.values()))
        for run_id, value in sorted(
            points.items(), key=lambda item: item[1] or (-math.inf, 0.0), reverse=True
        ):
            mark = "*" if value in best else ""
            total = f"{value[0]:.4g}" if value else "-"
            lines.append((mark, run_id, label, *_numbers(rows[run_id]), total))
    return lines


def point(row: Row) -> tuple[float, float] | None:
    """Lossy times lossless ratio, and decode speed in tokens/s; None unless all three are finite
    numbers.
    """
    values: list[float] = []
    for name in ("h2o_lossy", "h2o_lossless", "decode_tps"):
        sample = row.samples.get(name)
        if sample is None or not math.isfinite(sample.mean):
            return None
        values.append(sample.mean)
    lossy, lossless, speed = values
    return lossy * lossless, speed


def front(points: Iterable[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points than which no other one is at least as large in both numbers."""
    best: set[tuple[float, float]] = set()
    fastest = -math.inf
    for total, speed in sorted(set(points), reverse=True):
        if speed > fastest:
            best.add((total, speed))
            fastest = speed
    return best


def _numbers(row: Row) -> list[str]:
    """Decode speed, lossy and lossless ratio; a dash for what the row does not have."""
    cells: list[str] = []
    for name in ("decode_tps", "h2o_lossy", "h2o_lossless"):
        sample = row.samples.get(name)
        cells.append(f"{sample.mean:.4g}" if sample else "-")
    return cells
