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
    """A terminal, and a thread that copies what is written to it to a file; raises OSError if there
    is none to be had.

    ``slave`` is what a program writes to.
    """

    def __init__(self, path: Path) -> None:
        self._master, self.slave = os.openpty()
        tty.setraw(self.slave)  # line ends stay as they are written
        self._thread = threading.Thread(target=self._copy, args=(path,), daemon=True)
        self._thread.start()

    def hand_over(self) -> None:
        """The program has the terminal: what it holds counts alone."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def close(self) -> None:
        """Wait until all is copied that was written."""
        self.hand_over()
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


def terminal_for(command: Command, path: Path) -> Terminal | None:
    """The terminal of a launch by hand; None for others, on another host, and where a system has no
    terminal to give.
    """
    if not command.by_hand or command.watched:
        return None
    try:
        return Terminal(path)
    except OSError:
        return None


def by_shell(command: Command) -> tuple[tuple[str, ...], dict[str, str]]:
    """The words that start a shell which starts the program, and the variable that it needs."""
    return SHELL, {VARIABLE: shlex.join(command.argv)}
