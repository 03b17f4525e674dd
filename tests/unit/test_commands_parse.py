"""`pytest-h2o parse`: recorded logs against the original's rules, and what it says about files
without a table.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pytest_h2o.cli import main
from pytest_h2o.commands.parse import MAX_NOTES
from pytest_h2o.kit.bench_csv import COLUMNS

RUNS = Path(__file__).parents[1] / "data" / "runs"
TABLE = "| model | llm_demo | speed(tok/s) | zeta | alpha |\n| --- | --- | --- | --- | --- |\n"


def parse(tmp_path: Path, *logs: Path) -> tuple[int, list[dict[str, str]], list[str]]:
    """Exit code, rows and columns of the CSV."""
    output = tmp_path / "metrics.csv"
    code = main(["parse", *map(str, logs), "-o", str(output)])
    if not output.exists():
        return code, [], []
    with output.open(newline="") as stream:
        reader = csv.DictReader(stream)
        return code, list(reader), list(reader.fieldnames or [])


def original_rows(log: Path) -> list[dict[str, str]]:
    """The original parser's rules: first line with bars is the header, the second is skipped, the
    rest are rows.
    """
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip().startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header = cells[0]
    rows = [
        row
        for row in cells[2:]
        if len(row) == len(header) and not all(set(cell) <= {"-", ":"} for cell in row)
    ]
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    "log",
    [
        "bench_full/logs/run_0001_p512_g128.log",
        "bench_store/logs/run_0002_p1024_g128.log",
        "bench_baseline/logs/run_0001_p512_g128.log",
        "bench_columns_varied/log.md",
        "bench_prefill_decode_table/log.md",
    ],
)
def test_agrees_with_the_original(tmp_path: Path, log: str) -> None:
    """A log with one table gives the rows and cells that the original's rules give, and its
    path.
    """
    code, rows, columns = parse(tmp_path, RUNS / log)
    assert code == 0
    assert [{**row, "log_file": str(RUNS / log)} for row in original_rows(RUNS / log)] == rows
    known = [column for column in COLUMNS if column in columns]
    assert columns == known + sorted(set(columns) - set(COLUMNS))


def test_json(tmp_path: Path) -> None:
    """The JSON file of a launch and its table give the same speeds, each under its own column."""
    run = RUNS / "bench_json"
    code, (from_table, from_json), columns = parse(tmp_path, run / "log.md", run / "out.json")
    assert (code, "llm_demo" in columns) == (0, True)
    prefill, decode = (float(from_json[f"{kind}_tps"]) for kind in ("prefill", "decode"))
    speeds = [float(part.partition(" ± ")[0]) for part in from_table["speed(tok/s)"].split("<br>")]
    assert speeds == pytest.approx([prefill, decode], abs=0.005)


def test_json_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another JSON file, or one without results, is named."""
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty.json").write_text('{"results": []}')
    assert parse(tmp_path, tmp_path / "other.json", tmp_path / "empty.json")[0] == 2
    said = capsys.readouterr().err
    assert "no list of results" in said
    assert "empty.json: holds no result" in said


def test_appended_log(tmp_path: Path) -> None:
    """Of a log with two launches both rows are data; the repeated header, a row in the original, is
    not.
    """
    log = RUNS / "bench_appended" / "log.md"
    _, rows, _ = parse(tmp_path, log)
    expected = [row for row in original_rows(log) if row["model"] != "model"]
    assert len(expected) == 2
    assert [{**row, "log_file": str(log)} for row in expected] == rows


def test_table_between_other_lines(tmp_path: Path) -> None:
    """Recorded stdout with the table in it is a log as well: two rows."""
    code, rows, _ = parse(tmp_path, RUNS / "bench_stdout_table" / "stdout")
    assert (code, len(rows)) == (0, 2)


def test_files_are_read_once(tmp_path: Path) -> None:
    """A directory, a file in it and a link to it are two logs, in the directory's order."""
    logs = RUNS / "bench_full" / "logs"
    link = tmp_path / "link.log"
    link.symlink_to(logs / "run_0002_p1024_g128.log")
    code, rows, _ = parse(tmp_path, logs, logs / "run_0001_p512_g128.log", link)
    assert code == 0
    assert [Path(row["log_file"]).name for row in rows] == [
        "run_0001_p512_g128.log",
        "run_0002_p1024_g128.log",
    ]


def test_logs_by_other_names(tmp_path: Path) -> None:
    """Of a directory, tables and results are read whatever their files are called, and no other
    text or JSON is.
    """
    folder = tmp_path / "logs"
    folder.mkdir()
    row = "| m | prompt=8<br>decode=4 | 9.00 ± 0.10<br>3.00 ± 0.10 | 1 | 2 |\n"
    for name in ("a.log", "b.LOG", "c.txt", "d.log.1", "e"):
        (folder / name).write_text(TABLE + row)
    (folder / "f.json").write_bytes((RUNS / "bench_json" / "out.json").read_bytes())
    (folder / "config.json").write_text('{"results": 3}')
    (folder / "notes.txt").write_text("nothing | of note\n")
    (folder / "README.md").write_text("about | these\n")
    code, rows, _ = parse(tmp_path, folder)
    read = [Path(each["log_file"]).name for each in rows]
    assert (code, read) == (0, ["a.log", "b.LOG", "c.txt", "d.log.1", "e", "f.json"])


def test_columns_of_different_tables(tmp_path: Path) -> None:
    """Every row is keyed by its own header; unknown columns come last by name, absent cells are
    empty.
    """
    first, second = tmp_path / "a.log", tmp_path / "b.md"
    first.write_text(TABLE + "| m | prompt=8<br>decode=4 | 1<br>2 | z | a |\n")
    second.write_text("| h2o_lossy | llm_demo |\n| --- | --- |\n| 3.1 | prompt=16<br>decode=4 |\n")
    (tmp_path / "notes.txt").write_text(TABLE)
    code, rows, columns = parse(tmp_path, tmp_path)
    assert code == 0
    assert columns == [
        "model",
        "llm_demo",
        "speed(tok/s)",
        "h2o_lossy",
        "log_file",
        "alpha",
        "zeta",
    ]
    assert [(row["zeta"], row["h2o_lossy"]) for row in rows] == [("z", ""), ("", "3.1")]


@pytest.mark.parametrize(
    ("logs", "code", "words"),
    [
        (
            ["fail_killed_midway"],
            2,
            ["fail_killed_midway/log.md: holds no table", "no rows in 1 files"],
        ),
        (
            ["fail_killed_midway", "bench_full/logs"],
            0,
            ["fail_killed_midway/log.md: holds no table"],
        ),
        (["nowhere.log"], 2, ["nowhere.log: cannot be read: No such file", "no rows"]),
        (["bench_full/configs"], 2, ["no rows in 0 files"]),
    ],
)
def test_files_without_rows(
    tmp_path: Path, logs: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without a table is named; without any row nothing is written and the exit code is
    1.
    """
    returned, rows, _ = parse(tmp_path, *(RUNS / log for log in logs))
    assert returned == code
    assert bool(rows) == (code == 0)
    errors = capsys.readouterr().err
    assert [word for word in words if word not in errors] == []


def test_damage_is_named_briefly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that are no rows are named with their number, a few of them."""
    log = tmp_path / "x.log"
    log.write_text(
        TABLE + "| m | prompt=8<br>decode=4 | 1<br>2 | z | a |\n" + "| cut | off |\n" * 50
    )
    code, rows, _ = parse(tmp_path, log)
    assert (code, len(rows)) == (0, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{log}: line 4: 2 cells where the header has 5"
    assert lines[MAX_NOTES] == f"{log}: and {50 - MAX_NOTES} more problems"


def test_hostile_text_is_neutralised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters of a log or of its name reach neither the CSV nor the terminal."""
    log = tmp_path / "a\x1b[31m\nb.log"
    log.write_text(TABLE + "| m\x07\u202e | prompt=8<br>decode=4 | \x1b]0;title\x07bad | z | a |\n")
    assert main(["parse", str(log)]) == 0
    out, err = capsys.readouterr()
    assert "not a number" in err
    for text in (out, err):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "[31m b.log" in text


def test_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An output that cannot be written is an error that names it."""
    output = tmp_path / "missing" / "x.csv"
    assert main(["parse", str(RUNS / "bench_appended"), "-o", str(output)]) == 2
    assert f"{output}: No such file or directory" in capsys.readouterr().err
