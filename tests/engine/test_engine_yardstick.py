"""The cost of a token against the yardstick, on a clock that only moves when told to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LOSSLESS

from pytest_h2o.engine import response_clock
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.yardstick import EVERY, ReadyWait, Yardstick

MS = 1_000_000


@dataclass
class Clock:
    """Time, and the part of it that this thread was ready without a core; the yardstick takes 1
    ms.
    """

    now: int = 0
    waited: int = 0
    runs: int = 0

    def work(self, ns: int) -> None:
        self.now += ns

    def wait(self, ns: int) -> None:
        self.now += ns
        self.waited += ns

    def run(self) -> None:
        self.runs += 1
        self.now += MS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the engine reads."""
    clock = Clock()
    monkeypatch.setattr(response_clock, "perf_counter_ns", lambda: clock.now)
    monkeypatch.setattr(ReadyWait, "read", lambda _: clock.waited)
    monkeypatch.setattr(Yardstick, "run", lambda _: clock.run())
    return clock


@pytest.mark.parametrize("extra", [0, 2, 5])
def test_what_decoding_does_or_sleeps_counts_in_full(
    make_engine: Callable[..., Engine], prompt: list[int], clock: Clock, extra: int
) -> None:
    """Time of a token, whatever it is spent on, is in the cost; the yardstick's own time is not in
    the speed.
    """
    response = make_engine().respond(prompt, 24, emit=lambda _: clock.work((3 + extra) * MS))
    assert response.metrics.decode_cost == pytest.approx(3 + extra)
    assert response.decode_us == 24 * (3 + extra) * 1e3
    assert clock.runs == 24 // EVERY + 1


def test_the_time_of_other_programs_does_not_count(
    make_engine: Callable[..., Engine], prompt: list[int], clock: Clock
) -> None:
    """Being ready without a core costs speed, as printed, but no yardsticks."""
    engine = make_engine()

    def emit(_: int) -> None:
        clock.work(3 * MS)
        clock.wait(7 * MS)

    response = engine.respond(prompt, 8, emit=emit)
    assert response.metrics.decode_cost == pytest.approx(3)
    assert response.decode_us == 8 * 10e3


def test_waiting_for_our_own_workers_counts(
    make_engine: Callable[..., Engine],
    prompt: list[int],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With as many encode workers as cores, the core may have been taken by one of them."""
    monkeypatch.setattr(response_clock, "available_cores", lambda: 2)

    def emit(_: int) -> None:
        clock.work(3 * MS)
        clock.wait(7 * MS)

    engines = [make_engine(LOSSLESS, kv_lossless_async_threads=threads) for threads in (1, 2)]
    costs = [engine.respond(prompt, 8, emit=emit).metrics.decode_cost for engine in engines]
    assert costs == pytest.approx([3, 10])


def test_it_never_runs_beside_an_encode_worker(
    make_engine: Callable[..., Engine], prompt: list[int], clock: Clock
) -> None:
    """A yardstick slowed by our own workers would hide what they cost; one run at the end is
    left.
    """
    engine = make_engine(LOSSLESS)
    assert engine._pool is not None
    engine._pool._pending = 1  # never idle
    engine._pool.drain = lambda: (0, 0)  # type: ignore[method-assign]
    engine.respond(prompt, 16)
    assert clock.runs == 1


def test_not_measured(make_engine: Callable[..., Engine], prompt: list[int], clock: Clock) -> None:
    """Where nobody reads the cost, no time goes into it."""
    make_engine().respond(prompt, 16, measured=False)
    assert clock.runs == 0


def test_it_reads_every_matrix(make_engine: Callable[..., Engine]) -> None:
    """The yardstick is the product of one vector with the matrices of all layers in turn."""
    model = make_engine().model
    for weights in model.layers:
        x = np.full((1, model.shape.hidden), 0.01, np.float32) @ weights.qkv
        x = (x[:, : len(weights.out)] @ weights.out @ weights.gate_up)[
            :, : len(weights.down)
        ] @ weights.down
    np.testing.assert_allclose(Yardstick(model).run(), x @ model.head, rtol=1e-4, atol=1e-6)


def test_ready_wait_is_the_second_number(tmp_path: Path) -> None:
    """The kernel's line is read again each time; without one there is nothing to take off."""
    path = tmp_path / "schedstat"
    path.write_text("111 222 3\n")
    wait = ReadyWait(path)
    assert wait.read() == 222
    path.write_text("111 2345 4\n")
    assert wait.read() == 2345
    assert ReadyWait(tmp_path / "missing").read() == 0
