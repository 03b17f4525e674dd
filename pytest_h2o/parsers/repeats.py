"""Which plans and blocks of log lines come again and again, within bounds whatever a log holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

MOST = 1 << 16


class Plan(NamedTuple):
    """An eviction plan of a layer: its KV length, and how many tokens of it are dropped."""

    layer: int
    kv: int
    evict: int


class LoggedBlock(NamedTuple):
    """An encoded block; ``comp`` is its encoded size in bytes, ``number`` counts a layer's updates
    within a response, None where the line does not say.
    """

    layer: int
    start: int
    tokens: int
    raw: int
    comp: int
    number: int | None


@dataclass
class Repeats:
    """The plans in the order of their lines, how often each block was encoded, and how long
    encode workers were waited for in each response.

    Of plans, and of different blocks, only the first :data:`MOST` are kept; ``cut`` says that there
    were more.

    Attributes:
        encode_us: how long encoding took, block by block.
        begins: KV lengths at which a layer's first block of a response was told.
    """

    plans: list[Plan] = field(default_factory=list)
    blocks: Counter[LoggedBlock] = field(default_factory=Counter)
    cut: bool = False
    encode_us: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    _waits_us: list[int] = field(default_factory=lambda: [0])

    def plan(self, plan: Plan) -> None:
        """Keep a plan."""
        if len(self.plans) < MOST:
            self.plans.append(plan)
        else:
            self.cut = True

    def block(self, block: LoggedBlock, waited_us: int) -> None:
        """Count a block; ``waited_us`` is a running sum that begins again with every response."""
        if waited_us >= self._waits_us[-1]:
            self._waits_us[-1] = waited_us
        elif len(self._waits_us) < MOST:
            self._waits_us.append(waited_us)
        if block in self.blocks or len(self.blocks) < MOST:
            self.blocks[block] += 1
        else:
            self.cut = True

    def told(self, encode_us: int, kv: int | None, *, first: bool) -> None:
        """Keep when and after how long a block was told."""
        if len(self.encode_us) < MOST:
            self.encode_us.append(encode_us)
        if first and kv is not None and len(self.begins) < MOST:
            self.begins.append(kv)

    def least_wait_us(self, responses: int) -> float:
        """What a response waited for at least, on average, by the lines; of several the one that
        waited longest may be the warm-up and is left out.
        """
        total, longest = sum(self._waits_us), max(self._waits_us)
        return total / responses if responses == 1 else (total - longest) / responses
