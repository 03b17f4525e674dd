"""Whether a connection ended before the program at its other end did."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_h2o.runtimes.far_shell import END_LINE

TAIL = 4096
# What srun says of its connections, and not of what it runs.
_SRUN = re.compile(
    rb"^srun: error: [^\n]{0,200}(?:Communication connection failure|Socket timed out on "
    rb"send/recv|Zero Bytes were transmitted|Connection (?:refused|reset|timed out))[^\n]{0,200}",
    re.MULTILINE,
)
# The exit code of ssh for trouble of its own.
SSH_FAILED = 255


def take_end(*outputs: Path) -> bool:
    """Whether one of these files says that the program ended; what says so is taken out of it."""
    found = [_taken(path) for path in outputs]
    return any(found)


def _taken(path: Path) -> bool:
    with path.open("rb+") as file:
        start = max(0, path.stat().st_size - TAIL)
        file.seek(start)
        content = file.read()
        ends = list(END_LINE.finditer(content))
        if not ends:
            return False
        file.seek(start + ends[-1].start())
        file.write(content[ends[-1].end() :])
        file.truncate()
    return True


def tail(path: Path) -> bytes:
    """The last bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read(TAIL)
    except OSError:
        return b""


def broken(launcher: str, returncode: int | None, stderr: Path, *, end_seen: bool) -> str:
    """How the connection of a launcher broke before the program ended, in words; empty if it did
    not, as far as is known.

    A program may exit with any code, and print any line: it is believed to have ended where the
    shell beside it says so.
    """
    if returncode is None or returncode < 0:
        return ""
    said = tail(stderr)
    if launcher == "srun":
        trouble = _SRUN.search(said)
        return trouble[0].decode(errors="replace") if trouble else ""
    cut = launcher == "adb" or (launcher == "ssh" and returncode == SSH_FAILED)
    if end_seen or not cut:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    last = f", {lines[-1][:200]}" if lines else ""
    return f"the connection was lost: {launcher} ended with exit code {returncode}{last}"
