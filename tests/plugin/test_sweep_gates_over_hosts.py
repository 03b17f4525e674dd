"""``-m sweep`` over several hosts: each combination is judged as on one machine."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import pytest
from sessions import run
from stand_in import install

# What comes out depends on the combination, and which host made it is noted.
BODY = """
config = json.load(open(sys.argv[sys.argv.index("-m") + 1]))
ratio = str(config.get("kv_h2o_target_lossy_ratio", 1.0))
with (here / "hosts.txt").open("a") as file:
    file.write(json.dumps([os.getcwd(), os.environ.get("H", "")]) + chr(10))
read = pathlib.Path.read_text
pathlib.Path.read_text = lambda path, *more: read(path, *more).replace("2.710", ratio)
"""
RATIOS = [2.5, 3.0, 3.5]
# What a program measures of itself is equal; what is measured of its process is not.
COMPARED = ("gate", "case", "outcome", "value", "target", "margin", "cause")
DIRECTORY = re.compile(r"-r\d+(?:_(\d+))?$")


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))


def sweep(folder: Path) -> list[str]:
    """The options of a session over all combinations."""
    preset = folder.parent / "preset.json"
    values = {"prompts": [512], "gens": [128], "repeat": 1, "h2o_target_lossy_ratios": RATIOS}
    preset.write_text(json.dumps(values))
    words = ["-m", "sweep", "--h2o-preset", str(preset), "--h2o-out", "runs"]
    for knob in ("MAX_MEMORY_INCREASE", "MAX_MEMORY_GROWTH"):
        words += ["--h2o-set", f"{knob}=-1"]
    return words


def swept(folder: Path, *options: str) -> list[dict[str, object]]:
    """The verdicts of a session over all combinations."""
    install(folder, BODY)
    run(folder, *sweep(folder), *options)
    latest = folder / "runs" / "latest" / "summary.json"
    gates: list[dict[str, object]] = json.loads(latest.read_text())["gates"]
    return gates


def content(gates: list[dict[str, object]]) -> list[dict[str, object]]:
    """The verdicts by gate and case, without what tells hosts apart."""
    found = [{name: gate.get(name) for name in COMPARED} for gate in gates]
    return sorted(found, key=lambda gate: f"{gate['gate']} {gate['case']}")


def noted(folder: Path) -> set[tuple[str, str]]:
    """The seats of all launches, as the names of their directories end, each with the host that
    made it.
    """
    found = set()
    for line in (folder / "hosts.txt").read_text().splitlines():
        directory, host = json.loads(line)
        seat = DIRECTORY.search(directory)
        assert seat, directory
        found.add((seat[1] or "", host))
    return found


def test_results_are_those_of_one_machine(tmp_path: Path) -> None:
    """Each gate of each combination has the same value and cause; each combination is launched
    with its baseline on one host, and every host has one.
    """
    one = swept(tmp_path / "one")
    hosts = ["-n", "2", "--h2o-launcher", "env H={host}", "--h2o-hosts", "a,b,c"]
    several = swept(tmp_path / "several", *hosts)
    assert content(several) == content(one)
    values = {gate["value"] for gate in several if gate["gate"] == "lossy"}
    assert values == set(RATIOS)
    assert {gate["outcome"] for gate in several} == {"pass", "fail", "skipped"}
    used: dict[object, set[object]] = {}
    for gate in several:
        used.setdefault(gate["case"], set()).add(gate["host"])
    assert all(len(names) == 1 for names in used.values())
    assert set(chain.from_iterable(used.values())) == {"a", "b", "c"}
    assert noted(tmp_path / "one") == {("", "")}
    assert noted(tmp_path / "several") == {("", "a"), ("2", "b"), ("3", "c")}
    words = [*sweep(tmp_path / "several"), *hosts, "--h2o-plan"]
    plan = run(tmp_path / "several", *words)[1]
    assert re.search(r"at least 6 launches, about \d+ s on 2 of 3 hosts at once; one", plan), plan
    assert not re.search(r"not known", plan)
