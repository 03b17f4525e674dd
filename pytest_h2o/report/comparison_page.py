"""Compared sessions as a page: every value against its limit, and the tables of the command."""

from __future__ import annotations

from pytest_h2o.report.comparison import RunsCompared
from pytest_h2o.report.rendering import Chart, render


def comparison_html(compared: RunsCompared) -> str:
    """The page of a comparison."""
    chart = _against_limits(compared)
    return render(
        "compare.html",
        charts=[chart] if chart else [],
        names=compared.identity[0][1:],
        identity=compared.identity,
        outcomes=compared.outcomes,
        values=compared.values,
    )


def _against_limits(compared: RunsCompared) -> Chart | None:
    """A point per gate and run; None where nothing was measured against a limit."""
    values = [{"gate": gate, "run": run, "share": share} for gate, run, share in compared.drawn]
    if not values:
        return None
    x = {"field": "share", "type": "quantitative", "title": "value / limit"}
    y = {"field": "gate", "type": "nominal", "title": None, "sort": None}
    color = {"field": "run", "type": "nominal", "title": None}
    tooltip = [{"field": name} for name in ("gate", "run", "share")]
    points = {
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": tooltip},
    }
    limit = {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 1}}}
    return Chart(
        name="compared",
        title="Values against their limits",
        note="dashed: the limit",
        spec={"data": {"values": values}, "layer": [limit, points]},
        header=["gate", "run", "value / limit"],
        rows=[[each["gate"], each["run"], f"{each['share']:.4g}"] for each in values],
    )
