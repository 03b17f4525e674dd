"""What becomes of whatever a program prints: the right number, or a reason in words; never a wrong
number.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.metrics import H2O_COLUMNS
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.results import NO_H2O, Run, read_launch, read_launches

DATA = Path(__file__).parents[1] / "data" / "runs"
TABLE = (DATA / "bench_full" / "logs" / "run_0001_p512_g128.log").read_text()
HEADER, SEPARATOR, ROW = TABLE.splitlines()
LOG = (DATA / "bench_full" / "logs" / "run_0001_p512_g128.stdout").read_text()
SPEC = LaunchSpec(
    program="llm_bench", arm="full", replicate=1, config={}, gen_tokens=128, prompt_tokens=512,
    repeat=3,
)  # fmt: skip
LOSSY, STD = 2.71, 0.226


def record(directory: Path, table: str | bytes | None, stdout: str | bytes = "") -> LaunchRecord:
    """A launch that ended well after it printed this."""
    paths = standard_paths(directory)
    for name, content in (("table", table), ("stdout", stdout)):
        if content is not None:
            paths[name].write_bytes(content.encode() if isinstance(content, str) else content)
    return LaunchRecord(spec=SPEC, status="ok", reason="exit code 0", **paths)


def run(directory: Path, table: str | bytes | None, stdout: str | bytes = "") -> Run:
    """The run of one such launch."""
    return read_launches("full_strict", [record(directory, table, stdout)])


def cells(line: str) -> list[str]:
    """The cells of a table line."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def line(parts: list[str]) -> str:
    """A table line."""
    return "| " + " | ".join(parts) + " |"


def reordered() -> str:
    """The same table with its columns backwards."""
    return "\n".join(line(cells(each)[::-1]) for each in TABLE.splitlines()) + "\n"


def extended() -> str:
    """The same table with columns that nobody knows."""
    added = [
        line([*cells(each), extra])
        for each, extra in zip(TABLE.splitlines(), ("größe", "---", "1"), strict=True)
    ]
    return "\n".join(added) + "\n"


@pytest.mark.parametrize(
    ("table", "stdout"),
    [
        (TABLE, ""),
        (None, TABLE),
        ("", LOG + TABLE + LOG),
        (TABLE, TABLE),
        (reordered(), ""),
        (extended(), ""),
        (TABLE + TABLE, ""),
        (TABLE.replace("\n", "\r\n"), ""),
        (
            "\n"
            + LOG[:3000]
            + "\n"
            + HEADER
            + "\n[H2O] x\n"
            + SEPARATOR
            + "\n"
            + LOG[:500]
            + "\n"
            + ROW
            + "\n",
            "",
        ),
        (
            "\x1b[1m"
            + HEADER
            + "\x1b[0m\n"
            + SEPARATOR
            + "\n"
            + ROW.replace("2.710", "\x1b[32m2.710\x1b[0m")
            + "\n",
            "",
        ),
        (b"\0" * 5000 + TABLE.encode() + b"\0" * 5000, ""),
        (b"\xff\xfe garbage \xc3\x28\n" + TABLE.encode() + b"\xff", ""),
        (TABLE.replace("2.710 ± 0.226", "2.71e+00 ± 2.26E-1"), ""),
    ],
    ids=[
        "table file", "table on stdout", "table between log lines", "table file and stdout",
        "reordered", "extended", "printed twice", "carriage returns", "interleaved", "colours",
        "NUL bytes around", "not UTF-8", "scientific",
    ],
)  # fmt: skip
def test_the_number_is_read(tmp_path: Path, table: str | bytes | None, stdout: str) -> None:
    """Noise, order and place do not matter."""
    lossy = run(tmp_path, table, stdout).highest("h2o_lossy")
    assert (lossy.value, lossy.missing) == (LOSSY, "")


def test_two_tables_that_differ(tmp_path: Path) -> None:
    """What a program tells on stdout is what its table file says."""
    lossy = run(tmp_path, TABLE, replaced("9.999 ± 0.2")).highest("h2o_lossy")
    assert lossy.value is None
    assert "h2o_lossy" in lossy.missing


def replaced(text: str) -> str:
    """The table with another lossy ratio."""
    return TABLE.replace("2.710 ± 0.226", text)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (None, "the program printed no table"),
        (HEADER + "\n" + SEPARATOR + "\n", "0 rows where 1 was launched"),
        (TABLE[:-40], "cells where the header has 26, cut off"),
        (TABLE + ROW[:150], "cells where the header has 26"),
        (TABLE + replaced("3.500 ± 0.1"), "2 tables that differ, where one program was launched"),
        (TABLE.replace("prompt=512", "prompt=51"), "the row is p51_g128, launched was p512_g128"),
        (replaced("nan ± 0.2"), "h2o_lossy is nan ± 0.2 in p512_g128, not a number"),
        (replaced("-nan ± -nan"), "h2o_lossy is nan ± nan in p512_g128, not a number"),
        (replaced("inf ± 0.2"), "h2o_lossy is inf ± 0.2 in p512_g128, not a number"),
        (replaced("2.7 ± inf"), "h2o_lossy is 2.7 ± inf in p512_g128, not a number"),
        (
            replaced("-2.710 ± 0.226"),
            "h2o_lossy is -2.71 ± 0.226 in p512_g128, which cannot be negative",
        ),
        (
            replaced("1e300 ± 0"),
            "h2o_lossy is 1e+300 ± 0 in p512_g128, more than any cache can shrink",
        ),
        (replaced("1e999 ± 0"), "h2o_lossy is inf ± 0 in p512_g128, not a number"),
        (replaced("2,710 ± 0,226"), "h2o_lossy is '2,710 ± 0,226', not a number"),
        (replaced("2.7\x0010 ± 0.2"), "h2o_lossy is '2.7\ufffd10 ± 0.2', not a number"),
        (replaced("2.7.1 ± 0.2"), "not a number"),
        (replaced("0x2 ± 0.2"), "not a number"),
        (replaced("٢ ± ٠"), "not a number"),
        (replaced(""), "h2o_lossy is '', not a number"),
        (
            TABLE.replace("h2o_lossy ", "h2o_loosy "),
            "no value for h2o_lossy in p512_g128; the binary may be older",
        ),
        (TABLE.replace("h2o_keep", "h2o_lossy"), "columns given more than once: h2o_lossy"),
    ],
)
def test_a_reason_instead_of_a_wrong_number(tmp_path: Path, table: str | None, reason: str) -> None:
    """What cannot be read, or cannot be, has no value, and the reason is said."""
    lossy = run(tmp_path, table).highest("h2o_lossy")
    assert lossy.value is None
    assert reason in lossy.missing


def test_a_deviation_that_rounding_made_nan_is_none(tmp_path: Path) -> None:
    """Equal values have a deviation of nan in the programs' arithmetic; their mean counts."""
    assert run(tmp_path, replaced("2.710 ± -nan")).highest("h2o_lossy").value == LOSSY


def test_columns_of_an_older_binary(tmp_path: Path) -> None:
    """All missing columns are named at once; a table without any is that of a build without H2O."""
    older = TABLE
    for name in H2O_COLUMNS[-2:]:
        older = older.replace(name, name.replace("h2o", "xxx"))
    [reason] = run(tmp_path, older).missing_columns(H2O_COLUMNS)
    assert reason == (
        "no value for h2o_lossless_decode_cache_hit, h2o_lossless_decode_cache_miss in p512_g128: "
        "the binary looks older than these columns"
    )
    upstream = "\n".join(line(cells(each)[:7]) for each in TABLE.splitlines()) + "\n"
    [reason] = run(tmp_path, upstream).missing_columns(H2O_COLUMNS)
    assert reason == NO_H2O
    [reason] = run(tmp_path, replaced("inf ± 0")).missing_columns(H2O_COLUMNS)
    assert "h2o_lossy is inf" in reason
    [reason] = run(tmp_path, "").missing_columns(H2O_COLUMNS)
    assert "no table" in reason


@pytest.mark.parametrize("reader", [read_launch, lambda launch: Run("x", (launch,), (), ()).facts])
def test_many_lines_are_read_in_bounded_memory(
    tmp_path: Path, reader: Callable[[LaunchRecord], object]
) -> None:
    """A log of many lines is streamed: the table at its end is found without holding what came
    before.
    """
    lines = LOG * (4 * 2**20 // len(LOG))
    launch = record(tmp_path, None, lines + TABLE)
    tracemalloc.start()
    try:
        assert reader(launch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


def test_launches_that_ended_alike_are_one_problem(tmp_path: Path) -> None:
    """A broken program is said once, with what it printed below, however many launches it broke."""
    reasons = ["exit code 1\n  no such file\n  give another", *["exit code 1"] * 3, "exit code 2"]
    failed = [
        replace(record(tmp_path, None), status="failed", reason=reason,
                spec=replace(SPEC, replicate=number), directory=tmp_path / str(number))
        for number, reason in enumerate(reasons)
    ]  # fmt: skip
    assert read_launches("full", failed).problems == (
        "exit code 1: no such file (4 launches: bench-p512_g128x3-full-r0, "
        "bench-p512_g128x3-full-r1, "
        f"bench-p512_g128x3-full-r2, ...; see {tmp_path}/0)\n  give another",
        f"exit code 2 (bench-p512_g128x3-full-r4; see {tmp_path}/4)",
    )


def test_a_program_that_printed_no_table_says_what_it_said(tmp_path: Path) -> None:
    """Programs that exit with 0 after an error show it."""
    place = f"(bench-p512_g128x3-full-r1; see {tmp_path}/stdout)"
    problems = read_launch(record(tmp_path, None, "hello\nUnable to open x\n"))[1]
    assert problems == [f"the program printed no table: Unable to open x {place}"]
    assert read_launch(record(tmp_path, None))[1] == [
        f"the program printed no table, and nothing else {place}"
    ]
