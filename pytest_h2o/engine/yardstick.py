"""Decode speed where other programs want the same cores: what was waited for, and a yardstick
beside it.

Within a second the speed of a shared machine changes by tens of percent: other programs take the
core, or the memory that weights stream from. Two measures tell that from a slow decoder. The kernel
says how long a thread was ready to run while it had no core; that is no time of ours. And a fixed
calculation, timed between tokens, is slowed by the same neighbours as the token before and after
it. It streams the weights and does nothing else: it shares no code with decoding, and it never runs
while encode workers are busy, so what decoding does, waits for or contends with shows in full.
Sleeping and waiting for a lock are not being ready.
"""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import numpy as np

from pytest_h2o.engine.kv_cache import Floats
from pytest_h2o.engine.model import Model

EVERY = 4  # tokens from one run to the next: what disturbs lasts long enough to meet both
# Linux: ns on a core, ns ready and waiting for one, turns
SCHEDULE = Path("/proc/thread-self/schedstat")


class Yardstick:
    """The fixed calculation: one vector through every matrix of a model, without attention, cache
    or hooks.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._x: Floats = np.full((1, model.shape.hidden), 0.01, np.float32)  # [1, D]

    def run(self) -> Floats:
        """Multiply; the result has no meaning."""
        for weights in self._model.layers:
            qkv: Floats = self._x @ weights.qkv  # [1, D] @ [D, (H + 2G) d]
            out: Floats = qkv[:, : len(weights.out)] @ weights.out  # [1, H d] @ [H d, D]
            gate_up: Floats = out @ weights.gate_up  # [1, D] @ [D, 2F]
            out = gate_up[:, : len(weights.down)] @ weights.down  # [1, F] @ [F, D]
        logits: Floats = out @ self._model.head  # [1, D] @ [D, V]
        return logits


class ReadyWait:
    """How long the thread that made this has been ready to run without a core, in ns since some
    moment.

    Always 0 where the system does not say.
    """

    def __init__(self, schedule: Path = SCHEDULE) -> None:
        self._file: FileIO | None = None
        try:
            self._file = schedule.open("rb", buffering=0)
        except OSError:
            return

    def read(self) -> int:
        """The time so far."""
        if self._file is None:
            return 0
        self._file.seek(0)
        return int(self._file.read(64).split()[1])
