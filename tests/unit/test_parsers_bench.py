"""The llm_bench table and its JSON: recorded output, round trips, and damage of every kind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.metrics import BY_BENCH, Sample
from pytest_h2o.parsers.bench_json import read_bench_json
from pytest_h2o.parsers.bench_table import MAX_FILE_ROWS, MAX_ROWS, Table, read_tables, tables
from pytest_h2o.parsers.lines import PIECE_CHARS, read_pieces
from pytest_h2o.parsers.rows import ParseError

RUNS = Path(__file__).parents[1] / "data" / "runs"
H2O_COLUMNS = [
    "h2o_keep", "h2o_lossy", "h2o_lossless", "h2o_target_keep_effective", "h2o_floor_keep",
    "h2o_quantized_keep", "h2o_evict_us", "h2o_codec_us", "h2o_lossless_raw_mb",
    "h2o_lossless_comp_mb", "h2o_lossless_comp_us", "h2o_lossless_decomp_us",
    "h2o_lossless_queue_peak", "h2o_lossless_fallback", "h2o_lossless_backpressure_skip",
    "h2o_lossless_async_queue_peak", "h2o_lossless_async_wait_us", "h2o_lossless_decode_cache_hit",
    "h2o_lossless_decode_cache_miss",
]  # fmt: skip
IDLE = "1 0 1 0 1 0 1 0 1 0 1 0" + " 0 0" * 13

# The numbers of each recorded file, read by eye: label, prefill, decode, then mean and deviation of
# the 19 columns.
RECORDED = {
    "bench_baseline/logs/run_0001_p512_g128.log": (
        "p512_g128",
        "1598.40 390.07",
        "166.09 69.75",
        IDLE,
    ),
    "bench_baseline/logs/run_0002_p1024_g128.log": (
        "p1024_g128",
        "899.93 200.62",
        "181.84 78.21",
        IDLE,
    ),
    "bench_never_triggered/logs/run_0001_p512_g128.log": (
        "p512_g128",
        "1835.05 500.01",
        "280.74 77.87",
        IDLE,
    ),
    "bench_never_triggered/logs/run_0002_p1024_g128.log": (
        "p1024_g128",
        "1279.34 338.37",
        "196.79 63.83",
        IDLE,
    ),
    "bench_claims_without_eviction/logs/run_0001_p512_g128.log": (
        "p512_g128", "1893.68 405.32", "336.38 112.26",
        ".3207 .0073 3.119 .070 1.914 .006 .3130 .0002 .0758 .0266 .3207 .0073 4 1 2581.67 "
        "500.08 .38 0 .20 0 "
        "7453.33 1646.86 299.33 39.11 1 0 0 0 0 0 1 0 0 0 2 0 1 0",
    ),
    "bench_claims_without_eviction/logs/run_0002_p1024_g128.log": (
        "p1024_g128", "1211.03 309.19", "189.37 41.12",
        ".3171 .0041 3.154 .040 1.937 .008 .3128 .0001 .0422 .0148 .3171 .0041 7.33 2.52 3266.67 "
        "104.54 .38 0 .19 0 "
        "9189.33 136.05 759.67 434.87 1 0 0 0 0 0 1 0 0 0 2 0 1 0",
    ),
    "bench_full/logs/run_0001_p512_g128.log": (
        "p512_g128", "2113.63 328.51", "479.59 98.49",
        ".3706 .0294 2.710 .226 1.865 .136 .3262 .0150 .3262 .0150 .3262 .0150 4.67 1.53 3140.67 "
        "301.51 .42 .07 .23 "
        ".06 10526.67 2721.16 455 165.05 1 0 0 0 0 0 1 0 0 0 2 0 1.33 .58",
    ),
    "bench_full/logs/run_0002_p1024_g128.log": (
        "p1024_g128", "2068.59 217.64", "332.43 47.64",
        ".3185 .0006 3.140 .006 1.937 .005 .3159 .0029 .2281 .1549 .3181 .0009 10 7 3185.33 "
        "45.49 .38 0 .19 0 "
        "8641.67 671.66 339.67 30.92 1 0 0 0 0 0 1 0 0 0 2 0 1 0",
    ),
    "bench_full_coverage/logs/run_0001_p512_g128.log": (
        "p512_g128", "2432.43 220.72", "500 50.59",
        ".3711 .0285 2.706 .217 1.376 .062 .3262 .0150 .3262 .0150 .3262 .0150 4 1 2499.67 "
        "581.37 1.83 .72 1.35 .57 "
        "37796.33 16781.43 2257.67 306.27 1 0 0 0 0 0 1 0 3010.67 282.64 7.33 4.62 7.33 1.15",
    ),
    "bench_full_coverage/logs/run_0002_p1024_g128.log": (
        "p1024_g128", "1985.24 182.24", "235.03 10.78",
        ".3165 .0027 3.159 .028 1.279 .004 .3159 .0029 .2298 .1520 .3161 .0024 5.33 .58 3304 "
        "1156.38 6.92 .14 5.41 .13 "
        "164044.67 9330.44 2766 532.91 1 0 0 0 0 0 1 0 18076 191.44 44.67 .58 10.67 .58",
    ),
    "bench_probe/logs/run_0001_p512_g128.log": (
        "p512_g128", "2409.55 134.90", "573.73 69.24",
        ".3706 .0294 2.710 .226 1.524 .221 .3262 .0150 .3262 .0150 .3262 .0150 4.33 .58 1584.67 "
        "1144.55 .40 .58 .30 "
        ".46 10149.67 14411.09 194 336.02 1 0 0 0 0 0 0 0 0 0 4.33 4.04 .33 .58",
    ),
    "bench_probe/logs/run_0002_p1024_g128.log": (
        "p1024_g128", "1839.91 403.95", "330.26 30.41",
        ".3165 .0027 3.159 .028 1.259 .007 .3159 .0029 .2298 .1520 .3161 .0024 5 1 2970 185.43 "
        "1.69 0 1.34 .01 "
        "38984.33 3044.92 243.67 66.58 1 0 0 0 0 0 0 0 0 0 14 0 1 0",
    ),
    "bench_store/logs/run_0001_p512_g128.log": (
        "p512_g128", "2335.36 156.88", "533.70 29.80",
        ".3711 .0285 2.706 .217 1.260 .004 .3262 .0150 .3262 .0150 .3262 .0150 5 0 1001 250.29 "
        ".19 0 .15 0 "
        "6033.33 1499.38 306 85.35 1 0 0 0 0 0 1 0 1042 253.77 6 0 0 0",
    ),
    "bench_store/logs/run_0002_p1024_g128.log": (
        "p1024_g128", "1908.83 65.41", "361.88 34.46",
        ".3165 .0027 3.159 .028 1.284 .004 .3159 .0029 .2298 .1520 .3161 .0024 5.67 .58 1214 "
        "52.05 .19 0 .15 0 "
        "7482 908.46 385.67 25.70 1 0 0 0 0 0 1 0 1259.67 53.97 6 0 0 0",
    ),
    "bench_json/log.md": (
        "p512_g64", "1333.95 158.46", "102.60 31.68",
        ".3297 .0098 3.034 .090 1.935 .004 .3135 .0001 .1881 .0108 .3297 .0098 3 0 2943 398.81 "
        ".38 0 .19 0 "
        "9247.50 369.82 373.50 51.62 1 0 0 0 0 0 1 0 0 0 2 0 1 0",
    ),
}  # fmt: skip


def numbers(text: str, n: int | None = 3) -> list[Sample]:
    """``mean std`` pairs as samples."""
    values = [float(word) for word in text.split()]
    return [Sample(mean, std, n) for mean, std in zip(values[::2], values[1::2], strict=True)]


def parse(text: str, n: int | None = None) -> list[Table]:
    """The tables of a text."""
    return list(tables(read_pieces(text), Path("log.md"), n))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_tables_read_to_the_numbers_in_them(name: str) -> None:
    """Every recorded gate table gives one row with exactly the printed values and no problem."""
    label, prefill, decode, h2o = RECORDED[name]
    (table,) = read_tables(RUNS / name, 3)
    (row,) = table.rows
    speeds = dict(zip(["prefill_tps", "decode_tps"], numbers(f"{prefill} {decode}"), strict=True))
    assert row.samples == speeds | dict(zip(H2O_COLUMNS, numbers(h2o), strict=True))
    assert (row.kind, row.label, row.line, row.source) == ("bench", label, 3, RUNS / name)
    assert label == f"p{row.prompt_tokens}_g{row.decode_tokens}"
    assert row.cells["backend"] == "CPU"
    assert (table.problems, row.problems) == ((), ())


def test_an_appended_file_holds_two_tables() -> None:
    """The second launch is the last table, and its header is not a row."""
    first, last = read_tables(RUNS / "bench_appended/log.md", 1)
    assert [len(table.rows) for table in (first, last)] == [1, 1]
    assert [table.rows[0].samples["decode_tps"].mean for table in (first, last)] == [324.14, 189.50]
    assert [(table.line, table.rows[0].line, table.problems) for table in (first, last)] == [
        (1, 3, ()),
        (4, 6, ()),
    ]
    assert last.rows[0].samples["h2o_lossless_decomp_us"] == Sample(618.0, 0.0, 1)


def test_a_table_on_stdout_is_found_between_other_lines() -> None:
    """Log lines before, between and after the rows change nothing."""
    (table,) = read_tables(RUNS / "bench_stdout_table/stdout", 2)
    speeds = [
        (row.label, row.samples["prefill_tps"], row.samples["decode_tps"]) for row in table.rows
    ]
    assert speeds == [
        ("p64_g16", Sample(1305.99, 645.06, 2), Sample(368.97, 44.14, 2)),
        ("p128_g16", Sample(2859.73, 65.04, 2), Sample(799.65, 65.65, 2)),
    ]
    assert table.problems == ()


def test_prefill_and_decode_tables_have_speeds_only() -> None:
    """Without a KV cache mode there are no h2o columns, so there are no h2o samples."""
    (table,) = read_tables(RUNS / "bench_prefill_decode_table/log.md", 2)
    assert [
        (row.label, row.prompt_tokens, row.decode_tokens, row.samples) for row in table.rows
    ] == [
        ("pp64", 64, None, {"prefill_tps": Sample(3132.89, 38.60, 2)}),
        ("pp128", 128, None, {"prefill_tps": Sample(3020.58, 52.76, 2)}),
        ("tg16", None, 16, {"decode_tps": Sample(758.76, 452.95, 2)}),
        ("pp64+tg16", 64, 16, {"combined_tps": Sample(577.16, 208.66, 2)}),
    ]


def test_extra_columns_are_kept_as_text() -> None:
    """Threads, precision and attention tell rows of one label apart; load time is a metric."""
    (table,) = read_tables(RUNS / "bench_columns_varied/log.md", 1)
    settings_of = [
        (row.cells["threads"], row.cells["precision"], row.cells["attentionOption"])
        for row in table.rows
    ]
    assert settings_of == [(t, p, "Int8 Q,K") for p in ("Normal", "Low") for t in ("2", "1")]
    loads = [row.samples["load_s"] for row in table.rows]
    assert loads == [
        Sample(0.05, 0.01, 1),
        Sample(0.05, 0.02, 1),
        Sample(0.04, 0.01, 1),
        Sample(0.03, 0.0, 1),
    ]
    assert [row.samples["decode_tps"].mean for row in table.rows] == [
        173.34,
        404.47,
        140.63,
        439.22,
    ]
    assert {row.samples["h2o_lossy"].mean for row in table.rows} == {1.0}


def test_infinite_speeds_stay_infinite() -> None:
    """The table of a broken model has speeds, which are not numbers."""
    (table,) = read_tables(RUNS / "fail_incompatible_model/log.md", 2)
    speed = table.rows[0].samples["decode_tps"]
    assert speed.mean == math.inf
    assert speed.std is not None
    assert math.isnan(speed.std)
    assert table.rows[0].cells["speed(tok/s)"] == "inf ± -nan<br>inf ± -nan"


@pytest.mark.parametrize(
    "name", ["fail_killed_midway/log.md", "fail_bad_flag/stdout", "fail_missing_config/stdout"]
)
def test_failed_launches_have_no_table(name: str) -> None:
    """No table is no table, and no error."""
    assert read_tables(RUNS / name) == ()


def test_json_and_table_of_one_launch_agree() -> None:
    """The JSON has the same metrics, equal to the table's within the digits it prints."""
    (table,) = read_tables(RUNS / "bench_json/log.md", 2)
    (row,) = read_bench_json(RUNS / "bench_json/out.json", 2)
    printed = table.rows[0]
    assert (row.label, row.prompt_tokens, row.decode_tokens) == (printed.label, 512, 64)
    assert row.samples.keys() == printed.samples.keys()
    for name, sample in row.samples.items():
        digits = (
            2
            if name not in H2O_COLUMNS
            else len(printed.cells[name].split(" ")[0].partition(".")[2])
        )
        assert round(sample.mean, digits) == pytest.approx(
            printed.samples[name].mean, abs=10**-digits / 2
        ), name
        assert sample.std == pytest.approx(printed.samples[name].std, abs=10**-digits * 0.51), name
        assert sample.n == 2
    assert row.samples["h2o_lossy"] == Sample(3.034370541572571, 0.09007472735093633, 2)
    assert row.problems == ()


COLUMNS = ["model", "threads", "llm_demo", "speed(tok/s)", "h2o_lossy", "h2o_evict_us"]
CELLS = [
    "tiny",
    "2",
    "prompt=512<br>decode=128",
    "9.50 ± 0.10<br>3.00 ± 0.20",
    "3.100 ± 0.010",
    "4.00 ± 1.00",
]


def render(columns: list[str], *rows: list[str]) -> str:
    """A table as the program prints it."""
    lines = [columns, ["---:"] * len(columns), *rows]
    return "".join("| " + " | ".join(f"{cell:>10}" for cell in cells) + " |\n" for cells in lines)


TEXT = render(COLUMNS, CELLS)
cell_number = st.floats(allow_nan=False, width=32).map(
    lambda value: f"{value:.4f}"
) | st.sampled_from(["nan", "-nan", "inf", "1.2e+06"])
cell_sample = st.tuples(cell_number, cell_number).map(" ± ".join)


@given(st.data())
def test_a_rendered_table_reads_to_the_same_numbers(data: st.DataObject) -> None:
    """Any columns in any order, with unknown ones among them, give each metric the number in its
    own cell.
    """
    metrics = data.draw(st.lists(st.sampled_from(sorted(BY_BENCH)), unique=True, min_size=1))
    cells = {name: data.draw(cell_sample) for name in metrics} | {
        "model": "tiny",
        "llm_demo": CELLS[2],
        "unknown": "7",
    }
    order = data.draw(st.permutations(list(cells)))
    (table,) = parse(render(order, [cells[name] for name in order]), 4)
    (row,) = table.rows
    assert row.cells == cells
    assert {BY_BENCH[name].name for name in metrics} == set(row.samples)
    for name in metrics:
        mean, _, std = cells[name].partition(" ± ")
        assert repr(row.samples[BY_BENCH[name].name]) == repr(Sample(float(mean), float(std), 4))


noise = st.sampled_from(
    [
        "[H2O] layer=2 kv=524 keep_ratio=0.3282 evict=352\n",
        "Clamp invalid meta remove: remove=87 > kv_len=80.\n",
        "a | b\n",
        "\n",
        "\x00\x00\n",
        "loading 50%\rloading 100%\n",
        "\x1b[31mwarning\x1b[0m\n",
        "|####    |\r|########|\n",
        "|=====>    50%\n",
        "\x1b[32mready\x1b(B\x1b[m\n",
    ]
)


@given(st.lists(noise, min_size=4, max_size=12), st.integers(0, 3))
def test_noise_between_lines_changes_nothing(lines: list[str], offset: int) -> None:
    """Log lines, colour codes, NUL bytes and progress displays around a table leave its rows as
    they are.
    """
    (expected,) = parse(TEXT)
    mixed = list(lines)
    for position, line in enumerate(TEXT.splitlines(keepends=True)):
        mixed.insert(offset + 2 * position, line)
    (table,) = parse("".join(mixed))
    assert [row.samples for row in table.rows] == [row.samples for row in expected.rows]
    assert table.problems == ()


@given(
    st.text(alphabet=st.sampled_from("|-: \n\r\x00\x1b[m±<br>modelh2o_y1.5nae\ufffd"), max_size=400)
)
def test_random_text_never_crashes(text: str) -> None:
    """Any text gives tables or none."""
    for table in parse(text + TEXT + text):
        assert table.columns


@given(st.integers(0, len(TEXT)))
def test_a_table_cut_anywhere_gives_whole_rows_or_a_problem(end: int) -> None:
    """A row that is not complete is said, and never read."""
    third = "".join(TEXT[:end].split("\n")[2:3]).strip()
    complete = third == TEXT.split("\n")[2]
    found = parse(TEXT[:end])
    assert [list(row.cells.values()) for table in found for row in table.rows] == [CELLS] * complete
    if third:
        assert bool(found[0].problems) is not complete


def test_a_cut_last_line_is_a_problem_of_its_table() -> None:
    """The line number and what is missing are named."""
    (table,) = parse(TEXT + "| tiny | 2 | prompt=512<br>decode=64 | 9.5")
    assert len(table.rows) == 1
    assert table.problems == ("line 4: 4 cells where the header has 6, cut off",)


def test_a_cell_cut_at_the_end_is_not_read() -> None:
    """A last cell without its bar may have lost digits."""
    (table,) = parse(TEXT.rstrip(" |\n"))
    assert (table.rows, table.problems) == (
        (),
        ("line 3: 6 cells where the header has 6, cut off",),
    )


def test_a_header_glued_to_a_cut_row_starts_a_new_table() -> None:
    """After a killed launch the next one appends its header to the unfinished row."""
    first, second = parse(TEXT + "| tiny | 2 | promp" + TEXT)
    assert first.problems == ("line 4: 3 cells where the header has 6, cut off",)
    assert second.columns == tuple(COLUMNS)
    assert [row.label for row in second.rows] == ["p512_g128"]


def test_wrong_cell_counts_are_named_by_line() -> None:
    """Rows of another shape are left out and said."""
    (table,) = parse(TEXT + "| a | b |\n" + render(COLUMNS, CELLS).splitlines()[2] + "\n")
    assert len(table.rows) == 2
    assert table.problems == ("line 4: 2 cells where the header has 6",)


def test_header_is_never_data() -> None:
    """A repeated header without a separator still starts a table."""
    header = TEXT.splitlines(keepends=True)[0]
    assert [len(table.rows) for table in parse(TEXT + header)] == [1, 0]


def test_a_row_behind_unfinished_text_is_read() -> None:
    """A message without a newline before the row does not hide it."""
    lines = TEXT.splitlines(keepends=True)
    (table,) = parse("".join(lines[:2]) + "loading..." + lines[2])
    assert [row.label for row in table.rows] == ["p512_g128"]


PROGRESS = "".join(f"\r|##   | {number} of 9999" for number in range(2000))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PROGRESS + "\r", "\n"),
        ("." * (PIECE_CHARS - 9) + "\r", "\n"),
        ("", PROGRESS + "\n"),
        ("", "\r| 100% |\n"),
        ("[H2O] " + "text " * PIECE_CHARS, "\n"),
        ("", "\r"),
        ("\x1b[1m", "\x1b(B\x1b[m\n"),
    ],
    ids=["progress before", "in two pieces", "after", "a bar after", "endless", "returns", "tput"],
)
def test_what_shares_a_line_with_a_row_does_not_hide_it(before: str, after: str) -> None:
    """Neither header nor row is lost to progress displays, colours, or the end of a long line."""
    lines = [*TEXT.splitlines(), TEXT.splitlines()[2].replace("512", "1024")]
    (table,) = parse("".join(before + line + after for line in lines))
    assert [row.label for row in table.rows] == ["p512_g128", "p1024_g128"]
    assert table.rows[0].cells == parse(TEXT)[0].rows[0].cells
    assert table.problems == ()


def test_a_cut_row_behind_other_text_is_a_problem() -> None:
    """What remains of a row is named whatever stands before it on its line."""
    header, dashes, row = TEXT.splitlines()
    cut = "[H2O] layer=2 " + row.rpartition("|")[0].rpartition("|")[0]
    (table,) = parse("\n".join([header, dashes, cut, row, ""]))
    assert [row.label for row in table.rows] == ["p512_g128"]
    assert table.problems == ("line 3: 5 cells where the header has 6, cut off",)


@pytest.mark.parametrize("broken", ["<br/>", "<br />", "<BR>"])
def test_line_breaks_as_other_tools_write_them(broken: str) -> None:
    """Whoever copies a table through Markdown keeps its numbers."""
    (table,) = parse(TEXT.replace("<br>", broken))
    assert table.rows[0].samples == parse(TEXT)[0].rows[0].samples


def test_missing_columns_are_absent() -> None:
    """An older binary's table gives no value for what it lacks."""
    (table,) = parse(render(COLUMNS[:4], CELLS[:4]))
    assert set(table.rows[0].samples) == {"prefill_tps", "decode_tps"}
    assert table.rows[0].problems == ()


@pytest.mark.parametrize("cell", ["", "3,1 ± 0,1", "3.1 ±", "h2o_lossy", "1,234.5 ± 0.1"])
def test_cells_that_are_no_numbers_are_problems(cell: str) -> None:
    """Text in a metric column gives no sample and a problem that names it."""
    (table,) = parse(render(COLUMNS, [*CELLS[:4], cell, CELLS[5]]))
    (row,) = table.rows
    assert "h2o_lossy" not in row.samples
    assert row.problems == (f"line 3: h2o_lossy is {cell!r}, not a number",)


@pytest.mark.parametrize("cell", ["9.50 ± 0.10", "9.50 ± 0.10<br>", "1 ± 1<br>2 ± 2<br>3 ± 3"])
def test_a_speed_cell_needs_both_speeds(cell: str) -> None:
    """A speed that is not there is a problem, not a zero."""
    (table,) = parse(render(COLUMNS, [*CELLS[:3], cell, *CELLS[4:]]))
    (row,) = table.rows
    assert "decode_tps" not in row.samples
    assert any("speed(tok/s)" in problem for problem in row.problems)


def test_a_row_without_lengths_is_a_problem() -> None:
    """What was run must be readable."""
    (table,) = parse(render(COLUMNS, [*CELLS[:2], "p512", *CELLS[3:]]))
    assert table.rows[0].problems == ("line 3: neither llm_demo nor test says what was run",)


def test_columns_given_twice_are_a_problem() -> None:
    """The first one counts, and it is said."""
    (table,) = parse(render([*COLUMNS, "h2o_lossy"], [*CELLS, "9.000 ± 0.000"]))
    assert table.rows[0].samples["h2o_lossy"].mean == 3.1
    assert table.problems == ("line 1: columns given more than once: h2o_lossy",)


def test_rows_are_bounded() -> None:
    """A runaway table is cut, and it is said."""
    row = TEXT.splitlines(keepends=True)[2]
    (table,) = parse(TEXT + row * (MAX_ROWS + 10))
    assert len(table.rows) == MAX_ROWS
    assert "rows, not read" in table.problems[0]


def test_a_line_longer_than_a_piece_is_no_row() -> None:
    """An endless line of bars is passed over."""
    (table,) = parse("| model " * PIECE_CHARS + "\n" + TEXT)
    assert len(table.rows) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file and why."""
    with pytest.raises(ParseError, match=r"absent\.md: cannot be read: No such file"):
        read_tables(tmp_path / "absent.md")
    with pytest.raises(ParseError, match=r"absent\.json: cannot be read: No such file"):
        read_bench_json(tmp_path / "absent.json")


def test_json_types_of_a_prefill_decode_run(tmp_path: Path) -> None:
    """Results of single phases give the labels and metrics of the table's test column."""
    results = [
        {"type": "prefill", "prompt_len": 64, "tps": 3132.9, "std": 38.6, "h2o_keep_ratio": 1.0},
        {
            "type": "decode",
            "generate_len": 16,
            "tps": 758.8,
            "std": 0.5,
            "loading_time": 0.05,
            "loading_time_std": 0.01,
        },
        {"type": "prefill_and_decode", "prompt_len": 64, "generate_len": 16},
        {"h2o_lossy_ratio": 1.0, "h2o_lossy_ratio_std": 0.0},
    ]
    path = tmp_path / "out.json"
    path.write_text(json.dumps({"results": results}))
    assert [(row.label, row.samples) for row in read_bench_json(path)] == [
        ("pp64", {"prefill_tps": Sample(3132.9, 38.6), "h2o_keep": Sample(1.0)}),
        ("tg16", {"decode_tps": Sample(758.8, 0.5), "load_s": Sample(0.05, 0.01)}),
        ("pp64+tg16", {}),
        ("pp0+tg0", {"h2o_lossy": Sample(1.0, 0.0)}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty at offset 0"),
        ('{"results":[{"h2o_lossy_ratio":,"x":1}]}', "at character 31, near"),
        ('{"results":[', "at character 12"),
        ("[1]", "no list of results at offset 0"),
        ('{"results":[3]}', "no list of results"),
        ('{"results":[{"tps":1,"tps":2}]}', "key given twice: 'tps'"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_malformed_json_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    """The error names file and offset, whatever is wrong."""
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(ParseError, match=message) as caught:
        read_bench_json(path)
    assert str(caught.value).startswith(str(path))


def test_json_values_that_are_no_numbers_are_problems(tmp_path: Path) -> None:
    """A text in place of a number gives no sample and is said."""
    path = tmp_path / "out.json"
    path.write_text(
        '{"results":[{"prefill_tps":"1","prefill_std":0,"h2o_lossy_ratio":3,"h2o_lossy_ratio_std":null}]}'
    )
    (row,) = read_bench_json(path)
    assert row.samples == {}
    assert row.problems == (
        "prefill_tps is '1' ± '0', not a number",
        "h2o_lossy_ratio is '3' ± 'None', not a number",
    )


@given(st.binary(max_size=300))
def test_random_bytes_are_json_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """No bytes make the JSON reader crash."""
    path = tmp_path_factory.getbasetemp() / "random.json"
    path.write_bytes(data)
    with pytest.raises(ParseError):
        read_bench_json(path)


def test_a_file_of_endless_tables_is_refused(tmp_path: Path) -> None:
    """Memory is bounded however many tables a program appends."""
    path = tmp_path / "log.md"
    path.write_text("|model|threads|\n|a|b|\n" * MAX_FILE_ROWS)
    with pytest.raises(ParseError, match=r"log\.md: more than 65536 rows and headers"):
        read_tables(path)


def test_numbers_that_nobody_knows(tmp_path: Path) -> None:
    """A measurement of tomorrow is kept under its own name, a setting is none."""
    path = tmp_path / "log.md"
    path.write_text(
        "| model | cores | heat | peak(MB) | word ± | test | t/s |\n| - | - | - | - | - | - | - |\n"
        "| m | 4 | 1.5 ± 0.5 | 77 | a ± b | pp8 | 9.00 ± 1.00 |\n"
    )
    [row] = read_tables(path)[0].rows
    assert {name: sample.mean for name, sample in row.samples.items()} == {
        "heat": 1.5, "peak(MB)": 77, "prefill_tps": 9,
    }  # fmt: skip
    assert row.problems == ()
