"""Markdown form of an offline result."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytest_h2o.offline.options import COMPATIBLE_MODES
from pytest_h2o.offline.result import DumpEvaluation
from pytest_h2o.offline.tallies import HISTOGRAM_STEP, PlaneTally, TensorTally

_SETTINGS = (
    "dump_dir",
    "stage",
    "scope",
    "selected_layers",
    "selected_entries",
    "entry_mode",
    "codec_mode",
    "zstd_level",
)
_TENSORS = {"K": "k", "V": "v", "K+V": "kv"}
_LISTED_SKIPS = 20


def to_markdown(result: DumpEvaluation) -> str:
    """The numbers of ``result.to_json()`` as tables: settings, totals, layers, planes, predictor
    usage, diagnostics.
    """
    values = result.to_json()
    settings = _table(("Setting", "Value"), [(name, values[name]) for name in _SETTINGS])
    sections = {
        "Ratios": _ratios(result),
        "Bytes": _bytes(result),
        "Layers": _layers(result),
        "Planes": _planes(result),
        "Predictor Usage": _usage(result),
        "Diagnostics": _diagnostics(result, values),
    }
    text = f"# Offline lossless evaluation\n\n{settings}\n"
    for title, section in sections.items():
        text += f"\n## {title}\n\n{section}\n"
    return text


def _ratios(result: DumpEvaluation) -> str:
    rows = []
    for name, tensors in _TENSORS.items():
        tally = result.tally(tensors)
        rows.append((name, *_all_ratios(tally, result)))
    header = ("Tensor", "Ratio", "Ratio of the containers", *result.options.codecs)
    return _table(header, rows) + _codec_notes(result)


def _codec_notes(result: DumpEvaluation) -> str:
    """What must be known to read the columns of row codecs."""
    notes = ""
    keys = result.tally("k").rows
    if keys and not any(tally.derotated for tally in keys.values()):
        notes += (
            "\n\nKeys were coded without derotation: the dump names no RoPE base; give "
            "--rope-base and --rope-layout."
        )
    for codec, tally in result.tally().rows.items():
        if tally.error:
            notes += f"\n\n{codec} failed: {tally.error}"
    return notes


def _bytes(result: DumpEvaluation) -> str:
    rows = []
    for name, tensors in _TENSORS.items():
        tally = result.tally(tensors)
        row = (
            name,
            tally.raw_bytes,
            tally.compressed_bytes,
            tally.meta_bytes,
            tally.container_bytes,
        )
        rows.append(row)
    return _table(("Tensor", "Raw", "Compressed", "of it metadata", "Containers"), rows)


def _layers(result: DumpEvaluation) -> str:
    rows = []
    for (layer, tensor), tally in sorted(result.tensors.items()):
        size = tally.compressed_bytes
        ratios = _all_ratios(tally, result)
        rows.append((layer, tensor.upper(), tally.raw_bytes, size, *ratios))
    header = ("Layer", "Tensor", "Raw", "Compressed", "Ratio", "Ratio of the containers")
    return _table(header + result.options.codecs, rows)


def _planes(result: DumpEvaluation) -> str:
    rows = []
    for (layer, tensor), tally in sorted(result.tensors.items()):
        for name, plane in (("high", tally.hi), ("low", tally.lo)):
            bits, entropy = _bits(plane)
            used = _most_used(plane)
            rows.append((layer, tensor.upper(), name, plane.stream_bytes, bits, entropy, used))
    header = (
        "Layer",
        "Tensor",
        "Plane",
        "Streams",
        "Bits per byte",
        "Order-0 entropy",
        "Most used predictor",
    )
    text = _table(header, rows) + f"\n\nEntropy: of one row in {HISTOGRAM_STEP}."
    if result.options.codec_mode not in COMPATIBLE_MODES:
        text += " These are the byte planes, which a frame takes where they are smaller."
    return text


def _bits(plane: PlaneTally) -> tuple[str, str]:
    values = plane.to_json()
    return _ratio(values["bits_per_byte"]), _ratio(values["entropy_bits_per_byte"])


def _most_used(plane: PlaneTally) -> str:
    if not plane.modes:
        return "-"
    return plane.modes.most_common(1)[0][0]


def _usage(result: DumpEvaluation) -> str:
    rows = []
    for tensor in "kv":
        for plane in ("hi", "lo"):
            for name, blocks in result.mode_counts(tensor, plane).items():
                rows.append((f"{tensor.upper()} {plane}", name, blocks))
    return _table(("Plane", "Predictor", "Blocks"), rows)


def _diagnostics(result: DumpEvaluation, values: dict[str, Any]) -> str:
    names = list(values)
    findings = names[names.index("scanned_entries") : names.index("skipped")]
    rows = [(name, values[name]) for name in findings if name != "skip_reasons"]
    rows.extend(values["skip_reasons"].items())
    text = _table(("Finding", "Value"), rows)
    if not values["skipped"]:
        return text
    return f"{text}\n\nSkipped:\n\n{_skips(values['skipped'], len(result.skipped))}"


def _skips(listed: Sequence[dict[str, str]], count: int) -> str:
    """The first of ``count`` skipped entries as a list."""
    lines = []
    for each in listed[:_LISTED_SKIPS]:
        lines.append(f"- {each['name']}: {each['reason']} {each['detail']}".rstrip())
    if count > _LISTED_SKIPS:
        lines.append(f"- and {count - _LISTED_SKIPS} more")
    return "\n".join(lines)


def _all_ratios(tally: TensorTally, result: DumpEvaluation) -> list[str]:
    """The compatible ratio, that of the containers, and that of each row codec."""
    ratios = [tally.ratio, tally.container_ratio]
    ratios += [tally.row_ratio(codec) for codec in result.options.codecs]
    return list(map(_ratio, ratios))


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(header), _row(["---"] * len(header))]
    lines.extend(map(_row, rows))
    return "\n".join(lines)


def _row(values: Sequence[object]) -> str:
    return "| " + " | ".join(map(_cell, values)) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.4f}"
    return " ".join(str(value).replace("|", r"\|").split())
