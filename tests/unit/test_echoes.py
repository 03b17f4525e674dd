"""An echo is no proof: what programs say that they did otherwise, speeds that cannot be, unlike
work.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.evidence import decode_evidence, launches_evidence, settings_evidence
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.parsers.argv_options import behind_program, options_of
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

DATA = Path(__file__).parents[1] / "data"
FIELD = DATA / "field"


def recorded(directory: Path) -> Run:
    """A recording's only case."""
    recording = read_recording(directory)
    return recording.run(next(iter(recording.cases(resolve()).values())))


def contradictions(said: list[Evidence]) -> str:
    """The texts of what is contradicted."""
    return "; ".join(item.text for item in said if item.standing == "contradicted")


def changed(source: Path, target: Path, **files: str) -> Path:
    """A copy of a recording with other files."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for name, text in files.items():
        (target / name.replace("_md", ".md").replace("_json", ".json")).write_text(text)
    return target


def sides(tmp_path: Path, *, column: str, off: str, on: str, words: tuple[str, str]) -> str:
    """What contradicts a comparison of two launches that differ in one column and option."""
    pairs = []
    for side, cell, word in zip(("h2o_off", "h2o_on"), (off, on), words, strict=True):
        source = FIELD / "unlike_work" / side
        table = (source / "log.md").read_text().replace("flashAttention", column)
        table = re.sub(r"\| (on|off) \|", f"| {cell} |", table)
        argv = json.loads((source / "launch.json").read_text())["argv"]
        at = argv.index("-fa")
        argv = [*argv[:at], *word.split(), *argv[at + 2 :]]
        launch = json.dumps({"argv": argv, "returncode": 0})
        folder = changed(source, tmp_path / side, log_md=table, launch_json=launch)
        pairs.append(read_recording(folder).records[0])
    return contradictions(decode_evidence([(pairs[0], pairs[1])]))


@pytest.mark.parametrize(
    ("column", "off", "on"),
    [
        ("flashAttention", "off", "on"),
        ("quantKv", "0", "4"),
        ("smeCoreNum", "2", "4"),
        ("divisionRatioSme2Neon", "41", "50"),
        ("tomorrow", "x", "y"),
        ("precision", "Low", "Normal"),
    ],
)
def test_columns_that_tell_the_work_apart(tmp_path: Path, column: str, off: str, on: str) -> None:
    """Whatever a column is called: what is not measured must be the same."""
    said = sides(tmp_path, column=column, off=off, on=on, words=("", ""))
    assert f"{column} is {on}, {off} in the baseline" in said


@pytest.mark.parametrize(
    ("column", "off", "on"), [("flashAttention", "on", "on"), ("peak(MB)", "10", "12")]
)
def test_like_work(tmp_path: Path, column: str, off: str, on: str) -> None:
    """Equal cells and measurements are no difference."""
    assert sides(tmp_path, column=column, off=off, on=on, words=("", "")) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-zz 1", "-zz 2"), "-zz is 2, 1 in the baseline"),
        (("", "--turbo"), "--turbo is empty, not there in the baseline"),
        (("--sme_cores=1", "--sme-cores 2"), "--sme-cores is 2, 1 in the baseline"),
        (("-qa 0", "-qatten 2"), "-qatten is 2, 0 in the baseline"),
        (("-fp2 a/b.md", "-fp2 c/d.md"), ""),
        (("--backends cpu", ""), "-a is cpu, cpu,cpu in the baseline"),
    ],
)
def test_options_that_tell_the_work_apart(
    tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    """Every option counts, by any spelling; files may differ."""
    found = sides(tmp_path, column="fa", off="1", on="1", words=words)
    assert said in found
    assert bool(said) == bool(found)


def test_configs_that_tell_the_work_apart(tmp_path: Path) -> None:
    """Keys that make the candidate may differ, others not."""
    records = []
    for side, config in (
        ("h2o_off", {"thread_num": 4, "kv_h2o_enable": False, "precision": "low", "dir": "/a"}),
        ("h2o_on", {"thread_num": 4, "kv_h2o_enable": True, "precision": "high", "dir": "/b"}),
    ):
        source = FIELD / "unlike_work" / "h2o_on"
        folder = changed(source, tmp_path / side, config_json=json.dumps(config))
        records.append(read_recording(folder).records[0])
    said = contradictions(decode_evidence([(records[0], records[1])]))
    assert "precision is high, low in the baseline" in said
    assert "kv_h2o_enable" not in said


def test_recorded_unlike_work() -> None:
    """Flash attention on one side only, as it was reported."""
    off, on = (
        read_recording(FIELD / "unlike_work" / side).records[0] for side in ("h2o_off", "h2o_on")
    )
    assert "flashAttention is on, off in the baseline" in contradictions(
        decode_evidence([(off, on)])
    )


def test_backends_of_this_year() -> None:
    """What argv asks for and the table shows is no difference because its name is new."""
    assert contradictions(settings_evidence(recorded(FIELD / "backend_hexagon"))) == ""


def test_a_demo_without_record() -> None:
    """Where none was asked for, the summary is the record."""
    run = recorded(FIELD / "demo_without_record" / "candidate")
    assert run.problems == ()
    assert run.rows[0].samples["decode_tps"].mean > 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "line",
    [
        "[MNN:WARN] OpenCL backend init failed, fallback to CPU",
        "KV quantization enabled",
        "attention: quantized keys on",
        "kv_h2o_enable is ignored by this build",
        "H2O is not supported with this attention option",
        "H2O disabled: layer range is empty",
        "lossless codec switched off",
        "dropping pending eviction plan",
        "No OpenCL device found, running on CPU",
        "metal is unavailable: using CPU instead",
        "unknown key kv_h2o_enable",
        "kv_h2o_enable: false",
        "KV cache is quantized to int8",
    ],
)
def test_what_a_program_says_it_did_otherwise(tmp_path: Path, stream: str, line: str) -> None:
    """On either stream, by the shape of the line."""
    folder = changed(DATA / "runs" / "bench_full", tmp_path / "run")
    for path in folder.rglob("*.stdout"):
        target = path.with_suffix(f".{stream}")
        before = target.read_text() if target.is_file() else ""
        target.write_text(f"{before}\n{line}\n")
    assert line.replace("'", "'")[:20] in contradictions(settings_evidence(recorded(folder)))


@pytest.mark.parametrize(
    "line",
    [
        "[llm_bench] -kv true is deprecated: use `-pg <pp>,<tg>` instead",
        "The device supports: i8sdot:0, fp16:0, i8mm: 0, sve2: 0, sme2: 0",
        "mmap is disabled",
        "Load Cache file error.",
        "KV cache is not quantized",
        "flash attention: on",
        "main, 312, cost time: 51.541000 ms",
        "load tokenizer",
    ],
)
def test_chatter_is_no_admission(tmp_path: Path, line: str) -> None:
    """What is said at every start, and concerns other things."""
    folder = changed(DATA / "runs" / "bench_full", tmp_path / "run")
    for path in folder.rglob("*.stdout"):
        path.write_text(f"{line}\n{path.read_text()}")
    assert contradictions(settings_evidence(recorded(folder))) == ""


def test_an_admission_after_much_else(tmp_path: Path) -> None:
    """Lines that may mean something do not crowd out the one that does."""
    folder = changed(DATA / "runs" / "bench_full", tmp_path / "run")
    lines = [f"kv cache {number}: off" for number in range(50)]
    for path in folder.rglob("*.stdout"):
        path.write_text("\n".join([*lines, "backend init failed, fallback to CPU", ""]))
    assert "fallback to CPU" in contradictions(settings_evidence(recorded(folder)))


def test_what_was_asked_for_is_not_known(tmp_path: Path) -> None:
    """Without argv and config, quantised KV is doubtful: it may have been wanted."""
    folder = changed(FIELD / "backend_hexagon", tmp_path / "run")
    (folder / "launch.json").unlink()
    (folder / "log.md").rename(folder / "bench.log")
    table = (folder / "bench.log").read_text()
    (folder / "bench.log").write_text(f"KV quantization enabled\n{table}")
    said = settings_evidence(recorded(folder))
    assert contradictions(said) == ""
    assert "is not known" in "; ".join(item.text for item in said if item.standing == "doubtful")


def test_comparisons_of_quantised_kv() -> None:
    """Where the option is what is under test, it is no unlike work, and nothing else may differ."""
    off, on = (
        read_recording(FIELD / "unlike_work" / side).records[0] for side in ("h2o_off", "h2o_off")
    )
    on = replace(
        on,
        argv=(*on.argv, "-qatten", "2"),
        spec=replace(on.spec, attention_option=2),
    )
    assert "-qatten" not in contradictions(decode_evidence([(off, on)]))
    assert "-fa" in contradictions(
        decode_evidence([(off, replace(on, argv=(*on.argv, "-fa", "1")))])
    )


def test_quantised_kv_in_the_table(tmp_path: Path) -> None:
    """A column that says so, where no option asked for it."""
    source = FIELD / "backend_hexagon"
    table = (source / "log.md").read_text()
    table = table.replace("| threads |", "| threads | quantKv |").replace("| 4 |", "| 4 | 4 |", 1)
    table = table.replace("| - | - |", "| - | - | - |", 1)
    folder = changed(source, tmp_path / "run", log_md=table)
    said = contradictions(settings_evidence(recorded(folder)))
    assert "quantKv is 4, and was not asked for" in said


@pytest.mark.parametrize(
    ("speeds", "said"),
    [
        ("900.00 ± 2.00<br>40.00 ± 0.50", ""),
        ("900.00 ± 2.00<br>200000.00 ± 100.00", "times the prefill of 900 tok/s"),
        ("9e9 ± 2.00<br>90000000.00 ± 9.00", "bytes/s, more than"),
        ("9e9 ± 2.00<br>9000.00 ± 9.00", ""),
    ],
)
def test_speeds_that_cannot_be(tmp_path: Path, speeds: str, said: str) -> None:
    """Faster than the prompt is read, or than weights can be: with the arithmetic."""
    source = FIELD / "backend_hexagon"
    table = (source / "log.md").read_text().replace("| model |", "| model | modelSize |")
    table = table.replace("| - | - |", "| - | - | - |", 1).replace("| m |", "| m | 350.00 MiB |")
    table = table.replace("900.00 ± 2.00<br>40.00 ± 0.50", speeds)
    found = contradictions(
        launches_evidence([recorded(changed(source, tmp_path / "r", log_md=table))])
    )
    assert said in found
    assert bool(said) == bool(found)


def test_a_gain_that_nothing_explains(tmp_path: Path) -> None:
    """Without eviction a candidate is not three times as fast as its baseline."""
    source = FIELD / "unlike_work" / "h2o_on"
    table = (source / "log.md").read_text().replace("<br>40.00", "<br>120.00")
    slow = read_recording(source).records[0]
    fast = read_recording(changed(source, tmp_path / "h2o_on", log_md=table)).records[0]
    assert "is 3 times the baseline's 40" in contradictions(decode_evidence([(slow, fast)]))
    # One pair of several may have met a busy moment of the machine.
    twins = [
        read_recording(changed(source, tmp_path / f"twin{number}")).records[0]
        for number in range(2)
    ]
    pairs = [(slow, fast), (slow, twins[0]), (slow, twins[1])]
    assert "is 3 times" not in contradictions(decode_evidence(pairs))


def test_options_are_read_without_knowing_them() -> None:
    """Flags, values with a blank or an equals sign, lists given twice, words by place."""
    argv = ["taskset", "-c", "0", "./llm_bench", "-t", "4", "--x_y=1", "-v", "-p", "1,2", "-p", "3"]
    assert options_of(behind_program(argv, "llm_bench")) == {
        "-t": "4", "--x-y": "1", "-v": "", "-p": "1,2,3",
    }  # fmt: skip
    assert options_of(["c.json", "p.txt", "-1"]) == {
        "argument 1": "c.json", "argument 2": "p.txt", "argument 3": "-1",
    }  # fmt: skip
