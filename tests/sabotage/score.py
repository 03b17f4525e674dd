"""The score of all faults, with all columns and with what a real build prints: ``python
tests/sabotage/score.py [FAULT ...]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from live import EVERY_FAULT, EVERY_HONEST, Fault, plain
from staging import ROOT, WITHOUT, Stage

WIDTHS = (28, 40, 28, 28)


def main(names: Sequence[str]) -> None:
    """Launch each fault once and judge it twice; print a line for each, and the sums."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        os.environ["H2O_LOCK_DIR"] = folder
        stage = Stage(directory)
        chosen = [fault for fault in EVERY_FAULT if not names or fault.name in names]
        show("fault", "variant", "(a) all columns", "(b) as a real build")
        caught = [both(fault, stage, directory / f"f{n}") for n, fault in enumerate(chosen)]
        for n, fault in enumerate(() if names else EVERY_HONEST):
            both(fault, stage, directory / f"h{n}")
    for side, title in enumerate(("(a) with all columns", "(b) with what a real build prints")):
        count = sum(bool(each[side]) for each in caught)
        total = max(1, len(caught))
        print(f"{title}: {count} of {total} refused, {count / total:.0%}")
    for fault in chosen:
        if fault.unseen:
            print(f"not seen from outside: {fault.kind}, {fault.name}: {fault.unseen}")


def both(fault: Fault, stage: Stage, directory: Path) -> tuple[list[str], list[str]]:
    """The gates that refuse a fault, with all columns and without the engine's own."""
    arguments = stage.faulty(fault.name, fault.settings, fault.prompts)
    columns, session = judged(arguments, fault, directory / "columns")
    copy = plain(session, directory / "copy")
    lines, _ = judged([*arguments, "--h2o-replay", str(copy)], fault, directory / "lines")
    show(fault.kind, fault.name, ", ".join(columns) or "-", ", ".join(lines) or "-")
    return columns, lines


def judged(arguments: Sequence[str], fault: Fault, out: Path) -> tuple[list[str], Path]:
    """The gates that failed in a session, and its directory."""
    gates = ["-m", "final", "-k", f"({fault.select}) and {WITHOUT}", str(ROOT / "gates")]
    command = [sys.executable, "-m", "pytest", "-q", *gates, *arguments, "--h2o-out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    sessions = sorted(out.glob("[0-9]*/summary.json"))
    if not sessions:
        raise SystemExit(f"no session was judged:\n{result.stdout}{result.stderr}")
    session = sessions[-1].parent
    verdicts = json.loads(sessions[-1].read_text())["gates"]
    failed = [each["gate"] for each in verdicts if each["outcome"] not in ("pass", "skipped")]
    return failed, session


def show(*cells: str) -> None:
    """One line of the table."""
    texts = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)]
    print(" ".join(texts).rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
