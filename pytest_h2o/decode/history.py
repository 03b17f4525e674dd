"""The decode speeds of earlier sessions: one JSON object per line, only ever appended to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

FILE = "decode_baseline_history.jsonl"
MAX_LINE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One case of one session.

    Attributes:
        ts_utc: end of the session, ``YYYY-MM-DDTHH:MM:SSZ``.
        key: what is compared with each other (DECODE_BASELINE_KEY).
        decode_best: fastest row, tokens/s.
        overall_pass: whether every gate of the case passed.
        summary: the session's summary.
        case: name of the case.
        identity: hashes and names of what must not differ: machine, model, settings.
    """

    ts_utc: str
    key: str
    decode_best: float
    overall_pass: bool
    summary: str
    case: str
    identity: Mapping[str, str]


def read_history(path: Path) -> Iterator[Entry]:
    """The entries in the order of the file; lines that are none are passed over, as is a file that
    does not exist.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                _skip_line(file.readline)
            elif entry := _entry(line):
                yield entry


def append_history(path: Path, entries: Iterable[Entry]) -> None:
    """Append entries under a lock; a line that an interrupted writer left open is closed first."""
    text = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        open_line = end > 0 and file.read(1) != b"\n"
        file.write(("\n" * open_line + text).encode())


def _skip_line(readline: Callable[[int], bytes]) -> None:
    while (rest := readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass


def _entry(line: bytes) -> Entry | None:
    try:
        values = json.loads(line)
        speed = float(values["decode_best"])
        if not (math.isfinite(speed) and speed > 0 and isinstance(values["overall_pass"], bool)):
            return None
        identity = values.get("identity", {})
        return Entry(
            ts_utc=str(values.get("ts_utc", "")),
            key=str(values["key"]),
            decode_best=speed,
            overall_pass=values["overall_pass"],
            summary=str(values.get("summary", "")),
            case=str(values.get("case", "")),
            identity={str(name): str(value) for name, value in identity.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
