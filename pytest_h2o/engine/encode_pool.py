"""Worker threads that encode and decode blocks while the decode thread goes on.

zstd and numpy release the interpreter lock, so the heavy part of a job really runs beside decoding.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, TypeVar, cast

Value = TypeVar("Value")
Interval = tuple[int, int]  # begin and end, ns


class Job(Generic[Value]):
    """Work that runs once, on a worker or on whoever needs its value first."""

    def __init__(self, work: Callable[[], Value]) -> None:
        self.interval: Interval = (0, 0)
        self.error: Exception | None = None
        self._work = work
        self._value: Value | None = None
        self._claim, self._done = threading.Lock(), threading.Event()

    def run(self) -> None:
        """Do the work unless somebody else has begun it."""
        if not self._claim.acquire(blocking=False):
            return
        begin = perf_counter_ns()
        try:
            self._value = self._work()
        except Exception as error:
            self.error = error
        self.interval = (begin, perf_counter_ns())
        self._done.set()

    def value(self) -> Value:
        """The result, computed here if no worker has begun; raises what the work raised."""
        self.run()
        self._done.wait()
        if self.error:
            raise self.error
        return cast(Value, self._value)  # set whenever error is not


class EncodePool:
    """``threads`` workers on one first-in-first-out queue of at most ``capacity`` jobs; 0 threads
    run jobs at once.
    """

    def __init__(self, threads: int, capacity: int) -> None:
        self.threads, self.peak = threads, 0
        self._capacity, self._pending = capacity, 0
        self._change = threading.Condition()
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        if threads:
            # By default one thread may keep the interpreter for 5 ms, the time of a whole token.
            sys.setswitchinterval(5e-4)
        for number in range(threads):
            threading.Thread(target=self._work, name=f"encode-{number}", daemon=True).start()

    def submit(self, job: Job[Value], done: Callable[[Job[Value]], None]) -> bool:
        """Queue ``job``; ``done`` is called with it, on the worker, when it has run. False if the
        queue is full.
        """
        if not self.threads:
            job.run()
            done(job)
            return True
        with self._change:
            if self._pending >= self._capacity:
                return False
            self._pending += 1
            self.peak = max(self.peak, self._pending)
        self._queue.put(lambda: self._finish(job, done))
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""
        return not self._pending

    def drain(self) -> Interval:
        """Wait until nothing is queued or running; when, and until when."""
        begin = perf_counter_ns()
        with self._change:
            self._change.wait_for(lambda: not self._pending)
        return begin, perf_counter_ns()

    def _finish(self, job: Job[Value], done: Callable[[Job[Value]], None]) -> None:
        job.run()
        done(job)
        with self._change:
            self._pending -= 1
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            self._queue.get()()


def total_time(intervals: Iterable[Interval]) -> int:
    """Sum of the lengths, ns."""
    return sum(end - begin for begin, end in intervals)


def overlap_share(work: Sequence[Interval], waits: Sequence[Interval]) -> float:
    """Share of the ``work`` time in which nobody waited; 0 without work."""
    total = total_time(work)
    if not total:
        return 0.0
    waited = 0
    for begin, end in work:
        for wait_begin, wait_end in waits:
            waited += max(0, min(end, wait_end) - max(begin, wait_begin))
    return 1 - waited / total
