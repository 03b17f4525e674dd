"""What the launch behind a verdict printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.telling_lines import is_text
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Verdict

TAIL_BYTES, TAIL_LINES = 6000, 15


def record_of(verdict: Verdict, records: Sequence[LaunchRecord]) -> LaunchRecord | None:
    """The launch that wrote the verdict's source."""
    if not verdict.source:
        return None
    source = Path(verdict.source)
    for record in records:
        if source in (record.directory, record.stderr) or source in record.files:
            return record
    return None


def tail_of(record: LaunchRecord) -> str:
    """The last lines of what a launch printed, stderr after stdout."""
    texts = map(_end_of, (record.stdout, record.stderr))
    return "\n".join(filter(None, texts))


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
