"""The worker pool and the decode cache."""

import threading

import numpy as np
import pytest

from pytest_h2o.codec.blocks import EncodedBlock, encode_block
from pytest_h2o.engine.decode_cache import DecodeCache
from pytest_h2o.engine.encode_pool import EncodePool, Job, overlap_share


def test_job_runs_once() -> None:
    """Whoever comes first does the work; the others wait for its value."""
    calls, gate = [], threading.Event()

    def work() -> int:
        calls.append(1)
        gate.wait(5)
        return 42

    job, pool = Job(work), EncodePool(2, 8)
    pool.submit(job, lambda _: None)
    threading.Timer(0.02, gate.set).start()
    assert job.value() == 42
    assert job.value() == 42
    pool.drain()
    assert calls == [1]


def test_job_error_reaches_the_caller() -> None:
    """An error of the work is raised where the value is needed, and the worker lives on."""
    pool, failing, fine = EncodePool(1, 8), Job(lambda: 1 // 0), Job(lambda: 1)
    for job in (failing, fine):
        pool.submit(job, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        failing.value()
    assert fine.value() == 1


def test_queue_is_bounded() -> None:
    """A submit beyond the capacity is refused, and the peak is the real depth."""
    gate, done = threading.Event(), []
    pool = EncodePool(1, 3)
    accepted = [pool.submit(Job(lambda: gate.wait(5)), done.append) for _ in range(5)]
    gate.set()
    pool.drain()
    assert accepted == [True, True, True, False, False]
    assert (pool.peak, len(done)) == (3, 3)


def test_workers_run_side_by_side() -> None:
    """Two workers are inside their jobs at the same time."""
    barrier = threading.Barrier(2, timeout=5)
    pool, jobs = EncodePool(2, 8), [Job(barrier.wait) for _ in range(2)]
    for job in jobs:
        pool.submit(job, lambda _: None)
    assert sorted(job.value() for job in jobs) == [0, 1]


def test_no_threads_runs_at_once() -> None:
    """A pool of size 0 has done the job when submit returns."""
    done = []
    pool = EncodePool(0, 1)
    assert pool.submit(Job(lambda: 5), done.append)
    assert done[0].value() == 5
    assert pool.peak == 0


def test_overlap_share() -> None:
    """The share of work time that lies in no wait."""
    assert overlap_share([(0, 10), (10, 30)], [(5, 15), (40, 50)]) == pytest.approx(20 / 30)
    assert overlap_share([], [(0, 1)]) == 0


def block(seed: int) -> EncodedBlock:
    """A small encoded block."""
    words = np.random.default_rng(seed).integers(0, 9, (2, 4, 8), dtype=np.uint16)
    return encode_block(words, words, predictors_k=("raw",), predictors_v=("raw",))


def test_cache_forgets_the_least_recently_used() -> None:
    """A full cache drops the entry that was used longest ago and gives its bytes back."""
    cache, blocks = DecodeCache(2), [block(seed) for seed in range(3)]
    decoded = np.zeros((2, 2, 4, 8), np.float32)
    cache.put(blocks[0], decoded)
    cache.put(blocks[1], decoded)
    assert cache.get(blocks[0]) is not None
    cache.put(blocks[2], decoded)
    assert [item in cache for item in blocks] == [True, False, True]
    assert cache.get(blocks[1]) is None
    assert (cache.hits, cache.misses) == (1, 1)
    assert cache.nbytes == 2 * blocks[0].raw_bytes


def test_cache_finds_equal_content() -> None:
    """Equal encoded bytes hit, whichever layer they come from."""
    cache = DecodeCache(2)
    decoded = np.zeros((2, 2, 4, 8), np.float32)
    cache.put(block(1), decoded)
    assert cache.get(block(1)) is not None


def test_cache_can_be_off() -> None:
    """A capacity of 0 remembers and counts nothing."""
    cache = DecodeCache(0)
    cache.put(block(1), np.zeros(1, np.float32))
    assert cache.get(block(1)) is None
    assert (cache.hits, cache.misses) == (0, 0)
