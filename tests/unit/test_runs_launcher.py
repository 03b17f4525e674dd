"""The launcher with real processes: every way a program can end, and that none of them leaves
anything behind.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.runs import guard
from pytest_h2o.runs.launcher import Ended, Limits, describe_exit, launch
from pytest_h2o.runtimes.base import Command

PYTHON = (sys.executable, "-I", "-S", "-c")
PATIENCE_S = 60.0

# Ignores TERM, starts a child that does so too, and writes both process ids when they are ready.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    with open("pids.part", "w") as file:
        file.write(f"{os.getpid()} {child}")
    os.rename("pids.part", "pids")
time.sleep(600)
"""
# The same in a session of its own, as a daemon starts: out of reach of signals to the group.
DAEMON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
top, child = os.getpid(), os.fork()
if not child:
    os.setsid()
    if os.fork():
        os._exit(0)
    with open("pids.part", "w") as file:
        file.write(f"{top} {os.getpid()}")
    os.rename("pids.part", "pids")
    time.sleep(600)
os.waitpid(child, 0)
while not os.path.exists("pids"):
    time.sleep(0.01)
"""


def command(directory: Path, *argv: str, table: Path | None = None, **env: str) -> Command:
    """A process that runs in ``directory``."""
    return Command(
        argv=argv,
        env=env,
        cwd=directory,
        config_path=directory / "config.json",
        config={},
        table=table,
    )


def test_started_by_hand(tmp_path: Path) -> None:
    """A program that is started as by a person sees a terminal, and a shell that tells nothing of
    what started it; what it prints comes whole, whatever bytes it has.
    """
    code = (
        "import os, sys\n"
        "print(os.isatty(1), open(f'/proc/{os.getppid()}/cmdline').read().split('\\0')[0])\n"
        "print('COMMAND_LINE' in os.environ, sys.argv[1:])\n"
        "sys.stdout.flush()\n"
        "os.write(1, b'a\\r\\nb\\x04' * 50000)\n"
        "os._exit(3)"
    )
    started = replace(command(tmp_path, *PYTHON, code, "it's", "$HOME"), by_hand=True)
    ended = launch(started, tmp_path, PATIENCE_S)
    assert (ended.status, ended.returncode) == ("failed", 3)
    first, second, rest = (tmp_path / "stdout").read_bytes().split(b"\n", 2)
    assert (first, second) == (b"True /bin/sh", b"False [\"it's\", '$HOME']")
    assert rest == b"a\r\nb\x04" * 50000


def run(
    directory: Path, code: str, timeout_s: float = PATIENCE_S, limits: Limits | None = None
) -> Ended:
    """Launch Python code."""
    return launch(
        command(directory, *PYTHON, code),
        directory,
        timeout_s,
        limits=limits or Limits(grace_s=0.2),
    )


def wait_for(path: Path) -> str:
    """The text of a file that a process is about to write."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return path.read_text()


def running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_all_end(pids: str) -> None:
    """Every process must end soon."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [pid for pid in pids.split() if running(int(pid))]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.01)


def test_success(tmp_path: Path) -> None:
    """Both streams are kept apart, and times are measured."""
    ended = run(
        tmp_path, "import sys; print('out'); print('err', file=sys.stderr); sum(range(10**6))"
    )
    assert (ended.status, ended.reason, ended.returncode) == ("ok", "exit code 0", 0)
    assert (tmp_path / "stdout").read_bytes() == b"out\n"
    assert (tmp_path / "stderr").read_bytes() == b"err\n"
    assert ended.seconds is not None
    assert ended.cpu_seconds is not None
    assert ended.cpu_seconds > 0
    assert 0 < ended.seconds < PATIENCE_S


def test_cpu_time_is_that_of_the_launch_only(tmp_path: Path) -> None:
    """CPU time of earlier launches and of the session itself does not count."""
    burn = "import time\nwhile time.process_time() < {}: pass"
    first, second = run(tmp_path, burn.format(0.4)), run(tmp_path, burn.format(0.0))
    assert first.cpu_seconds is not None
    assert second.cpu_seconds is not None
    assert first.cpu_seconds >= 0.4 > second.cpu_seconds


def test_nonzero_exit(tmp_path: Path) -> None:
    """An exit code is a failure that names it."""
    ended = run(tmp_path, "raise SystemExit(3)")
    assert (ended.status, ended.reason, ended.returncode) == ("failed", "exit code 3", 3)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "ended by signal 11 (SIGSEGV)"),
        (signal.SIGKILL, "ended by signal 9 (SIGKILL), often the kernel running out of memory"),
    ],
)
def test_signal(tmp_path: Path, number: int, words: str) -> None:
    """A crash is named by its signal."""
    ended = run(tmp_path, f"import os; os.kill(os.getpid(), {number})")
    assert (ended.status, ended.reason, ended.returncode) == ("failed", words, -number)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (255, "exit code 255"),
        (
            127,
            "exit code 127, what shells and loaders say when a program or a shared library is "
            "missing",
        ),
        (139, "exit code 139, what shells say for signal 11 (SIGSEGV)"),
        (-64, "ended by signal 64 (SIGRTMAX)"),
        (-50, "ended by signal 50"),
        (None, "its exit code could not be collected"),
    ],
)
def test_exit_codes_in_words(code: int | None, words: str) -> None:
    """Codes are explained, also those of shells and of signals without a name."""
    assert describe_exit(code) == words


def test_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    """A program that hangs and ignores TERM, as its child does, is killed with it."""
    ended = run(tmp_path, STUBBORN, timeout_s=2.0)
    assert (ended.status, ended.reason) == (
        "timeout",
        "did not end within 2 s and was stopped (LAUNCH_TIMEOUT_S sets the limit)",
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.seconds is not None
    assert ended.seconds >= 2.0
    assert_all_end(wait_for(tmp_path / "pids"))


@pytest.mark.parametrize(
    ("end", "status"), [("time.sleep(600)", "timeout"), ("", "ok")], ids=["deadline", "exit"]
)
def test_daemons_are_ended(tmp_path: Path, end: str, status: str) -> None:
    """A process that left the group ends with the launch as well."""
    assert run(tmp_path, DAEMON + end, timeout_s=3.0 if end else PATIENCE_S).status == status
    assert_all_end(wait_for(tmp_path / "pids"))


def test_hang_without_output(tmp_path: Path) -> None:
    """A deadline below the polling interval holds, and TERM is enough for a program that heeds
    it.
    """
    ended = run(
        tmp_path, "import time; time.sleep(600)", timeout_s=0.1, limits=Limits(grace_s=PATIENCE_S)
    )
    assert (ended.status, ended.returncode) == ("timeout", -signal.SIGTERM)


def test_children_left_behind_are_ended(tmp_path: Path) -> None:
    """What a program leaves running in the background when it exits does not disturb the next
    launch.
    """
    code = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)']).pid)"
    )
    ended = run(tmp_path, code)
    assert ended.status == "ok"
    assert_all_end((tmp_path / "stdout").read_text())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_exceptions_end_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exception: type[BaseException]
) -> None:
    """Ctrl-C and errors of the session end the launch, keep what it wrote and are passed on."""
    monkeypatch.setattr("pytest_h2o.runs.launcher.TICK_S", 0.0)

    def interrupt(seconds: float) -> None:
        wait_for(tmp_path / "pids")
        raise exception

    with pytest.raises(exception):
        launch(
            command(tmp_path, *PYTHON, STUBBORN),
            tmp_path,
            PATIENCE_S,
            interrupt,
            Limits(grace_s=0.1),
        )
    assert_all_end((tmp_path / "pids").read_text())


@pytest.fixture(params=[STUBBORN, DAEMON + "time.sleep(600)"], ids=["group", "daemon"])
def session(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that launches a stubborn program."""
    code = (
        "import sys; from pathlib import Path; from pytest_h2o.runs.launcher import launch\n"
        "from pytest_h2o.runtimes.base import Command; d = Path(sys.argv[1])\n"
        "launch(Command(argv=tuple(sys.argv[2:]), env={}, cwd=d, config_path=d, config={}), d, 600)"
    )
    process = subprocess.Popen((sys.executable, "-c", code, str(tmp_path), *PYTHON, request.param))
    yield process
    process.kill()
    process.wait()


def test_death_of_the_session(session: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """When the session itself is killed, its guard ends the launch."""
    pids = wait_for(tmp_path / "pids")
    session.kill()
    session.wait()
    assert_all_end(pids)


def test_ctrl_c_in_the_session(session: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """SIGINT ends the session and its launch."""
    pids = wait_for(tmp_path / "pids")
    session.send_signal(signal.SIGINT)
    assert session.wait(PATIENCE_S) != 0
    assert_all_end(pids)


def test_guard_is_replaced_when_it_dies(tmp_path: Path) -> None:
    """A guard that somebody ended is started again for the next launch."""
    first = guard.this_guard()
    first.process.kill()
    first.process.wait()
    assert run(tmp_path, "").status == "ok"
    assert guard.this_guard() is not first
    assert guard.this_guard() is guard.this_guard()


def test_guard_ends_only_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that were reported as ended are not touched."""
    monkeypatch.setattr(guard, "GRACE_S", 0.2)
    ended, left = (
        subprocess.Popen((*PYTHON, "import time; time.sleep(600)"), start_new_session=True)
        for _ in "ab"
    )
    try:
        guard.end_orphans(
            [b"a 0\n", f"a {ended.pid}\n".encode(), f"b {left.pid}\n".encode(), b"a\n"]
        )
        assert left.wait(PATIENCE_S) == -signal.SIGTERM
        assert ended.poll() is None
    finally:
        for process in (ended, left):
            process.kill()
            process.wait()


def test_output_is_kept_as_bytes(tmp_path: Path) -> None:
    """Garbage is kept as it was printed."""
    run(
        tmp_path,
        "import os; os.write(1, bytes(range(256)) * 100); os.write(2, b'\\xff\\x00\\x1b[31m')",
    )
    assert (tmp_path / "stdout").read_bytes() == bytes(range(256)) * 100
    assert (tmp_path / "stderr").read_bytes() == b"\xff\x00\x1b[31m"


@pytest.mark.parametrize("name", ["stdout", "log.md"])
def test_endless_output(tmp_path: Path, name: str) -> None:
    """A program that writes without end is stopped, whichever of its files it fills; what it wrote
    is kept.
    """
    code = f"f = open({name!r}, 'ab', 0)\nwhile True: f.write(bytes(65536))"
    limits = Limits(grace_s=0.2, output_bytes=2**20)
    ended = launch(
        command(tmp_path, *PYTHON, code, table=tmp_path / "log.md"),
        tmp_path,
        PATIENCE_S,
        limits=limits,
    )
    assert (ended.status, ended.reason) == ("failed", "wrote more than 1 MiB and was stopped")
    assert (tmp_path / name).stat().st_size > 2**20


def test_too_much_output_before_a_quick_exit(tmp_path: Path) -> None:
    """The limit holds for a program that ends before anybody looked."""
    ended = run(tmp_path, "import os; os.write(1, bytes(2000))", limits=Limits(output_bytes=1000))
    assert ended.status == "failed"


def test_standard_input_is_empty(tmp_path: Path) -> None:
    """A program that asks for input gets its end, not the terminal."""
    run(tmp_path, "import sys; print(repr(sys.stdin.read()))")
    assert (tmp_path / "stdout").read_text() == "''\n"


def test_session_and_environment(tmp_path: Path) -> None:
    """The launch leads its own session, sees the environment plus its own, and runs in its
    directory.
    """
    code = (
        "import os; print(os.getsid(0) == os.getpid(), os.environ['EXTRA'], 'PATH' in "
        "os.environ, os.getcwd())"
    )
    launch(command(tmp_path, *PYTHON, code, EXTRA="größe"), tmp_path, PATIENCE_S)
    assert (tmp_path / "stdout").read_text() == f"True größe True {tmp_path.resolve()}\n"


@pytest.mark.parametrize(
    "name", ["a b", 'quote\'s "x"', "new\nline", "größe", "$(touch x)", "-x", "\udcff"]
)
def test_arguments_and_paths_reach_the_program_unchanged(tmp_path: Path, name: str) -> None:
    """No shell is involved: every name that the system takes works, as directory and as
    argument.
    """
    directory = tmp_path / name
    directory.mkdir()
    code = "import sys, os; os.write(1, os.fsencode(sys.argv[1])); os.write(2, os.getcwdb())"
    assert launch(command(directory, *PYTHON, code, name), directory, PATIENCE_S).status == "ok"
    assert (directory / "stdout").read_bytes() == os.fsencode(name)
    assert (directory / "stderr").read_bytes() == os.fsencode(directory.resolve())


def fake(path: Path, text: bytes, mode: int = 0o755) -> Path:
    """A file that pretends to be a program."""
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, 0, "no such file; build it or correct the path"),
        (b"#!/bin/sh\n", 0o644, "not executable; set its x permission"),
        (b"\x7fELF\x02 garbage", 0o755, "built for another kind of machine, and this machine is "),
        (
            b"#!/no/such/interpreter\n",
            0o755,
            "its first line asks for '/no/such/interpreter', which is missing here",
        ),
        (
            b"#!/bin/sh\r\necho\r\n",
            0o755,
            "its first line asks for '/bin/sh', which is missing here (its lines end in CR",
        ),
        (b"", 0o755, "the file is empty"),
        (b"echo hello\n", 0o755, "neither a program nor a script that begins with #!"),
    ],
)
def test_program_that_cannot_be_started(
    tmp_path: Path, text: bytes | None, mode: int, words: str
) -> None:
    """A start that fails is a result with cause and advice, not an exception."""
    program = tmp_path / "llm_bench"
    if text is not None:
        fake(program, text, mode)
    ended = launch(command(tmp_path, str(program)), tmp_path, PATIENCE_S)
    assert ended.status == "not_started"
    assert ended.reason.startswith(f"could not start {program}: {words}")
    assert (ended.returncode, ended.seconds, ended.cpu_seconds) == (None, None, None)


def test_programs_of_other_machines(tmp_path: Path) -> None:
    """A program for another processor is named with both; one whose loader is not there says so."""
    this = bytearray(Path(sys.executable).resolve().read_bytes()[:4096])
    other = (
        bytes(this[:18])
        + (0xB7 if platform.machine() != "aarch64" else 0x3E).to_bytes(2, "little")
        + bytes(this[20:])
    )
    ended = launch(command(tmp_path, str(fake(tmp_path / "other", other))), tmp_path, PATIENCE_S)
    assert re.search(
        f"built for (aarch64|x86_64), and this machine is {platform.machine()}", ended.reason
    )
    loader = re.search(rb"/lib[^\0]*/ld-[^\0]*", this)
    assert loader
    moved = this.replace(loader[0], loader[0][:-1] + b"?")
    ended = launch(
        command(tmp_path, str(fake(tmp_path / "moved", bytes(moved)))), tmp_path, PATIENCE_S
    )
    assert "its loader is missing" in ended.reason


def test_arguments_that_no_process_can_get(tmp_path: Path) -> None:
    """A NUL character or too many arguments are results as well."""
    assert launch(command(tmp_path, "/bin/true", "a\0b"), tmp_path, 1).status == "not_started"
    ended = launch(command(tmp_path, "/bin/true", "x" * 2**23), tmp_path, 1)
    assert ended.reason == "could not start /bin/true: its arguments and environment are too long"
