"""Run in a process of its own: reports of a few windows with int8 K, int8 K and V, and TQ4."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pytest_h2o.engine import bench_options
from pytest_h2o.engine.config import SHIPPED
from pytest_h2o.runtimes.pymnn import quality
from pytest_h2o.runtimes.pymnn.wheel import quiet
from pytest_h2o.runtimes.pymnn.wheel_bench import load

quality.PROMPT_TOKENS, quality.SCORED_TOKENS, quality.WINDOWS = 256, 24, 2
# Far enough apart that a few hundred kilobytes of heap held or given back weigh little.
quality.LENGTHS = (256, 1280)


def main(config: str, directory: Path) -> None:
    quiet()
    text = (SHIPPED / "heldout.txt").read_text("utf-8")
    for option in ("1", "2", "6"):
        options = bench_options.parse(["-m", config, "-t", "1", "-qatten", option])
        setup = next(bench_options.setups(options))
        report = quality.measure(lambda each: load(each, all_logits=True), setup, text)
        (directory / option).write_text(json.dumps(report))


main(sys.argv[1], Path(sys.argv[2]))
