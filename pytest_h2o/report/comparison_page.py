"""Compared sessions as a page: every value against its limit, and the tables of the command."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import filterfalse

from pytest_h2o.report.charts import Line, tips
from pytest_h2o.report.comparison import RunsCompared
from pytest_h2o.report.rendering import Chart, render

DRAWN = 100.0  # % of a limit; what is farther from it is drawn there


def comparison_html(compared: RunsCompared) -> str:
    """The page of a comparison."""
    chart = _against_limits(compared)
    header, *rows = compared.values
    return render(
        "compare.html",
        charts=[chart] if chart else [],
        names=compared.identity[0][1:],
        sessions=compared.sessions,
        identity=compared.identity,
        outcomes=compared.outcomes,
        changed=[header, *filter(_differs, rows)],
        same=[header, *filterfalse(_differs, rows)],
    )


def _differs(row: Sequence[str]) -> bool:
    """Whether a gate did not measure the same in all sessions; its name, case and delta aside."""
    return len(set(row[2:-1])) > 1


def _against_limits(compared: RunsCompared) -> Chart | None:
    """A point per gate and run, runs below each other; None where nothing has a limit."""
    values: list[Line] = []
    rows: list[list[object]] = []
    for gate, run, spare in compared.drawn:
        drawn = min(max(spare, -DRAWN), DRAWN)
        values.append({"gate": gate, "run": run, "spare": spare, "drawn": drawn})
        rows.append([gate, run, f"{spare:.4g}"])
    if not values:
        return None
    x = {
        "field": "drawn", "type": "quantitative", "title": "to spare, % of the limit",
        "scale": {"domain": [-DRAWN, DRAWN]},
    }  # fmt: skip
    y = {"field": "gate", "type": "nominal", "title": None, "sort": None}
    offset = {"field": "run", "type": "nominal", "sort": None}
    legend = {"labelLimit": 400}
    color = {"field": "run", "type": "nominal", "title": None, "sort": None, "legend": legend}
    tooltip = tips(("gate", "run", "spare"))
    points = {
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {"x": x, "y": y, "yOffset": offset, "color": color, "tooltip": tooltip},
    }
    limit = {
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": "#c62f2f"},
        "encoding": {"x": {"datum": 0}},
    }
    return Chart(
        name="compared",
        title="Tightest values against their limits",
        note=f"red: the limit, right of it passes; at an edge: {DRAWN:.0f} % or more",
        spec={"data": {"values": values}, "layer": [limit, points]},
        header=["gate", "run", "to spare, % of the limit"],
        rows=rows,
        wide=True,
    )
