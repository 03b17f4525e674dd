"""Where the launches of a session are kept: a directory for each spec, by name."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.locks import hold
from pytest_h2o.runs.records import write_atomically

# Stands in the name of a directory that was left when its launch was made again.
INTERRUPTED = ".interrupted-"


class LaunchFolder:
    """``launches`` below the root of a session, and the ``locks`` beside it."""

    def __init__(self, root: Path) -> None:
        self.launches, self.locks = root / "launches", root / ".locks"
        for folder in (self.launches, self.locks):
            folder.mkdir(parents=True, exist_ok=True)

    def _index(self) -> dict[str, str]:
        """Directory name by spec key; none where a program wrote over the file, so that all is
        launched again.
        """
        path = self.launches / "index.json"
        try:
            return dict(json.loads(path.read_bytes())) if path.is_file() else {}
        except (ValueError, TypeError):
            return {}

    def find(self, spec: LaunchSpec) -> Path | None:
        """The directory of ``spec`` if it has one."""
        name = self._index().get(spec.key)
        return self.launches / name if name else None

    def reserve(self, spec: LaunchSpec) -> Path:
        """The empty directory of ``spec``; what an interrupted launch left there is put aside."""
        with hold(self.locks / "index.lock"):
            index = self._index()
            if spec.key not in index:
                name = file_name(spec.name)
                index[spec.key] = name if name not in index.values() else f"{name}-{spec.key}"
                write_atomically(self.launches / "index.json", json.dumps(index, indent=1) + "\n")
        directory = self.launches / index[spec.key]
        if directory.exists():
            directory.rename(_free_name(directory))
        directory.mkdir()
        return directory


def file_name(name: str) -> str:
    """``name`` as a directory name that every file system takes; not unique."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:150]


def _free_name(directory: Path) -> Path:
    names = (directory.with_name(f"{directory.name}{INTERRUPTED}{number}") for number in count(1))
    return next(name for name in names if not name.exists())
