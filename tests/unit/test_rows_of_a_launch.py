"""Launches that print several rows: each row is looked at as if it were alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pytest_h2o.evidence import (
    decode_evidence,
    eviction_evidence,
    launches_evidence,
    lossless_evidence,
    settings_evidence,
    spans_evidence,
)
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence, Standing

RUNS = Path(__file__).parents[1] / "data" / "runs"
ABOUT_RUNS = (eviction_evidence, lossless_evidence, settings_evidence, spans_evidence)


def in_one_launch(name: str, target: Path, *more: str) -> Path:
    """A recording of two launches as one launch of both lengths, with ``more`` options."""
    source = RUNS / name
    launches = json.loads((source / "launches.json").read_text())
    argv = [*launches[0]["argv"], *more]
    argv[argv.index("-p") + 1] = "512,1024"
    argv[argv.index("-fp") + 1] = "log.md"
    seconds = sum(launch["seconds"] for launch in launches)
    target.mkdir()
    launch = {"argv": argv, "returncode": 0, "seconds": seconds}
    (target / "launch.json").write_text(json.dumps(launch))
    shutil.copy(next(source.glob("configs/*_p512_*.json")), target / "config.json")
    logs = [next(source.glob(f"logs/*_p{length}_*.log")) for length in (512, 1024)]
    header = logs[0].read_text().splitlines()
    rows = [log.read_text().splitlines()[-1] for log in logs]
    (target / "log.md").write_text("\n".join([*header[:-1], *rows, ""]))
    printed = [log.with_suffix(".stdout").read_text() for log in logs]
    (target / "stdout").write_text("".join(printed))
    (target / "stderr").write_text("")
    return target


def on_stdout(folder: Path, second: str = "bench_full") -> Path:
    """The same launch with its rows on stdout, each below its lines; ``second`` printed those of
    the second row.
    """
    argv = json.loads((folder / "launch.json").read_text())["argv"]
    at = argv.index("-fp")
    launch = {"argv": argv[:at] + argv[at + 2 :], "returncode": 0}
    (folder / "launch.json").write_text(json.dumps(launch))
    head, rule, first_row, second_row = (folder / "log.md").read_text().splitlines()
    (folder / "log.md").unlink()
    lines = [
        next((RUNS / name / "logs").glob(f"*_p{length}_*.stdout")).read_text()
        for name, length in (("bench_full", 512), (second, 1024))
    ]
    (folder / "stdout").write_text(
        "\n".join([lines[0], head, rule, first_row, lines[1], second_row, ""])
    )
    return folder


def case_of(directory: Path) -> Run:
    """A recording's only case."""
    recording = read_recording(directory)
    return recording.run(next(iter(recording.cases(resolve()).values())))


def texts(said: list[Evidence], standing: Standing) -> str:
    """What is said with one standing."""
    return "; ".join(item.text for item in said if item.standing == standing)


def every_claim(run: Run) -> list[Evidence]:
    """All that is said of a run."""
    said = launches_evidence([run])
    for about in ABOUT_RUNS:
        said += about(run)
    return said


def test_an_honest_launch_of_two_rows(tmp_path: Path) -> None:
    """Both rows are supported by what was printed, and nothing is held against them."""
    run = case_of(in_one_launch("bench_full", tmp_path / "run"))
    assert (run.problems, len(run.rows)) == ((), 2)
    said = every_claim(run)
    assert texts(said, "contradicted") == ""
    assert "KV shrank after" in texts(said, "supported")
    assert "threads and backend as asked for" in texts(said, "supported")


def test_dropped_plans_of_two_rows(tmp_path: Path) -> None:
    """The lines of the launch speak against all its rows."""
    run = case_of(in_one_launch("bench_claims_without_eviction", tmp_path / "run"))
    assert "plans were dropped as stale" in texts(eviction_evidence(run), "contradicted")


@pytest.mark.parametrize(
    ("pattern", "other", "said"),
    [
        (r"\| CPU +\| +2 \|", "| CPU | 8 |", "threads is 8, asked for 2"),
        (r"\| CPU ", "| METAL ", "backend is METAL, asked for CPU"),
        (r"<br>[0-9.]+ ±", "<br>90000.00 ±", "times the prefill of"),
    ],
)
def test_the_last_row_is_looked_at(tmp_path: Path, pattern: str, other: str, said: str) -> None:
    """What is wrong with one row of several is found."""
    folder = in_one_launch("bench_full", tmp_path / "run")
    table = (folder / "log.md").read_text().splitlines()
    last, count = re.subn(pattern, other, table[-1])
    assert count == 1
    (folder / "log.md").write_text("\n".join([*table[:-1], last, ""]))
    run = case_of(folder)
    assert said in texts(every_claim(run), "contradicted")


def test_rows_between_their_lines(tmp_path: Path) -> None:
    """On stdout each row stands below its own lines, which all checks hold against it."""
    folder = on_stdout(in_one_launch("bench_full", tmp_path / "run"))
    run = case_of(folder)
    said = every_claim(run)
    assert texts(said, "contradicted") == ""
    whole = case_of(RUNS / "bench_full")
    for claim in ("every response was evicted", "the lossless ratio is raw over encoded bytes"):
        supported = [item for item in said if item.claim == claim]
        alone = [item for item in every_claim(whole) if item.claim == claim]
        assert [item.standing for item in supported] == [item.standing for item in alone]
        assert supported[0].standing == "supported"


def test_one_bad_row_between_its_lines(tmp_path: Path) -> None:
    """The lines of a good row do not speak for the other."""
    claims = "bench_claims_without_eviction"
    folder = on_stdout(in_one_launch("bench_full", tmp_path / "run"), claims)
    said = texts(eviction_evidence(case_of(folder)), "contradicted")
    assert "of 256 eviction plans were dropped as stale" in said


def test_a_row_that_no_line_is_of(tmp_path: Path) -> None:
    """Where rows stand in a file of their own, plans of short responses speak for no long one."""
    folder = in_one_launch("bench_full", tmp_path / "run")
    (printed,) = (RUNS / "bench_full" / "logs").glob("*_p512_*.stdout")
    # Without what is left of earlier requests, whose lengths say nothing.
    lines: list[str] = []
    for line in printed.read_text().splitlines():
        if all(int(kv) < 650 for kv in re.findall(r"kv=(\d+)", line)):
            lines.append(line)
    (folder / "stdout").write_text("\n".join(lines))
    said = texts(eviction_evidence(case_of(folder)), "not evidenced")
    assert "which is not there for p1024_g128" in said


def test_baselines_of_two_rows(tmp_path: Path) -> None:
    """Each row is compared with that of its length; a baseline with H2O on is none."""
    off, on = (
        read_recording(in_one_launch(name, tmp_path / name)).records[0]
        for name in ("bench_baseline", "bench_full")
    )
    said = decode_evidence([(off, on), (off, on)])
    assert texts(said, "contradicted") == ""
    assert "prompt tokens on both sides" in texts(said, "supported")
    assert "eviction plans" in texts(decode_evidence([(on, on)]), "contradicted")


def test_launches_of_different_lengths(tmp_path: Path) -> None:
    """Nothing was compared, and that is said."""
    off = read_recording(RUNS / "bench_baseline").records[0]
    on = read_recording(RUNS / "bench_full").records[1]
    assert "printed no row of the same work" in texts(decode_evidence([(off, on)]), "not evidenced")


def test_copied_rows(tmp_path: Path) -> None:
    """Two rows of a launch that agree in every digit were not both measured."""
    folder = in_one_launch("bench_full", tmp_path / "run")
    table = (folder / "log.md").read_text().splitlines()
    copied = table[-2].replace("prompt=512", "prompt=1024")
    (folder / "log.md").write_text("\n".join([*table[:-1], copied, ""]))
    assert "tok/s as" in texts(launches_evidence([case_of(folder)]), "contradicted")


@pytest.mark.parametrize(
    ("options", "standing", "text"),
    [
        ("-t 2,4", "contradicted", "threads is 2, asked for -t 2,4"),
        ("-t 2 -c 0,2", "not evidenced", "no column tells the rows of -c 0,2 apart"),
    ],
)
def test_lists_of_options(tmp_path: Path, options: str, standing: Standing, text: str) -> None:
    """Each value of a list makes rows of its own, which something must tell apart."""
    folder = in_one_launch("bench_full", tmp_path / "run")
    launch = json.loads((folder / "launch.json").read_text())
    argv = launch["argv"]
    at = argv.index("-t")
    launch["argv"] = [*argv[:at], *options.split(), *argv[at + 2 :]]
    table = (folder / "log.md").read_text().splitlines()
    (folder / "log.md").write_text("\n".join([*table, *table[-2:], ""]))
    (folder / "launch.json").write_text(json.dumps(launch))
    assert text in texts(settings_evidence(case_of(folder)), standing)


def test_recorded_lists() -> None:
    """Threads and precisions of a real build, which sorts them in its own order."""
    said = settings_evidence(case_of(RUNS / "bench_columns_varied"))
    assert texts(said, "contradicted") == ""
    assert "no column" not in texts(said, "not evidenced")
    assert "threads is 2, 1, asked for -t 1,2" in texts(said, "supported")


def test_rows_in_a_shared_file(tmp_path: Path) -> None:
    """Where several launches have written to one file nobody knows which row is whose."""
    records = read_recording(RUNS / "bench_full").records
    run = case_of(in_one_launch("bench_full", tmp_path / "run"))
    shared = Run(run.case, (run.launches[0], run.launches[0]), run.rows, ())
    assert len(records) == 2
    for about in ABOUT_RUNS:
        assert "which launch printed it is not known" in texts(about(shared), "not evidenced")
