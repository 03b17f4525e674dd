"""How many cores the engine uses.

BLAS always gets one thread: its pools wait by spinning, which is slow for the small products of
decoding and ruinous on a busy machine. A prompt is read by several Python threads instead, and the
encode workers have cores to run on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import TypeVar, cast

Item = TypeVar("Item")
Value = TypeVar("Value")
VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _were_first() -> bool:
    """Whether the variables were set here before BLAS read them; decided by the first call."""
    return "numpy" not in sys.modules


def single_threaded_blas() -> None:
    """Give BLAS one thread, whether numpy is loaded already or not."""
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    if not _were_first():
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415 - rarely needed

        threadpool_limits(1, user_api="blas")


def map_in_order(
    work: Callable[[Item], Value], items: Iterable[Item], threads: int, failed: Callable[[], None]
) -> list[Value]:
    """``work`` of every item, on up to ``threads`` threads (this one included), begun in order.

    The first error is raised when all threads have ended; ``failed`` is called at once, to wake
    those that wait for the item that failed.
    """
    todo = enumerate(items)
    values: dict[int, Value] = {}
    errors: list[BaseException] = []
    lock = threading.Lock()

    def run() -> None:
        try:
            while not errors:
                with lock:
                    number, item = next(todo, (-1, None))
                if number < 0:
                    return
                values[number] = work(cast(Item, item))
        except BaseException as error:  # raised again below
            errors.append(error)
            failed()

    helpers = [threading.Thread(target=run, daemon=True) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [values[number] for number in sorted(values)]
