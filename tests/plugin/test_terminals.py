"""Sessions on real pseudo terminals of 80 columns, and into a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from stand_in import ROOT, install

COLUMNS = 80
SETTINGS = ["PROMPTS=512", "REPEAT=1", "MAX_LOSSLESS_QUEUE_PEAK=0"]
CHOSEN = ["-m", "runtime", "-k", "full_strict and (fallback or queue_peak)"]


def command(folder: Path, *arguments: str) -> list[str]:
    options = [*install(folder), *CHOSEN, *arguments]
    options += [f"--h2o-set={setting}" for setting in SETTINGS]
    fixed = [str(ROOT / "gates"), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", *fixed, "-p", "no:hypothesispytest", *options]


def environment(folder: Path, **given: str) -> dict[str, str]:
    """That of a user at a terminal, with a machine lock of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES", "CI", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")
        and not name.startswith(("GITHUB_", "PYTEST_"))
    }
    return kept | {"TERM": "xterm-256color", "H2O_LOCK_DIR": str(folder)} | given


def on_terminal(folder: Path, *arguments: str, **given: str) -> str:
    """What a session writes to a pseudo terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command(folder, *arguments), cwd=folder, env=environment(folder, **given),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        written += more
    os.close(ours)
    assert process.wait(60) == 1
    return written.decode().replace("\r\n", "\n")


def conclusion(text: str) -> list[str]:
    """The lines from the table on; commands and paths may be wider than the screen."""
    lines = text[text.rindex("h2o gates") :].splitlines()[1:]
    return [line for line in lines if not line.startswith(("report ", "rerun "))]


@pytest.mark.parametrize(
    ("arguments", "given", "colours"),
    [
        ([], {}, True),
        (["-n", "2"], {}, True),
        (["-q"], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "workers", "quiet", "no-color", "dumb"],
)
def test_on_a_terminal(
    tmp_path: Path, arguments: list[str], given: dict[str, str], colours: bool
) -> None:
    """The table fits and is coloured where that is wanted; the failure is told once above and once
    below it; launches are shown unless they are not to be.
    """
    text = on_terminal(tmp_path, *arguments, **given)
    lines = conclusion(text)
    assert ("\x1b[" in "".join(lines)) == colours
    if not colours:
        assert "\x1b[" not in text
        assert max(map(len, lines)) <= COLUMNS
    assert ("[1 of about 1]" in text) == ("-q" not in arguments)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    failure = plain[plain.index("FAILURES") : plain.rindex("h2o gates")].splitlines()
    wide = [line for line in failure if len(line) > COLUMNS]
    assert all(line.lstrip().startswith(("open ", "rerun ")) for line in wide), wide
    assert any("FAIL" in line and "queue_peak" in line and "0 of 1" in line for line in lines)
    assert any("fallback" in line for line in lines) == ("-q" not in arguments)
    assert text.count("h2o_lossless_queue_peak 1 is not <= 0 blocks") == 2
    assert "Not accepted: 1 of 2 gates failed (1 cause)" in text


def test_into_a_pipe(tmp_path: Path) -> None:
    """Without a terminal there are no colours, and the same last lines."""
    result = subprocess.run(
        command(tmp_path), cwd=tmp_path, env=environment(tmp_path), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "\x1b" not in result.stdout
    assert max(map(len, conclusion(result.stdout))) <= COLUMNS
    last = [line.split(" ")[0] for line in result.stdout.splitlines()[-4:]]
    assert last[:3] == ["Not", "report", "rerun"]
