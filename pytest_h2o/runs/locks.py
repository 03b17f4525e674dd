"""File locks: one launch at a time on the whole machine, one launch of each spec in a session."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
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
    while True:
        try:
            lock.acquire(timeout=REPORT_EVERY_S, poll_interval=POLL_S)
            return
        except Timeout:
            waited()
        except OSError as error:
            raise RuntimeSetupError(
                f"{lock.lock_file} cannot be locked: {error.strerror}; "
                f"make it writable or set {LOCK_DIR} to a directory that is"
            ) from error
