"""A picture for ``docs/decode.md``: what the pairs in ``bench_aa.csv`` decide.

    python tests/bench/draw_decode.py > pytest_h2o/docs/decode.svg

A line is one study: its interval, and a dot for its estimate. Grey: the same binary on both sides.
Red: one that is 10 % slower. Dashed: the limit of 5 %.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench_aa import LIMIT, judged, read

from pytest_h2o.decode.study import Study

ROWS = Path(__file__).with_name("bench_aa.csv")
LEFT, TOP, STEP = 20, 44, 5
WIDTH = 600
# The drop, as a share, at the left and the right edge.
LOW, HIGH = -0.2, 0.3
COLORS = {"same": "#777", "slower": "#c33"}
TITLES = {"same": "the same binary", "slower": "10 % slower"}
WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "UNDECIDED"}


def place(drop: float) -> float:
    """Where a drop is, in pixels."""
    return LEFT + (WIDTH - 2 * LEFT) * (drop - LOW) / (HIGH - LOW)


def title(mode: str, studies: list[tuple[str, Study]]) -> str:
    """What the studies of a mode decide."""
    decisions = Counter(study.decision for other, study in studies if other == mode)
    counts = [f"{count} {WORDS[decision]}" for decision, count in sorted(decisions.items())]
    return f"{TITLES[mode]}: {', '.join(counts)}"


def draw(studies: list[tuple[str, Study]]) -> str:
    """The chart as SVG, of modes and what was found in them."""
    height = TOP + STEP * len(studies) + 40
    bottom = height - 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Decode drop with its interval in {len(studies)} studies</title>",
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
        words = title(mode, studies)
        parts.append(f'<text x="{x}" y="20" style="fill:{COLORS[mode]}">{words}</text>')
    for number, (mode, study) in enumerate(studies):
        y = TOP + STEP * number + 3
        low, drop, high = map(place, (study.drop_low, study.drop, study.drop_high))
        color = COLORS[mode]
        parts.append(f'<path d="M{low:.1f},{y}H{high:.1f}" stroke="{color}" opacity=".6"/>')
        parts.append(f'<circle cx="{drop:.1f}" cy="{y}" r="2" fill="{color}"/>')
    limit = place(LIMIT)
    dashed = 'stroke="#c33" stroke-dasharray="4"'
    parts.append(f'<path d="M{limit:.1f},{TOP - 8}V{bottom}" {dashed}/>')
    parts.append(f'<text x="{limit + 4:.1f}" y="{TOP - 4}">limit</text>')
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    found: list[tuple[str, Study]] = []
    for (mode, _), pairs in sorted(read(ROWS).items()):
        if mode in COLORS:
            found.append((mode, judged(pairs)[0]))
    print(draw(found))
