"""Every number of workers with every distribution: each launch once, one at a time, and equal outcomes.

``python tests/bench/check_everywhere.py`` takes some minutes. It exits with 1 if any way differs from one process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from stand_in import install, overlaps
from test_everywhere import made, run

WORKERS = ("1", "4", "8")
DISTRIBUTIONS = ("load", "loadfile", "loadgroup", "worksteal")
SELECTED = ("-m", "final", "--h2o-set", "PROMPTS=512")


def main() -> int:
    """Try all of them and print one line for each."""
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["H2O_LOCK_DIR"] = name
        install(Path(name, "alone"))
        expected, _ = run(Path(name, "alone"), *SELECTED)
        launches = made(Path(name, "alone"))
        print(f"alone: {expected}, {len(launches)} launches")
        for workers, distribution in product(WORKERS, DISTRIBUTIONS):
            folder = Path(name, f"{workers}-{distribution}")
            install(folder)
            started = time.perf_counter()
            outcomes, _ = run(folder, *SELECTED, "-n", workers, "--dist", distribution)
            good = (outcomes, made(folder), overlaps(folder)) == (expected, launches, 0)
            bad += not good
            seconds = time.perf_counter() - started
            print(f"-n {workers} --dist {distribution:<9} {'same' if good else 'DIFFERS'}  {seconds:.0f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
