"""Do equal launches report the same? What they compute must not vary, and their speed only so
much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from pytest_h2o.metrics import SAME_EVERY_TIME, Sample, number
from pytest_h2o.parsers.rows import Row
from pytest_h2o.runs.results import Run, finite
from pytest_h2o.verdict import Evidence, Measured, ShownRow

SAME = "equal launches report the same ratios, evictions, blocks and fallbacks"
SHOWN = 3
Labelled = Mapping[str, list[Row]]


def stability_evidence(runs: Sequence[Run]) -> list[Evidence]:
    """Whether all launches report the same of what is computed, row by row."""
    rows = _by_label(runs)
    differing = list(_differing(rows))
    if differing:
        text = "; ".join(differing[:SHOWN])
        if len(differing) > SHOWN:
            text += f"; {len(differing) - SHOWN} more like it"
        return [Evidence.of(SAME, False, text)]
    compared: set[str] = set()
    for row in _all(rows):
        compared.update(row.samples.keys() & set(SAME_EVERY_TIME))
    if not compared:
        text = "needs the h2o columns of the table"
        return [Evidence(claim=SAME, standing="not evidenced", text=text)]
    return [Evidence.of(SAME, True, f"{len(compared)} columns of {len(runs)} launches are equal")]


def speed_spread(runs: Sequence[Run]) -> Measured:
    """How far the decode speeds of equal launches lie apart, as a share of their median: the row
    with most.

    Where every launch reports a cost against its yardstick, the costs are compared, which load on
    the machine disturbs far less.
    """
    missing = [run.missing("decode_tps") for run in runs]
    missing = list(filter(None, missing))
    rows = _by_label(runs)
    by_cost = all("decode_cost" in row.samples for row in _all(rows))
    metric = "decode_cost" if by_cost else "decode_tps"
    spreads: list[float] = []
    shown: list[ShownRow] = []
    for label, same in rows.items():
        values = [row.samples[metric].mean for row in same if metric in row.samples]
        if len(values) < 2 or median(values) <= 0:
            continue
        spread = (max(values) - min(values)) / median(values)
        spreads.append(spread)
        text = f"{number(min(values))} to {number(max(values))} in {len(values)} launches"
        shown.append(ShownRow(label, text, finite(spread)))
    if not spreads and not missing:
        missing = ["no row was measured in more than one launch"]
    return Measured(
        metric=f"spread of {metric}",
        value=None if missing else max(spreads),
        unit="share",
        source=runs[0].source if runs else None,
        rows=tuple(shown),
        missing=missing[0] if missing else "",
        cause=runs[0].cause_of("decode_tps") if runs else "",
    )


def _differing(rows: Labelled) -> Iterator[str]:
    """What is not the same in all rows of one label, in words."""
    for label, same in rows.items():
        for metric in SAME_EVERY_TIME:
            values = [_digits(row.samples.get(metric)) for row in same]
            if len(set(values)) > 1:
                yield f"{metric} is {', '.join(values)} in {label}"


def _digits(sample: Sample | None) -> str:
    return "absent" if sample is None else number(sample.mean, digits=6)


def _by_label(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """The rows of all launches by label; a second one of the same label in a launch is another."""
    found: dict[str, list[Row]] = {}
    for run in runs:
        seen: dict[str, int] = {}
        for row in run.rows:
            seen[row.label] = seen.get(row.label, 0) + 1
            number_of = seen[row.label]
            label = row.label if number_of == 1 else f"{row.label} #{number_of}"
            found.setdefault(label, []).append(row)
    return found


def _all(rows: Labelled) -> Iterator[Row]:
    for same in rows.values():
        yield from same
