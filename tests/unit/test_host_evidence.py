"""What the operating system sees of a launch beside its memory: helpers, files, clocks, and whether
anybody computed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.evidence.host import computed, computed_alike, ended_alone, kept_in_files
from pytest_h2o.evidence.look import Look
from pytest_h2o.evidence.plausible import possible_speeds
from pytest_h2o.evidence.speed import common_step, decode_evidence
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.loglines import LogFacts
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.launcher import launch
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.usage import Usage
from pytest_h2o.runtimes.base import Command

HELD = "import time; held = bytearray(b'x') * (60 * 2**20); time.sleep(1)"
START = (
    f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-SEc', {HELD!r}])"
)
UNLINKED = """
import tempfile, time
file = tempfile.TemporaryFile()
file.write(b"x" * (20 * 2**20))
file.flush()
time.sleep(0.4)
"""
MAPPED = """
import mmap, tempfile, time
file = tempfile.NamedTemporaryFile()
file.truncate(20 * 2**20)
memory = mmap.mmap(file.fileno(), 20 * 2**20)
file.close()
time.sleep(0.4)
"""


def used(tmp_path: Path, program: str) -> Usage:
    """What a small Python program used."""
    command = Command(
        argv=(sys.executable, "-SE", "-c", program), env={}, cwd=tmp_path,
        config_path=tmp_path / "config.json", config={}, files=(tmp_path / "own",),
    )  # fmt: skip
    return launch(command, tmp_path, 60.0).usage


def test_memory_of_children_counts(tmp_path: Path) -> None:
    """What a child holds is in the peak, and the child is not left when it was waited for."""
    usage = used(tmp_path, f"{START}; child.wait()")
    assert (usage.peak_mb or 0) > 60
    assert (usage.left, usage.uncollected) == (0, 0)
    assert usage.threads == 2


def test_what_is_left_behind_is_counted(tmp_path: Path) -> None:
    """A helper that outlives the program is seen, also if it is nobody's child."""
    assert used(tmp_path, f"{START}; time.sleep(0.2)").left == 1
    daemon = f"import os, time\nif os.fork(): time.sleep(0.2); os._exit(0)\nos.setsid()\n{HELD}"
    assert used(tmp_path, daemon).left == 1


def test_helpers_that_nobody_asks_are_counted(tmp_path: Path) -> None:
    """A child that ended long ago and was not collected."""
    start = "import os, subprocess, time; child = subprocess.Popen(['false']); time.sleep(1.2)"
    # At its end Python would ask.
    assert used(tmp_path, f"{start}; os._exit(0)").uncollected == 1


def test_helpers_that_were_asked_are_not_counted(tmp_path: Path) -> None:
    """A child that was found by its mark, ended and collected, though it is not looked for again
    at once.
    """
    start = "import subprocess, time; child = subprocess.Popen(['sleep', '60']); time.sleep(1.2)"
    ended = f"{start}; child.kill(); child.wait(); time.sleep(0.65)"
    assert used(tmp_path, ended).uncollected == 0


SHARED = UNLINKED.replace("TemporaryFile()", "TemporaryFile(dir='/dev/shm')")


@pytest.mark.parametrize("program", [UNLINKED, MAPPED, SHARED])
def test_files_without_a_name_are_seen(tmp_path: Path, program: str) -> None:
    """A file that is held open or mapped is seen with its size, though no directory has it."""
    usage = used(tmp_path, program)
    assert (usage.opened_mb or 0) == pytest.approx(20, abs=0.1)
    assert "(deleted)" in usage.opened[0]


def test_own_files_are_none_of_them(tmp_path: Path) -> None:
    """What a launch is asked to write, and its output, are not said to be files of its own."""
    usage = used(tmp_path, "import time; file = open('own', 'w'); time.sleep(0.3)")
    assert (usage.opened, usage.opened_mb) == ((), 0.0)


def test_nothing_tells_a_program_that_it_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of pytest and of this plugin stay outside; all others are passed on."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    used(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))")
    environment = json.loads((tmp_path / "stdout").read_text())
    assert not [name for name in environment if "PYTEST" in name or "H2O" in name]
    assert environment["OMP_PROC_BIND"] == "close"


def look(tmp_path: Path, arm: str = "full", **fields: object) -> Look:
    """A launch of one response of 512 and 64 tokens, whose decoding took 10 s."""
    spec = LaunchSpec(
        program="llm_bench", arm=arm, replicate=1, config={}, gen_tokens=64, threads=1,
        repeat=1, prompt_tokens=512,
    )  # fmt: skip
    directory = tmp_path / arm
    directory.mkdir(exist_ok=True)
    record = LaunchRecord(
        spec=spec, status="ok", reason="exit code 0", **standard_paths(directory),
        **({"argv": ("/bin/llm_bench",), "seconds": 20.0} | fields),
    )  # fmt: skip
    samples = {"decode_tps": Sample(6.4), "prefill_tps": Sample(100.0)}
    row = Row(
        kind="bench", label="p512_g64", prompt_tokens=512, decode_tokens=64, cells={}, line=1,
        samples=samples, source=directory / "log.md", problems=(),
    )  # fmt: skip
    return Look(record, row, LogFacts())


@pytest.mark.parametrize(
    ("fields", "standing"),
    [
        ({"cpu_seconds": 9.0}, "supported"),
        ({"cpu_seconds": 0.2}, "contradicted"),
        ({"cpu_seconds": 0.2, "delayed_s": 8.0}, "supported"),
        ({"cpu_seconds": 2.0}, "doubtful"),
        ({"cpu_seconds": 0.2, "argv": ("ssh", "board", "llm")}, "doubtful"),
        ({}, None),
    ],
)
def test_who_computed(tmp_path: Path, fields: dict[str, object], standing: str | None) -> None:
    """A program that spends no time computed nothing, unless it had no core or runs elsewhere."""
    found = computed(look(tmp_path, **fields))
    assert (found.standing if found else None) == standing


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cpu_seconds": 6.0}, True),
        ({"cpu_seconds": 6.0, "delayed_s": 8.0}, False),  # another program had the core
        ({"cpu_seconds": 6.0, "seconds": 9.0}, False),  # it is quicker
        ({"cpu_seconds": 13.0}, False),
        ({"cpu_seconds": 6.0, "argv": ("ssh", "board", "llm")}, False),
    ],
)
def test_an_equal_launch_computes_as_much(
    tmp_path: Path, fields: dict[str, object], told: bool
) -> None:
    """A launch that waits where an equal one computed has its answer from that."""
    first = look(tmp_path, cpu_seconds=18.0)
    second = look(tmp_path, **fields)
    again = replace(second.record, spec=replace(second.spec, replicate=2))
    found = list(computed_alike([first, replace(second, record=again)]))
    assert [each.standing for each in found] == ["contradicted"] * told


def test_what_was_left_is_said(tmp_path: Path) -> None:
    """Processes that were left, or ended unasked, are trouble; a launcher's own are a doubt."""
    assert ended_alone(look(tmp_path, left=0, uncollected=0)) is None
    for fields in ({"left": 1}, {"uncollected": 2}):
        found = ended_alone(look(tmp_path, **fields))
        assert found
        assert found.standing == "contradicted"
        found = ended_alone(look(tmp_path, argv=("docker", "exec", "c", "llm"), **fields))
        assert found
        assert found.standing == "doubtful"


def test_evicted_kv_in_files(tmp_path: Path) -> None:
    """What the candidate alone writes or holds in files is told; what both do is not."""
    plain = look(tmp_path, "baseline", written_mb=1.0, opened_mb=30.0)
    for fields in ({"written_mb": 1.1, "opened_mb": 30.0}, {"written_mb": 30.0, "opened_mb": 70.0}):
        found = list(kept_in_files([(plain, look(tmp_path, **fields))]))
        assert len(found) == (2 if fields["opened_mb"] == 70.0 else 0)
        assert all(each.standing == "contradicted" for each in found)


def test_a_prompt_that_was_not_read(tmp_path: Path) -> None:
    """A prefill thousands of times as fast as the decode reads nothing."""
    seen = look(tmp_path)
    for prefill, standing in (
        (1000.0, "supported"),
        (3000.0, "doubtful"),
        (9000.0, "contradicted"),
    ):
        samples = seen.row.samples | {"prefill_tps": Sample(prefill)}
        changed = replace(seen, row=replace(seen.row, samples=samples))
        assert next(possible_speeds(changed)).standing == standing


@pytest.mark.parametrize("metric", ["prefill_tps", "decode_tps"])
def test_a_speed_of_nothing(tmp_path: Path, metric: str) -> None:
    """No tokens in a second are no speed."""
    seen = look(tmp_path)
    samples = seen.row.samples | {metric: Sample(0.0)}
    said = list(possible_speeds(replace(seen, row=replace(seen.row, samples=samples))))
    assert (said[0].standing, "which is none" in said[0].text) == ("contradicted", True)


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([440_000, 452_000, 192_000, 308_000, 536_000, 548_000], 4000),
        ([134_217, 201_326, 67_108, 268_435, 134_217, 335_544], 67_108),
        ([440_123, 452_777, 192_345, 308_991, 536_204, 548_650], 0),
        ([440_000, 452_000, 192_000], 0),
        ([44, 45, 19, 30, 53, 54], 0),
    ],
)
def test_the_step_of_a_clock(times: list[float], step: float) -> None:
    """Times that are multiples of a step give it away; few ones, and fine clocks, give none."""
    assert common_step(times) == pytest.approx(step, abs=1)


def test_prompts_are_read_as_fast_with_h2o_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A baseline that reads its prompts slowly is told where every pair shows it."""
    sides: dict[str, Look] = {}
    for number in range(3):
        for arm, speed in ((f"base{number}", 50.0), (f"full{number}", 100.0 + number)):
            seen = look(tmp_path, arm)
            samples = seen.row.samples | {"prefill_tps": Sample(speed)}
            sides[arm] = replace(seen, row=replace(seen.row, samples=samples))
    monkeypatch.setattr(
        "pytest_h2o.evidence.speed._looks_of", lambda record: [sides[record.spec.arm]]
    )
    pairs = [(sides[f"base{n}"].record, sides[f"full{n}"].record) for n in range(3)]
    told = [each.text for each in decode_evidence(pairs) if each.standing == "contradicted"]
    assert any("reads its prompt 2 times as fast" in text for text in told)
    for arm, seen in sides.items():
        sides[arm] = replace(seen, lines=LogFacts(max_kv=4000))
    told = [each.text for each in decode_evidence(pairs) if each.standing == "contradicted"]
    assert not any("reads its prompt" in text for text in told)
    even = [(pair[1], pair[1]) for pair in pairs]
    told = [each.text for each in decode_evidence(even) if "reads its prompt" in each.text]
    assert told == []


@pytest.mark.parametrize(
    ("candidates", "baselines", "standing"),
    [
        ((60, 60, 60), (64, 64, 64), "contradicted"),
        ((60, 60), (64, 64), "doubtful"),
        ((60, 61, 60), (64, 64, 64), None),
        ((60, 60, 60), (64, 60, 64), None),
        ((64, 64, 64), (64, 64, 64), None),
    ],
)
def test_answers_end_where_they_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    candidates: tuple[int, ...],
    baselines: tuple[int, ...],
    standing: str | None,
) -> None:
    """Answers to different prompts that all stop at one length are cut; one that ends is not."""
    sides: dict[str, Look] = {}
    for arm, counts in (("full", candidates), ("base", baselines)):
        for number, count in enumerate(counts):
            name = f"{arm}{number}"
            seen = look(tmp_path, name)
            prompt = tmp_path / f"prompt_{number}.txt"
            spec = replace(seen.spec, prompt_file=prompt, prompt_tokens=None)
            row = replace(seen.row, label=prompt.stem, decode_tokens=count)
            sides[name] = replace(seen, row=row, record=replace(seen.record, spec=spec))
    monkeypatch.setattr(
        "pytest_h2o.evidence.speed._looks_of", lambda record: [sides[record.spec.arm]]
    )
    numbers = range(len(candidates))
    pairs = [(sides[f"base{n}"].record, sides[f"full{n}"].record) for n in numbers]
    told = [each for each in decode_evidence(pairs) if "whatever the prompt" in each.text]
    assert [each.standing for each in told] == [standing] * bool(standing)
