"""The JSON form of an offline result."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_h2o.offline.tallies import RowTally

if TYPE_CHECKING:
    from pytest_h2o.offline.result import DumpEvaluation

SCHEMA_VERSION = 3
MAX_LISTED_SKIPS = 1000


def result_schema() -> dict[str, Any]:
    """The JSON schema of :func:`json_values`, which ships with the package."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
    return schema


def json_values(result: DumpEvaluation) -> dict[str, Any]:
    """The result as JSON values. Lossless ratios are 0 when nothing was coded, the others null."""
    values = _header(result)
    values |= _sizes(result)
    values |= _usage(result)
    values |= _diagnostics(result)
    values |= _extras(result)
    return values


def _header(result: DumpEvaluation) -> dict[str, Any]:
    options = result.options
    return {
        "schema_version": SCHEMA_VERSION,
        "dump_dir": str(result.dump_dir),
        "stage": options.stage,
        "scope": options.scope,
        "front_n": options.front_n,
        "layer_start": options.layer_start,
        "layer_end": options.layer_end,
        "layer_ids": sorted(options.layer_ids),
        "selected_layers": sorted({entry.layer_id for entry in result.entries}),
        "selected_entries": len(result.entries),
        "selected_dumps": len({entry.dump for entry in result.entries}),
        "entry_mode": options.entry_mode,
        "online_chunk_seq": options.online_chunk_seq,
        "online_framing_bytes": options.online_framing_bytes,
        "aggregate_by_stage": options.aggregate_by_stage,
        "aggregate_groups": result.groups,
        "online_chunks": result.chunks,
        "codec": "fp16_gear_predictive_zstd",
        "codec_mode": options.codec_mode,
        "bitshuffle": options.bitshuffle,
        "adaptive_block_seq": options.adaptive_block_seq,
        "k_hi_predictors": list(options.k_hi_predictors),
        "k_lo_predictors": list(options.k_lo_predictors),
        "v_hi_predictors": list(options.v_hi_predictors),
        "v_lo_predictors": list(options.v_lo_predictors),
        "zstd_level": options.zstd_level,
    }


def _sizes(result: DumpEvaluation) -> dict[str, Any]:
    k, v, both = result.tally("k"), result.tally("v"), result.tally()
    return {
        "k_raw_bytes": k.raw_bytes,
        "k_compressed_bytes": k.compressed_bytes,
        "v_raw_bytes": v.raw_bytes,
        "v_compressed_bytes": v.compressed_bytes,
        "k_chunk_meta_bytes": k.meta_bytes,
        "v_chunk_meta_bytes": v.meta_bytes,
        "raw_bytes": both.raw_bytes,
        "compressed_bytes": both.compressed_bytes,
        "k_lossless_ratio": k.ratio or 0.0,
        "v_lossless_ratio": v.ratio or 0.0,
        "lossless_ratio": both.ratio or 0.0,
        "weighted_lossless_ratio": both.ratio or 0.0,
    }


def _usage(result: DumpEvaluation) -> dict[str, Any]:
    return {
        "k_hi_mode_counts": result.mode_counts("k", "hi"),
        "k_lo_mode_counts": result.mode_counts("k", "lo"),
        "v_hi_mode_counts": result.mode_counts("v", "hi"),
        "v_lo_mode_counts": result.mode_counts("v", "lo"),
    }


def _diagnostics(result: DumpEvaluation) -> dict[str, Any]:
    reasons = Counter(skip.reason for skip in result.skipped.values())
    return {
        "scanned_entries": result.scanned,
        "converted_fp32_entries": sum(entry.bytes_per_elem == 4 for entry in result.evaluated),
        "skipped_entries": len(result.skipped),
        "skip_reasons": dict(reasons),
    }


def _extras(result: DumpEvaluation) -> dict[str, Any]:
    both, evaluated = result.tally(), result.evaluated
    extras: dict[str, Any] = {
        "fast": result.options.fast,
        "container_bytes": both.container_bytes,
        "container_ratio": both.container_ratio,
        "verified": result.options.verify and bool(evaluated),
        "lossless": result.lossless,
        "source_bytes": sum(entry.raw_bytes * entry.bytes_per_elem // 2 for entry in evaluated),
        "changed_entries": len(result.changed_values),
        "changed_values": sum(result.changed_values.values()),
        "evaluated_entries": len(evaluated),
        "evaluated_share": result.evaluated_share,
        "evaluated_byte_share": result.evaluated_byte_share,
    }
    extras |= asdict(result.continuity)
    extras["skipped"] = _listed_skips(result)
    extras["layers"] = _layers(result)
    extras["codecs"] = [_codec(result, name) for name in result.options.codecs]
    return extras


def _codec(result: DumpEvaluation, name: str) -> dict[str, Any]:
    both, keys = result.tally(), result.tally("k")
    rows = keys.rows.get(name, RowTally())
    return {
        "codec": name,
        "lossless_ratio": both.row_ratio(name),
        "k_lossless_ratio": keys.row_ratio(name),
        "v_lossless_ratio": result.tally("v").row_ratio(name),
        "compressed_bytes": both.rows.get(name, RowTally()).compressed_bytes,
        "derotated": rows.derotated > 0,
        "error": both.rows.get(name, RowTally()).error,
    }


def _listed_skips(result: DumpEvaluation) -> list[dict[str, str]]:
    listed = []
    for name, skip in islice(result.skipped.items(), MAX_LISTED_SKIPS):
        listed.append({"name": name, "reason": skip.reason, "detail": skip.detail})
    return listed


def _layers(result: DumpEvaluation) -> list[dict[str, Any]]:
    layers = []
    for (layer, tensor), tally in sorted(result.tensors.items()):
        layers.append({"layer_id": layer, "tensor": tensor} | tally.to_json())
    return layers
