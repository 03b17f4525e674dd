"""The acceptance on stand-ins with every number of workers and every distribution, and cut short,
repeated, doubled.

``python tests/bench/check_everywhere.py [FOLDER]`` takes half an hour. Each way must find what one
process finds, from the same launches, each made once, one at a time. It exits with 1 if one does
not; what it printed is in FOLDER.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from sessions import KILL_WORKER, made, run, start
from stand_in import install, overlaps

WORKERS = ("0", "1", "4", "8")
DISTRIBUTIONS = ("load", "loadfile", "loadgroup", "worksteal")
FINAL = ("-m", "final", "--h2o-set", "PROMPTS=512")
# Some gates of each file.
SOME = (*FINAL, "-k", "store_tuned or bucket or joint_store or offline")
FAILING = (*FINAL, "--h2o-set", "MAX_LOSSLESS_QUEUE_PEAK=0.5")
PATIENCE_S = 1800
Way = Callable[[Path, Sequence[str]], bool]


def once(folder: Path, times: int = 1) -> bool:
    """Whether every launch was made once by each session, and never two at a time."""
    names = made(folder)
    return {names.count(name) for name in names} == {times} and overlaps(folder) == 0


@cache
def alone(root: Path, *arguments: str) -> tuple[dict[str, int], list[str]]:
    """The outcomes and launches of one process."""
    folder = root / f"alone{len(arguments)}"
    install(folder)
    outcomes, _ = run(folder, *arguments)
    assert once(folder)
    print(f"one process: {outcomes}, {len(made(folder))} launches", flush=True)
    return outcomes, made(folder)


def same(selected: Sequence[str], folder: Path, how: Sequence[str]) -> bool:
    """Whether the selected gates have the outcomes of one process, from the same launches."""
    install(folder)
    outcomes, output = run(folder, *selected, *how)
    (folder / "output.txt").write_text(output)
    return once(folder) and (outcomes, made(folder)) == alone(folder.parent, *selected)


def stopped(folder: Path, how: Sequence[str]) -> bool:
    """Whether -x ends the session after a failure, long before everything is judged."""
    install(folder)
    outcomes, output = run(folder, *FAILING, "-x", *how)
    (folder / "output.txt").write_text(output)
    return (
        once(folder)
        and outcomes["failed"] >= 1
        and len(made(folder)) < len(alone(folder.parent, *FINAL)[1])
    )


def repeated(folder: Path, how: Sequence[str]) -> bool:
    """Whether --lf judges what failed, and nothing else, from launches of its own."""
    install(folder)
    first, _ = run(folder, *SOME, *FAILING, *how)
    good = once(folder)
    (folder / "launches.txt").rename(folder / "first.txt")
    again, output = run(folder, *SOME, *FAILING, "--lf", *how)
    (folder / "output.txt").write_text(output)
    return good and once(folder) and again == {"failed": first["failed"]}


def doubled(folder: Path, how: Sequence[str]) -> bool:
    """Whether two sessions at once take turns, each making its own launches, and find the same."""
    install(folder)
    sessions = [start(folder, *SOME, *how, "--h2o-out", out) for out in ("one", "two")]
    outputs = [session.communicate(timeout=PATIENCE_S)[0] for session in sessions]
    (folder / "output.txt").write_text("".join(outputs))
    counts = [re.findall(r"(\d+) (passed|failed|errors?)", output) for output in outputs]
    return once(folder, 2) and counts[0] == counts[1] and bool(counts[0])


def killed(folder: Path, how: Sequence[str]) -> bool:
    """Whether a worker that is killed in mid-launch loses one gate, and only the cut launch is
    repeated.
    """
    install(folder, KILL_WORKER)
    _, output = run(folder, *SOME, *how)
    (folder / "output.txt").write_text(output)
    return once(folder) and len(re.findall("crashed while running", output)) == 1


def ways() -> Iterator[tuple[str, Way, Sequence[str]]]:
    """Title, what is tried, and how."""
    yield "one process", partial(same, FINAL), ()
    for workers, distribution in product(WORKERS[1:], DISTRIBUTIONS):
        yield "everything", partial(same, FINAL), ("-n", workers, "--dist", distribution)
    for workers in WORKERS:
        yield "-k", partial(same, SOME), ("-n", workers)
        yield "-x", stopped, ("-n", workers)
        yield "--lf", repeated, ("-n", workers)
        yield "two sessions", doubled, ("-n", workers)
    for workers in WORKERS[1:]:
        yield "killed worker", killed, ("-n", workers)


def main(root: Path) -> int:
    """Try all of them and print one line for each."""
    os.environ["H2O_LOCK_DIR"] = str(root)
    bad = 0
    for number, (title, way, how) in enumerate(ways()):
        folder = root / str(number)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        good = way(folder, how)
        bad += not good
        seconds = time.perf_counter() - started
        print(
            f"{number:2} {title:<13} {' '.join(how):<22} {'good' if good else 'BAD '}  "
            f"{seconds:.0f} s",
            flush=True,
        )
    return int(bad > 0)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(main(Path(sys.argv[1]).absolute()))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(Path(name)))
