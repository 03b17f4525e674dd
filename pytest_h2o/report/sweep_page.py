"""The combinations of a sweep as a page: the chart, and the comparison that the terminal shows."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_h2o.parsers.rows import Row
from pytest_h2o.report.charts import swept
from pytest_h2o.report.pareto import LEGEND, comparison
from pytest_h2o.report.rendering import render


def sweep_html(title: str, rows: Mapping[str, Row], failed: Mapping[str, str]) -> str:
    """The page of a sweep; ``rows`` and the reasons of those that ``failed`` are by run id."""
    chart = swept(rows)
    header, *lines = comparison(rows)
    return render(
        "sweep.html",
        charts=[chart] if chart else [],
        title=title,
        header=header,
        lines=lines,
        legend=LEGEND,
        failed=failed,
    )
