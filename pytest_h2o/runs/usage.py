"""What the operating system says a launch used: memory, and bytes moved.

Resident memory is read while the process runs, and its peak again when it is collected. Where the
system has no ``/proc``, only the latter is known.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
# The unit of ``ru_maxrss``.
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
MAX_PROCESSES = 64
LEAST_LOOKS, MAX_LOOKS = 4, 512
STEPS = 32


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Memory and traffic of one launch in MiB; None where it could not be seen.

    Attributes:
        peak_mb: most resident memory of the program, or of the largest of its processes.
        final_mb: resident memory of all its processes when they were last seen.
        peaks_mb: the peak so far after each of :data:`STEPS` equal parts of the time it ran.
        read_mb: bytes that read calls returned, those of mapped files not included.
        written_mb: bytes given to write calls.
    """

    peak_mb: float | None = None
    final_mb: float | None = None
    peaks_mb: tuple[float, ...] = ()
    read_mb: float | None = None
    written_mb: float | None = None


class UsageMeter:
    """Watches the process ``pid``, started at ``started`` on the monotonic clock, and its
    children.
    """

    def __init__(self, pid: int, started: float) -> None:
        self.pid = pid
        self.usage = Usage()
        self._started = started
        self._final: float | None = None
        # Seconds since the start, and the peak so far.
        self._looks: list[tuple[float, float]] = []
        # A child that is about to become the program counts as large as its parent has ever been.
        self._inherited = _maxrss_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def look(self) -> None:
        """Note the resident memory of the processes that run now."""
        current = peak = 0.0
        for pid in _family(self.pid):
            status = _fields(Path(f"/proc/{pid}/status"))
            current += status.get("VmRSS", 0) / 1024
            peak = max(peak, status.get("VmHWM", 0) / 1024)
        if not current:
            return
        self._final = current
        before = self._looks[-1][1] if self._looks else 0.0
        self._looks.append((time.monotonic() - self._started, max(before, peak)))
        if len(self._looks) > MAX_LOOKS:
            del self._looks[::2]

    def close(self, maxrss: int, seconds: float, traffic: dict[str, int]) -> None:
        """Take what is known when the process has ended: ``ru_maxrss``, how long it ran, and its
        ``/proc/PID/io``.
        """
        peak = self._looks[-1][1] if self._looks else None
        if _maxrss_mb(maxrss) > self._inherited:
            peak = max(peak or 0.0, _maxrss_mb(maxrss))
        self.usage = Usage(
            peak_mb=_rounded(peak),
            final_mb=_rounded(self._final),
            peaks_mb=self._steps(seconds),
            read_mb=_rounded(traffic["rchar"] / MIB) if "rchar" in traffic else None,
            written_mb=_rounded(traffic["wchar"] / MIB) if "wchar" in traffic else None,
        )

    def traffic(self) -> dict[str, int]:
        """Bytes read and written so far, also of a process that ended and was not collected."""
        return _fields(Path(f"/proc/{self.pid}/io"))

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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _maxrss_mb(maxrss: int) -> float:
    return maxrss * MAXRSS_BYTES / MIB


def _family(pid: int) -> list[int]:
    """A process and its descendants, at most :data:`MAX_PROCESSES`."""
    found = [pid]
    for parent in found:
        with suppress(OSError, ValueError):
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
            found += [int(word) for word in text.split()]
        if len(found) >= MAX_PROCESSES:
            break
    return found[:MAX_PROCESSES]


def _fields(path: Path) -> dict[str, int]:
    """The whole numbers of a file with lines of ``name: number``; nothing of one that is gone."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, int] = {}
    for line in lines:
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isascii() and words[0].isdigit():
            fields[name] = int(words[0])
    return fields
