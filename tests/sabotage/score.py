"""The score of all faults, each launched with all columns and with what a real build prints:
``python tests/sabotage/score.py [columns] [lines] [FAULT ...]``. With ``copying`` in front those
of what is kept are judged by ``passages_are_recalled`` alone, over a model that copies what it
reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from copying_model import SETTINGS, copying_model
from live import EVERY_FAULT, EVERY_HONEST, KEPT, OFFLINE, Fault
from staging import ROOT, WITHOUT, Stage

SIDES = {"columns": "(a) all columns", "lines": "(b) as a real build"}
COPYING = "copying"
SHOWN = 400
WIDTHS = (34, 40, 40, 40)


def main(words: Sequence[str]) -> None:
    """Launch each fault once a side; print a line for each, and the sums."""
    copies = words[:1] == [COPYING]
    names = [word for word in words if word not in (*SIDES, COPYING)]
    if copies and not names:
        names = list(KEPT)
    sides = [word for word in words if word in SIDES] or list(SIDES)
    chosen = [fault for fault in EVERY_FAULT if not names or fault.name in names]
    honest = [fault for fault in EVERY_HONEST if not names or fault.name in names]
    if copies:
        chosen, honest = _recalling(chosen), _recalling(honest)
    refused = dict.fromkeys(sides, 0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["H2O_LOCK_DIR"] = folder
        stage = Stage(Path(folder))
        if copies:
            stage.model = copying_model(Path(folder) / COPYING)
        show("fault", "variant", *(SIDES[side] for side in sides))
        for number, fault in enumerate((*chosen, *honest)):
            cells: list[str] = []
            reasons: dict[str, str] = {}
            for side in sides:
                gates = judged(fault, stage, side, Path(folder) / f"{side}{number}")
                cells.append(", ".join(gates) or "-")
                reasons.update(gates)
                if number < len(chosen):
                    refused[side] += bool(gates)
            show(fault.kind, fault.name, *cells)
            for gate, reason in reasons.items():
                if names:
                    print(f"  {gate}: {reason[:SHOWN]}")
    total = max(1, len(chosen))
    for side in sides:
        share = refused[side] / total
        print(f"{SIDES[side]}: {refused[side]} of {total} refused, {share:.0%}")
    for fault in chosen:
        if fault.unseen:
            print(f"not seen from outside: {fault.kind}, {fault.name}: {fault.unseen}")


def _recalling(faults: Sequence[Fault]) -> list[Fault]:
    """Each fault once, judged by what a model that copies goes on with."""
    found: dict[str, Fault] = {}
    for fault in faults:
        found[fault.name] = Fault(fault.kind, fault.name, "passages_are_recalled", SETTINGS)
    return list(found.values())


def judged(fault: Fault, stage: Stage, side: str, out: Path) -> dict[str, str]:
    """The gates that failed in a session, with their reasons."""
    select, settings = fault.judged_by(side)
    plain = side == "lines"
    arguments = stage.faulty(fault.name, settings, fault.prompts, plain=plain)
    if fault.suite == "release":
        arguments += stage.second_build(plain=plain)
    if OFFLINE not in select:
        select = f"({select}) and {WITHOUT}"
    gates = ["-m", fault.suite, "-k", select, str(ROOT / "gates")]
    command = [sys.executable, "-m", "pytest", "-q", *gates, *arguments, "--h2o-out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    sessions = sorted(out.glob("[0-9]*/summary.json"))
    if not sessions:
        raise SystemExit(f"no session was judged:\n{result.stdout}{result.stderr}")
    verdicts = json.loads(sessions[-1].read_text())["gates"]
    failed = [each for each in verdicts if each["outcome"] not in ("pass", "skipped")]
    return {each["gate"]: each["reason"] for each in failed}


def show(*cells: str) -> None:
    """One line of the table."""
    texts = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    print(" ".join(texts).rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
