"""What the plugin costs: where it is not used, beside the binaries' own time, and for each MB of
log.

``python tests/bench/bench_cost.py idle`` measures ``pytest --collect-only`` in a project without
gates, with the plugin and with ``-p no:h2o``, interleaved. ``... readers`` reads a log of 100 MB in
a process of its own. ``... session`` runs the whole acceptance on programs that replay a recorded
one, and says what was not spent in them.

A launch is a program from its start to its exit. Everything else is the plugin's: imports,
collection, hashing, looking at processes, parsing, judging, offline coding of KV dumps, reports.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[1] / "data" / "runs" / "bench_full" / "logs"
ROUNDS = 20
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


# Stands in for both programs: leaves what was recorded of the launch, as late as it did.
TAPE = """#!/bin/sh
recorded={tape}/${{PWD##*/}}
cp -R "$recorded/files/." .
cat "$recorded/stdout"
cat "$recorded/stderr" >&2
exec sleep "$(cat "$recorded/seconds")"
"""


def session(arguments: list[str]) -> None:
    """Record ``-m final`` of the embedded runtime, then run it again on programs that replay what
    was recorded: what is spent outside of the launches, whose length is ``--launches`` in all.
    """
    options = argparse.ArgumentParser(description=session.__doc__)
    options.add_argument("--launches", type=float, default=172.0, metavar="SECONDS")
    options.add_argument("--sessions", type=int, default=1)
    options.add_argument("--recorded", type=Path, metavar="RUN_DIR", help="record nothing")
    options.add_argument("--profile", type=Path, metavar="FILE", help="for pstats")
    given = options.parse_args(arguments)
    # As where people work: imports are compiled once, not each time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"H2O_LOCK_DIR": name, "PYTHONPYCACHEPREFIX": f"{name}/bytecode"}
        recorded = given.recorded or recording(folder / "recorded")
        program = write_tape(recorded, folder / "tape", given.launches)
        profile = [str(given.profile)] if given.profile else []
        for number in range(given.sessions + 1):
            out = folder / str(number)
            replay = [sys.executable, __file__, "replay", str(program), str(out), *profile]
            if not number:  # what is imported is compiled
                replay = [*replay[:5], "", "-k", "lossy or ratio_quality"]
            started = time.perf_counter()
            process = subprocess.run(replay, capture_output=True, text=True, check=False)
            wall = time.perf_counter() - started
            if number:
                own = float(process.stdout.splitlines()[-1])
                report(out / "latest", wall, own)


def recording(out: Path) -> Path:
    """The run directory of an acceptance of the embedded runtime, made now."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "gates"), "-m", "final", "-q"]
    runtime = ["--h2o-runtime", "embedded", "--h2o-out", str(out)]
    subprocess.run([*command, *runtime], cwd=ROOT, capture_output=True, check=False)
    return out / "latest"


def write_tape(recorded: Path, tape: Path, whole: float) -> Path:
    """What the programs of a session left and how long they took, stretched to ``whole`` seconds in
    all; the program that replays it.
    """
    records = {
        path.parent: json.loads(path.read_text())
        for path in recorded.resolve().glob("launches/*/launch.json")
    }
    stretch = whole / sum(record["seconds"] for record in records.values())
    for directory, record in records.items():
        kept = tape / directory.name
        unwritten = shutil.ignore_patterns("launch.json", "config.json", "stdout", "stderr")
        shutil.copytree(directory, kept / "files", ignore=unwritten)
        for stream in ("stdout", "stderr"):
            shutil.copy(directory / stream, kept / stream)
        (kept / "seconds").write_text(str(record["seconds"] * stretch))
    program = tape / "program"
    program.write_text(TAPE.format(tape=tape))
    program.chmod(0o755)
    return program


def replay(program: str, out: str, profile: str = "", *select: str) -> None:
    """An acceptance whose programs replay; its last line is the CPU time of this process."""
    import pytest  # noqa: PLC0415

    from pytest_h2o.runtimes.embedded import EmbeddedRuntime  # noqa: PLC0415

    fingerprint = EmbeddedRuntime.fingerprint
    EmbeddedRuntime.start = lambda self, program_: (program,)
    # Nobody expects CPU time of what is placed elsewhere.
    EmbeddedRuntime.fingerprint = lambda self: {**fingerprint(self), "placement": "replayed"}
    words = [str(ROOT / "gates"), f"--rootdir={ROOT}", "-m", "final", "-q", "--h2o-out", out]
    words += select
    profiler = cProfile.Profile(time.process_time)
    if profile:
        profiler.enable()
    # Hypothesis is for the tests of this project.
    without = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    pytest.main([*words, "--h2o-runtime", "embedded", *without])
    if profile:
        profiler.disable()
        profiler.dump_stats(profile)
    print(time.process_time())


def report(run: Path, wall: float, own: float) -> None:
    """Print what was spent in launches and elsewhere: before the first, between them, after the
    last.
    """
    times: list[tuple[float, float]] = []
    for path in run.glob("launches/*/launch.json"):
        record = json.loads(path.read_text())
        begin = datetime.fromisoformat(record["started_utc"]).timestamp()
        times.append((begin, begin + record["seconds"]))
    launches = sum(end - begin for begin, end in times)
    between = max(end for _, end in times) - min(begin for begin, _ in times) - launches
    gates = json.loads((run / "summary.json").read_text())["gates"]
    outcomes = Counter(gate["outcome"] for gate in gates)
    elsewhere = wall - launches
    print(
        f"{len(times)} launches, {dict(outcomes)}: {launches:.1f} s of {wall:.1f} s; elsewhere "
        f"{elsewhere:.2f} s ({elsewhere / wall:.1%}), {between:.2f} s of it between launches; own "
        f"CPU {own:.2f} s; allowed 2 % + 2 s = {0.02 * launches + 2:.2f} s; "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "session":
        session(rest)
    elif command == "replay":
        replay(*rest)
    else:
        {"idle": idle, "readers": readers}[command]()
