"""KV dumps for the offline evaluator, switched on by the environment variable ``MNN_KV_DUMP_DIR``.

Every layer gets ``ROOT/RUN_ID/layer_<id>/`` with ``k_t<S>_<E>.bin``, ``v_t<S>_<E>.bin`` and
``meta_t<S>_<E>.json`` for tokens [S, E), those of the prompt or of one decode step: dense
little-endian [tokens, kv_heads, head_dim], keys after RoPE.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_h2o.engine.config import ConfigError
from pytest_h2o.engine.kv_cache import Attention, Bits, KVCache, LayerCache, to_bits

STAGES = ("prefill", "decode", "both")


@dataclass(frozen=True, slots=True)
class KVDump:
    """Where dumps go and which forward passes are dumped."""

    root: Path
    run_id: str
    stage: str = "prefill"
    max_tokens: int = 0  # per dump; 0: all
    rope_theta: float = 0.0  # of the model

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, rope_theta: float = 0.0
    ) -> KVDump | None:
        """The dump that ``environ`` asks for; None without ``MNN_KV_DUMP_DIR``. ConfigError names a
        bad variable.
        """
        root = environ.get("MNN_KV_DUMP_DIR", "")
        if root.lower() in ("", "0", "false", "off"):
            return None
        stage = environ.get("MNN_KV_DUMP_STAGE", "prefill")
        limit = environ.get("MNN_KV_DUMP_MAX_TOKENS", "0")
        if stage not in STAGES:
            raise ConfigError(
                f"MNN_KV_DUMP_STAGE: {stage!r} is unknown; choose one of {', '.join(STAGES)}"
            )
        if not limit.isdecimal():
            raise ConfigError(f"MNN_KV_DUMP_MAX_TOKENS: {limit!r} is not a number of tokens")
        run_id = environ.get("MNN_KV_DUMP_RUN_ID") or f"run_{int(time.time())}_{os.getpid()}"
        if Path(run_id).name != run_id:
            raise ConfigError(f"MNN_KV_DUMP_RUN_ID: {run_id!r} is not a directory name")
        return cls(Path(root), run_id, stage, int(limit), rope_theta)

    def write_prompt(self, cache: KVCache) -> None:
        """Dump what the prompt left in every layer, unless only decoding is wanted. OSError if that
        fails.
        """
        if self.stage != "decode":
            for index, layer in enumerate(cache.layers):
                self.write(index, layer, layer.length)

    def write(self, index: int, layer: LayerCache, added: int) -> None:
        """Dump the last ``added`` tokens of one layer."""
        folder = self.root / self.run_id / f"layer_{index}"
        folder.mkdir(parents=True, exist_ok=True)
        begin = layer.length - added
        count = added
        if self.max_tokens:
            count = min(added, self.max_tokens)
        name = f"t{begin}_{begin + count}"
        shape = layer.shape
        k, v = to_bits(layer.copy(begin, count), shape.dtype)
        _token_major(k).tofile(folder / f"k_{name}.bin")
        _token_major(v).tofile(folder / f"v_{name}.bin")
        meta = {
            "layer_id": index,
            "seq_start": begin,
            "seq_len": count,
            "seq_end_exclusive": begin + count,
            "add": added,
            "tensor_seq_len": added,
            "kv_heads": shape.heads,
            "head_dim": shape.head_dim,
            "bytes_per_elem": shape.dtype.itemsize,
            "dtype": f"fp{8 * shape.dtype.itemsize}",
            "quant_key": shape.quantised > 0,
            "quant_value": shape.quantised > 1,
            "flash_attention": False,
            "rope_theta": self.rope_theta,
            "rope_layout": "half",
            "stage": "prefill" if added > 1 else "decode",
            "run_id": self.run_id,
            "k_file": f"k_{name}.bin",
            "v_file": f"v_{name}.bin",
        }
        (folder / f"meta_{name}.json").write_text(json.dumps(meta, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class DecodeDump:
    """The hook that dumps every decoded token, before anything is evicted."""

    dump: KVDump
    cache: KVCache

    def after_prompt(self, layer: int, attention: Attention) -> None:
        """Nothing to do."""

    def before_attention(self, layer: int) -> None:
        """Nothing to do."""

    def after_attention(self, layer: int, attention: Attention) -> None:
        """Dump the token that was just appended, if decoding is wanted."""
        if self.dump.stage != "prefill":
            self.dump.write(layer, self.cache.layers[layer], 1)

    def finish(self) -> None:
        """Nothing to do."""


def _token_major(bits: Bits) -> Bits:
    """[kv_heads, tokens, head_dim] as contiguous little-endian [tokens, kv_heads, head_dim]."""
    return np.ascontiguousarray(bits.transpose(1, 0, 2), dtype=bits.dtype.newbyteorder("<"))
