"""How much sooner a sweep ends on several hosts: combinations of a program that sleeps, so that the
hosts are equally fast however few cores this machine has, over real ssh on loopback addresses.

``python tests/bench/bench_hosts.py [COMBINATIONS] [SECONDS]`` prints the time on one host and on
four, and whether the manifests, tables and CSV files are equal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))

from ssh_hosts import SshHosts
from stand_in import install

from pytest_h2o.cli import main

NAMES = "abcd"


def preset(folder: Path, combinations: int) -> Path:
    """A preset of so many combinations."""
    path = folder / "many.json"
    lossy = [round(1 + number / 100, 2) for number in range(combinations)]
    content = {"prompts": [64], "gens": [8], "repeat": 1, "h2o_target_lossy_ratios": lossy}
    path.write_text(json.dumps(content))
    return path


def swept(folder: Path, hosts: SshHosts, names: str, preset_file: Path) -> float:
    """The seconds that a sweep takes on some hosts."""
    words = ["--llm-bench", str(folder / "llm_bench"), "--out", str(folder / f"out_{len(names)}")]
    words += ["--model-config", str(folder / "config.json"), "--launcher", hosts.launcher]
    started = time.monotonic()
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        code = main(["sweep", "--preset", str(preset_file), *words, "--hosts", ",".join(names)])
    if code:
        raise SystemExit(silent.getvalue())
    return time.monotonic() - started


def content(out: Path) -> dict[str, str]:
    """What a sweep left, without the name of its directory."""
    files = [out / "manifest.json", out / "h2o_metrics.csv", *sorted(out.glob("logs/*"))]
    return {path.name: path.read_text().replace(str(out), "OUT") for path in files}


def compare_one_and_four(combinations: int, seconds: float) -> None:
    """Print what both take."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["H2O_LOCK_DIR"] = name
        (folder / "ssh").mkdir()
        install(folder, f"time.sleep({seconds})")
        hosts = SshHosts(folder / "ssh", NAMES)
        try:
            many = preset(folder, combinations)
            one = swept(folder, hosts, NAMES[:1], many)
            print(
                f"{combinations} combinations of {seconds} s on one host: {one:.1f} s", flush=True
            )
            four = swept(folder, hosts, NAMES, many)
        finally:
            hosts.close()
        equal = content(folder / "out_1") == content(folder / "out_4")
    print(f"on four hosts: {four:.1f} s, {four / one:.1%} of it; results equal: {equal}")


if __name__ == "__main__":
    given = [*sys.argv[1:], "100", "1.5"]
    compare_one_and_four(int(given[0]), float(given[1 if len(sys.argv) > 2 else -1]))
