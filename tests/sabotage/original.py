"""The original kit's acceptance rules as plain functions: what they accept, for comparison.

The offline ratio is taken as met: the original evaluates a fixed dump that the run under test
cannot change. Decode speed is held against a baseline of the same batch, its most demanding mode.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

LOSSY_TARGET, DROP, DEMO_DROP, MAX_QUEUE, MAX_FALLBACK = 3.0, 0.05, 0.08, 8.0, 0.0
BUDGETS = {"full": 30_000.0, "store": 70_000.0}
SPANS = {"full": (128, 128), "store": (16, 384)}
STRICT = [
    f"h2o_lossless_{name}"
    for name in ("decomp_us", "queue_peak", "fallback", "backpressure_skip", "async_queue_peak",
                 "async_wait_us", "decode_cache_hit", "decode_cache_miss")
]  # fmt: skip
TIMES = ("comp_us", "decomp_us")
Row = dict[str, str]


def number(text: str) -> float:
    """The first digits of a text, without an exponent; else what Python makes of it, else 0."""
    found = re.search(r"[-+]?\d*\.?\d+", text)
    try:
        return float(found[0]) if found else float(text)
    except ValueError:
        return 0.0


def rows_of(path: Path) -> list[Row]:
    """Rows of a log: the first header counts for the whole file, lines of another width are
    dropped.
    """
    lines = [line.strip() for line in path.read_text().splitlines()] if path.is_file() else []
    cells = [
        [cell.strip() for cell in line.strip("|").split(" |")]
        for line in lines
        if line.startswith("|")
    ]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:] if len(row) == len(cells[0])]


def values(rows: list[Row], column: str) -> list[float]:
    """A column as numbers; what is not there is 0."""
    return [number(row.get(column, "0").split("±")[0]) for row in rows]


def decode(row: Row) -> float:
    """The digits after the first line break of the speed cell."""
    found = re.search(r"<br>\s*([\d.]+)", row.get("speed(tok/s)", ""))
    return float(found[1]) if found else 0.0


def accepts_bench(launches: Path, arm: str, replicate: int) -> bool:
    """The runtime suite on one case: steps 4, 4.2 and 5, and the quality gate over its rows."""
    directories = sorted(launches.glob(f"bench-*x2-{arm}-r{replicate}"))
    if not directories or any(
        json.loads((d / "launch.json").read_text())["returncode"] for d in directories
    ):
        return False
    rows = [row for d in directories for row in rows_of(d / "log.md")]
    if not rows or not all(column in rows[0] for column in STRICT):
        return False
    lossless, best = (
        "h2o_lossless",
        {name: max(values(rows, name)) for name in (*STRICT, "h2o_lossy")},
    )
    raw, comp, comp_us, decomp_us = (
        values(rows, f"{lossless}_{part}") for part in ("raw_mb", "comp_mb", *TIMES)
    )
    ratios = zip(raw, values(rows, lossless), strict=True)
    printed = "".join((place / "stdout").read_text(errors="replace") for place in directories)
    return (
        any(size > 0 and ratio > 1 for size, ratio in ratios)
        and any(min(each) > 0 for each in zip(raw, comp, comp_us, decomp_us, strict=True))
        and spans_pass(printed, *SPANS[arm])
        and best["h2o_lossy"] >= LOSSY_TARGET
        and 0 < best[f"{lossless}_decomp_us"] <= BUDGETS[arm]
        and best[f"{lossless}_queue_peak"] <= MAX_QUEUE
        and best[f"{lossless}_fallback"] <= MAX_FALLBACK
        and decode_passes(launches, rows)
    )  # fmt: skip


def spans_pass(stdout: str, bootstrap: int, step: int) -> bool:
    """Block spans in the log: some line, none of 192 tokens, and some later block as expected if
    there is any.
    """
    found = re.findall(r"\[H2O-LOSSLESS\].* tokens=(\d+) .*updates=(\d+)", stdout)
    later = [int(tokens) for tokens, updates in found if int(updates) >= 2]
    return (
        bool(found) and all(tokens != "192" for tokens, _ in found) and (not later or step in later)
    )


def decode_passes(launches: Path, rows: list[Row]) -> bool:
    """The fastest row against the fastest row of the baseline; without a baseline nothing is
    asked.
    """
    baseline = [
        decode(row) for d in launches.glob("bench-*-baseline-r1") for row in rows_of(d / "log.md")
    ]
    base = max(baseline, default=0.0)
    return base <= 0 or (base - max(decode(row) for row in rows)) / base <= DROP


def accepts_prompts(launches: Path) -> bool:
    """The real-prompt gate: return codes, decode drop overall and per bucket, some
    decompression.
    """
    sides = {
        side: [demo_run(d) for d in sorted(launches.glob(f"demo-*-{side}-r1"))]
        for side in ("baseline", "candidate")
    }
    if not all(sides.values()) or not all(run["ok"] for runs in sides.values() for run in runs):
        return False
    buckets = [None, *dict.fromkeys(run["bucket"] for run in sides["candidate"])]
    drops = [
        [mean_tps(sides[side], bucket) for side in ("baseline", "candidate")] for bucket in buckets
    ]
    return all(
        base <= 0 or (base - candidate) / base <= DEMO_DROP for base, candidate in drops
    ) and any(run["decomp_us"] > 0 for run in sides["candidate"])


def demo_run(directory: Path) -> dict[str, object]:
    """What the original's runner keeps of one prompt."""
    stdout, path = (directory / "stdout").read_text(errors="replace"), directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    record = json.loads(lines[-1]) if lines else {}
    code = json.loads((directory / "launch.json").read_text())["returncode"]
    usable = record.get("prompt_tokens", 0) > 0 and record.get("prefill_us", 0) > 0
    seconds = record.get("decode_us", 0) / 1e6
    return {
        "ok": code == 0 and "LLM init error" not in stdout and usable,
        "bucket": directory.name.split("_")[1],
        "tps": record.get("decode_tokens", 0) / seconds if seconds > 0 else 0.0,
        "decomp_us": record.get("h2o_lossless_decompress_us", 0),
    }


def mean_tps(runs: list[dict[str, object]], bucket: object) -> float:
    """The mean speed of the prompts of a bucket, or of all, that have one."""
    speeds = [run["tps"] for run in runs if run["tps"] > 0 and bucket in (None, run["bucket"])]
    return sum(speeds) / len(speeds) if speeds else 0.0


def accepts(session: Path) -> bool:
    """Whether the original would accept what a session's directory holds; cases that were not run
    are left out.
    """
    launches = session / "launches"
    bench = [
        (arm, n) for arm in SPANS for n in (1, 2) if any(launches.glob(f"bench-*x2-{arm}-r{n}"))
    ]
    prompts = any(launches.glob("demo-*"))
    return all(accepts_bench(launches, *case) for case in bench) and (
        not prompts or accepts_prompts(launches)
    )
