"""Connections that end before the program does: how that is known, and what comes of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from code_runtime import SPEC, Code
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.runs.connection import broken, take_end
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes.far_shell import ENDED
from pytest_h2o.runtimes.placement import PlacedRuntime, parse_placement

# Runs the words behind its host in a shell, as ssh does, and ends as it does when told to.
SSH = """#!/bin/sh
host=$1; shift
echo "$host" >> {folder}/calls
if [ -e {folder}/cut ]; then
    echo "client_loop: send disconnect: Broken pipe" >&2
    {once}
    exit {code}
fi
exec sh -c "$*"
"""
SRUN_TROUBLE = (
    "srun: error: Task launch for 7.0 failed on node n1: Communication connection failure"
)


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))


@given(st.binary(max_size=200), st.binary(max_size=50), st.booleans())
def test_what_a_program_printed_is_kept(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, crlf: bool
) -> None:
    """The line that says that it ended is taken out, and no other byte, whoever writes behind."""
    path = tmp_path_factory.getbasetemp() / "stderr"
    line = f"\n{ENDED} 3\n".encode()
    if crlf:
        line = line.replace(b"\n", b"\r\n")
    path.write_bytes(before + line + after)
    assert take_end(path)
    assert path.read_bytes() == before + after
    assert not take_end(path)


@pytest.mark.parametrize(
    ("launcher", "returncode", "end_seen", "said", "expected"),
    [
        ("ssh", 255, False, "Timeout, server a not responding.", "the connection was lost: ssh"),
        ("ssh", 255, True, "Timeout, server a not responding.", ""),
        ("ssh", 1, False, "", ""),
        ("ssh", -9, False, "", ""),
        ("ssh", None, False, "", ""),
        ("adb", 1, False, "error: device offline", "the connection was lost: adb"),
        ("adb", 0, False, "", "the connection was lost: adb"),
        ("adb", 1, True, "error: device offline", ""),
        ("srun", 1, True, f"step 1\n{SRUN_TROUBLE}\n", SRUN_TROUBLE),
        ("srun", 1, True, "srun: error: n1: task 0: Exited with exit code 1", ""),
        ("srun", 1, True, f"said: {SRUN_TROUBLE}", ""),
        ("docker", 255, False, "Connection reset", ""),
    ],
)
def test_how_a_connection_breaks(  # noqa: PLR0913, PLR0917  one argument for each column
    tmp_path: Path, launcher: str, returncode: int | None, end_seen: bool, said: str, expected: str
) -> None:
    """What the launcher alone can have said; a program may end with any code and print any line."""
    stderr = tmp_path / "stderr"
    stderr.write_text(said)
    found = broken(launcher, returncode, stderr, end_seen=end_seen)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def store(folder: Path, code: str, *, once: bool = True, exit_code: int = 255) -> RunStore:
    """A store that launches Python code on the host ``board`` through a stand-in for ssh."""
    tools = folder / "bin"
    tools.mkdir()
    text = SSH.format(
        folder=shlex.quote(str(folder)), code=exit_code,
        once=f"rm {folder}/cut" if once else ":",
    )  # fmt: skip
    (tools / "ssh").write_text(text)
    (tools / "ssh").chmod(0o755)
    placement = parse_placement(f"{tools}/ssh board", "", "")
    return RunStore(folder / "session", PlacedRuntime(Code(code), placement))


def test_a_launch_is_repeated_once(tmp_path: Path) -> None:
    """With a launcher that names its one host as well; what was printed is the program's alone."""
    (tmp_path / "cut").touch()
    made = store(tmp_path, "import sys; print('err', end='', file=sys.stderr)")
    record = made.get(SPEC)
    assert (record.status, record.stderr.read_bytes()) == ("ok", b"err")
    [lost] = made.hosts.breaks
    assert lost.host.endswith("bin/ssh board")
    assert "Broken pipe" in lost.told
    assert (tmp_path / "calls").read_text().count("board") == 2


def test_a_connection_that_is_lost_again(tmp_path: Path) -> None:
    """It is not tried for ever: the launch failed, and says by what."""
    (tmp_path / "cut").touch()
    record = store(tmp_path, "", once=False).get(SPEC)
    assert record.status == "failed"
    assert record.reason == (
        "the connection was lost: ssh ended with exit code 255, "
        "client_loop: send disconnect: Broken pipe"
    )
    assert (tmp_path / "calls").read_text().count("board") == 2


@pytest.mark.parametrize("code", [1, 254, 255])
def test_a_failure_of_the_program_is_kept(tmp_path: Path, code: int) -> None:
    """Whatever its exit code: it is launched once."""
    text = f"import sys; print('Connection reset by peer', file=sys.stderr); sys.exit({code})"
    made = store(tmp_path, text)
    record = made.get(SPEC)
    assert (record.status, record.returncode) == ("failed", code)
    assert made.hosts.breaks == ()
    assert (tmp_path / "calls").read_text().count("board") == 1
    assert record.stderr.read_text() == "Connection reset by peer\n"
    assert sys.executable in record.argv[-1]
