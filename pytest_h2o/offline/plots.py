"""The report as one self-contained HTML page: the Markdown's tables, and plots as inline SVG."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TypeAlias

from pytest_h2o.offline.result import DumpEvaluation
from pytest_h2o.offline.tables import to_markdown

Bars: TypeAlias = Mapping[str, Sequence[float]]  # by label, one length for each series

_LABEL, _WIDTH, _BAR = 150, 460, 14
_COLORS = ("#3b6ea5", "#c77b30", "#5a9367", "#8a5a9e", "#777777")
_STYLE = """body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.1em .6em;text-align:left}
svg text{font:12px sans-serif}li{overflow-wrap:anywhere}"""


def to_html(result: DumpEvaluation) -> str:
    """Plots of ``result`` (ratio by layer, bits per plane against entropy, predictor usage), then
    its tables.
    """
    shares, predictors = _usage(result)
    blocks = [
        _figure("Lossless ratio by layer", _ratios(result), ("K", "V")),
        _figure("Bits per byte of each plane", _bits(result), ("compressed", "order-0 entropy")),
        _figure("Share of blocks by predictor", shares, predictors),
    ]
    blocks.extend(_blocks(to_markdown(result).splitlines()))
    body = "\n".join(blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<title>Offline lossless evaluation</title>"
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _ratios(result: DumpEvaluation) -> Bars:
    bars: dict[str, list[float]] = {}
    for (layer, _), tally in sorted(result.tensors.items()):
        bars.setdefault(f"layer {layer}", []).append(tally.ratio or 0.0)
    return bars


def _bits(result: DumpEvaluation) -> Bars:
    bars: dict[str, list[float]] = {}
    for (layer, tensor), tally in sorted(result.tensors.items()):
        for name, plane in (("high", tally.hi), ("low", tally.lo)):
            values = plane.to_json()
            bits = values["bits_per_byte"] or 0.0
            entropy = values["entropy_bits_per_byte"] or 0.0
            bars[f"layer {layer} {tensor.upper()} {name}"] = [bits, entropy]
    return bars


def _usage(result: DumpEvaluation) -> tuple[Bars, Sequence[str]]:
    planes: dict[str, dict[str, int]] = {}
    names: dict[str, None] = {}  # ordered
    for tensor in "kv":
        for plane in ("hi", "lo"):
            counts = result.mode_counts(tensor, plane)
            planes[f"{tensor.upper()} {plane}"] = counts
            names.update(dict.fromkeys(counts))
    shares: dict[str, list[float]] = {}
    for label, counts in planes.items():
        total = max(1, sum(counts.values()))
        shares[label] = [counts.get(name, 0) / total for name in names]
    return shares, list(names)


def _figure(title: str, bars: Bars, series: Sequence[str]) -> str:
    """Horizontal bars, one per series under each label, each with its value."""
    longest = max(map(max, bars.values()), default=0.0) or 1.0
    step = _BAR * len(series) + 8
    shapes: list[str] = []
    for row, (label, values) in enumerate(bars.items()):
        top = row * step
        shapes.append(_text(_LABEL - 6, top + _BAR - 2, label, "end"))
        for index, value in enumerate(values):
            shapes.append(_bar(index, top, value, _WIDTH * value / longest))
    size = f'width="{_LABEL + _WIDTH + 60}" height="{len(bars) * step}"'
    drawing = "".join(shapes)
    return (
        f"<h2>{escape(title)}</h2>\n<p>{_legend(series)}</p>\n"
        f'<svg role="img" {size}>{drawing}</svg>'
    )


def _bar(index: int, row: int, value: float, length: float) -> str:
    """The bar of the series ``index`` in the row that begins at ``row``, with its value."""
    top = row + index * _BAR
    color = _COLORS[index % len(_COLORS)]
    size = f'width="{length:.1f}" height="{_BAR - 2}"'
    bar = f'<rect x="{_LABEL}" y="{top}" {size} fill="{color}"/>'
    return bar + _text(_LABEL + length + 4, top + _BAR - 3, f"{value:.3f}")


def _legend(series: Sequence[str]) -> str:
    marks = []
    for index, name in enumerate(series):
        color = _COLORS[index % len(_COLORS)]
        marks.append(f'<span style="color:{color}">&#9632;</span> {escape(name)}')
    return " ".join(marks)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _blocks(lines: Iterable[str]) -> Iterable[str]:
    """HTML of the Markdown that :func:`to_markdown` writes: headings, tables, list items and
    paragraphs.
    """
    table: list[str] = []
    for line in lines:
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            yield _table(table)
            table = []
        if line:
            yield _line(line)
    if table:
        yield _table(table)


def _line(line: str) -> str:
    mark, _, text = line.partition(" ")
    tag = {"#": "h1", "##": "h2", "-": "li"}.get(mark)
    if tag is None:
        return f"<p>{escape(line)}</p>"
    return f"<{tag}>{escape(text)}</{tag}>"


def _table(lines: Sequence[str]) -> str:
    rows = [_row(lines[0], "th")]
    for line in lines[2:]:
        rows.append(_row(line, "td"))
    return "<table>" + "\n".join(rows) + "</table>"


def _row(line: str, tag: str) -> str:
    """A line of a Markdown table; a bar that was escaped is part of its cell."""
    cells = []
    for cell in line.strip("| ").replace(r"\|", "\0").split(" | "):
        text = escape(cell.replace("\0", "|"))
        cells.append(f"<{tag}>{text}</{tag}>")
    return "<tr>" + "".join(cells) + "</tr>"
