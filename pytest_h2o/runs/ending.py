"""How a launch ended, judged by what it printed as well."""

from __future__ import annotations

from pathlib import Path

from pytest_h2o.parsers.telling_lines import broken_lines, telling_lines
from pytest_h2o.parsers.text_files import encoding_of
from pytest_h2o.runs.records import RecordStatus
from pytest_h2o.runtimes import find_program

# What is looked at of an output for telling lines; failures show at its beginning or its end.
HEAD_BYTES, TAIL_BYTES = 64 * 1024, 192 * 1024


def explain(
    program: str, status: RecordStatus, reason: str, stdout: Path, stderr: Path
) -> tuple[RecordStatus, str]:
    """How a launch ended, and below the reason the telling lines of its output; files may be
    absent.
    """
    if status == "ok":
        failure = find_program(program).failure(_excerpt(stdout))
        if not failure:
            return status, reason
        status, reason = "failed", failure
    return status, "\n".join([reason, *what_it_said(stdout, stderr)])


def what_it_said(stdout: Path, stderr: Path, *, or_last: bool = True) -> list[str]:
    """The telling lines of an output, indented; without any the last ones."""
    lines = telling_lines(_excerpt(stderr), _excerpt(stdout), or_last=or_last)
    return [f"  {line}" for line in lines]


def troubled_lines(*outputs: Path) -> list[str]:
    """The lines of output files that say that something broke."""
    return broken_lines(*map(_excerpt, outputs))


def _excerpt(path: Path) -> str:
    """Head and tail of a text file, decoded leniently; empty if there is none."""
    if not path.is_file():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if size <= HEAD_BYTES + TAIL_BYTES:
            head += file.read(TAIL_BYTES)
            return head.decode(encoding_of(head), errors="replace")
        # Whole characters of UTF-16 and UTF-32.
        file.seek((size - TAIL_BYTES) // 4 * 4)
        tail = file.read(TAIL_BYTES + 3)
    encoding = encoding_of(head)
    # The tail has no mark to tell the byte order by.
    mark = head[:4] if encoding == "utf-32" else head[:2]
    if encoding not in ("utf-16", "utf-32"):
        mark = b""
    texts = [part.decode(encoding, errors="replace") for part in (head, mark + tail)]
    return "\n".join(texts)
