"""Paired decode studies on the embedded runtime where the answer is known.

    python tests/bench/bench_aa.py [--mode same|slower|h2o] [--sessions N] [--first-seed N]

A session is the study of one case with its own seed, as ``final`` makes it, on launches of its own.
In mode ``same`` the candidate is the baseline again, so FAIL is a false alarm. In mode ``slower``
it is the baseline with a sleep after each token that takes 10 % off its speed, so PASS is a miss.
In mode ``h2o`` it is the candidate of ``full_strict``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pytest_h2o.data import bundled
from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.lab.lab import Lab
from pytest_h2o.plan.cases import BASELINE
from pytest_h2o.plan.knobs import baseline_config, resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes.embedded import EmbeddedRuntime

Change = Callable[[LaunchSpec], LaunchSpec]


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


def session(change: Change, seed: int, root: Path) -> PairedStudy:
    """One study."""
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
    return lab.study("full_strict")


def main() -> None:
    """Print a line per session and the counts."""
    parser = argparse.ArgumentParser(description="Decode studies whose answer is known.")
    parser.add_argument("--mode", choices=MODES, default="same")
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args()
    decisions: Counter[str] = Counter()
    pairs: list[int] = []
    print("| seed | pairs | drop | 98 % interval | bare speeds | decision |")
    print("| ---: | ---: | ---: | --- | ---: | --- |")
    for seed in range(options.first_seed, options.first_seed + options.sessions):
        with tempfile.TemporaryDirectory() as root:
            found = session(MODES[options.mode], seed, Path(root))
        study, plain = found.study, found.plain
        assert study, found.problems
        bare = f"{plain.drop:+.1%}" if plain else ""
        between = f"{study.drop_low:+.1%} and {study.drop_high:+.1%}"
        cells = (seed, study.pairs, f"{study.drop:+.1%}", between, bare, study.decision)
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        decisions[study.decision] += 1
        pairs.append(study.pairs)
    print(
        f"\n{options.mode}: {sum(decisions.values())} sessions, {fmean(pairs):.1f} pairs, "
        f"{dict(decisions)}"
    )


if __name__ == "__main__":
    main()
