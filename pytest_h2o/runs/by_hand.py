"""A program started as a person would start it: by a shell, with its output on a terminal."""

from __future__ import annotations

import os
import shlex
import threading
import tty
from pathlib import Path

from pytest_h2o.runtimes.base import Command

# The command line comes in a variable, so that the shell's own says nothing.
VARIABLE = "COMMAND_LINE"
SHELL = ("/bin/sh", "-c", f'line=${VARIABLE}; unset {VARIABLE}; eval "$line"; exit $?')
PIECE = 1 << 16
CLOSED_S = 10.0


class Terminal:
    """A terminal, and a thread that copies what is written to it to a file.

    ``slave`` is what a program writes to.
    """

    def __init__(self, path: Path) -> None:
        self._master, self.slave = os.openpty()
        tty.setraw(self.slave)  # line ends stay as they are written
        self._thread = threading.Thread(target=self._copy, args=(path,), daemon=True)
        self._thread.start()

    def hand_over(self) -> None:
        """The program has the terminal, or could not be started: what it holds counts alone."""
        os.close(self.slave)

    def close(self) -> None:
        """Wait until all is copied that was written."""
        self._thread.join(CLOSED_S)
        os.close(self._master)

    def _copy(self, path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            while piece := self._read():
                file.write(piece)

    def _read(self) -> bytes:
        try:
            return os.read(self._master, PIECE)
        except OSError:  # nobody holds the other end any more
            return b""


def needs_terminal(command: Command) -> bool:
    """Whether a launch is one by hand, where there are terminals: not on another host."""
    return command.by_hand and not command.watched and hasattr(os, "openpty")


def by_shell(command: Command) -> tuple[tuple[str, ...], dict[str, str]]:
    """The words that start a shell which starts the program, and the variable that it needs."""
    return SHELL, {VARIABLE: shlex.join(command.argv)}
