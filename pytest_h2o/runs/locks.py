"""File locks: one launch at a time on a machine, one launch of each spec in a session."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pytest_h2o.runtimes.base import RuntimeSetupError

LOCK_DIR = "H2O_LOCK_DIR"
REPORT_EVERY_S = 2.0
POLL_S = 0.01


def machine_lock_path(environ: Mapping[str, str] | None = None) -> Path:
    """The file whose lock is held while a launch is timed: ``pytest-h2o-<uid>.lock``.

    It lies in ``$H2O_LOCK_DIR``, else in ``/tmp``, else in the temporary directory. ``TMPDIR``
    comes last because jobs on one machine often have one each, and all of them must meet at the
    same file.
    """
    if environ is None:
        environ = os.environ
    folder = environ.get(LOCK_DIR)
    if not folder:
        folder = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    return Path(folder) / f"pytest-h2o-{os.getuid()}.lock"


def host_lock_path(host: str, environ: Mapping[str, str] | None = None) -> Path:
    """The file whose lock is held while a launch is made on a host."""
    machine = machine_lock_path(environ)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", host)[:80]
    digest = hashlib.sha256(host.encode()).hexdigest()[:8]
    return machine.with_name(f"{machine.stem}-{name}-{digest}.lock")


@contextmanager
def hold_any(paths: Sequence[Path], on_wait: Callable[[float], None]) -> Iterator[int]:
    """Hold the lock of one of ``paths``, whichever is free first, and say which it is.

    ``on_wait`` is told every two seconds for how many seconds it was waited for.
    """
    index, lock = _first_free([FileLock(path, is_singleton=True) for path in paths], on_wait)
    try:
        yield index
    finally:
        lock.release()


def _first_free(
    locks: Sequence[BaseFileLock], on_wait: Callable[[float], None]
) -> tuple[int, BaseFileLock]:
    started = reported = time.monotonic()
    while True:
        for index, lock in enumerate(locks):
            if not lock.is_locked and _try(lock, 0):  # it may be this thread's
                return index, lock
        now = time.monotonic()
        if now - reported >= REPORT_EVERY_S:
            reported = now
            on_wait(now - started)
        time.sleep(POLL_S)


@contextmanager
def hold(
    path: Path, on_wait: Callable[[float], None] | None = None, *, fair: bool = False
) -> Iterator[None]:
    """Hold the lock of ``path``, telling ``on_wait`` every two seconds for how many seconds it was
    waited for.

    With ``fair``, whoever waits comes before a holder that wants it again at once: it holds a
    second lock, ``path.turn``, until it has the first. The kernel drops the locks when their holder
    dies. A thread that holds the lock may take it again. Raises :class:`RuntimeSetupError` if the
    file cannot be locked.
    """
    lock = FileLock(path, is_singleton=True)
    started = time.monotonic()

    def waited() -> None:
        if on_wait:
            on_wait(time.monotonic() - started)

    with ExitStack() as turn:
        if fair and not lock.is_locked:
            other = FileLock(f"{path}.turn")
            _acquire(other, waited)
            turn.callback(other.release)
        _acquire(lock, waited)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, waited: Callable[[], None]) -> None:
    while not _try(lock, REPORT_EVERY_S):
        waited()


def _try(lock: BaseFileLock, seconds: float) -> bool:
    """Whether the lock was taken within so many seconds; raises :class:`RuntimeSetupError`."""
    try:
        lock.acquire(timeout=seconds, poll_interval=POLL_S)
    except Timeout:
        return False
    except OSError as error:
        raise RuntimeSetupError(
            f"{lock.lock_file} cannot be locked: {error.strerror}; "
            f"make it writable or set {LOCK_DIR} to a directory that is"
        ) from error
    return True
