"""Prefill and decode of the embedded engine, the MNN wheel and a build's ``llm_bench`` side by
side, on the same weights, one thread.

    python tests/bench/bench_engines.py [--llm-bench PROGRAM] [--rounds N] [--lengths 512,1024,2048]

Every measurement is a fresh process; each round runs all engines, in turn forwards and backwards.
Printed are medians in tokens a second, and the median over rounds of the ratio to the wheel. A pass
over the weights, which no decoded token can go below, is timed in each round beside them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench_engine import H2O  # noqa: E402

from pytest_h2o.engine.config import SHIPPED  # noqa: E402
from pytest_h2o.parsers.bench_table import read_tables  # noqa: E402
from pytest_h2o.runtimes.launch_config import config_text, launch_config, read_config  # noqa: E402

EXPORT = ROOT / "tests" / "data" / "mnn" / "config.json"
DECODED = 128
WEIGHT_BYTES = 28 * 2**20
Speeds = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--llm-bench", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", default="512,1024,2048")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        engines = commands(Path(name), options.llm_bench)
        for length in options.lengths.split(","):
            rounds: list[Speeds] = []
            for turn in range(options.rounds):
                order = list(engines)[:: 1 if turn % 2 == 0 else -1]
                rounds.append({each: measured(engines[each], length) for each in order})
                rounds[-1]["floor"] = {"decode_tps": passes_a_second()}
            report(length, rounds)


def commands(directory: Path, llm_bench: Path | None) -> dict[str, list[str]]:
    """The words that start each engine on its config."""
    shipped = SHIPPED / "h2o.json"
    configs = {"embedded": (shipped, {}), "embedded, H2O": (shipped, H2O), "wheel": (EXPORT, {})}
    embedded = [sys.executable, "-m", "pytest_h2o.engine.bench"]
    wheel = [sys.executable, "-m", "pytest_h2o.runtimes.pymnn.wheel_bench"]
    starts = {"embedded": embedded, "embedded, H2O": embedded, "wheel": wheel}
    if llm_bench:
        configs["binary"], starts["binary"] = (EXPORT, {}), [str(llm_bench.absolute())]
    for name, (path, values) in configs.items():
        config = directory / f"{name.replace(', ', '_')}.json"
        config.write_text(config_text(launch_config(read_config(path), path, values)))
        starts[name] = starts[name] + ["-m", str(config)]
    return starts


def measured(start: list[str], length: str) -> dict[str, float]:
    """Prefill and decode of one launch."""
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "log.md"
        words = ["-kv", "true", "-t", "1", "-p", length, "-n", str(DECODED), "-rep", "1"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [*start, *words, "-fp", str(table)], check=True, capture_output=True, env=env
        )
        (row,) = read_tables(table)[-1].rows
        return {metric: row.samples[metric].mean for metric in ("prefill_tps", "decode_tps")}


def passes_a_second(passes: int = 200) -> float:
    """Products of a vector with a float32 matrix as large as the weights, on one core."""
    matrix = np.ones((WEIGHT_BYTES // 4 // 1024, 1024), np.float32)
    vector = np.ones(1024, np.float32)
    with threadpool_limits(1):
        matrix @ vector
        started = time.perf_counter()
        for _ in range(passes):
            matrix @ vector
    return passes / (time.perf_counter() - started)


def report(length: str, rounds: list[Speeds]) -> None:
    """One line for each engine."""
    print(f"prompt of {length} tokens, {len(rounds)} rounds")
    for name in rounds[0]:
        cells: list[str] = []
        for metric in rounds[0][name]:
            against = "wheel" if name != "floor" else "embedded"
            ratios = [each[name][metric] / each[against][metric] for each in rounds]
            speed = median(each[name][metric] for each in rounds)
            cells.append(f"{metric} {speed:8.1f} ({median(ratios):.2f} of {against})")
        print(f"  {name:14} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
