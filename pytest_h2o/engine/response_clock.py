"""The times of one response, by what was done, and the yardstick beside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from pytest_h2o.engine.threads import available_cores
from pytest_h2o.engine.yardstick import ReadyWait, Yardstick


class ResponseClock:
    """By name: wall microseconds, those of them that were spent ready without a core, and how often
    it ran.
    """

    def __init__(self, yardstick: Yardstick) -> None:
        self.microseconds: defaultdict[str, float] = defaultdict(float)
        self.waited: defaultdict[str, float] = defaultdict(float)
        self.runs: Counter[str] = Counter()
        self._yardstick = yardstick
        self._wait = ReadyWait()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        waited, begin = self._wait.read(), perf_counter_ns()
        yield
        self.microseconds[name] += (perf_counter_ns() - begin) / 1e3
        self.waited[name] += (self._wait.read() - waited) / 1e3
        self.runs[name] += 1

    def run_yardstick(self) -> None:
        """Time the fixed calculation once."""
        with self.running("yardstick"):
            self._yardstick.run()

    def cost(self, tokens: int, workers: int) -> float:
        """Time per token in runs of the yardstick, without the time that other programs took."""
        decode, yardstick = self.microseconds["decode"], self.microseconds["yardstick"]
        # With more encode workers than other cores, decoding may have waited for one of ours: then
        # all of it counts.
        if workers < available_cores():
            decode -= self.waited["decode"]
            yardstick -= self.waited["yardstick"]
        return decode / tokens / (yardstick / self.runs["yardstick"])
