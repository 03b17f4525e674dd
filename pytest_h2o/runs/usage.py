"""What the operating system says a launch used: memory, cores, files, processes, and bytes moved.

It is read while the processes of the launch run, and again when the program is collected. Where the
system has no ``/proc``, only the peak of the program itself is known.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.runs.guard import marked_processes

MIB = 2**20
# The unit of ``ru_maxrss``.
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
MAX_PROCESSES, MAX_FILES, MAX_DESCRIPTORS = 64, 16, 1024
LEAST_LOOKS, MAX_LOOKS = 4, 512
STEPS = 32
# A helper that has ended is asked how within this time, or nobody will.
UNCOLLECTED_S = 0.5
# Looking at the environment of every process takes a few milliseconds.
SEARCH_S = 1.0
# Listing what a process has mapped takes longer than all else, and holds the process up.
FILES_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one launch used, its processes taken together; sizes in MiB, None where nothing could
    be seen.

    Attributes:
        peak_mb: most resident memory at a time; what processes share counts once.
        final_mb: resident memory when the processes were last seen.
        peaks_mb: the peak so far after each of :data:`STEPS` equal parts of the time it ran.
        read_mb: bytes that read calls returned, those of mapped files not included.
        written_mb: bytes given to write calls.
        delayed_s: seconds that threads were ready to run while they had no core.
        threads: most threads at a time.
        opened: other files than the launch's own that were held open for writing, or mapped.
        opened_mb: their size at the most.
        uncollected: helper processes that had ended, and that nobody asked how.
        left: processes that were still there when the program had ended.
    """

    peak_mb: float | None = None
    final_mb: float | None = None
    peaks_mb: tuple[float, ...] = ()
    read_mb: float | None = None
    written_mb: float | None = None
    delayed_s: float | None = None
    threads: int | None = None
    opened: tuple[str, ...] = ()
    opened_mb: float | None = None
    uncollected: int | None = None
    left: int | None = None


class UsageMeter:
    """Watches the process ``pid``, started at ``started`` on the monotonic clock, and what it
    started: its descendants, and processes with ``mark`` in their environment.

    Files in ``own`` are those that it is asked to write.
    """

    def __init__(
        self, pid: int, started: float, mark: str = "", own: Collection[Path] = ()
    ) -> None:
        self.pid, self.mark = pid, mark
        self.usage = Usage()
        self.cpu_seconds = 0.0
        self.left = 0
        self.started = started
        self._final: float | None = None
        self._threads = 0
        self._delayed = 0.0
        self._files = _OpenFiles(own)
        self._elsewhere: list[int] = []
        self._searched = self._listed = 0.0
        self._ended: dict[int, float] = {}
        self._seen: set[int] = set()
        # Seconds since the start, and the peak so far.
        self._looks: list[tuple[float, float]] = []
        # A child that is about to become the program counts as large as its parent has ever been.
        self._inherited = _maxrss_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def look(self) -> None:
        """Note what the processes that run now use."""
        family = _family([self.pid, *self._daemons()])
        statuses = {pid: _fields(f"/proc/{pid}/status") for pid in family}
        running = {pid: status for pid, status in statuses.items() if status.get("VmRSS")}
        if not running:
            return
        # Of a process that was collected nothing is left, of one that was not its name.
        self._see_ended({pid for pid, status in statuses.items() if status} - set(running))
        # A process that was just forked shares its parent's memory until it is another program.
        staying = [pid for pid in running if pid == self.pid or pid in self._seen]
        self._seen = set(running)
        if not staying:
            return
        current = sum(_resident_mb(pid, running[pid], len(staying)) for pid in staying)
        alone = max(status.get("VmHWM", 0) for status in running.values()) / 1024
        self._final = current
        before = self._looks[-1][1] if self._looks else 0.0
        self._looks.append((time.monotonic() - self.started, max(before, current, alone)))
        if len(self._looks) > MAX_LOOKS:
            del self._looks[::2]
        threads = sum(status.get("Threads", 0) for status in running.values())
        self._threads = max(self._threads, threads)
        self.cpu_seconds = max(self.cpu_seconds, sum(map(_cpu_seconds, running)))
        self._delayed = max(self._delayed, sum(map(_delayed_s, running)))
        now = time.monotonic()
        if now - self._listed >= FILES_S:
            self._listed = now
            for pid in running:
                self._files.look(pid)

    def close(self, maxrss: int, seconds: float, traffic: dict[str, int]) -> None:
        """Take what is known when the process has ended: ``ru_maxrss``, how long it ran, and its
        ``/proc/PID/io``.
        """
        peak = self._looks[-1][1] if self._looks else None
        if _maxrss_mb(maxrss) > self._inherited:
            peak = max(peak or 0.0, _maxrss_mb(maxrss))
        last = self._looks[-1][0] if self._looks else 0.0
        forgotten = [at for at in self._ended.values() if last - at >= UNCOLLECTED_S]
        seen = bool(self._looks)
        self.usage = Usage(
            peak_mb=_rounded(peak),
            final_mb=_rounded(self._final),
            peaks_mb=self._steps(seconds),
            read_mb=_rounded(traffic["rchar"] / MIB) if "rchar" in traffic else None,
            written_mb=_rounded(traffic["wchar"] / MIB) if "wchar" in traffic else None,
            delayed_s=_rounded(self._delayed) if seen else None,
            threads=self._threads or None,
            opened=tuple(self._files.names),
            opened_mb=_rounded(self._files.most / MIB) if seen else None,
            uncollected=len(forgotten) if seen else None,
            left=self.left if seen else None,
        )

    def traffic(self) -> dict[str, int]:
        """Bytes read and written so far, also of a process that ended and was not collected."""
        return _fields(f"/proc/{self.pid}/io")

    def _daemons(self) -> list[int]:
        """Processes of the launch that are nobody's children; looked for now and then."""
        now = time.monotonic()
        if self.mark and now - self._searched > SEARCH_S:
            self._searched = now
            self._elsewhere = marked_processes(self.mark)
        return self._elsewhere

    def _see_ended(self, ended: set[int]) -> None:
        """Remember since when helpers that are not collected have ended; the program is no
        helper.
        """
        now = time.monotonic() - self.started
        helpers = ended - {self.pid}
        self._ended = {pid: self._ended.get(pid, now) for pid in helpers}

    def _steps(self, seconds: float) -> tuple[float, ...]:
        """The peak at the last look of each step, the first look's before; none after few looks."""
        if len(self._looks) < LEAST_LOOKS:
            return ()
        peaks: list[float] = []
        for step in range(1, STEPS + 1):
            until = seconds * step / STEPS
            peak = self._looks[0][1]
            for at, seen in self._looks:
                if at <= until:
                    peak = seen
            peaks.append(round(peak, 3))
        return tuple(peaks)


class _OpenFiles:
    """The files that processes hold open for writing, or have mapped to share, and their size at
    the most; ``own`` are none of them.
    """

    def __init__(self, own: Collection[Path]) -> None:
        self.names: dict[str, None] = {}
        self.most = 0
        self._own = {os.path.realpath(path) for path in own}

    def look(self, pid: int) -> None:
        """See what a process holds."""
        held: dict[str, int] = {}
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd")[:MAX_DESCRIPTORS]:  # noqa: PTH208
                with suppress(OSError):
                    name = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
                    if name.startswith("/") and not self._is_own(name) and _writes(pid, number):
                        held[name] = os.stat(f"/proc/{pid}/fd/{number}").st_size  # noqa: PTH116
        for name, size in _shared_maps(pid):
            if not self._is_own(name):
                held[name] = max(size, held.get(name, 0))
        for name in held:
            if len(self.names) < MAX_FILES:
                self.names[name] = None
        self.most = max(self.most, sum(held.values()))

    def _is_own(self, name: str) -> bool:
        if name.startswith("/dev/shm/"):  # memory, not a device
            return False
        return name in self._own or name.startswith(("/dev/", "/proc/", "/sys/"))


def _writes(pid: int, number: str) -> bool:
    """Whether a process may write to what it holds open under a number."""
    flags = _content(f"/proc/{pid}/fdinfo/{number}").partition(b"flags:")[2].split()
    return bool(flags) and int(flags[0], 8) & os.O_ACCMODE != os.O_RDONLY


# begin-end, permissions, offset, device, inode, name
_SHARED = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) .w.s \S+ \S+ \S+ +(\S.*)")


def _shared_maps(pid: int) -> Iterator[tuple[str, int]]:
    """The files that a process has mapped to write to them, and how many bytes of each."""
    for line in _content(f"/proc/{pid}/maps").splitlines():
        if shared := _SHARED.match(line):
            begin, end, name = shared.groups()
            yield name.decode(errors="replace"), int(end, 16) - int(begin, 16)


def _resident_mb(pid: int, status: dict[str, int], processes: int) -> float:
    """Resident memory of a process; of several its share of what they have in common."""
    resident = status.get("VmRSS", 0)
    if processes > 1:
        shared = _fields(f"/proc/{pid}/smaps_rollup")
        resident = shared.get("Pss", resident)
    return resident / 1024


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it collected."""
    with suppress(ValueError, IndexError):
        # The name in brackets may hold anything.
        words = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _delayed_s(pid: int) -> float:
    """How long the threads of a process were ready without a core."""
    delayed = 0
    with suppress(OSError, ValueError, IndexError):
        for thread in os.listdir(f"/proc/{pid}/task")[:MAX_PROCESSES]:  # noqa: PTH208
            words = _content(f"/proc/{pid}/task/{thread}/schedstat").split()
            delayed += int(words[1])
    return delayed / 1e9


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _maxrss_mb(maxrss: int) -> float:
    return maxrss * MAXRSS_BYTES / MIB


def _family(first: Sequence[int]) -> list[int]:
    """Processes and their descendants, each once, at most :data:`MAX_PROCESSES`."""
    found = list(dict.fromkeys(first))
    for parent in found:
        found += [child for child in _children(parent) if child not in found]
        if len(found) >= MAX_PROCESSES:
            break
    return found[:MAX_PROCESSES]


def _children(parent: int) -> list[int]:
    """What the threads of a process started."""
    children: list[int] = []
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{parent}/task")[:MAX_PROCESSES]:  # noqa: PTH208
            children += map(int, _content(f"/proc/{parent}/task/{thread}/children").split())
    return children


def _fields(path: str) -> dict[str, int]:
    """The whole numbers of a file with lines of ``name: number``; nothing of one that is gone."""
    fields: dict[str, int] = {}
    for line in _content(path).splitlines():
        name, _, value = line.partition(b":")
        words = value.split(maxsplit=1)
        if words and words[0].isdigit():
            fields[name.decode(errors="replace")] = int(words[0])
    return fields


def _content(path: str) -> bytes:
    """What a file of ``/proc`` holds; nothing of one that is gone.

    Running programs wait for the core that this takes, many times a second: no text layer.
    """
    with suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()
    return b""
