"""Jinja templates with what every page holds: style, script, charts and their tables.

Everything that is put into a template is escaped. The scripts that draw charts are part of a page
only if it has charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pytest_h2o.report.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

# BSD-3-Clause; the licences lie beside the files. vega 6.4.0, vega-lite 6.4.3, vega-embed 7.3.0.
VENDORED = ("vega", "vega-lite", "vega-embed")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Vega-Lite spec without size and colours of the page, and the same numbers as a table."""

    name: str
    title: str
    note: str
    spec: Mapping[str, Any]
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    wide: bool = field(default=False)


def render(template: str, *, charts: Sequence[Chart], **values: object) -> str:
    """A page of ``templates``; ``charts`` are drawn by the vendored scripts."""
    scripts = [_vendored(name) for name in VENDORED] if charts else []
    return _environment().get_template(template).render(charts=charts, scripts=scripts, **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (only for pages)

    loader = PackageLoader("pytest_h2o.report")
    environment = Environment(
        autoescape=True,
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    return environment


@cache
def _vendored(name: str) -> str:
    return (files("pytest_h2o.report") / "vendor" / f"{name}.min.js").read_text("utf-8")
