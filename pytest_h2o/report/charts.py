"""The charts of a session's report as Vega-Lite specs, from verdicts and rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from pytest_h2o.decode.baselines import drop
from pytest_h2o.decode.history import Entry
from pytest_h2o.parsers.rows import Row
from pytest_h2o.report.kv_lengths import longest_trace
from pytest_h2o.report.pareto import front, point
from pytest_h2o.report.rendering import Chart
from pytest_h2o.report.text import clean
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch
from pytest_h2o.verdict import Verdict

Line = dict[str, Any]
V = TypeVar("V", bound=Verdict)
GREEN, RED, GREY, BLUE, ORANGE = "#2a9d5c", "#d64545", "#8b9299", "#4c78a8", "#f58518"
RING = {"filled": False, "size": 260, "color": GREY}
MAX_POINTS = 3000
MAX_HISTORY = 200
MAX_COLORS, MAX_LEGEND = 10, 24
FOREST_COLUMNS = ("case", "drop", "low", "high", "limit", "pairs")


def session_charts(
    verdicts: Sequence[Verdict],
    records: Sequence[LaunchRecord],
    history: Sequence[Entry] = (),
    offline: Sequence[Mapping[str, Any]] = (),
    window: int = 10,
) -> list[Chart]:
    """The charts for which there are numbers."""
    candidates = [
        decode_forest(verdicts),
        kv_lengths(records),
        compression(records),
        buckets(verdicts),
        layer_ratios(offline),
        decode_history(history, window),
    ]
    return list(filter(None, candidates))


def shared_studies(verdicts: Iterable[V]) -> list[list[V]]:
    """Verdicts that rest on the same pairs and came to the same value, put together."""
    groups: dict[object, list[V]] = {}
    for verdict in verdicts:
        key = (verdict.gate, verdict.pairs, verdict.value, verdict.target, verdict.outcome)
        own = key if verdict.pairs else (verdict.gate, id(verdict))
        groups.setdefault(own, []).append(verdict)
    return list(groups.values())


def _cases(group: Sequence[Verdict]) -> str:
    """The cases of some verdicts in one name."""
    names = list(dict.fromkeys(verdict.case for verdict in group))
    if len(names) > 3:
        return f"{names[0]} and {len(names) - 1} more"
    return ", ".join(names)


def decode_forest(verdicts: Sequence[Verdict]) -> Chart | None:
    """Estimate, interval and pairs of each decode drop, in % of the baseline's speed."""
    judged = [each for each in verdicts if each.metric == "decode_drop" and _finite(each.value)]
    estimates: list[Line] = []
    pairs: list[Line] = []
    for group in shared_studies(judged):
        verdict = group[0]
        name = _cases(group)
        if verdict.gate != "decode_drop":
            name = f"{verdict.gate} {name}"
        name = clean(name, 80)
        line = _estimate(verdict) | {"case": name, "pairs": len(verdict.pairs)}
        estimates.append(line)
        for pair in verdict.pairs:
            if pair.baseline > 0:
                share = 100 * drop(pair.candidate, pair.baseline)
                pairs.append({"case": name, "drop": round(share, 2), "pair": clean(pair.label, 60)})
    if not estimates:
        return None
    y = {"field": "case", "type": "nominal", "sort": None, "title": None}
    x = _x("drop", "decode slower than baseline, %")
    spec = {
        "height": {"step": 26},
        "encoding": {"y": y},
        "layer": [
            {
                "data": {"values": pairs[:MAX_POINTS]},
                "mark": {"type": "point", "color": GREY, "size": 22, "opacity": 0.6},
                "encoding": {"x": x, "tooltip": [{"field": "pair"}, {"field": "drop"}]},
            },
            {
                "data": {"values": estimates},
                "mark": {"type": "rule", "strokeWidth": 3},
                "encoding": {
                    "x": _x("low", x["title"]),
                    "x2": {"field": "high"},
                    "color": _stated("color"),
                },
            },
            {
                "data": {"values": estimates},
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {"x": x, "color": _stated("color"), "tooltip": tips(FOREST_COLUMNS)},
            },
            {
                "data": {"values": estimates},
                "mark": {"type": "tick", "color": RED, "thickness": 2.5, "size": 24},
                "encoding": {"x": _x("limit", x["title"])},
            },
        ],
    }  # fmt: skip
    return Chart(
        name="decode",
        title="Decode speed, candidate against baseline",
        note="dot: estimate, bar: confidence interval, rings: pairs, red: limit; left of it passes",
        spec=spec,
        header=["case", "slower, %", "from", "to", "limit", "pairs"],
        rows=_cells(estimates, FOREST_COLUMNS),
        wide=len(estimates) > 12,
    )


def _estimate(verdict: Verdict) -> Line:
    colors = {"pass": GREEN, "fail": RED}
    line: Line = {"drop": _percent(verdict.value), "limit": _percent(verdict.target)}
    line["color"] = colors.get(verdict.outcome, ORANGE)
    if verdict.interval:
        for name in ("low", "high"):
            end = _percent(getattr(verdict.interval, name))
            if end is not None:
                line[name] = end
    return line


def kv_lengths(records: Sequence[LaunchRecord]) -> Chart | None:
    """The KV length of each layer over decoded tokens, of the longest prompt."""
    trace = longest_trace(records)
    if trace is None:
        return None
    points: list[Line] = []
    for order, each in enumerate(trace.points):
        line = {"layer": each.layer, "decoded": each.decoded, "tokens": each.tokens}
        points.append(line | {"event": each.event, "order": order})
    full = [
        {"decoded": 0, "tokens": trace.prompt},
        {"decoded": trace.decoded, "tokens": trace.prompt + trace.decoded},
    ]
    y = {"field": "tokens", "type": "quantitative", "title": "tokens in the KV cache"}
    shared = {"x": _x("decoded", "decoded tokens"), "y": y}
    color = {"field": "layer", "type": "ordinal"}
    tooltip = tips(("layer", "decoded", "tokens", "event"))
    # Dropped plans are no corners of a curve: nothing changed there.
    layers = [
        {
            "data": {"values": full},
            "mark": {"type": "line", "color": GREY, "strokeDash": [5, 4]},
            "encoding": shared,
        },
        {
            "transform": [{"filter": "datum.event != 'dropped plan'"}],
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": shared | {"color": color, "order": {"field": "order"}},
        },
        {
            "transform": [{"filter": "datum.event == 'evicted'"}],
            "mark": {"type": "point", "filled": True, "size": 40},
            "encoding": shared | {"color": color, "tooltip": tooltip},
        },
        {
            "transform": [{"filter": "datum.event == 'dropped plan'"}],
            "mark": {"type": "point", "shape": "cross", "filled": True, "size": 70, "color": RED},
            "encoding": shared | {"tooltip": tooltip},
        },
    ]
    dropped = [each for each in points if each["event"] == "dropped plan"]
    return Chart(
        name="kv",
        title=f"KV length while decoding, {trace.label}",
        note="dashed: the full cache; each fall is an applied eviction; dropped plans, in red: "
        f"{len(dropped)}",
        spec={"height": 260, "data": {"values": points}, "layer": layers},
        header=["layer", "decoded tokens", "tokens in KV", "event"],
        rows=_cells(points, ("layer", "decoded", "tokens", "event")),
    )


def compression(records: Sequence[LaunchRecord]) -> Chart | None:
    """Each row with its lossy times lossless ratio and decode speed; a launch with H2O off keeps
    all of the cache.
    """
    values: list[Line] = []
    for record in records:
        is_on = bool(record.spec.config.get("kv_h2o_enable"))
        for row in read_launch(record, ())[0]:
            found = point(row) if is_on else None
            speed = row.samples.get("decode_tps")
            if not is_on and speed and math.isfinite(speed.mean):
                found = (1.0, speed.mean)
            if found and row.kind == "bench":
                values.append(_traded(record.spec.arm, row.label, found))
    return trade_off(values)


def swept(rows: Mapping[str, Row]) -> Chart | None:
    """The combinations of a sweep, by run id."""
    values: list[Line] = []
    for run_id, row in rows.items():
        found = point(row)
        if found:
            values.append(_traded(run_id, row.label, found))
    return trade_off(values)


def _traded(name: str, lengths: str, found: tuple[float, float]) -> Line:
    line: Line = {"arm": clean(name, 80), "lengths": clean(lengths, 40)}
    return line | {"ratio": round(found[0], 3), "speed": round(found[1], 2)}


def trade_off(values: Sequence[Line]) -> Chart | None:
    """Compression against decode speed, with the medians of each name and the front of each
    length.
    """
    if not values:
        return None
    typical = _typical(values)
    _mark_front(typical)
    # No legend holds more names or longer ones, as those of a sweep.
    names = {each["arm"] for each in values}
    by_arm = len(names) <= MAX_COLORS and max(map(len, names)) <= MAX_LEGEND
    color = "arm" if by_arm else "lengths"
    encoding: Line = {
        "x": _x("ratio", "KV compressed, lossy × lossless", zero=False),
        "y": _on_y("speed"),
        "color": {"field": color, "type": "nominal", "title": "settings" if by_arm else "lengths"},
        "tooltip": tips(("arm", "lengths", "ratio", "speed")),
    }
    shape: Line = {"field": "lengths", "type": "nominal"}
    curve: Line = {
        "x": encoding["x"],
        "y": encoding["y"],
        "detail": {"field": "lengths"},
        "order": {"field": "ratio"},
    }
    ringed = [each for each in typical if each["front"]]
    layers = [
        {
            "data": {"values": values[:MAX_POINTS]},
            "mark": {"type": "point", "size": 25, "opacity": 0.45},
            "encoding": encoding,
        },
        {
            "data": {"values": ringed},
            "mark": {"type": "line", "color": GREY, "strokeDash": [4, 3], "point": RING},
            "encoding": curve,
        },
        {
            "data": {"values": typical},
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": encoding | {"shape": shape},
        },
    ]
    columns = ("arm", "lengths", "ratio", "speed", "front")
    typical.sort(key=lambda each: (each["lengths"], -each["ratio"], -each["speed"]))
    rows = _cells(typical, columns)
    return Chart(
        name="compression",
        title="Compression against speed",
        note="small: launches, large: their medians, ringed: the Pareto front of each length",
        spec={"height": 260, "layer": layers},
        header=["settings", "lengths", "ratio", "decode tok/s", "Pareto"],
        rows=rows,
        wide=not by_arm,
    )


def _typical(values: Sequence[Line]) -> list[Line]:
    """The median of each arm and length."""
    ratios: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    speeds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for each in values:
        key = each["arm"], each["lengths"]
        ratios[key].append(each["ratio"])
        speeds[key].append(each["speed"])
    found: list[Line] = []
    for arm, lengths in ratios:
        ratio = round(median(ratios[arm, lengths]), 3)
        speed = round(median(speeds[arm, lengths]), 2)
        found.append({"arm": arm, "lengths": lengths, "ratio": ratio, "speed": speed})
    return found


def _mark_front(typical: Sequence[Line]) -> None:
    points: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in typical:
        points[each["lengths"]].append((each["ratio"], each["speed"]))
    fronts = {lengths: front(found) for lengths, found in points.items()}
    for each in typical:
        is_best = (each["ratio"], each["speed"]) in fronts[each["lengths"]]
        each["front"] = "front" if is_best else ""


def buckets(verdicts: Sequence[Verdict]) -> Chart | None:
    """Decode drop and agreement with the baseline's text by prompt length."""
    values: list[Line] = []
    for verdict in verdicts:
        if verdict.gate == "bucket_decode" and _finite(verdict.value):
            line: Line = {"what": "decode drop", "bucket": clean(verdict.case, 40)}
            limit = _percent(verdict.target)
            values.append(line | {"share": _percent(verdict.value), "limit": limit})
    agreed: dict[str, list[float]] = {}
    for verdict in verdicts:
        for row in verdict.rows if verdict.gate == "greedy_agreement" else ():
            if _finite(row.value):
                agreed.setdefault(_bucket(row.label), []).append(row.value or 0.0)
    for bucket, shares in agreed.items():
        mean = _percent(math.fsum(shares) / len(shares))
        values.append({"what": "agreement", "bucket": clean(bucket, 40), "share": mean})
    if not values:
        return None
    order = sorted({each["bucket"] for each in values}, key=_by_number)
    y = {"field": "bucket", "type": "nominal", "sort": order, "title": "prompt tokens"}
    limit_x = _x("limit", "% of the baseline")
    layers = [
        {
            "mark": "bar",
            "encoding": {
                "x": _x("share", "% of the baseline"),
                "yOffset": {"field": "what"},
                "color": {"field": "what", "type": "nominal", "title": None},
                "tooltip": tips(("bucket", "what", "share")),
            },
        },
        {
            "transform": [{"filter": "isValid(datum.limit)"}],
            "mark": {"type": "tick", "color": RED, "thickness": 2.5, "size": 20},
            "encoding": {"x": limit_x, "yOffset": {"field": "what"}},
        },
    ]
    rows = _cells(values, ("bucket", "what", "share", "limit"))
    return Chart(
        name="buckets",
        title="Real prompts by length",
        note="decode drop with its limit in red; agreement: characters before the first that "
        "differs",
        spec={
            "height": 56 * len(order),
            "data": {"values": values},
            "encoding": {"y": y},
            "layer": layers,
        },
        header=["prompt tokens", "what", "%", "limit"],
        rows=rows,
    )


def _bucket(label: str) -> str:
    """The length in a prompt's name, or the name."""
    parts = label.split("_")
    numbers = [part for part in parts if part.isdecimal()]
    return numbers[0] if len(numbers) > 1 else label


def _by_number(text: str) -> tuple[float, str]:
    return (float(text) if text.isdecimal() and len(text) < 18 else math.inf, text)


def layer_ratios(layers: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The lossless ratio of each layer and tensor, as the offline evaluator found it."""
    values: list[Line] = []
    for each in layers:
        ratio = each.get("lossless_ratio")
        if isinstance(ratio, int | float) and math.isfinite(ratio):
            name = f"layer {clean(each.get('layer_id'), 12)}"
            tensor = clean(each.get("tensor"), 12).upper()
            values.append({"layer": name, "tensor": tensor, "ratio": round(ratio, 4)})
    return bars(
        "layers", "Lossless ratio by layer and tensor", values, ("layer", "tensor", "ratio")
    )


def bars(
    name: str,
    title: str,
    values: Sequence[Line],
    fields: tuple[str, str, str],
    *,
    stacked: bool = False,
) -> Chart | None:
    """Horizontal bars: the fields are the row, its series and the number; series lie below each
    other unless they are ``stacked``.
    """
    if not values:
        return None
    row, series, number = fields
    encoding: Line = {
        "y": {"field": row, "type": "nominal", "sort": None, "title": None},
        "x": _x(number, number),
        "color": {"field": series, "type": "nominal", "sort": None, "title": None},
        "tooltip": tips(fields),
    }
    height: Line = {"step": 26}
    if not stacked:
        encoding["yOffset"] = {"field": series, "sort": None}
        height = {"step": 14, "for": "offset"}
    spec = {"height": height, "data": {"values": list(values)}, "mark": "bar", "encoding": encoding}
    rows = _cells(values, fields)
    return Chart(name=name, title=title, note="", spec=spec, header=list(fields), rows=rows)


def decode_history(history: Sequence[Entry], window: int) -> Chart | None:
    """The decode speeds of this and earlier sessions, with median and range of the ``window``
    before each; none of a first session.
    """
    values: list[Line] = []
    by_key: dict[tuple[str, str], list[float]] = {}
    for entry in history[-MAX_HISTORY:]:
        earlier = by_key.setdefault((entry.key, entry.case), [])
        band = earlier[-max(1, window) :]
        line: Line = {"time": clean(entry.ts_utc, 30), "case": clean(entry.case or entry.key, 60)}
        line |= {"speed": entry.decode_best, "outcome": "pass" if entry.overall_pass else "fail"}
        if band:
            line |= {"low": min(band), "high": max(band), "median": median(band)}
        values.append(line)
        earlier.append(entry.decode_best)
    if not any("median" in each for each in values):
        return None
    x = {"field": "time", "type": "temporal", "title": None}
    tooltip = tips(("time", "case", "speed", "outcome"))
    color = {"field": "case", "type": "nominal", "title": None}
    banded = [{"filter": "isValid(datum.low)"}]
    layers = [
        {
            "transform": banded,
            "mark": {"type": "area", "opacity": 0.18},
            "encoding": {"x": x, "y": _on_y("low"), "y2": {"field": "high"}, "color": color},
        },
        {
            "transform": banded,
            "mark": {"type": "line", "strokeDash": [4, 3]},
            "encoding": {"x": x, "y": _on_y("median"), "color": color},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 45},
            "encoding": {"x": x, "y": _on_y("speed"), "color": color, "tooltip": tooltip},
        },
    ]
    names = ("time", "case", "speed", "outcome", "low", "median", "high")
    rows = _cells(values, names)
    return Chart(
        name="history",
        title="Decode speed of this and earlier sessions",
        note=f"band: range of the {window} before, dashed: their median",
        spec={"height": 240, "data": {"values": values}, "layer": layers},
        header=["time", "case", "decode tok/s", "outcome", "lowest before", "median", "highest"],
        rows=rows,
    )


def _cells(lines: Sequence[Line], names: Sequence[str]) -> list[list[object]]:
    """A table of values by name; what is absent is a dash."""
    table: list[list[object]] = []
    for line in lines:
        table.append([line.get(name, "-") for name in names])
    return table


def tips(names: Iterable[str]) -> list[Line]:
    return [{"field": name} for name in names]


def _on_y(field: str) -> Line:
    return {
        "field": field,
        "type": "quantitative",
        "title": "decode tok/s",
        "scale": {"zero": False},
    }


def _x(field: str, title: str, *, zero: bool = True) -> Line:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": zero}}


def _stated(field: str) -> Line:
    """Colours that the data name."""
    return {"field": field, "type": "nominal", "scale": None, "legend": None}


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _percent(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(100 * value, 2)
