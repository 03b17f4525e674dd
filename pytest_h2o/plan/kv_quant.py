"""Ways to quantise KV, as ``llm_bench -qatten`` of stock MNN numbers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PLAIN_BITS = 16


@dataclass(frozen=True)
class Quantisation:
    """Bits of a value of K and of V, without scales."""

    option: int
    name: str
    key_bits: int
    value_bits: int = PLAIN_BITS

    @property
    def ratio(self) -> float:
        """KV bytes before over after, from half precision."""
        return 2 * PLAIN_BITS / (self.key_bits + self.value_bits)


OPTIONS: Mapping[int, Quantisation] = {
    each.option: each
    for each in (
        Quantisation(1, "k_int8", 8),
        Quantisation(2, "kv_int8", 8, 8),
        Quantisation(3, "k_tq3", 3),
        Quantisation(4, "kv_tq3", 3, 3),
        Quantisation(5, "k_tq4", 4),
        Quantisation(6, "kv_tq4", 4, 4),
    )
}
