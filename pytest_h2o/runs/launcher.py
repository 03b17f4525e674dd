"""Starts one process, keeps what it prints in files, and never leaves one behind."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pytest_h2o.runs.by_hand import by_shell, terminal_for
from pytest_h2o.runs.connection import take_end
from pytest_h2o.runs.guard import GRACE_S, MARK, marked_processes, signal_launch, this_guard
from pytest_h2o.runs.usage import Usage, UsageMeter
from pytest_h2o.runtimes.base import Command

Status = Literal["ok", "failed", "timeout", "not_started"]

# How the names of variables begin that speak of a test.
TELLING = ("PYTEST_", "H2O_")
POLL_S = 0.25
FIRST_POLL_S = 0.02
TICK_S = 5.0
KILLED_S = 10.0
# Helpers may end a moment after the program.
LEFT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds between TERM and KILL, and the bytes that a launch may write to its output files."""

    grace_s: float = GRACE_S
    output_bytes: int = 512 * 2**20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a launch ended; ``reason`` is one sentence, numbers are None where nothing was measured.

    Attributes:
        seconds: wall time from start to exit, on a monotonic clock.
        cpu_seconds: user and system time of all its processes, as far as it was seen.
        started_utc: ISO 8601, to the millisecond.
        usage: memory and bytes moved; of a program on another host nothing is known.
        end_seen: whether the program itself ended, as far as is known: a connection may end before.
    """

    status: Status
    reason: str
    started_utc: str
    returncode: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    end_seen: bool = True


def launch(  # noqa: PLR0913  what to launch, and all that can end it
    command: Command,
    directory: Path,
    timeout_s: float,
    on_tick: Callable[[float], None] = lambda _: None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run ``command`` with its output in ``directory/stdout`` and ``directory/stderr`` until it
    ends or must be ended.

    The process leads a session of its own. It is ended with all it started after ``timeout_s``
    seconds, when it has written too much, when an exception (Ctrl-C) interrupts the wait, and when
    this process
    dies: TERM to all its processes, KILL after a grace time. What it leaves running when it exits
        is killed as well.
    ``on_tick`` gets the elapsed seconds every few seconds; once ``stopped`` says so, the wait is
    interrupted as by Ctrl-C. A process that cannot be started is not
    an exception.
    """
    started_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
    argv, more = command.argv, dict[str, str]()
    terminal = terminal_for(command, directory / "stdout")
    if terminal:
        argv, more = by_shell(command)
    with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
        mark = uuid.uuid4().hex
        try:
            guard = this_guard()
            guard.watch(mark)
            started = time.monotonic()
            process = subprocess.Popen(
                argv, cwd=command.cwd, env={**_environment(), **command.env, **more, MARK: mark},
                start_new_session=True,
                stdin=subprocess.PIPE if command.watched else subprocess.DEVNULL,
                stdout=terminal.slave if terminal else stdout, stderr=stderr,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            if terminal:
                terminal.close()
            return Ended(
                status="not_started",
                reason=_why_not(command.argv[0], error),
                started_utc=started_utc,
            )
        if terminal:
            terminal.hand_over()
    guard.watch(mark, process.pid)
    written = [directory / "stdout", directory / "stderr", *command.files]
    written += [path for path in (command.table, command.metrics) if path]
    meter = UsageMeter(process.pid, started, mark, written)
    child = _Child(process, mark, meter, stopped)
    try:
        cause = child.supervise(timeout_s, on_tick, lambda: _size(written) > limits.output_bytes)
    finally:
        child.end(limits.grace_s)
        guard.forget(mark)
        if terminal:
            terminal.close()
    if cause is None:
        status: Status = "ok" if child.returncode == 0 else "failed"
        reason = describe_exit(child.returncode)
    elif cause == "deadline":
        status, reason = (
            "timeout",
            f"did not end within {timeout_s:g} s and was stopped (LAUNCH_TIMEOUT_S sets the limit)",
        )
    else:
        status, reason = (
            "failed",
            f"wrote more than {limits.output_bytes / 2**20:g} MiB and was stopped",
        )
    return Ended(
        status=status, reason=reason, started_utc=started_utc,
        returncode=child.returncode, seconds=child.ended - started, cpu_seconds=child.cpu_seconds,
        usage=Usage() if command.watched else child.meter.usage,
        end_seen=not command.watched or take_end(directory / "stderr", directory / "stdout"),
    )  # fmt: skip


class _Child:
    """A running process and the thread that notes the moment of its exit."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        mark: str,
        meter: UsageMeter,
        stopped: Callable[[], bool],
    ) -> None:
        self.process = process
        self.stopped = stopped
        self.mark = mark
        self.meter = meter
        self.started = self.ended = meter.started
        self.returncode: int | None = None
        self.cpu_seconds: float | None = None
        self._exited = threading.Event()
        threading.Thread(target=self._await_exit, daemon=True).start()
        if process.stdin:
            with suppress(BrokenPipeError):
                os.write(process.stdin.fileno(), b"\n")

    def _await_exit(self) -> None:
        # The exit is noted, not collected: until it is, the group's number cannot be given to
        # another process.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self.ended = time.monotonic()
        self._exited.set()

    def supervise(
        self, timeout_s: float, on_tick: Callable[[float], None], too_much: Callable[[], bool]
    ) -> Literal["deadline", "output"] | None:
        """Wait for the exit; the cause why it must not be waited for any longer."""
        deadline, tick = self.started + timeout_s, self.started + TICK_S
        now = time.monotonic()
        while not self._exited.wait(min(self._pause(now), max(0.0, deadline - now))):
            self.meter.look()
            if self.stopped():
                raise KeyboardInterrupt
            now = time.monotonic()
            if now >= deadline:
                return "deadline"
            if too_much():
                return "output"
            if now >= tick:
                on_tick(now - self.started)
                tick += TICK_S
        return "output" if too_much() else None

    def _pause(self, now: float) -> float:
        """Seconds until the next look: short launches are looked at as often as long ones."""
        return min(POLL_S, max(FIRST_POLL_S, (now - self.started) / 16))

    def end(self, grace_s: float) -> None:
        """End whatever is left of the launch and collect the exit code and the CPU time."""
        try:
            if self.process.stdin:
                # A shell elsewhere ends the program when its standard input ends.
                self.process.stdin.close()
                self._exited.wait(2 * grace_s)
            if not self._exited.is_set():
                signal_launch(self.mark, self.process.pid, signal.SIGTERM)
                self._exited.wait(grace_s)
            else:
                self.meter.left = self._left()
        finally:
            signal_launch(self.mark, self.process.pid, signal.SIGKILL)
            self._exited.wait(KILLED_S)
            self._collect()

    def _left(self) -> int:
        """Processes that the program left running, without those that are about to end."""
        until = time.monotonic() + LEFT_S
        left = len(marked_processes(self.mark))
        while left and time.monotonic() < until:
            time.sleep(FIRST_POLL_S)
            left = len(marked_processes(self.mark))
        return left

    def _collect(self) -> None:
        traffic = self.meter.traffic()
        with suppress(ChildProcessError):
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.returncode = self.process.returncode = os.waitstatus_to_exitcode(status)
                collected = usage.ru_utime + usage.ru_stime
                self.cpu_seconds = max(collected, self.meter.cpu_seconds)
                self.meter.close(usage.ru_maxrss, self.ended - self.started, traffic)


def describe_exit(returncode: int | None) -> str:
    """An exit code in words: ``exit code 1``, ``ended by signal 11 (SIGSEGV)``."""
    if returncode is None:
        return "its exit code could not be collected"
    if returncode < 0:
        return f"ended by signal {-returncode}{_signal_name(-returncode)}"
    if returncode in _SHELL_CODES:
        why = _SHELL_CODES[returncode]
        return f"exit code {returncode}, what shells and loaders say when {why}"
    number = returncode - 128
    if number > 0 and (name := _signal_name(number)):
        return f"exit code {returncode}, what shells say for signal {number}{name}"
    return f"exit code {returncode}"


_SHELL_CODES = {
    126: "a program cannot be executed",
    127: "a program or a shared library is missing",
}


def _signal_name(number: int) -> str:
    names = {known.value: f" ({known.name})" for known in signal.Signals}
    hint = ", often the kernel running out of memory" if number == signal.SIGKILL else ""
    return names.get(number, "") + hint


def _environment() -> dict[str, str]:
    """This process's environment without what tells a program that it is being tested."""
    return {name: text for name, text in os.environ.items() if not name.startswith(TELLING)}


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


def _why_not(program: str, error: OSError | ValueError) -> str:
    """Why a process could not be started, and what to do."""
    if not isinstance(error, OSError):
        return f"could not start {program}: {error}"
    cause = _CAUSES.get(error.errno or 0, os.strerror(error.errno or 0))
    if error.errno in (errno.ENOENT, errno.ENOEXEC):
        with suppress(OSError), Path(program).open("rb") as file:
            cause = _what_is_wrong(file.read(256)) or cause
    return f"could not start {program}: {cause}"


def _what_is_wrong(head: bytes) -> str:
    """Why the system cannot run a file that begins with ``head``."""
    if not head.strip():
        return "the file is empty; build it again, or copy it again"
    if head.startswith(b"#!"):
        line = head[2:].partition(b"\n")[0].decode(errors="replace")
        ends = " (its lines end in CR LF: save it with LF)" if line.endswith("\r") else ""
        return f"its first line asks for {line.strip()!r}, which is missing here{ends}"
    if not head.startswith(b"\x7fELF"):
        return "neither a program nor a script that begins with #!; give the program itself"
    built_for = _ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "another kind of machine")
    if built_for != platform.machine():
        return (
            f"built for {built_for}, and this machine is {platform.machine()}; build it for "
            f"this one"
        )
    return (
        "its loader is missing: it was built for another system, or against another C "
        "library; build it for this one"
    )


_ELF_MACHINES = {
    3: "i686",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_CAUSES = {
    errno.ENOENT: "no such file; build it or correct the path",
    errno.EACCES: "not executable; set its x permission, and see that its file system is not "
    "mounted noexec",
    errno.ENOEXEC: "not a program for this machine; build it for this system",
    errno.EISDIR: "is a directory; give the program in it",
    errno.E2BIG: "its arguments and environment are too long",
}
