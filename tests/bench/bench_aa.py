"""Paired decode studies on the embedded runtime where the answer is known.

    python tests/bench/bench_aa.py [--mode same|slower|h2o] [--sessions N] [--csv FILE]
    python tests/bench/bench_aa.py --judge FILE

A session is the study of one case with its own seed, as ``final`` makes it, on launches of its own.
In mode ``same`` the candidate is the baseline again, so FAIL is a false alarm. In mode ``slower``
it is the baseline with a sleep after each token that takes 10 % off its speed, so PASS is a miss.
In mode ``h2o`` it is the candidate of ``full_strict``. ``--csv`` adds the pairs to a file, after
the seeds that it has; ``--judge`` says what the pairs of a file decide, launching nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pytest_h2o.data import bundled
from pytest_h2o.decode.pairs import Pair
from pytest_h2o.decode.study import Study, judge
from pytest_h2o.lab.lab import Lab
from pytest_h2o.plan.cases import BASELINE
from pytest_h2o.plan.knobs import baseline_config, resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes.embedded import EmbeddedRuntime

Change = Callable[[LaunchSpec], LaunchSpec]
NUMBERS = ("baseline", "candidate", "baseline_cost", "candidate_cost")
LIMIT = 0.05


class SlowerRuntime(EmbeddedRuntime):
    """The embedded runtime, through the wrapper that can slow it."""

    def start(self, program: str) -> tuple[str, ...]:
        """The wrapper in place of the command."""
        return (sys.executable, str(Path(__file__).with_name("slower.py")))


def same(spec: LaunchSpec) -> LaunchSpec:
    """The candidate as a second baseline, but a launch of its own: equal specs are launched
    once.
    """
    return replace(spec, config=baseline_config(), env={"SLOWER": "0"})


def slower(spec: LaunchSpec) -> LaunchSpec:
    """The candidate as a baseline that is 10 % slower."""
    return replace(same(spec), env={"SLOWER": "0.1"})


MODES: dict[str, Change] = {"same": same, "slower": slower, "h2o": lambda spec: spec}


def session(change: Change, seed: int, root: Path) -> Sequence[Pair]:
    """The pairs of one study."""
    knobs = resolve(
        [f"DECODE_SEED={seed}", "DECODE_BASELINE_MODE=paired"],
        runtime_defaults=EmbeddedRuntime.defaults,
    )
    store = RunStore(root, SlowerRuntime("bench_aa"))
    lab = Lab(
        root,
        knobs,
        lambda spec: store.get(spec if spec.arm == BASELINE else change(spec)),
        bundled("prompts"),
    )
    lab.demand = Demand({"full_strict"}, {"full_strict"})
    found = lab.study("full_strict")
    assert found.study, found.problems
    return found.pairs


def judged(pairs: Sequence[Pair]) -> tuple[Study, Study]:
    """What pairs decide by the yardstick, as acceptances do, and by the bare speeds."""
    relative: dict[str, list[float]] = {}
    bare: dict[str, list[float]] = {}
    for pair in pairs:
        assert pair.relative is not None
        relative.setdefault(pair.label, []).append(pair.relative)
        bare.setdefault(pair.label, []).append(pair.difference)
    return judge(relative, LIMIT), judge(bare, LIMIT)


def read(path: Path) -> dict[tuple[str, int], list[Pair]]:
    """The pairs of each mode and seed in a file; none without one."""
    found: dict[tuple[str, int], list[Pair]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                numbers = [float(row[name]) for name in NUMBERS]
                pair = Pair(row["label"], *numbers)
                found.setdefault((row["mode"], int(row["seed"])), []).append(pair)
    return found


def keep(path: Path, mode: str, seed: int, pairs: Sequence[Pair]) -> None:
    """Add the pairs of a session to a file."""
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(("mode", "seed", "label", *NUMBERS))
        for pair in pairs:
            numbers = [f"{getattr(pair, name):.6g}" for name in NUMBERS]
            writer.writerow((mode, seed, pair.label, *numbers))


def main() -> None:
    """Print a line per session and the counts."""
    parser = argparse.ArgumentParser(description="Decode studies whose answer is known.")
    parser.add_argument("--mode", choices=MODES, default="same")
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--csv", type=Path, default=None)
    parser.add_argument("--judge", type=Path, default=None)
    options = parser.parse_args()
    print("| mode | seed | pairs | drop | 98 % interval | bare speeds | decision |")
    print("| --- | ---: | ---: | ---: | --- | ---: | --- |")
    found: dict[tuple[str, int], Sequence[Pair]] = {}
    if options.judge:
        found.update(read(options.judge))
        for (mode, seed), pairs in found.items():
            show(mode, seed, pairs)
    else:
        kept = read(options.csv) if options.csv else {}
        first = 1 + max((seed for mode, seed in kept if mode == options.mode), default=0)
        for seed in range(first, first + options.sessions):
            with tempfile.TemporaryDirectory() as root:
                pairs = session(MODES[options.mode], seed, Path(root))
            found[options.mode, seed] = pairs
            show(options.mode, seed, pairs)
            if options.csv:
                keep(options.csv, options.mode, seed, pairs)
    for mode in dict.fromkeys(mode for mode, _ in found):
        own = [pairs for (other, _), pairs in found.items() if other == mode]
        decisions = Counter(judged(pairs)[0].decision for pairs in own)
        average = fmean(len(pairs) for pairs in own)
        print(f"\n{mode}: {len(own)} sessions, {average:.1f} pairs, {dict(decisions)}")


def show(mode: str, seed: int, pairs: Sequence[Pair]) -> None:
    """One session as a row."""
    study, bare = judged(pairs)
    between = f"{study.drop_low:+.1%} and {study.drop_high:+.1%}"
    cells = (mode, seed, study.pairs, f"{study.drop:+.1%}", between, f"{bare.drop:+.1%}")
    print("| " + " | ".join(map(str, cells)) + f" | {study.decision} |", flush=True)


if __name__ == "__main__":
    main()
