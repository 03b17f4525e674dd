"""The picture of ``docs/decode.md``: the studies that ``bench_aa.csv`` holds.

    python tests/bench/draw_decode.py > pytest_h2o/docs/decode.svg

A line is one study: its interval, and a dot for its estimate. Grey: the same binary on both sides.
Red: one that is 10 % slower. Dashed: the limit of 5 %.
"""

from __future__ import annotations

import csv
from pathlib import Path

ROWS = Path(__file__).with_name("bench_aa.csv")
LEFT, TOP, STEP = 20, 44, 5
WIDTH = 600
# The drop, as a share, at the left and the right edge.
LOW, HIGH = -0.2, 0.3
LIMIT = 0.05
COLORS = {"same": "#777", "slower": "#c33"}
TITLES = {"same": "the same binary: 60 passes", "slower": "10 % slower: 10 FAILs"}


def place(drop: float) -> float:
    """Where a drop is, in pixels."""
    return LEFT + (WIDTH - 2 * LEFT) * (drop - LOW) / (HIGH - LOW)


def draw(rows: list[dict[str, str]]) -> str:
    """The chart as SVG."""
    height = TOP + STEP * len(rows) + 40
    bottom = height - 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Decode drop with its interval in 70 studies</title>",
        "<style>text{font:12px sans-serif;fill:#555}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for percent in range(-20, 31, 10):
        x = place(percent / 100)
        parts.append(f'<path d="M{x:.1f},{TOP}V{bottom}" stroke="#ccc" stroke-width=".5"/>')
        label = f"{percent:+d} %"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{LEFT}" y="{bottom + 30}">decode slower than the baseline</text>')
    for number, mode in enumerate(TITLES):
        x = LEFT + 240 * number
        parts.append(f'<text x="{x}" y="20" style="fill:{COLORS[mode]}">{TITLES[mode]}</text>')
    for number, row in enumerate(rows):
        y = TOP + STEP * number + 3
        low, drop, high = (place(float(row[name])) for name in ("drop_low", "drop", "drop_high"))
        color = COLORS[row["mode"]]
        parts.append(f'<path d="M{low:.1f},{y}H{high:.1f}" stroke="{color}" opacity=".6"/>')
        parts.append(f'<circle cx="{drop:.1f}" cy="{y}" r="2" fill="{color}"/>')
    limit = place(LIMIT)
    dashed = 'stroke="#c33" stroke-dasharray="4"'
    parts.append(f'<path d="M{limit:.1f},{TOP - 8}V{bottom}" {dashed}/>')
    parts.append(f'<text x="{limit + 4:.1f}" y="{TOP - 4}">limit</text>')
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    with ROWS.open(newline="") as file:
        print(draw(list(csv.DictReader(file))))
