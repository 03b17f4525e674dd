"""Blocks of KV to bytes and back: what the encode workers run."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from pytest_h2o.codec.blocks import EncodedBlock, decode_block, encode_block
from pytest_h2o.codec.predictors import parse_predictors
from pytest_h2o.codec.rope import Positions, Rope, Rotation
from pytest_h2o.engine.config import Config
from pytest_h2o.engine.decode_cache import DecodeCache
from pytest_h2o.engine.encode_schedule import Span
from pytest_h2o.engine.kv_cache import Bits, Floats, from_bits, to_bits


@dataclass(slots=True)
class Encoded:
    """What encoding one span brought; ``verified`` tells that decoding gave the raw values back."""

    layer: int
    epoch: int
    updates: int
    span: Span
    raw_bytes: int
    block: EncodedBlock | None = None
    verified: bool = False
    encode_us: float = 0.0
    decode_us: float = 0.0
    error: Exception | None = None

    @property
    def gain(self) -> bool:
        """Whether the block is smaller than what it encodes."""
        return self.block is not None and self.block.nbytes < self.raw_bytes

    @property
    def failed(self) -> bool:
        """Whether encoding raised, or decoding did not give the raw values back."""
        return self.error is not None or (self.gain and not self.verified)

    @property
    def accounted_bytes(self) -> int:
        """What the span takes: the raw bytes unless the block is of use."""
        if self.block is None or self.failed or not self.gain:
            return self.raw_bytes
        return self.block.nbytes


class BlockCoder:
    """Encodes, checks and decodes the blocks of one response. ``decoded`` keeps values of blocks.

    Workers run it: it touches nothing but what it is given, and ``decoded``.
    """

    def __init__(self, config: Config, dtype: np.dtype[Any]) -> None:
        self.decoded = DecodeCache(config.lossless.decode_cache_blocks)
        self._settings, self._dtype = config.lossless, dtype
        self._predictors_k = parse_predictors(config.lossless.predictors_k)
        self._predictors_v = parse_predictors(config.lossless.predictors_v)
        self._rope = Rope(config.architecture.rope_theta)

    def encode(self, task: Encoded, values: Floats, positions: Positions) -> Encoded:
        """Encode, decode and compare; ``task`` says how that went."""
        begin = perf_counter_ns()
        try:
            bits = to_bits(values, self._dtype)
            task.block = self._encode_block(bits[0], bits[1], positions)
            task.encode_us = (perf_counter_ns() - begin) / 1e3
            if task.gain:
                task.verified = self._check(task.block, bits, values)
        except Exception as error:
            task.error = error
        task.decode_us = (perf_counter_ns() - begin) / 1e3 - task.encode_us
        return task

    def _encode_block(self, k: Bits, v: Bits, positions: Positions) -> EncodedBlock:
        return encode_block(
            k,
            v,
            predictors_k=self._predictors_k,
            predictors_v=self._predictors_v,
            codec=self._settings.codec_runtime,
            hash_raw=self._settings.strict_roundtrip_check,
            rotation=Rotation(self._rope, positions),
        )

    def _check(self, block: EncodedBlock, bits: Bits, values: Floats) -> bool:
        """Whether ``block`` decodes to ``bits``, unless equal bytes have before; if so, their
        values will be needed.
        """
        if self.decoded.get(block) is None:
            if not np.array_equal(decode_block(block), bits):
                return False
            self.decoded.put(block, values)
        return True

    def decode(self, block: EncodedBlock) -> Floats:
        """Values of ``block`` [2, kv_heads, tokens, head_dim], from the decode cache if it has
        them.
        """
        decoded = self.decoded.get(block)
        if decoded is None:
            decoded = from_bits(np.stack(decode_block(block)))
            self.decoded.put(block, decoded)
        return decoded
