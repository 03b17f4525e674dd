"""How a launch ended, judged by what it printed as well."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_h2o.parsers.loglines import telling_lines
from pytest_h2o.plan.specs import Program
from pytest_h2o.runs.records import RecordStatus

# What is looked at of an output for telling lines; failures show at its beginning or its end.
HEAD_BYTES, TAIL_BYTES = 64 * 1024, 192 * 1024


def explain(
    program: Program, status: RecordStatus, reason: str, stdout: Path, stderr: Path
) -> tuple[RecordStatus, str]:
    """How a launch ended, and below the reason the telling lines of its output; files may be
    absent.
    """
    if program == "llm_demo" and status == "ok" and _init_failed(_excerpt(stdout)):
        status, reason = "failed", "the model could not be loaded (LLM init error)"
    return status, reason if status == "ok" else "\n".join([reason, *what_it_said(stdout, stderr)])


def what_it_said(stdout: Path, stderr: Path) -> list[str]:
    """The telling lines of an output, indented."""
    return [f"  {line}" for line in telling_lines(_excerpt(stderr), _excerpt(stdout))]


def _init_failed(output: str) -> bool:
    """Older ``llm_demo`` programs exit with 0 after this line; where a model wrote it, a summary
    follows.
    """
    return bool(re.search(r"(?m)^LLM init error", output)) and "prompt tokens num" not in output


def _excerpt(path: Path) -> str:
    """Head and tail of a text file, decoded leniently; empty if there is none."""
    if not path.is_file():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(HEAD_BYTES, size - TAIL_BYTES))
        parts = [head, *([b"\n"] if size > HEAD_BYTES + TAIL_BYTES else []), file.read(TAIL_BYTES)]
    return b"".join(parts).decode(errors="replace")
