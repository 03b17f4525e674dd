"""One line per launch on the screen, whichever process made it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_h2o.pytest_private import write_past_capture
from pytest_h2o.report.text import clean

EVENTS_FILE = "events.jsonl"
EVERY_S = 15.0


class ProgressPrinter:
    """Writes launch events past pytest's output capture."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = 0
        self.reused = 0
        self._quiet_until = 0.0

    def show(self, kind: str, name: str, seconds: float, total: int) -> None:
        """``kind`` is an event of :class:`RunStore`; while nothing ends, a line now and then is
        enough.
        """
        self.started += kind in ("start", "reuse")
        self.reused += kind == "reuse"
        count = f"{self.started}/{max(total, self.started)}" if total else f"{self.started}"
        texts = {
            "start": f"[{count}] {name}",
            "tick": f"[{count}] {name}: running for {seconds:.0f} s",
            "wait": f"[{count}] {name}: waiting for its turn ({seconds:.0f} s)",
            "end": f"[{count}] {name}: {seconds:.1f} s",
            "reuse": f"[{count}] {name}: taken over",
        }
        idle = kind in ("tick", "wait")
        if (kind in ("start", "reuse") and not self._verbose()) or (
            idle and time.monotonic() < self._quiet_until
        ):
            return
        self._quiet_until = time.monotonic() + EVERY_S
        write_past_capture(self.config, clean(texts[kind]))

    def _verbose(self) -> bool:
        return self.config.get_verbosity() > 0


def append_event(root: Path, kind: str, name: str, seconds: float) -> None:
    """Tell the controlling process of a launch, if the disk has room; appended lines of this size
    are not torn.
    """
    with suppress(OSError), (root / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "name": name, "seconds": round(seconds, 3)}) + "\n")


class EventFollower(threading.Thread):
    """Prints the workers' events while the controller waits for them."""

    def __init__(self, root: Path, printer: ProgressPrinter) -> None:
        super().__init__(daemon=True, name="h2o-progress")
        self.path = root / EVENTS_FILE
        self.printer = printer
        self.ended = threading.Event()
        self.offset = 0

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.print_new()

    def stop(self) -> None:
        """Print what is left and end."""
        self.ended.set()
        self.join()
        self.print_new()

    def print_new(self) -> None:
        """Print the complete lines that were appended since the last call."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                event = json.loads(line)
                self.printer.show(event["kind"], event["name"], event["seconds"], 0)
