"""One line per launch on the screen, whichever process made it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.pytest_private import write_past_capture
from pytest_h2o.report.text import clean
from pytest_h2o.session.forecast import Forecast, duration

EVENTS_FILE = "events.jsonl"
EVERY_S = 15.0
# The events after which a launch is no longer ahead.
ENDING = ("end", "fail", "reuse")


class ProgressPrinter:
    """Writes launch events past pytest's output capture.

    On a terminal every launch that ends gets a line, elsewhere only now and then one does, and with
    ``-q`` only one that failed.
    """

    def __init__(self, config: pytest.Config, forecast: Forecast) -> None:
        self.config = config
        self.forecast = forecast
        self.started = 0
        self.reused = 0
        self.late: set[str] = set()
        self._begun = time.monotonic()
        self._quiet_until = 0.0

    def show(self, kind: str, name: str, seconds: float) -> None:
        """``kind`` is an event of :class:`RunStore`."""
        if not self.started:
            self._begun = time.monotonic()
        if kind == "late":
            if name in self.late:
                return
            self.late.add(name)
        self.started += kind in ("start", "reuse")
        self.reused += kind == "reuse"
        if kind in ENDING:
            self.forecast.ended(name, seconds)
        if not self._is_due(kind):
            return
        self._quiet_until = time.monotonic() + EVERY_S
        texts = {
            "start": "started",
            "tick": f"running for {seconds:.0f} s",
            "wait": f"waiting for its turn ({seconds:.0f} s)",
            "end": f"{seconds:.1f} s",
            "fail": f"FAILED after {seconds:.1f} s",
            "reuse": "taken over",
            "late": "not launched, there is no time left",
        }
        write_past_capture(self.config, clean(f"{self._position()}: {name}: {texts[kind]}"))

    def _is_due(self, kind: str) -> bool:
        verbosity = self.config.get_verbosity()
        if kind == "fail":
            return True
        if verbosity < 0:
            return False
        if kind in ("start", "reuse"):
            return verbosity > 0
        is_last = self.started >= self.forecast.total > 0
        if kind == "end" and (self._is_terminal() or is_last or verbosity > 0):
            return True
        return time.monotonic() >= self._quiet_until

    def _is_terminal(self) -> bool:
        # Not sys.stdout, which pytest captures.
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        return bool(getattr(terminal, "isatty", False))

    def _position(self) -> str:
        """Which launch this is, how much time went by, and how much is left as far as known."""
        number = max(1, self.started)
        count = f"[{number}]"
        if total := self.forecast.total:
            count = f"[{number} of about {max(total, number)}]"
        elapsed = round(time.monotonic() - self._begun)
        text = f"{count} {elapsed // 60}:{elapsed % 60:02}"
        left = self.forecast.left()
        return text if left is None else f"{text}, about {duration(left)} left"


def append_event(root: Path, kind: str, name: str, seconds: float) -> None:
    """Tell the controlling process of a launch, if the disk has room; appended lines of this size
    are not torn.
    """
    with suppress(OSError), (root / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "name": name, "seconds": round(seconds, 3)}) + "\n")


class EventReader:
    """The events of all workers, each once."""

    def __init__(self, root: Path) -> None:
        self.path = root / EVENTS_FILE
        self.offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Those in the complete lines that were appended since the last call."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                yield json.loads(line)


class EventFollower(threading.Thread):
    """Prints the workers' events while the controller waits for them."""

    def __init__(self, root: Path, printer: ProgressPrinter) -> None:
        super().__init__(daemon=True, name="h2o-progress")
        self.events = EventReader(root)
        self.printer = printer
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.print_new()

    def stop(self) -> None:
        """Print what is left and end."""
        self.ended.set()
        self.join()
        self.print_new()

    def print_new(self) -> None:
        """Print what is new."""
        for event in self.events.new():
            self.printer.show(event["kind"], event["name"], event["seconds"])
