"""What the launch behind a verdict printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.loglines import is_text
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Verdict

TAIL_BYTES, TAIL_LINES = 6000, 15


def record_of(verdict: Verdict, records: Sequence[LaunchRecord]) -> LaunchRecord | None:
    """The launch that wrote the verdict's source."""
    source = Path(verdict.source)
    for record in records:
        if verdict.source and (
            source == record.directory or source in (*record.files, record.stderr)
        ):
            return record
    return None


def tail_of(record: LaunchRecord) -> str:
    """The last lines of what a launch printed, stderr after stdout."""
    texts = [_end_of(path) for path in (record.stdout, record.stderr)]
    return "\n".join(text for text in texts if text)


def _end_of(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if is_text(line)]
    return "\n".join(printable(line[:400]) for line in lines[-TAIL_LINES:])
