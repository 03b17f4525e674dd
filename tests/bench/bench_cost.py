"""What the plugin costs: where it is not used, beside the binaries' own time, and for each MB of
log.

``python tests/bench/bench_cost.py idle`` measures ``pytest --collect-only`` in a project without
gates, with the plugin and with ``-p no:h2o``, interleaved. ``... readers`` reads a log of 100 MB in
a process of its own. ``... session SECONDS`` runs the whole acceptance three times on programs that
sleep so long, and says what was not spent in them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "runs" / "bench_full" / "logs"
ROUNDS = 20
SESSIONS = 3
READ = """
import resource, sys, time
from pathlib import Path
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.loglines import read_log_facts
from pytest_h2o.runs.ending import what_it_said
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
globals()[sys.argv[2]](*map(Path, sys.argv[1].split()))
seconds = time.process_time() - started
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(seconds, grown / 1024)
"""


def collect(folder: Path, *arguments: str) -> float:
    """CPU seconds of one collection, which a busy machine changes less than its wall time."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == process.wait() == 0
    return usage.ru_utime + usage.ru_stime


def idle() -> None:
    """The difference of pairs, which drifts of the machine hit alike."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_one.py").write_text("def test_one():\n    pass\n")
        collect(folder)
        with_plugin, without = [], []
        for number in range(ROUNDS):
            order = [(with_plugin, ()), (without, ("-p", "no:h2o"))]
            for times, arguments in order if number % 2 else order[::-1]:
                times.append(collect(folder, *arguments))
    differences = [(one - other) * 1e3 for one, other in zip(with_plugin, without, strict=True)]
    quarters = statistics.quantiles(differences)
    print(
        f"with {statistics.median(with_plugin) * 1e3:.0f} ms, without "
        f"{statistics.median(without) * 1e3:.0f} ms"
    )
    print(
        f"difference of {ROUNDS} pairs: median {quarters[1]:.1f} ms, quartiles {quarters[0]:.1f} "
        f"and {quarters[2]:.1f}"
    )


def readers() -> None:
    """CPU seconds and memory of each reader for logs of 10 and 100 MB: real lines with the table at
    the end.
    """
    lines = (DATA / "run_0001_p512_g128.stdout").read_bytes()
    table = (DATA / "run_0001_p512_g128.log").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        log = Path(name, "stdout")
        for size in (10, 100):
            log.write_bytes(lines * (size * 10**6 // len(lines)) + table)
            for reader in ("read_tables", "read_log_facts", "what_it_said"):
                files = f"{log} {log}" if reader == "what_it_said" else str(log)
                command = [sys.executable, "-c", READ, files, reader]
                seconds, grown = map(
                    float, subprocess.run(command, capture_output=True, check=True).stdout.split()
                )
                print(f"{size:3} MB  {reader:<15} {seconds:6.2f} s  {grown:5.1f} MiB more")


def session(seconds: float) -> None:
    """Wall time of ``-m final`` on stand-ins, less the stand-ins' own; there is no KV dump to
    evaluate offline.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
    from sessions import run  # noqa: PLC0415
    from stand_in import install, launches  # noqa: PLC0415

    os.environ.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # as where people work: imports are compiled once, not each time
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"H2O_LOCK_DIR": name, "PYTHONPYCACHEPREFIX": f"{name}/bytecode"}
        install(Path(name, "warm"))
        run(Path(name, "warm"), "-k", "full_strict")
        for number in range(SESSIONS):
            folder = Path(name, str(number))
            install(folder, f"time.sleep({seconds})")
            started = time.perf_counter()
            run(folder, "-m", "final")
            wall = time.perf_counter() - started
            records = [
                json.loads(path.read_text())
                for path in folder.glob("h2o-runs/[0-9]*/launches/*/launch.json")
            ]
            own = sum(record["seconds"] or 0.0 for record in records)
            inside = sum(end - begin for begin, end, *_ in launches(folder)) / 1e9
            print(
                f"{len(records)} launches: {own:.1f} s of {wall:.1f} s ({inside:.1f} s by the "
                f"programs' own clocks); "
                f"elsewhere {wall - own:.2f} s, allowed 2 % + 2 s = {0.02 * own + 2:.2f} s; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1] == "session":
        session(float(sys.argv[2]))
    else:
        {"idle": idle, "readers": readers}[sys.argv[1]]()
