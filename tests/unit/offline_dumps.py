"""Writes small KV dumps for the offline tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def kv(seq: int, heads: int = 2, dim: int = 8, seed: int = 0, kind: str = "<f2") -> npt.NDArray[np.floating[Any]]:
    """Random values [2, seq, heads, dim] whose dimensions differ in size, as those of real heads do."""
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
    """Write K and V (``values`` [2, seq, heads, dim]) with their meta file, whose fields ``overrides`` replace."""
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
