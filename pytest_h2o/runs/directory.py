"""The directory of a session: everything it writes lies below it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from pytest_h2o.runtimes.base import RuntimeSetupError

LEAST_FREE_BYTES = 64 * 2**20


def create_session_dir(base: Path) -> Path:
    """Create ``base/2026-01-31_12-00-00`` (local time; ``-2``, ``-3`` ... if taken) and point
    ``base/latest`` to it.
    """
    base.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        directory = base.absolute() / (stamp if number == 1 else f"{stamp}-{number}")
        with suppress(FileExistsError):
            directory.mkdir()
            break
    point_latest(directory)
    return directory


def point_latest(directory: Path) -> None:
    """Point ``latest`` beside ``directory`` to it.

    Best effort: a convenience, impossible on some file systems; a real directory of that name
        stays.
    """
    link = directory.with_name(f".latest-{os.getpid()}")
    with suppress(OSError):
        link.symlink_to(directory.name)
        link.replace(directory.with_name("latest"))
    with suppress(OSError):
        link.unlink()


def check_room(root: Path) -> None:
    """Raise :class:`RuntimeSetupError` unless a run directory can be made at ``root``, with 64 MiB
    for its files.
    """
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RuntimeSetupError(
            f"{existing} is not a directory that can be written to; give another with --h2o-out"
        )
    if (free := shutil.disk_usage(existing).free) < LEAST_FREE_BYTES:
        raise RuntimeSetupError(
            f"{existing}: {free >> 20} MiB are free and 64 are needed; give another with --h2o-out"
        )
