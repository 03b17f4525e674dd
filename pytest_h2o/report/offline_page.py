"""An offline evaluation as a page: charts, and the tables of its Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_h2o.report.charts import Line, bars, layer_ratios
from pytest_h2o.report.rendering import Chart, render

if TYPE_CHECKING:
    from pytest_h2o.offline.result import DumpEvaluation

_CELLS = re.compile(r"(?<!\\) \| ")


@dataclass(frozen=True)
class PageBlock:
    """A piece of the Markdown: ``kind`` is ``h2``, ``p``, ``li`` or ``table``."""

    kind: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def offline_html(result: DumpEvaluation) -> str:
    """Charts of ``result`` (ratio by layer, bits per plane against entropy, predictor usage), then
    its tables.
    """
    from pytest_h2o.offline.tables import to_markdown  # noqa: PLC0415  (numpy, needed only now)

    values = result.to_json()
    found = (layer_ratios(values["layers"]), _bits(values["layers"]), _usage(result))
    lines = to_markdown(result).splitlines()[1:]
    blocks = list(_blocks(lines))
    charts: list[Chart] = list(filter(None, found))
    return render("offline.html", charts=charts, values=values, blocks=blocks)


def _bits(layers: Sequence[dict[str, Any]]) -> Chart | None:
    shown = {"bits_per_byte": "compressed", "entropy_bits_per_byte": "order-0 entropy"}
    values: list[Line] = []
    for layer in layers:
        for short, name in (("hi", "high"), ("lo", "low")):
            plane = f"layer {layer['layer_id']} {layer['tensor'].upper()} {name}"
            for key, what in shown.items():
                bits = layer[short][key] or 0.0
                values.append({"plane": plane, "what": what, "bits": round(bits, 4)})
    return bars("bits", "Bits per byte of each plane", values, ("plane", "what", "bits"))


def _usage(result: DumpEvaluation) -> Chart | None:
    planes: dict[str, dict[str, int]] = {}
    names: dict[str, None] = {}
    for tensor in "kv":
        for plane in ("hi", "lo"):
            counts = result.mode_counts(tensor, plane)
            planes[f"{tensor.upper()} {plane}"] = counts
            names |= dict.fromkeys(counts)
    values: list[Line] = []
    for plane, counts in planes.items():
        total = max(1, sum(counts.values()))
        for name in names:
            share = round(counts.get(name, 0) / total, 4)
            values.append({"plane": plane, "predictor": name, "share": share})
    title = "Share of blocks by predictor"
    return bars("predictors", title, values, ("plane", "predictor", "share"), stacked=True)


def _blocks(lines: Sequence[str]) -> Iterator[PageBlock]:
    """What the Markdown of an evaluation consists of."""
    table: list[list[str]] = []
    for line in chain(lines, [""]):
        if line.startswith("|"):
            table.append(_cells(line))
            continue
        if table:
            yield PageBlock("table", header=table[0], rows=table[2:])
            table = []
        mark, _, text = line.partition(" ")
        kind = {"##": "h2", "-": "li"}.get(mark)
        if kind:
            yield PageBlock(kind, text)
        elif line:
            yield PageBlock("p", line)


def _cells(line: str) -> list[str]:
    """The cells of a table's line; a bar that was escaped is part of its cell."""
    cells = _CELLS.split(line.removeprefix("| ").removesuffix(" |"))
    return [cell.replace(r"\|", "|") for cell in cells]
