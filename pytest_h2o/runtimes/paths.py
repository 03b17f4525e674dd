"""Files as runtimes name and compare them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pytest_h2o.plan.seats import by_kind

# Head and tail that are hashed of each large file.
HASHED_BYTES = 1 << 16


def file_hash(path: Path) -> str:
    """Size, modification time and the hash of head and tail: changes with the file, and is cheap
    for large ones.
    """
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(HASHED_BYTES))
        file.seek(max(0, stat.st_size - HASHED_BYTES))
        digest.update(file.read(HASHED_BYTES))
    return f"{stat.st_size}-{stat.st_mtime_ns}-{digest.hexdigest()[:16]}"


def absolute(path: str | Path, directory: Path) -> Path:
    """``path`` from ``directory``, with ``~`` expanded and symlinks kept."""
    # Path.expanduser() raises where there is no home.
    return directory.absolute() / os.path.expanduser(path)  # noqa: PTH111


def absolute_text(name: str, text: str, directory: Path) -> str:
    """The path that a setting gives, or that of each kind of host, from ``directory``; raises
    :class:`KnobError` for a kind given twice.
    """
    paths = []
    for kind, value in by_kind(name.upper(), text).items():
        path = absolute(value, directory)
        paths.append(f"{kind}={path}" if kind else str(path))
    return "; ".join(paths)
