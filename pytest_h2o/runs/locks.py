"""File locks: one launch at a time on the whole machine, one launch of each spec in a session."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_h2o.runtimes.base import RuntimeSetupError

LOCK_DIR = "H2O_LOCK_DIR"
REPORT_EVERY_S = 2.0
POLL_S = 0.01
PAUSE_S = 0.02  # between two launches: longer than others need to notice


def machine_lock_path(environ: Mapping[str, str] | None = None) -> Path:
    """The file whose lock is held while a launch is timed: ``pytest-h2o-<uid>.lock``.

    It lies in ``$H2O_LOCK_DIR``, else in ``/tmp``, else in the temporary directory. ``TMPDIR`` comes last because
    jobs on one machine often have one each, and all of them must meet at the same file.
    """
    given = (os.environ if environ is None else environ).get(LOCK_DIR)
    common = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    return Path(given or common) / f"pytest-h2o-{os.getuid()}.lock"


@contextmanager
def hold(path: Path, on_wait: Callable[[float], None] | None = None, *, pause_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of ``path``, telling ``on_wait`` every two seconds for how many seconds it was waited for.

    ``pause_s`` is waited after its release: whoever wants it at once again would never let anybody else have it.
    The kernel drops the lock when its holder dies. A thread that holds it may take it again. Raises
    :class:`RuntimeSetupError` if the file cannot be locked.
    """
    lock = FileLock(path, is_singleton=True)
    started = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=REPORT_EVERY_S, poll_interval=POLL_S)
            break
        except Timeout:
            if on_wait:
                on_wait(time.monotonic() - started)
        except OSError as error:
            raise RuntimeSetupError(
                f"{path} cannot be locked: {error.strerror}; make it writable or set {LOCK_DIR} to a directory that is"
            ) from error
    try:
        yield
    finally:
        lock.release()
        time.sleep(pause_s)
