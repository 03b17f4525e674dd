"""Ends the launches of a session that died without ending them itself.

The guard is one small process beside each process that launches. It sleeps on a pipe, costs a
launch no start-up time and outlives its parent by the moments it takes to end what was left. It is
run as a file, so that nothing is imported.

What belongs to a launch is its process group, and every process that inherited its mark in the
environment: a program that makes itself a daemon leaves the group, but keeps the mark.
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
ROUNDS = 20
# Says nothing of a test: programs see it.
MARK = "LAUNCH_ID"


class Guard:
    """The parent's side: names launches to the guard process, by their mark."""

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
        """Whether the guard process runs and belongs to this process, not to the one it was forked
        from.
        """
        return self.owner == os.getpid() and self.process.poll() is None

    def watch(self, mark: str, group: int = 0) -> None:
        """End the launch with ``mark`` if this process dies; ``group`` is told when it is known."""
        self._tell(f"{mark} {group}\n")

    def forget(self, mark: str) -> None:
        """The launch has ended."""
        self._tell(f"{mark}\n")

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


def signal_launch(mark: str, group: int, number: int) -> None:
    """Send a signal to every process of a launch that is still there; ``group`` is 0 while it is
    not known.
    """
    if group:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for _ in range(ROUNDS):
        marked = marked_processes(mark)
        for process in marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        if number != signal.SIGKILL or not marked:
            break
        time.sleep(0.01)  # a process may have started another one meanwhile


def marked_processes(mark: str) -> list[int]:
    """The processes that have ``mark`` in their environment; those seen so far where ``/proc``
    cannot be listed.
    """
    wanted, found = f"{MARK}={mark}".encode(), list[int]()
    with suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and wanted in _environment(entry.name):
                found.append(int(entry.name))
    return found


def _environment(process: str) -> bytes:
    with suppress(OSError), open(f"/proc/{process}/environ", "rb") as file:  # noqa: PTH123  hundreds of times
        return file.read()
    return b""


def end_orphans(messages: Iterable[bytes]) -> None:
    """Keep account of ``mark group`` (begun) and ``mark`` (ended) lines; when the pipe closes, end
    what is left.
    """
    groups: dict[str, int] = {}
    for message in messages:
        mark, _, group = message.decode().strip().partition(" ")
        if group:
            groups[mark] = int(group)
        else:
            groups.pop(mark, None)
    if not groups:
        return
    for mark, leader in groups.items():
        signal_launch(mark, leader, signal.SIGTERM)
    time.sleep(GRACE_S)
    for mark, leader in groups.items():
        signal_launch(mark, leader, signal.SIGKILL)


if __name__ == "__main__":
    os.write(1, b".")
    end_orphans(sys.stdin.buffer)
