"""Decoded blocks kept for a while, the least recently used going first; lives as long as one
response.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from pytest_h2o.codec.blocks import EncodedBlock
from pytest_h2o.engine.kv_cache import Floats


class DecodeCache:
    """At most ``capacity`` decoded blocks, found by their encoded bytes; safe to use from several
    threads.

    Their values are ready to be written back; ``nbytes`` counts them at the KV precision, as the
    cache's account does.
    """

    def __init__(self, capacity: int) -> None:
        self.hits = self.misses = self.nbytes = 0
        self._capacity = capacity
        self._blocks: OrderedDict[tuple[bytes, bytes], Floats] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, block: EncodedBlock) -> bool:
        return (block.k, block.v) in self._blocks

    def get(self, block: EncodedBlock) -> Floats | None:
        """The decoded ``block``, now the newest entry; counts a hit or a miss unless the cache is
        off.
        """
        if not self._capacity:
            return None
        key = (block.k, block.v)
        with self._lock:
            found = self._blocks.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._blocks.move_to_end(key)
        return found

    def put(self, block: EncodedBlock, decoded: Floats) -> None:
        """Remember ``decoded``, forgetting the oldest entry if there are too many."""
        if not self._capacity:
            return
        with self._lock:
            if (block.k, block.v) in self._blocks:
                return
            self._blocks[block.k, block.v] = decoded
            self.nbytes += block.raw_bytes
            if len(self._blocks) > self._capacity:
                self.nbytes -= self._blocks.popitem(last=False)[1].size * block.elem_bytes
