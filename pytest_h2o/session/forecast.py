"""How long the launches that are left will take, learnt from earlier sessions and from this one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pytest_h2o.runs.machine import machine
from pytest_h2o.runs.records import RECORD_FILE, RecordError, load_record
from pytest_h2o.runs.store import file_name

SESSIONS = 5


class Forecast:
    """``before`` holds the seconds of earlier launches by name; what this session adds corrects
    them.
    """

    def __init__(self) -> None:
        self.names: Collection[str] = ()
        self.before: Mapping[str, float] = {}
        self.now: dict[str, float] = {}

    @property
    def total(self) -> int:
        """How many launches are planned at least; 0 if that is not known."""
        return len(self.names)

    def expect(self, names: Collection[str], before: Mapping[str, float]) -> None:
        """What is planned, and what is known of it."""
        self.names, self.before = names, before

    def ended(self, name: str, seconds: float) -> None:
        """A launch has ended, or was taken over."""
        self.now[name] = seconds

    def left(self) -> float | None:
        """Seconds for the planned launches that have not ended; None if one cannot be guessed, or
        all have.
        """
        ahead = [name for name in self.names if name not in self.now]
        guesses = [self.guess(name) for name in ahead]
        known = [guess for guess in guesses if guess is not None]
        return sum(known) if ahead and len(known) == len(guesses) else None

    def guess(self, name: str) -> float | None:
        """Seconds of one launch: as before, at today's speed, else as others of its program."""
        if name in self.before:
            return self.before[name] * self._pace()
        program = name.partition("-")[0]
        alike = _of_program(program, self.now) or _of_program(program, self.before)
        if not alike:
            return None
        return sum(alike) / len(alike)

    def _pace(self) -> float:
        """How much longer launches take now than before."""
        both = [name for name, seconds in self.now.items() if seconds and self.before.get(name)]
        if not both:
            return 1.0
        return sum(self.now[name] for name in both) / sum(self.before[name] for name in both)


def _of_program(program: str, seconds: Mapping[str, float]) -> list[float]:
    return [each for name, each in seconds.items() if name.partition("-")[0] == program]


def earlier_seconds(runs: Path, own: Path, runtime: str, names: Iterable[str]) -> dict[str, float]:
    """The seconds of launches by name in the latest run directories below ``runs``, of the same
    runtime, programs and model on the same machine.
    """
    found: dict[str, float] = {}
    for root in latest_launches(runs):
        for name in names if root.parent != own else ():
            if name not in found and (seconds := _seconds(root / file_name(name), runtime)):
                found[name] = seconds
    return found


def latest_launches(runs: Path) -> list[Path]:
    """Where the latest sessions kept their launches, the last one first."""
    roots = sorted(runs.glob("*/launches"), reverse=True) if runs.is_dir() else []
    return [root for root in roots if not root.parent.is_symlink()][:SESSIONS]


def _seconds(directory: Path, runtime: str) -> float | None:
    try:
        record = load_record(directory / RECORD_FILE)
    except RecordError:
        return None
    same = record.runtime == runtime and record.inputs.get("machine") == machine()
    return record.seconds if same and record.status == "ok" else None


def duration(seconds: float) -> str:
    """Seconds for people: ``40 s``, ``2 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
