"""Recorded output of stock MNN programs (2026), each directory with its verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.evidence import decode_evidence, launches_evidence
from pytest_h2o.evidence.speed import WORK
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.kit.command_lines import bench_line
from pytest_h2o.parsers.bench_json import read_bench_json
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.demo_output import read_demo
from pytest_h2o.parsers.rows import Row
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launch
from pytest_h2o.runtimes import LLM_BENCH, LLM_DEMO

STOCK = Path(__file__).parents[1] / "data" / "upstream"
# Good launches: the label of each row, and by eye the prefill and decode speed of the last one.
GOOD = {
    "bench_kv_true": (["p512_g128", "p1024_g128"], (2930.40, 697.80)),
    "bench_fa": (["p512_g64"] * 4, (3353.84, 1132.64)),
    "bench_h2o_keys_ignored": (["p512_g128"], (2646.34, 757.47)),
    "bench_json": (["p512_g64"], (3264.75, 1031.42)),
    "bench_kv_quant": (["p512_g128", "p1024_g128"] * 7, None),
    "bench_pg": (["pp512", "tg128", "pp512+tg128"], (2319.50, 891.47)),
    "bench_pp_tg": (["pp512", "pp1024", "tg128"], (None, 1964.70)),
    "bench_pp_tg_pg": (["pp512", "tg128", "pp512+tg128"], (2313.98, 517.24)),
    "bench_profile": (["p128_g16"], (3428.81, 1119.67)),
    "bench_quant4": (["p1024_g128"], (457.25, 250.53)),
}


def rows_of(name: str) -> tuple[Row, ...]:
    (table,) = read_tables(STOCK / name / "log.md", 3)
    assert table.problems == ()
    return table.rows


def argv_of(name: str) -> list[str]:
    words: list[str] = json.loads((STOCK / name / "launch.json").read_text())["argv"]
    return words


def test_every_recording_is_judged_here() -> None:
    """None is left out."""
    others = {"bench_bad_flag", "bench_missing_model", "demo_128_1", "demo_512_1", "demo_2048_1"}
    others |= {"demo_metrics_flag", "ppl"}
    assert {path.name for path in STOCK.iterdir() if path.is_dir()} == {*GOOD, *others}


@pytest.mark.parametrize("name", GOOD)
def test_good_tables(name: str) -> None:
    """Every row is read without a problem, as many as the command line asks for."""
    labels, speeds = GOOD[name]
    rows = rows_of(name)
    assert [row.label for row in rows] == labels
    assert [row.problems for row in rows] == [()] * len(rows)
    assert sorted(bench_line(argv_of(name)).labels) == sorted(labels)
    assert LLM_BENCH.failure((STOCK / name / "stdout").read_text()) == ""
    if speeds:
        found = [rows[-1].samples.get(metric) for metric in ("prefill_tps", "decode_tps")]
        assert tuple(sample and sample.mean for sample in found) == speeds


@pytest.mark.parametrize("name", ["bench_pg", "bench_pp_tg", "bench_pp_tg_pg"])
def test_a_lone_number_is_the_speed_of_what_ran(name: str) -> None:
    """Rows of one kind have one number, also under the header that promises two."""
    for row in rows_of(name):
        expected = {"prefill_tps"} if row.label.startswith("pp") else {"decode_tps"}
        if "+" in row.label:
            expected = {"prefill_tps", "decode_tps"}
        assert set(row.samples) == expected


def test_json_is_the_table_unrounded() -> None:
    """The file has quantKv and flashAttention beside the settings."""
    (row,) = read_bench_json(STOCK / "bench_json" / "out.json", 3)
    (shown,) = rows_of("bench_json")
    for metric, sample in shown.samples.items():
        assert row.samples[metric].mean == pytest.approx(sample.mean, abs=0.005)


def test_a_table_of_nothing_is_a_bad_launch() -> None:
    """Exit 0 and a full table, but no model: the program's words and each row tell it."""
    stdout = STOCK / "bench_missing_model" / "stdout"
    assert "model could not be loaded" in LLM_BENCH.failure(stdout.read_text())
    (table,) = read_tables(stdout, 5)
    for row in table.rows:
        assert "no weight file was read" in row.problems[0]


def test_a_refused_option_is_no_table() -> None:
    """The usage with its bars is not taken for rows."""
    assert read_tables(STOCK / "bench_bad_flag" / "stdout") == ()


@pytest.mark.parametrize(
    "said", ["Can't Find type=3 backend, use 0 instead\n", "Vulkan error. Turn back to cpu\n"]
)
@pytest.mark.parametrize("program", [LLM_BENCH, LLM_DEMO])
def test_another_backend_is_a_bad_launch(program: object, said: str) -> None:
    """The table still names the backend that was asked for; a model may write these words."""
    assert "another backend" in program.failure(said)  # type: ignore[attr-defined]
    assert LLM_DEMO.failure(f"prompt file is\n\nprompt file is x\n{said}") == ""


@pytest.mark.parametrize(
    ("name", "prompt", "decode"),
    [
        ("demo_128_1", 165, 480),
        ("demo_512_1", 664, 768),
        ("demo_metrics_flag", 165, 160),
    ],
)
def test_demo_without_a_record(name: str, prompt: int, decode: int) -> None:
    """The summary alone is judged; counts are sums over the lines of the prompt file."""
    row = read_demo(STOCK / name / "stdout", None, name)
    assert (row.prompt_tokens, row.decode_tokens, row.problems) == (prompt, decode, ())
    assert set(row.samples) == {"prefill_tps", "decode_tps"}


def test_long_demo() -> None:
    """Text full of quotes and number signs is no summary."""
    row = read_demo(STOCK / "demo_2048_1" / "stdout", None, "demo")
    assert row.problems == ()


@pytest.mark.parametrize("option", ["-qa", "-fa", "-c", "-t", "--something-new"])
def test_any_option_with_a_list_multiplies_rows(option: str) -> None:
    """What an option means need not be known."""
    line = bench_line(["llm_bench", "-kv", "true", "-p", "8", "-n", "4", option, "1,2,3"])
    assert line.labels == ("p8_g4",) * 3


def one_row(name: str, at: int, folder: Path) -> LaunchRecord:
    """The recording ``name`` as if its table had this row alone."""
    shutil.copytree(STOCK / name, folder)
    header, rule, *rows = (folder / "log.md").read_text().splitlines()
    (folder / "log.md").write_text("\n".join([header, rule, rows[at], ""]))
    return read_recording(folder).records[0]


@pytest.mark.parametrize(
    ("baseline", "candidate", "said"),
    [
        (("bench_fa", 0), ("bench_fa", 1), "flashAttention is on, off in the baseline"),
        (("bench_fa", 0), ("bench_fa", 2), "threads is 1, 2 in the baseline"),
        (("bench_kv_true", 1), ("bench_quant4", 0), "quantKv is 4, not there in the baseline"),
        (("bench_fa", 0), ("bench_fa", 0), ""),
    ],
)
def test_recorded_rows_that_are_of_unlike_work(
    tmp_path: Path, baseline: tuple[str, int], candidate: tuple[str, int], said: str
) -> None:
    """Every cell that is neither measured nor a label must be that of the baseline."""
    before = one_row(*baseline, tmp_path / "before")
    after = one_row(*candidate, tmp_path / "after")
    (found,) = [each for each in decode_evidence([(before, after)]) if each.claim == WORK]
    assert found.standing == ("contradicted" if said else "supported")
    assert said in found.text


@pytest.mark.parametrize("changed", [False, True])
def test_a_prompt_in_another_form_is_said(tmp_path: Path, changed: bool) -> None:
    """Where the directory of a launch holds a prompt of its own, its lines were joined."""
    shutil.copytree(STOCK / "demo_128_1", tmp_path, dirs_exist_ok=True)
    record = read_recording(tmp_path).records[0]
    spec = replace(record.spec, prompt_file=Path("prompts/prompt_128_1.txt"))
    record = replace(record, spec=spec, directory=tmp_path)
    if changed:
        (tmp_path / "prompt_128_1.txt").write_text("one line")
    rows, problems = read_launch(record, ())
    run = Run("llm_demo", (record,), tuple(rows), tuple(problems))
    said = [each.text for each in launches_evidence([run]) if each.standing == "doubtful"]
    assert any("its lines were joined by spaces" in text for text in said) == changed
