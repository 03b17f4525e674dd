"""``pytest-h2o sweep`` over several hosts: the same results as on one machine, and nothing that
ended is lost when the driver is killed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pytest_h2o.cli import main

# Prints a table as llm_bench does, for the lossy ratio of its config, and notes it and its host.
PROGRAM = """#!{python} -IS
import json, os, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
lossy = json.load(open(options["-m"]))["kv_h2o_target_lossy_ratio"]
time.sleep({seconds})
speed = f"100.0 ± 1.0<br>{{60 / lossy}} ± 0.5"
with open(options["-fp"], "a") as table:
    print("| model | llm_demo | speed(tok/s) | h2o_lossy | h2o_lossless |", file=table)
    print("| --- | --- | --- | --- | --- |", file=table)
    print(f"| tiny | prompt=64<br>decode=8 | {{speed}} | {{lossy}} ± 0.0 | 1.5 ± 0.0 |", file=table)
open({ended!r}, "a").write(json.dumps([lossy, os.environ.get("HOST", "")]) + "\\n")
"""
LAUNCHER = """#!/bin/sh
HOST=$1; export HOST; shift
exec "$@"
"""
COMBINATIONS = 10
# The driver is killed when so many launches are recorded.
MOMENT = 4


class Swept:
    """A sweep of some combinations of a program that takes its time."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.ended = folder / "ended"
        self._write(
            "llm_bench",
            PROGRAM.format(python=sys.executable, seconds=seconds, ended=str(self.ended)),
        )
        self._write("launcher", LAUNCHER)
        for name in ("llm.mnn", "llm.mnn.weight", "tokenizer.txt"):
            (folder / name).write_text(name)
        (folder / "config.json").write_text('{"llm_model": "llm.mnn"}')
        lossy = [2 + number / 10 for number in range(COMBINATIONS)]
        preset = {"prompts": [64], "gens": [8], "repeat": 1, "h2o_target_lossy_ratios": lossy}
        (folder / "many.json").write_text(json.dumps(preset))

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def words(self, out: str, hosts: str, *more: str) -> list[str]:
        """The command line of the sweep."""
        words = [
            "sweep",
            "--preset",
            str(self.folder / "many.json"),
            "--out",
            str(self.folder / out),
        ]
        words += ["--llm-bench", str(self.folder / "llm_bench")]
        words += ["--model-config", str(self.folder / "config.json")]
        if hosts:
            words += ["--launcher", f"{self.folder / 'launcher'} {{host}}", "--hosts", hosts]
        return [*words, *more]

    def content(self, out: str) -> dict[str, str]:
        """What the sweep left, without the name of its directory."""
        folder = self.folder / out
        files = [folder / "manifest.json", folder / "h2o_metrics.csv"]
        files += [*sorted(folder.glob("logs/*")), *sorted(folder.glob("configs/*"))]
        return {path.name: path.read_text().replace(str(folder), "OUT") for path in files}

    def recorded(self, out: str) -> set[float]:
        """The lossy ratios of the launches that are recorded as ended well."""
        found = set()
        for path in (self.folder / out).glob("launches/*/launch.json"):
            record = json.loads(path.read_text())
            if record["status"] == "ok":
                found.add(record["spec"]["config"]["kv_h2o_target_lossy_ratio"])
        return found

    @property
    def launched(self) -> Counter[float]:
        """How often each lossy ratio was launched to its end."""
        lines = self.ended.read_text().splitlines() if self.ended.exists() else []
        return Counter(json.loads(line)[0] for line in lines)

    @property
    def hosts(self) -> set[str]:
        """The hosts that something was launched on."""
        return {json.loads(line)[1] for line in self.ended.read_text().splitlines()}


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))


def test_results_are_those_of_one_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Manifest, tables, CSV and what is printed: all of it, in the same order."""
    swept = Swept(tmp_path, 0.05)
    assert main(swept.words("one", "")) == 0
    printed = capsys.readouterr().out.replace(str(tmp_path / "one"), "OUT")
    assert main(swept.words("four", "a,b,c,d")) == 0
    assert capsys.readouterr().out.replace(str(tmp_path / "four"), "OUT") == printed
    assert swept.content("one") == swept.content("four")
    assert len(swept.hosts - {""}) > 1
    assert set(swept.launched.values()) == {2}


def test_nothing_that_ended_is_lost(tmp_path: Path) -> None:
    """The driver is killed in the middle, and once more when it has just gone on: what was recorded
    by then is not launched again.
    """
    swept = Swept(tmp_path, 0.2)
    kept: set[float] = set()
    previous = ""
    for out in ("first", "second"):
        resume = ["--resume", str(tmp_path / previous)] if previous else []
        command = [sys.executable, "-m", "pytest_h2o.cli", *swept.words(out, "a,b,c", *resume)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as driver:
            least = MOMENT if out == "first" else 1
            deadline = time.monotonic() + 60
            while len(swept.recorded(out)) < least and time.monotonic() < deadline:
                time.sleep(0.01)
            driver.send_signal(signal.SIGKILL)
        kept |= swept.recorded(out)
        previous = out
    assert len(kept) >= MOMENT
    before = swept.launched
    assert main(swept.words("third", "a,b,c", "--resume", str(tmp_path / "second"))) == 0
    assert len(swept.recorded("third")) == COMBINATIONS
    again = swept.launched - before
    assert not kept & set(again)
    assert kept | set(again) == swept.recorded("third")


def test_kinds_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Speeds of two kinds of hosts in one comparison would say nothing."""
    assert main(Swept(tmp_path, 0).words("out", "pixel=a server=b")) == 2
    assert "hosts of the kinds pixel, server" in capsys.readouterr().err
