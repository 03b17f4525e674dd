"""How much memory the evaluation of large dumps takes on hosts: two dumps on two real ssh servers
of this machine, beside that of dumps of a tenth of their size.

``nice -n 19 python tests/bench/bench_large_dumps.py [GIB]`` writes dumps of so many GiB together
(default 2) into a temporary directory, and prints bytes, seconds, and the peak memory of the
program on each host and of what drives them. Eight blocks of values are written again and again,
in another order for each run.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from offline_dumps import write_entry
from ssh_hosts import SshHosts

from pytest_h2o.cli import main as pytest_h2o

TOKENS, HEADS, DIM, LAYERS = 4096, 8, 128, 2
GIB = 2**30
ENTRY_BYTES = 2 * 2 * TOKENS * HEADS * DIM
BLOCKS = 8


def blocks() -> list[np.ndarray]:
    """Values whose channels have large means, as keys do."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(BLOCKS):
        means = rng.normal(size=(2, 1, HEADS, DIM)) * rng.lognormal(size=(1, 1, HEADS, DIM))
        noise = rng.standard_normal((2, TOKENS, HEADS, DIM), dtype=np.float32)
        found.append((means + 0.1 * noise).astype("<f2"))
    return found


def write_dump(root: Path, size: int, values: list[np.ndarray]) -> int:
    """Runs of two layers until the dump has so many bytes; how many it has."""
    written = run = 0
    while written < size:
        for layer in range(LAYERS):
            write_entry(root, values[(run + 3 * layer) % BLOCKS], run=f"run{run}", layer=layer)
            written += ENTRY_BYTES
        run += 1
    return written


def evaluated(folder: Path, hosts: SshHosts, dumps: dict[str, Path]) -> tuple[float, list[int]]:
    """Seconds, and the peaks in KiB of the programs on the hosts."""
    peaks = folder / "peaks"
    peaks.write_text("")
    program = f"/usr/bin/time -a -o {peaks} -f %M {sys.executable} -m pytest_h2o.cli"
    words = ["offline", *(f"{name}:{path}" for name, path in dumps.items())]
    words += ["--launcher", hosts.launcher, "--hosts", ",".join(dumps)]
    words += ["--far-command", program, "--threads", "1", "--overwrite"]
    started = time.monotonic()
    assert pytest_h2o([*words, "--out-json", str(folder / "out.json")]) == 0
    return time.monotonic() - started, [int(peak) for peak in peaks.read_text().split()]


def main() -> None:
    """Write, evaluate and print, small dumps first."""
    size = int(float(sys.argv[1]) * GIB) if len(sys.argv) > 1 else 2 * GIB
    values = blocks()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["H2O_LOCK_DIR"] = name
        (folder / "ssh").mkdir()
        hosts = SshHosts(folder / "ssh", "ab")
        try:
            for part in (size // 10, size):
                dumps = {host: folder / f"{host}{part}" for host in "ab"}
                written = sum(write_dump(path, part // 2, values) for path in dumps.values())
                seconds, peaks = evaluated(folder, hosts, dumps)
                raw = json.loads((folder / "out.json").read_text())["raw_bytes"]
                driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                shown = ", ".join(f"{peak / 1024:.0f}" for peak in peaks)
                print(
                    f"{written / GIB:.2f} GiB written, {raw / GIB:.2f} GiB evaluated: "
                    f"{seconds:.0f} s, peak MiB on hosts {shown}, driver {driver / 1024:.0f}",
                    flush=True,
                )
                for path in dumps.values():
                    shutil.rmtree(path)
        finally:
            hosts.close()


if __name__ == "__main__":
    main()
