"""Throughput of the offline evaluator against the straightforward implementation the tests use as
their oracle.

    python tests/bench/bench_offline.py [DUMP_DIR] [--rounds N]
    python tests/bench/bench_offline.py --codecs [DUMP_DIR] [--rounds N] [--chart FILE.svg]

``--codecs`` compares codecs instead (``codec_tables.py``), on the recorded dump of the tests and
one of the embedded runtime. Without a dump it makes one in a temporary directory. All variants run
interleaved in one process, each round in another order; the speed-up is taken within a round, so
that slow phases of the machine meet all of them. What else runs on the machine is accounted for
twice: "own" compares what remains of the time without that in which threads were ready but had no
CPU, as Linux tells (the average over the coding threads, which share one queue); "per CPU" compares
CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from threading import get_native_id
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from codec_tables import report_codecs
from offline_dumps import naive_sizes, write_entry

from pytest_h2o.offline import evaluate as evaluator
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions, online_sim_options, upper_bound_options

EVERY_LAYER = 1 << 30
OPTION_SETS = {
    "online simulation": online_sim_options(EVERY_LAYER),
    "upper bound": upper_bound_options(EVERY_LAYER),
}
VARIANTS = {
    "compatible": {"verify": False},
    "compatible, verified": {"verify": True},
    "fast": {"verify": False, "fast": True},
    "fast, verified": {"verify": True, "fast": True},
}
DUMPS = {
    "prompts only (what dumps hold by default)": 0,
    "prompts and 48 decoded tokens, an entry each": 48,
}
Sizes = tuple[int, int, int]


@dataclass
class Variant:
    """One way to evaluate: what it runs, and of each round the seconds it took: of the clock, of
    the clock without those in which the working threads waited for a CPU, and of the CPUs.
    """

    run: Callable[[], Sizes]
    sizes: Sizes = (0, 0, 0)
    seconds: list[float] = field(default_factory=list)
    own_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Run once."""
        coding_threads_waited.clear()
        start, cpu_start, waited = time.perf_counter(), time.process_time(), seconds_without_cpu()
        self.sizes = self.run()
        self.seconds.append(time.perf_counter() - start)
        self.cpu_seconds.append(time.process_time() - cpu_start)
        self.own_seconds.append(
            self.seconds[-1] - fmean(coding_threads_waited or [seconds_without_cpu() - waited])
        )


coding_threads_waited: list[float] = []


def seconds_without_cpu(thread: int | None = None) -> float:
    """How long a thread of this process (default: the caller) has been ready to run so far while no
    CPU was free.
    """
    return (
        int(Path(f"/proc/self/task/{thread or get_native_id()}/schedstat").read_text().split()[1])
        / 1e9
    )


class WatchedPool(ThreadPoolExecutor):
    """The pool of the evaluator, noting how long its threads waited before it ends them."""

    def shutdown(self, *arguments: Any, **keywords: Any) -> None:
        """Note, then end."""
        coding_threads_waited.extend(
            seconds_without_cpu(thread.native_id) for thread in self._threads
        )
        super().shutdown(*arguments, **keywords)


def write_dump(root: Path, decoded: int) -> None:
    """32 runs of two layers, 1200 prompt and ``decoded`` tokens each: K drifts around large channel
    means, V depends on the token, so that it repeats where the token does, less exactly so in the
    second layer.
    """
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, 4, 64)) * rng.lognormal(sigma=1.5, size=(2, 4, 64))
    table = rng.normal(size=(2, 400, 4, 64))
    for run in range(32):
        tokens = np.minimum(rng.zipf(1.2, 1200 + decoded), 400) - 1
        for layer in range(2):
            noise = rng.normal(size=(2, len(tokens), 4, 64))
            k = (
                means[layer]
                + 0.1 * noise[0].cumsum(axis=0) / np.sqrt(1 + np.arange(len(tokens)))[:, None, None]
            )
            v = table[layer, tokens] + layer * 0.01 * noise[1]
            write_run(root, np.stack([k, v]).astype("<f2"), f"run{run}", layer)


def write_run(root: Path, values: np.ndarray, run: str, layer: int) -> None:
    """A prefill entry of 1200 tokens, and an entry for each token after it."""
    write_entry(root, values[:, :1200], run=run, layer=layer)
    for at in range(1200, values.shape[1]):
        write_entry(root, values[:, at : at + 1], run=run, layer=layer, start=at)


def evaluated(dump: Path, options: OfflineOptions) -> Sizes:
    """Raw bytes and compressed bytes of K and V."""
    result = evaluate(dump, options)
    k, v = result.tally("k"), result.tally("v")
    return k.raw_bytes + v.raw_bytes, k.compressed_bytes, v.compressed_bytes


def compare(dump: Path, options: OfflineOptions, rounds: int) -> dict[str, Variant]:
    """Measure the straightforward implementation and ours in ``rounds`` rounds, after one that does
    not count.
    """
    variants = {"straightforward": Variant(lambda: naive_sizes(dump, options))}
    for name, changes in VARIANTS.items():
        chosen = replace(options, **changes)
        variants[name] = Variant(lambda chosen=chosen: evaluated(dump, chosen))
    order = list(variants.values())
    for turn in range(rounds + 1):
        for variant in order[turn % len(order) :] + order[: turn % len(order)]:
            variant.measure()
    for variant in order:
        del variant.seconds[0], variant.own_seconds[0], variant.cpu_seconds[0]
    return variants


def table(variants: dict[str, Variant]) -> str:
    """Throughput, speed-up (min, median, max over the rounds), its median without waiting for a CPU
    and per CPU second, and the compression ratio of each variant.
    """
    base = variants["straightforward"]
    lines = [
        f"{'':22}{'MB/s':>8}{'speed-up: min':>16}{'median':>8}{'max':>8}{'own':>8}"
        f"{'per CPU':>9}{'ratio':>9}  sizes"
    ]
    for name, variant in variants.items():
        raw, *compressed = variant.sizes
        gains = gain(base.seconds, variant.seconds)
        own = median(gain(base.own_seconds, variant.own_seconds))
        per_cpu = median(gain(base.cpu_seconds, variant.cpu_seconds))
        same = "equal" if variant.sizes == base.sizes else "differ"
        megabytes = raw / median(variant.seconds) / 1e6
        speed = f"{megabytes:8.1f}{min(gains):16.2f}{median(gains):8.2f}{max(gains):8.2f}"
        lines.append(
            f"{name:22}{speed}{own:8.2f}{per_cpu:9.2f}{raw / sum(compressed):9.4f}  {same}"
        )
    return "\n".join(lines)


def gain(slow: list[float], fast: list[float]) -> list[float]:
    """How many times faster, round by round."""
    return [before / after for before, after in zip(slow, fast, strict=True)]


def report(dump: Path, title: str, rounds: int) -> None:
    """Print one table per option set of the gates."""
    for name, options in OPTION_SETS.items():
        variants = compare(dump, options, rounds)
        raw = variants["straightforward"].sizes[0]
        print(
            f"{title}, {name}: {raw / 1e6:.1f} MB, {options.worker_count()} threads, {rounds} "
            f"rounds"
        )
        print(table(variants), end="\n\n", flush=True)


def main() -> None:
    """Measure on the given dump, or on two made ones."""
    evaluator.ThreadPoolExecutor = WatchedPool
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dump", type=Path, nargs="?", metavar="DUMP_DIR", help="an undamaged fp16 dump"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codecs", action="store_true", help="compare codecs")
    parser.add_argument("--chart", type=Path, help="with --codecs: write an SVG of the last dump")
    arguments = parser.parse_args()
    if arguments.codecs:
        dumps = [arguments.dump] if arguments.dump else []
        report_codecs(dumps, arguments.rounds, arguments.chart)
        return
    if arguments.dump:
        report(arguments.dump, str(arguments.dump), arguments.rounds)
    for title, decoded in {} if arguments.dump else DUMPS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_dump(Path(folder), decoded)
            report(Path(folder), title, arguments.rounds)


if __name__ == "__main__":
    main()
