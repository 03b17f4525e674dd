"""Writes KV dumps for the offline tests, and evaluates them the straightforward way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from pytest_h2o.offline.options import OfflineOptions

Array = npt.NDArray[Any]


def kv(
    seq: int, heads: int = 2, dim: int = 8, seed: int = 0, kind: str = "<f2"
) -> npt.NDArray[np.floating[Any]]:
    """Random values [2, seq, heads, dim] whose dimensions differ in size, as those of real heads
    do.
    """
    rng = np.random.default_rng([seed, seq, heads, dim])
    return (rng.normal(size=(2, seq, heads, dim)) * rng.lognormal(size=(heads, dim))).astype(kind)


def write_entry(
    root: Path,
    values: npt.NDArray[np.floating[Any]],
    *,
    run: str | None = "run",
    layer: int = 0,
    start: int = 0,
    **overrides: Any,
) -> Path:
    """Write K and V (``values`` [2, seq, heads, dim]) with their meta file, whose fields
    ``overrides`` replace.
    """
    _, seq, heads, dim = values.shape
    stem = f"t{start}_{start + seq}"
    folder = root / (run or "no_run") / f"layer_{layer}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in zip("kv", values, strict=True):
        (folder / f"{name}_{stem}.bin").write_bytes(tensor.tobytes())
    meta = {
        "layer_id": layer,
        "seq_start": start,
        "seq_len": seq,
        "kv_heads": heads,
        "head_dim": dim,
        "bytes_per_elem": values.itemsize,
        "stage": "prefill" if seq > 1 else "decode",
        "run_id": run,
        "k_file": f"k_{stem}.bin",
        "v_file": f"v_{stem}.bin",
    } | overrides
    path = folder / f"meta_{stem}.json"
    path.write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))
    return path


# The evaluator as its description reads: int16 arithmetic, one zstd call per candidate and block,
# one thread.


def naive_sizes(root: Path, options: OfflineOptions) -> tuple[int, int, int]:
    """Raw bytes and compressed bytes of K and of V of the undamaged fp16 dump in ``root``."""
    compressor = zstandard.ZstdCompressor(level=options.zstd_level)
    raw, sizes = 0, [0, 0]
    for entries in _naive_groups(root, options):
        joined = np.concatenate(entries, axis=1)
        raw += joined.nbytes
        length = joined.shape[1]
        step = (
            options.online_chunk_seq if options.chunked and options.online_chunk_seq > 0 else length
        )
        meta = 4 + 4 * len(entries) if options.entry_mode == "aggregate" else 0
        meta = options.online_framing_bytes if options.chunked else meta
        for at in range(0, length, step):
            for tensor in range(2):
                sizes[tensor] += meta + _tensor_size(
                    joined[tensor, at : at + step], "kv"[tensor], options, compressor
                )
    return raw, sizes[0], sizes[1]


def _naive_groups(root: Path, options: OfflineOptions) -> list[list[Array]]:
    groups: dict[object, list[tuple[int, Array]]] = {}
    for path in sorted(root.rglob("meta_*.json")):
        meta = json.loads(path.read_text())
        if not options.in_scope(meta["layer_id"]) or options.stage not in ("both", meta["stage"]):
            continue
        shape = meta["seq_len"], meta["kv_heads"], meta["head_dim"]
        words = [
            np.fromfile(path.parent / meta[name], "<u2").reshape(shape)
            for name in ("k_file", "v_file")
        ]
        stage = meta["stage"] if options.aggregate_by_stage else ""
        key: object = (
            (meta["run_id"], meta["layer_id"], shape[1:], stage) if options.grouped else path
        )
        groups.setdefault(key, []).append((meta["seq_start"], np.stack(words)))
    return [
        [words for _, words in sorted(group, key=lambda entry: entry[0])]
        for group in groups.values()
    ]


def _tensor_size(
    words: Array, tensor: str, options: OfflineOptions, compressor: zstandard.ZstdCompressor
) -> int:
    high, low = (words >> 8).astype(np.uint8), (words & 255).astype(np.uint8)
    planes = ((high, options.predictors(tensor, "hi")), (low, options.predictors(tensor, "lo")))
    return sum(_stream_size(plane, names, options, compressor) for plane, names in planes)


def _stream_size(
    plane: Array,
    names: tuple[str, ...],
    options: OfflineOptions,
    compressor: zstandard.ZstdCompressor,
) -> int:
    def size(data: Array) -> int:
        return len(compressor.compress(np.ascontiguousarray(data).tobytes()))

    if options.codec_mode == "legacy":
        return size(naive_residual(names[0], plane))
    chosen = []
    for at in range(0, len(plane), options.adaptive_block_seq):
        block = plane[at : at + options.adaptive_block_seq]
        chosen.append(min((naive_residual(name, block) for name in names), key=size))
    return size(np.concatenate(chosen)) + len(chosen) + 8


def naive_residual(name: str, block: Array) -> Array:
    """Residual of the predictor ``name`` in ``block`` [seq, heads, dim]."""
    wide = block.astype(np.int16)
    if name.startswith("pair_delta"):
        wide[..., 1::2] -= block.astype(np.int16)[..., 0 : block.shape[-1] - 1 : 2]
        wide %= 256
    if name.endswith("delta_seq"):
        wide[1:] = wide[1:] - wide.copy()[:-1]
    if name == "xor_seq":
        wide[1:] = wide[1:] ^ block.astype(np.int16)[:-1]
    return (wide % 256).astype(np.uint8)
