"""Markdown form of an offline result."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytest_h2o.offline.result import HISTOGRAM_STEP, OfflineResult, PlaneTally

_SETTINGS = (
    "dump_dir", "stage", "scope", "selected_layers", "selected_entries", "entry_mode", "codec_mode", "zstd_level",
)  # fmt: skip
_LISTED_SKIPS = 20


def to_markdown(result: OfflineResult) -> str:
    """The numbers of ``result.to_json()`` as tables: settings, totals, layers, planes, predictor
    usage, diagnostics.
    """
    values = result.to_json()
    settings = _table(("Setting", "Value"), ((name, values[name]) for name in _SETTINGS))
    sections = {
        "Ratios": _ratios(result),
        "Bytes": _bytes(result),
        "Layers": _layers(result),
        "Planes": _planes(result),
        "Predictor Usage": _usage(result),
        "Diagnostics": _diagnostics(result, values),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Offline lossless evaluation\n\n{settings}\n\n{body}\n"


def _ratios(result: OfflineResult) -> str:
    tallies = {
        name: result.tally(tensors) for name, tensors in (("K", "k"), ("V", "v"), ("K+V", "kv"))
    }
    rows = (
        (name, _ratio(each.ratio), _ratio(each.container_ratio)) for name, each in tallies.items()
    )
    return _table(("Tensor", "Ratio", "Ratio of the containers"), rows)


def _bytes(result: OfflineResult) -> str:
    tallies = {
        name: result.tally(tensors) for name, tensors in (("K", "k"), ("V", "v"), ("K+V", "kv"))
    }
    rows = (
        (name, each.raw_bytes, each.compressed_bytes, each.meta_bytes, each.container_bytes)
        for name, each in tallies.items()
    )
    return _table(("Tensor", "Raw", "Compressed", "of it metadata", "Containers"), rows)


def _layers(result: OfflineResult) -> str:
    rows = (
        (
            layer,
            tensor.upper(),
            each.raw_bytes,
            each.compressed_bytes,
            _ratio(each.ratio),
            _ratio(each.container_ratio),
        )
        for (layer, tensor), each in sorted(result.tensors.items())
    )
    return _table(
        ("Layer", "Tensor", "Raw", "Compressed", "Ratio", "Ratio of the containers"), rows
    )


def _planes(result: OfflineResult) -> str:
    rows = (
        (layer, tensor.upper(), name, plane.stream_bytes, *_bits(plane), _most_used(plane))
        for (layer, tensor), each in sorted(result.tensors.items())
        for name, plane in (("high", each.hi), ("low", each.lo))
    )
    header = (
        "Layer",
        "Tensor",
        "Plane",
        "Streams",
        "Bits per byte",
        "Order-0 entropy",
        "Most used predictor",
    )
    return _table(header, rows) + f"\n\nEntropy: of one row in {HISTOGRAM_STEP}."


def _bits(plane: PlaneTally) -> tuple[str, str]:
    values = plane.to_json()
    return _ratio(values["bits_per_byte"]), _ratio(values["entropy_bits_per_byte"])


def _most_used(plane: PlaneTally) -> str:
    return plane.modes.most_common(1)[0][0] if plane.modes else "-"


def _usage(result: OfflineResult) -> str:
    rows = (
        (f"{tensor.upper()} {plane}", name, blocks)
        for tensor in "kv"
        for plane in ("hi", "lo")
        for name, blocks in result.mode_counts(tensor, plane).items()
    )
    return _table(("Plane", "Predictor", "Blocks"), rows)


def _diagnostics(result: OfflineResult, values: dict[str, Any]) -> str:
    first, last = list(values).index("scanned_entries"), list(values).index("skipped")
    shown = [
        (name, value) for name, value in list(values.items())[first:last] if name != "skip_reasons"
    ]
    text = _table(("Finding", "Value"), (*shown, *values["skip_reasons"].items()))
    skips = [
        f"- {each['name']}: {each['reason']} {each['detail']}".rstrip()
        for each in values["skipped"]
    ]
    if len(result.skipped) > _LISTED_SKIPS:
        skips[_LISTED_SKIPS:] = [f"- and {len(result.skipped) - _LISTED_SKIPS} more"]
    return "\n\n".join([text, *(["Skipped:\n\n" + "\n".join(skips)] if skips else [])])


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.4f}"
    return " ".join(str(value).replace("|", r"\|").split())
