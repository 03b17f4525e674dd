"""Ends the launches of a session that died without ending them itself.

The guard is one small process beside each process that launches. It sleeps on a pipe, costs a launch no start-up time
and outlives its parent by the moments it takes to end what was left. It is run as a file, so that nothing is imported.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

GRACE_S = 2.0


class Guard:
    """The parent's side: names process groups to the guard process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            (sys.executable, "-I", "-S", __file__),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd="/", bufsize=0, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.read(1)  # it is up: its start does not disturb the first launch
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        """Whether the guard process runs and belongs to this process, not to the one it was forked from."""
        return self.owner == os.getpid() and self.process.poll() is None

    def watch(self, group: int) -> None:
        """End ``group`` if this process dies."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """``group`` has ended."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Let the guard process end."""
        if self.alive:
            self.process.communicate()

    def _tell(self, message: str) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(message.encode())


_guards: list[Guard] = []


def this_guard() -> Guard:
    """The guard of this process, started on first use; raises OSError if it cannot be."""
    if not (_guards and _guards[-1].alive):
        _guards.append(Guard())
    return _guards[-1]


def signal_group(group: int, number: int) -> None:
    """Send a signal to every process of a group that is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_orphans(messages: Iterable[bytes]) -> None:
    """Keep account of ``+group`` and ``-group`` lines; end the groups that are left when the pipe closes."""
    groups: set[int] = set()
    for message in messages:
        (groups.add if message[:1] == b"+" else groups.discard)(int(message[1:]))
    for number in (signal.SIGTERM, signal.SIGKILL) if groups else ():
        for group in groups:
            signal_group(group, number)
        time.sleep(GRACE_S if number == signal.SIGTERM else 0)


if __name__ == "__main__":
    os.write(1, b".")
    end_orphans(sys.stdin.buffer)
