"""The report as one self-contained HTML page: the Markdown's tables, and plots as inline SVG."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TypeAlias

from pytest_h2o.offline.report import to_markdown
from pytest_h2o.offline.result import OfflineResult

Bars: TypeAlias = Mapping[str, Sequence[float]]  # by label, one length for each series

_LABEL, _WIDTH, _BAR = 150, 460, 14
_COLORS = ("#3b6ea5", "#c77b30", "#5a9367", "#8a5a9e", "#777777")
_STYLE = """body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.1em .6em;text-align:left}
svg text{font:12px sans-serif}li{overflow-wrap:anywhere}"""


def to_html(result: OfflineResult) -> str:
    """Plots of ``result`` (ratio by layer, bits per plane against entropy, predictor usage), then
    its tables.
    """
    plots = (
        _figure("Lossless ratio by layer", _ratios(result), ("K", "V")),
        _figure("Bits per byte of each plane", _bits(result), ("compressed", "order-0 entropy")),
        _figure("Share of blocks by predictor", *_usage(result)),
    )
    body = "\n".join((*plots, *_blocks(to_markdown(result).splitlines())))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Offline lossless '
        "evaluation</title>"
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _ratios(result: OfflineResult) -> Bars:
    layers = sorted({layer for layer, _ in result.tensors})
    return {
        f"layer {layer}": [result.tensors[layer, tensor].ratio or 0.0 for tensor in "kv"]
        for layer in layers
    }


def _bits(result: OfflineResult) -> Bars:
    bars = {}
    for (layer, tensor), tally in sorted(result.tensors.items()):
        for name, plane in (("high", tally.hi), ("low", tally.lo)):
            values = plane.to_json()
            pair = (values["bits_per_byte"], values["entropy_bits_per_byte"])
            bars[f"layer {layer} {tensor.upper()} {name}"] = [value or 0.0 for value in pair]
    return bars


def _usage(result: OfflineResult) -> tuple[Bars, Sequence[str]]:
    planes = {
        f"{tensor.upper()} {plane}": result.mode_counts(tensor, plane)
        for tensor in "kv"
        for plane in ("hi", "lo")
    }
    names = list(dict.fromkeys(name for counts in planes.values() for name in counts))
    shares = {
        label: [counts.get(name, 0) / max(1, sum(counts.values())) for name in names]
        for label, counts in planes.items()
    }
    return shares, names


def _figure(title: str, bars: Bars, series: Sequence[str]) -> str:
    """Horizontal bars, one per series under each label, each with its value."""
    longest = max((value for values in bars.values() for value in values), default=0.0) or 1.0
    step = _BAR * len(series) + 8
    shapes = []
    for row, (label, values) in enumerate(bars.items()):
        shapes.append(_text(_LABEL - 6, row * step + _BAR - 2, label, "end"))
        for index, value in enumerate(values):
            top, length = row * step + index * _BAR, _WIDTH * value / longest
            color = _COLORS[index % len(_COLORS)]
            shapes.append(
                f'<rect x="{_LABEL}" y="{top}" width="{length:.1f}" height="{_BAR - 2}" '
                f'fill="{color}"/>'
            )
            shapes.append(_text(_LABEL + length + 4, top + _BAR - 3, f"{value:.3f}"))
    legend = " ".join(
        f'<span style="color:{_COLORS[index % len(_COLORS)]}">&#9632;</span> {escape(name)}'
        for index, name in enumerate(series)
    )
    size = f'width="{_LABEL + _WIDTH + 60}" height="{len(bars) * step}"'
    return (
        f'<h2>{escape(title)}</h2>\n<p>{legend}</p>\n<svg role="img" {size}>{"".join(shapes)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _blocks(lines: Iterable[str]) -> Iterable[str]:
    """HTML of the Markdown that :func:`to_markdown` writes: headings, tables, list items and
    paragraphs.
    """
    table: list[str] = []
    for line in (*lines, ""):
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            yield _table(table)
            table = []
        if line:
            yield _line(line)


def _line(line: str) -> str:
    mark, _, text = line.partition(" ")
    tag = {"#": "h1", "##": "h2", "-": "li"}.get(mark)
    return f"<{tag}>{escape(text)}</{tag}>" if tag else f"<p>{escape(line)}</p>"


def _table(lines: Sequence[str]) -> str:
    header, _, *rows = (line.strip("| ").replace(r"\|", "\0").split(" | ") for line in lines)
    cells = [_row(header, "th"), *(_row(row, "td") for row in rows)]
    return "<table>" + "\n".join(cells) + "</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    return (
        "<tr>"
        + "".join(f"<{tag}>{escape(cell.replace(chr(0), '|'))}</{tag}>" for cell in cells)
        + "</tr>"
    )
