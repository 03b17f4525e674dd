"""How often an honest acceptance is green: ``pytest gates -m final`` on the embedded runtime, again
and again.

    python tests/bench/bench_final.py [--runs N] [ARGUMENT ...]

Further arguments go to pytest. The time of the launches alone is given too: a run waits while
others measure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(arguments: list[str], out: Path) -> tuple[Counter[str], float, float, list[str]]:
    """One acceptance: outcomes, seconds in all, seconds of launches, and what was not accepted."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(ROOT / "gates"),
        "-m",
        "final",
        "-q",
        "--h2o-runtime",
        "embedded",
    ]
    begin = time.monotonic()
    subprocess.run(
        [*command, "--h2o-out", str(out), *arguments], cwd=ROOT, capture_output=True, check=False
    )
    seconds = time.monotonic() - begin
    summary = out / "latest" / "summary.json"
    gates = json.loads(summary.read_text())["gates"]
    bad = [f"{gate['gate']}[{gate['case']}] {gate['outcome']}" for gate in gates
           if gate["outcome"] in ("fail", "inconclusive")]  # fmt: skip
    records = [json.loads(path.read_text()) for path in out.glob("latest/launches/*/launch.json")]
    return (
        Counter(gate["outcome"] for gate in gates),
        seconds,
        sum(record["seconds"] or 0 for record in records),
        bad,
    )


def main() -> None:
    """Print a line per run and how many were green."""
    parser = argparse.ArgumentParser(description="Repeat the acceptance of the embedded runtime.")
    parser.add_argument("--runs", type=int, default=30)
    options, arguments = parser.parse_known_args()
    green = 0
    print("| run | pass | off | not accepted | all, s | launches, s | load |")
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: |")
    for number in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory() as out:
            outcomes, seconds, launches, bad = run(arguments, Path(out))
        green += not bad and bool(outcomes["pass"])
        cells = (
            number,
            outcomes["pass"],
            outcomes["skipped"],
            "; ".join(bad) or "-",
            f"{seconds:.0f}",
            f"{launches:.0f}",
            f"{os.getloadavg()[1]:.1f}",
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"\n{green} of {options.runs} green")


if __name__ == "__main__":
    main()
