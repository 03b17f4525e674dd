"""``h2o-llm-bench`` with a decoder that is slower by a known share: SLOWER=0.1 takes 10 % off its
speed.

The extra time is slept after each token. The yardstick does not decode, so it is not slowed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from pytest_h2o.engine import bench
from pytest_h2o.engine.model import Model

SHARE = float(os.environ.get("SLOWER", "0"))
_forward = Model.forward


def slower_forward(model: Model, tokens: Sequence[int], *rest: Any) -> Any:
    """The forward pass and, after a single token, the extra time."""
    begin = time.thread_time()
    logits = _forward(model, tokens, *rest)
    if SHARE and len(tokens) == 1:
        time.sleep((time.thread_time() - begin) * SHARE / (1 - SHARE))
    return logits


if __name__ == "__main__":
    Model.forward = slower_forward  # type: ignore[method-assign]
    sys.exit(bench.main())
