"""Sessions of the gates on stand-ins, each in a process of its own, and waiting for what happens in
them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from stand_in import ROOT, launches

GATES = str(ROOT / "gates")
# The first launch of the candidate kills the process that made it.
KILL_WORKER = """
if "-store-" in os.getcwd() and not (here / "killed").exists():
    (here / "killed").touch()
    os.kill(os.getppid(), 9)
    time.sleep(600)
"""
PATIENCE_S = 60.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The gates on the stand-ins of ``folder``, in a process of their own."""
    options = ["--llm-bench", str(folder / "llm_bench"), "--llm-demo", str(folder / "llm_demo")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        GATES,
        f"--rootdir={ROOT}",
        "-o",
        f"cache_dir={folder / 'cache'}",
    ]
    command += ["-p", "no:hypothesispytest"]  # 0.3 s for each process
    return subprocess.Popen(
        [*command, *options, "--model-config", str(folder / "config.json"), *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(folder: Path, *arguments: str) -> tuple[dict[str, int], str]:
    """The outcomes by word, and what was printed."""
    output = start(folder, *arguments).communicate(timeout=600)[0]
    return {
        word: int(count)
        for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", output)
    }, output


def made(folder: Path) -> list[str]:
    """The directories of the launches that ended, by name."""
    return sorted(Path(launch[2]).name for launch in launches(folder))


def wait_until(condition: object) -> None:
    """Wait for what must happen soon."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: str) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
