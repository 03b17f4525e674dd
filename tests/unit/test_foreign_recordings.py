"""Recordings as others keep them: pasted logs, paths of Windows, other spellings, lists that end
early.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_h2o.evidence import settings_evidence
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import Run

DATA = Path(__file__).parents[1] / "data"
PRINTED = DATA / "field" / "demo_without_record" / "candidate" / "prompt_128_1.stdout"
HEXAGON = DATA / "field" / "backend_hexagon"
PACK = DATA / "archives" / "llm_demo"
RUNS = "candidate/candidate_runs.jsonl"


def runs_of(root: Path) -> dict[str, Run]:
    """The runs of a recording, without cases that it has no launch of."""
    recording = read_recording(root)
    cases = recording.cases(resolve())
    return {part.name: recording.run(cases[part.name]) for part in recording.parts}


@pytest.mark.parametrize("name", ["prompt_128_1.log", "x.stdout.log", "a b.log", "logs/1.log"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_pasted_log_of_llm_demo(tmp_path: Path, name: str, encoding: str) -> None:
    """It says itself which prompt it is of; what was asked for is not known, and not evidenced."""
    (tmp_path / "logs").mkdir()
    (tmp_path / name).write_bytes(PRINTED.read_text().encode(encoding))
    run = runs_of(tmp_path)["candidate"]
    assert run.problems == ()
    [row] = run.rows
    assert (row.label, row.decode_tokens) == ("prompt_128_1", 128)
    assert {item.standing for item in settings_evidence(run)} == {"not evidenced"}


def test_pasted_logs_beside_other_launches(tmp_path: Path) -> None:
    """Prompts are a case of their own; one that was cut off is no launch that ended."""
    root = Path(shutil.copytree(DATA / "runs" / "bench_full", tmp_path / "night"))
    (root / "a.log").write_text(PRINTED.read_text())
    (root / "b.log").write_text(PRINTED.read_text()[:300])
    runs = runs_of(root)
    assert len(runs["night"].rows) == 2
    [problem] = runs["candidate"].problems
    assert "no summary block on stdout" in problem


@pytest.mark.parametrize(
    "argv",
    [
        [r"C:\mnn\llm_demo.exe", r"m\config.json", r"prompts\prompt_128_1.txt", "128"],
        ["adb", "shell", "/data/mnn_llm_demo", "m/config.json", "prompt_128_1.txt", "128"],
        ["./llm-demo", "m/config.json", "prompt_128_1.txt", "128"],
    ],
)
def test_command_lines_of_llm_demo(tmp_path: Path, argv: list[str]) -> None:
    """Of any system and build."""
    shutil.copy(PRINTED, tmp_path / "prompt_128_1.stdout")
    (tmp_path / "launch.json").write_text(json.dumps({"argv": argv, "returncode": 0}))
    run = runs_of(tmp_path)["candidate"]
    assert (run.problems, run.rows[0].label) == ((), "prompt_128_1")
    assert "contradicted" not in {item.standing for item in settings_evidence(run)}


@pytest.mark.parametrize(
    "words",
    [
        ["./llm_bench", "-m", "m/config.json", "--backends=hexagon", "--threads=4"],
        [r"C:\b\llm_bench.exe", "-m", r"m\config.json", "-a", "hexagon", "-t", "4"],
        ["/x/llm_bench_v6", "-m", "m/config.json", "-a", "HEXAGON"],
        ["nice", "-n", "5", "./mnn_llm_bench", "-m", "m/config.json", "-a", "Hexagon"],
    ],
)
def test_command_lines_of_llm_bench(tmp_path: Path, words: list[str]) -> None:
    """With equals signs, backslashes, other names and other letters."""
    root = Path(shutil.copytree(HEXAGON, tmp_path / "r"))
    argv = [*words, "-kv", "true", "-p", "512", "-n", "128", "-rep", "3", "-fp", r"out\log.md"]
    (root / "launch.json").write_text(json.dumps({"argv": argv, "returncode": 0}))
    [run] = runs_of(root).values()
    assert (run.problems, [row.label for row in run.rows]) == ((), ["p512_g128"])
    assert "supported" in {item.standing for item in settings_evidence(run)}


@pytest.mark.parametrize("backend", ["cuda", "opencl", "npu", "tomorrow"])
@pytest.mark.parametrize("shown", ["", "CPU"])
def test_other_backends(tmp_path: Path, backend: str, shown: str) -> None:
    """One that is asked for and shown is fine, whatever it is called; another one is not."""
    root = Path(shutil.copytree(HEXAGON, tmp_path / "r"))
    table = (root / "log.md").read_text().replace("HEXAGON", shown or backend.upper())
    (root / "log.md").write_text(table)
    launch = (root / "launch.json").read_text().replace("hexagon", backend)
    (root / "launch.json").write_text(launch)
    [run] = runs_of(root).values()
    said = "; ".join(i.text for i in settings_evidence(run) if i.standing == "contradicted")
    assert said.startswith(f"backend is CPU, asked for {backend.upper()}" if shown else "")
    assert bool(said) == bool(shown)


def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACK, tmp_path / "pack"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode()[:-30],
        lambda text: text.replace('"prompts_used/', '"C:\\\\p\\\\').encode(),
    ],
    ids=["utf-16", "marked", "crlf", "cut off", "windows"],
)
def test_lists_of_prompts_as_others_leave_them(tmp_path: Path, change: object) -> None:
    """Every launch is read, and meets its baseline by name."""
    root = pack(tmp_path)
    text = (root / RUNS).read_text()
    (root / RUNS).write_bytes(change(text))  # type: ignore[operator]
    run = runs_of(root)["candidate"]
    assert (run.problems, len(run.rows)) == ((), 2)


def test_a_broken_line_in_a_list_of_prompts(tmp_path: Path) -> None:
    """It is named; only a last line may have been cut off."""
    root = pack(tmp_path)
    first, *rest = (root / RUNS).read_text().splitlines()
    (root / RUNS).write_text("\n".join([first[:-20], *rest]) + "\n")
    with pytest.raises(RecordingError, match=r"candidate_runs.jsonl, line 1: .*; mend it"):
        read_recording(root)


PG_TABLE = """| model | backend | threads | test | speed(tok/s) |
| - | - | - | - | - |
| m | METAL | 4 | pp512 | 5000.00 ± 8.00 |
| m | METAL | 4 | tg128 | 345.00 ± 1.00 |
| m | METAL | 4 | pp512+tg128 | {both} |
"""


@pytest.mark.parametrize(
    ("both", "metrics"),
    [
        ("4990.00 ± 9.00<br>293.00 ± 0.40", {"prefill_tps": 4990.0, "decode_tps": 293.0}),
        ("512.50 ± 0.40", {"combined_tps": 512.5}),
    ],
)
def test_rows_of_one_number_beside_rows_of_two(
    tmp_path: Path, both: str, metrics: dict[str, float]
) -> None:
    """Each number is what its test measures, whatever other rows of the column hold."""
    (tmp_path / "pg.log").write_text(PG_TABLE.format(both=both))
    [table] = read_tables(tmp_path / "pg.log")
    found = [{name: each.mean for name, each in row.samples.items()} for row in table.rows]
    assert found == [{"prefill_tps": 5000.0}, {"decode_tps": 345.0}, metrics]
    assert [row.problems for row in table.rows] == [(), (), ()]


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        ("m/config.json", "supported"),
        ("/data/local/m/config.json", "supported"),
        (r"C:\m\config.json", "supported"),
        ("m/config_h2o_off.json", "contradicted"),
    ],
)
def test_a_config_that_was_not_kept(tmp_path: Path, said: str, standing: str) -> None:
    """What argv names is held against what the program says, not the name that a copy would have;
    the config itself is not evidenced.
    """
    (tmp_path / "prompt_128_1.stdout").write_text(
        PRINTED.read_text().replace("config path is m/config.json", f"config path is {said}")
    )
    argv = ["./llm_demo", "m/config.json", "prompt_128_1.txt", "128"]
    (tmp_path / "launch.json").write_text(json.dumps({"argv": argv, "returncode": 0}))
    evidence = settings_evidence(runs_of(tmp_path)["candidate"])
    assert {item.standing for item in evidence} == {standing, "not evidenced"}
