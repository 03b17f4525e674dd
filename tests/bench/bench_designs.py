"""What to compare: how much a pair of launches of one binary differs, by what is taken for its
decode speed.

    python tests/bench/bench_designs.py [--pairs N] [--prompt N] [--save FILE | --load FILE]

Every launch is a fresh process that decodes 128 tokens twice with H2O off. It notes for each token,
and for a run of the yardstick after each, the time of the clock, the time it was ready without a
core, and the CPU time. All designs are computed from the same launches, so that all meet the same
machine. The expected number of pairs is that of a study of normal differences with the measured
deviation, a true drop of 0 and a limit of 5 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, stdev
from time import perf_counter_ns, thread_time_ns

import numpy as np
from bench_verdicts import decide

from pytest_h2o.engine.config import SHIPPED, load_config
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.threads import single_threaded_blas
from pytest_h2o.engine.yardstick import ReadyWait, Yardstick
from pytest_h2o.runs.locks import hold, machine_lock_path

TOKENS, AROUND = 128, 16
Times = list[tuple[int, int, int]]  # ns: clock, ready without a core, CPU
Repeat = dict[str, Times]
Design = Callable[[list[Repeat]], float]


def timed(wait: ReadyWait, work: Callable[[], object]) -> tuple[int, int, int]:
    """The three times of ``work``."""
    waited, cpu, begin = wait.read(), thread_time_ns(), perf_counter_ns()
    work()
    return perf_counter_ns() - begin, wait.read() - waited, thread_time_ns() - cpu


def child(prompt: int) -> list[Repeat]:
    """Two repeats, measured in this process."""
    single_threaded_blas()
    engine, wait, repeats = Engine(load_config(SHIPPED / "h2o.json"), threads=2), ReadyWait(), []
    stick = Yardstick(engine.model)
    engine.tune()
    for _ in range(2):
        engine.cache.clear()
        state = {"logits": engine.model.prefill([16] * prompt, engine.cache, 2)}

        def step(state: dict[str, np.ndarray] = state) -> None:
            state["logits"] = engine.model.forward([int(np.argmax(state["logits"]))], engine.cache)

        before = [timed(wait, stick.run) for _ in range(AROUND)]
        both = [(timed(wait, step), timed(wait, stick.run)) for _ in range(TOKENS)]
        after = [timed(wait, stick.run) for _ in range(AROUND)]
        repeats.append(
            {
                "token": [one for one, _ in both],
                "stick": [two for _, two in both],
                "around": before + after,
            }
        )
    return repeats


def clock(times: Times) -> float:
    """Mean time of the clock."""
    return fmean(wall for wall, _, _ in times)


def own(times: Times) -> float:
    """Mean time without what was waited for a core."""
    return fmean(wall - waited for wall, waited, _ in times)


def every(count: int) -> Design:
    """Tokens in yardsticks run after every ``count`` tokens of the second repeat."""
    return lambda launch: own(launch[1]["token"]) / own(launch[1]["stick"][count - 1 :: count])


DESIGNS: dict[str, Design] = {
    "decode speed": lambda launch: clock(launch[1]["token"]),
    "decode speed, first repeat": lambda launch: clock(launch[0]["token"]),
    "mean of two repeats": lambda launch: fmean(clock(repeat["token"]) for repeat in launch),
    "better of two repeats": lambda launch: min(clock(repeat["token"]) for repeat in launch),
    "median token": lambda launch: median(wall for wall, _, _ in launch[1]["token"]),
    "CPU time of the decode thread": lambda launch: fmean(cpu for _, _, cpu in launch[1]["token"]),
    "clock without waits": lambda launch: own(launch[1]["token"]),
    "yardstick before and after, without waits": lambda launch: (
        own(launch[1]["token"]) / own(launch[1]["around"])
    ),
    "yardstick every 4 tokens, with waits": lambda launch: (
        clock(launch[1]["token"]) / clock(launch[1]["stick"][3::4])
    ),
    "yardstick every 16 tokens, without waits": every(16),
    "yardstick every 8 tokens, without waits": every(8),
    "yardstick every 4 tokens, without waits": every(4),
    "yardstick every 2 tokens, without waits": every(2),
    "yardstick every 4 tokens, two repeats": lambda launch: fmean(
        own(repeat["token"]) / own(repeat["stick"][3::4]) for repeat in launch
    ),
}


def launch(prompt: int) -> list[Repeat]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--child", "--prompt", str(prompt)]
    with hold(machine_lock_path(), fair=True):
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # type: ignore[no-any-return]


def expected_pairs(deviation: float) -> tuple[float, float]:
    """Mean pairs of a study, and the share that is undecided in the end."""
    decision, pairs = decide(np.random.default_rng(1).normal(0, deviation, (4000, 22)), (0.0,))
    return float(pairs.mean()), float((decision == 0).mean())


def main() -> None:
    """Measure pairs and print the table."""
    parser = argparse.ArgumentParser(
        description="Deviation of pairs of launches of one binary, by design."
    )
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.prompt)))
        return
    if options.load:
        launches = json.loads(options.load.read_text())
    else:
        launches = [launch(options.prompt) for _ in range(2 * options.pairs)]
    if options.save:
        options.save.write_text(json.dumps(launches))
    print(
        f"{len(launches) // 2} pairs, prompt {options.prompt}, load average "
        f"{os.getloadavg()[2]:.1f} over 15 minutes\n"
    )
    print("| what is compared | pair SD | largest | pairs to a verdict | undecided at 20 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, design in DESIGNS.items():
        logs = [math.log(design(one)) for one in launches]
        differences = [second - first for first, second in zip(logs[::2], logs[1::2], strict=True)]
        deviation, largest = stdev(differences), max(map(abs, differences))
        pairs, undecided = expected_pairs(deviation)
        print(f"| {name} | {deviation:.3f} | {largest:.3f} | {pairs:.1f} | {undecided:.0%} |")
    first = [math.log(every(4)(one)) for one in launches]
    print(
        f"\nfirst launch of all against the mean of the others: {first[0] - fmean(first[1:]):+.3f}"
    )


if __name__ == "__main__":
    main()
