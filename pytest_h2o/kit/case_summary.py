"""``summary.md`` of one ``llm_bench`` case, with the original's sections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pytest_h2o.kit.quality_gate import CaseView, bullets, quality_gate
from pytest_h2o.parsers.rows import Row
from pytest_h2o.report.text import markdown_table, markdown_text

TOP = 5


@dataclass(frozen=True, slots=True)
class _Point:
    """A row in numbers, NaN where it has none; ``total`` is its lossy times the selected lossless
    ratio.
    """

    name: str
    lossy: float
    lossless: float
    decode: float
    total: float

    def cells(self) -> tuple[str, ...]:
        """As a row of a table."""
        decode, total = _text(self.decode), _text(self.total)
        return (self.name, decode, _text(self.lossy), _text(self.lossless), total)


HEADER = ("row", "decode tok/s", "lossy", "lossless (runtime)", "lossy x selected lossless")


def summary_markdown(case: CaseView, title: str) -> str:
    """What was tested, what its rows show, and the Quality Gate."""
    selected = case.offline.value("online_sim_lossless")
    rows = enumerate(case.run.rows, start=1)
    points = [_point(f"{number} ({row.label})", row, selected) for number, row in rows]
    lines = [f"# {markdown_text(case.name)}", "", markdown_text(title), ""]
    lines += _head(case, points, selected)
    lines.append("")
    for problem in case.run.problems:
        lines.append(f"- problem: {markdown_text(problem)}")
    for nodeid in case.left:
        lines.append(f"- not judged: {markdown_text(nodeid)}")
    lines += _section("Best Lossy Ratio", _ranked(points, "lossy")[:1])
    lines += _section("Best Decode TPS", _ranked(points, "decode")[:1])
    lines += _section("Best Total Ratio", _ranked(points, "total")[:1])
    best = _ranked(points, "total", "decode")[:TOP]
    lines += _section(f"Pareto Top-{TOP} (by selected total then decode)", best)
    lines += ["## Quality Gate", ""]
    lines += bullets(quality_gate(case))
    return "\n".join(lines) + "\n"


def _head(case: CaseView, points: Sequence[_Point], selected: float | None) -> list[str]:
    values: dict[str, float | None] = {
        "avg_lossy": _mean(points, "lossy"),
        "avg_lossless": _mean(points, "lossless"),
        "avg_decode": _mean(points, "decode"),
        "lossless_selected_value": selected,
        "upper_bound_ratio": case.offline.value("upper_bound_lossless"),
        "online_sim_ratio": selected,
        "avg_total_ratio": _mean(points, "total"),
    }
    lines = [f"- rows: {len(points)}", "- lossless_selected_source: offline_online_sim"]
    return lines + bullets(values)


def _section(title: str, points: Iterable[_Point]) -> list[str]:
    rows: list[tuple[str, ...]] = [HEADER]
    rows += [point.cells() for point in points]
    return [f"## {title}", "", markdown_table(rows), ""]


def _point(name: str, row: Row, selected: float | None) -> _Point:
    lossy = _value(row, "h2o_lossy")
    return _Point(
        name=name,
        lossy=lossy,
        lossless=_value(row, "h2o_lossless"),
        decode=_value(row, "decode_tps"),
        total=math.nan if selected is None else lossy * selected,
    )


def _value(row: Row, column: str) -> float:
    value = row.samples[column].mean if column in row.samples else math.nan
    return value if math.isfinite(value) else math.nan


def _ranked(points: Iterable[_Point], *names: str) -> list[_Point]:
    """The points that have these numbers, largest first."""
    ranked = []
    for point in points:
        numbers = [getattr(point, name) for name in names]
        if not any(map(math.isnan, numbers)):
            ranked.append((numbers, point))
    ranked.sort(key=lambda pair: pair[0], reverse=True)
    return [point for _, point in ranked]


def _mean(points: Iterable[_Point], name: str) -> float | None:
    """The mean of a number over the points that have it."""
    values = [getattr(point, name) for point in points]
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else None


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
