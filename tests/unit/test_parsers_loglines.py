"""Log lines reduced to facts, the telling lines of failures, and the bounded reading of huge
files.
"""

from __future__ import annotations

import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.parsers import lines
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.demo_output import generated_text, read_demo
from pytest_h2o.parsers.lines import PIECE_CHARS, printable, read_pieces
from pytest_h2o.parsers.loglines import (
    EVENT_CHARS,
    UNREADABLE,
    read_log_facts,
    segments,
    telling_lines,
)
from pytest_h2o.parsers.rows import ParseError

RUNS = Path(__file__).parents[1] / "data" / "runs"

# Counted with grep: plans, stale plans, floor lines, updates, largest kv=.
RECORDED = {
    "bench_appended/stdout": (12, 0, 0, 6, 1096),
    "bench_baseline/logs/run_0001_p512_g128.stdout": (0, 0, 0, 0, None),
    "bench_baseline/logs/run_0002_p1024_g128.stdout": (0, 0, 0, 0, None),
    "bench_claims_without_eviction/logs/run_0001_p512_g128.stdout": (256, 248, 0, 12, 2567),
    "bench_claims_without_eviction/logs/run_0002_p1024_g128.stdout": (256, 248, 0, 12, 4615),
    "bench_columns_varied/stdout": (0, 0, 0, 0, None),
    "bench_full/logs/run_0001_p512_g128.stdout": (28, 0, 38, 13, 2440),
    "bench_full/logs/run_0002_p1024_g128.stdout": (47, 0, 177, 13, 4488),
    "bench_full_coverage/logs/run_0001_p512_g128.stdout": (32, 0, 38, 52, 2440),
    "bench_full_coverage/logs/run_0002_p1024_g128.stdout": (45, 0, 178, 196, 4488),
    "bench_json/stdout": (18, 0, 0, 9, 1672),
    "bench_never_triggered/logs/run_0001_p512_g128.stdout": (0, 0, 0, 0, None),
    "bench_never_triggered/logs/run_0002_p1024_g128.stdout": (0, 0, 0, 0, None),
    "bench_prefill_decode_table/stdout": (0, 0, 0, 0, None),
    "bench_probe/logs/run_0001_p512_g128.stdout": (28, 0, 38, 16, 948),
    "bench_probe/logs/run_0002_p1024_g128.stdout": (41, 0, 181, 55, 2470),
    "bench_stdout_table/stdout": (0, 0, 0, 0, None),
    "bench_store/logs/run_0001_p512_g128.stdout": (32, 0, 38, 24, 950),
    "bench_store/logs/run_0002_p1024_g128.stdout": (45, 0, 178, 24, 2470),
    "demo_baseline/prompt_128_1.stdout": (0, 0, 0, 0, None),
    "demo_baseline/prompt_128_2.stdout": (0, 0, 0, 0, None),
    "demo_baseline/prompt_2048_1.stdout": (0, 0, 0, 0, None),
    "demo_baseline/prompt_512_1.stdout": (0, 0, 0, 0, None),
    "demo_full/prompt_128_1.stdout": (0, 0, 0, 0, None),
    "demo_full/prompt_128_2.stdout": (2, 0, 24, 3, 436),
    "demo_full/prompt_2048_1.stdout": (20, 0, 44, 5, 2917),
    "demo_full/prompt_512_1.stdout": (12, 0, 29, 5, 887),
    "demo_store/prompt_128_1.stdout": (0, 0, 0, 0, None),
    "demo_store/prompt_2048_1.stdout": (21, 0, 44, 10, 3013),
    "demo_store/prompt_512_1.stdout": (13, 0, 29, 10, 983),
    "fail_bad_flag/stdout": (0, 0, 0, 0, None),
    "fail_demo_empty_prompt/stdout": (0, 0, 0, 0, None),
    "fail_demo_missing_prompt/stdout": (0, 0, 0, 0, None),
    "fail_demo_missing_weights/stdout": (0, 0, 0, 0, None),
    "fail_incompatible_model/stdout": (0, 0, 0, 0, None),
    "fail_killed_midway/stdout": (13, 0, 5, 5, 2184),
    "fail_missing_config/stdout": (0, 0, 0, 0, None),
    "fail_missing_weights/stdout": (0, 0, 0, 0, None),
}


def test_every_recorded_output_is_listed() -> None:
    """No recorded run is left out of the tests."""
    found = {
        str(path.relative_to(RUNS))
        for pattern in ("*/stdout", "*/*.stdout", "*/logs/*.stdout")
        for path in RUNS.glob(pattern)
    }
    assert found == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_facts_are_the_counted_ones(name: str) -> None:
    """Counts equal those of grep, sums those of a plain search over the whole file."""
    facts = read_log_facts(RUNS / name)
    assert (
        facts.plans,
        facts.stale_plans,
        facts.floor_dominated,
        facts.updates,
        facts.max_kv,
    ) == RECORDED[name]
    text = (RUNS / name).read_text()
    update = (
        r"\[H2O-LOSSLESS\] layer=(\d+).* tokens=(\d+) raw=(\d+) .* eff_comp=(\d+) .* "
        r"updates=(\d+) .* mode=(\d)"
    )
    updates = [tuple(map(int, found)) for found in re.findall(update, text)]
    plans = [
        tuple(map(int, found))
        for found in re.findall(r"\[H2O\] layer=(\d+) kv=(\d+) .* evict=(\d+)", text)
    ]
    assert facts.evicted == sum(evict for _, _, evict in plans)
    assert (facts.raw_bytes, facts.comp_bytes) == (
        sum(u[2] for u in updates),
        sum(u[3] for u in updates),
    )
    assert facts.bootstrap_spans == Counter(u[1] for u in updates if u[4] == 1)
    assert facts.periodic_spans == Counter(u[1] for u in updates if u[4] != 1)
    assert facts.modes == {u[5] for u in updates}
    for index, layer in facts.layers.items():
        kvs = [kv for planned, kv, _ in plans if planned == index]
        assert (layer.plans, layer.last_kv) == (len(kvs), kvs[-1] if kvs else None)
        assert layer.followed_by_smaller_kv == sum(
            later < earlier for earlier, later in pairwise(kvs)
        )
    assert (facts.unprotected, UNREADABLE in facts.findings) == (0, False)


@pytest.mark.parametrize(
    ("kv", "kept", "floor", "unprotected"),
    [
        (100, 100, "1.000", 0), (512, 480, "0.218", 1), (512, 480, "0.219", 0),
        (512, 112, "0.219", 0), (512, 111, "0.219", 1), (560, 480, "", 0), (560, 480, "nan", 0),
        (560, 480, "1e999", 0),
    ],
)  # fmt: skip
def test_plans_that_protect_too_little(
    tmp_path: Path, kv: int, kept: int, floor: str, unprotected: int
) -> None:
    """A floor below the sink and recent tokens of the line is counted; one that cannot be read says
    nothing.
    """
    line = f"[H2O] layer=2 kv={kv} evict={kv - kept} floor={floor} recent=96 sink=16 block=32\n"
    (tmp_path / "stdout").write_text(line)
    assert read_log_facts(tmp_path / "stdout").unprotected == unprotected


def test_claims_without_eviction_are_visible() -> None:
    """Plans were dropped, no cache ever shrank, and the lengths only grew to all tokens of all
    requests.
    """
    facts = read_log_facts(RUNS / "bench_claims_without_eviction/logs/run_0002_p1024_g128.stdout")
    assert facts.plans_followed_by_smaller_kv == 0
    assert {index: layer.stale_plans for index, layer in facts.layers.items() if layer.plans} == {
        15: 124,
        31: 124,
    }
    assert facts.max_kv == 4 * (1024 + 128) + 7
    stale = facts.findings["Drop stale per-layer pending plan"].example
    assert (
        stale == "Drop stale per-layer pending plan: layer=15 pending_remove=1033 kv_len=1036 "
        "pending_ints=6."
    )
    assert facts.findings["Clamp invalid meta remove"].count == 3


def test_real_evictions_are_visible() -> None:
    """After plans the next plan of the layer meets a shorter cache."""
    facts = read_log_facts(RUNS / "bench_full/logs/run_0002_p1024_g128.stdout")
    assert facts.plans_followed_by_smaller_kv == 19
    assert (facts.layers[6].last_kv, facts.layers[6].last_evict) == (2726, 1856)
    assert facts.echo == {"target": {"0.300"}, "recent": {"96"}, "sink": {"16"}, "block": {"32"}}
    assert facts.findings == {}


@pytest.mark.parametrize(
    "name",
    [
        "demo_full/prompt_128_2",
        "demo_full/prompt_512_1",
        "demo_full/prompt_2048_1",
        "demo_store/prompt_512_1",
    ],
)
def test_facts_of_a_demo_add_up_to_its_record(name: str) -> None:
    """Evicted tokens and encoded bytes of the log lines are those of the metrics record."""
    facts = read_log_facts(RUNS / f"{name}.stdout")
    row = read_demo(RUNS / f"{name}.stdout", RUNS / f"{name}.metrics.jsonl", "x")
    assert facts.evicted == row.samples["h2o_total_evict_tokens"].mean
    assert facts.raw_bytes / 1048576 == row.samples["h2o_lossless_raw_mb"].mean
    assert facts.comp_bytes / 1048576 == row.samples["h2o_lossless_comp_mb"].mean


def test_unconditional_lines_are_counted_by_kind() -> None:
    """Each kind has its count and its first example."""
    text = (
        "[H2O-LOSSLESS] shrink: discarding 3 undecoded blocks\n"
        "text[H2O-LOSSLESS] shrink(store): discarding 2 staged blocks\n"
        "[H2O-LOSSLESS] scatter restore failed: layer=3\n"
        "[H2O-LOSSLESS] scatter restore failed: layer=4\n"
        "KVMeta::sync got 3\n"
        "[H2O-LOSSLESS] something new\n"
        "[H2O] layer=x kv=1 evict=2\n"
        "[H2O] layer=99999 kv=1 evict=2\n"
        "Drop stale per-layer pending plan without numbers\n"
    )
    facts = read_log_facts(text)
    assert (facts.plans, facts.stale_plans) == (0, 1)
    assert {kind: (found.count, found.example) for kind, found in facts.findings.items()} == {
        "scatter restore failed": (2, "[H2O-LOSSLESS] scatter restore failed: layer=3"),
        "KVMeta::sync got": (1, "KVMeta::sync got 3"),
        UNREADABLE: (4, "[H2O-LOSSLESS] something new"),
        "Drop stale per-layer pending plan": (
            1,
            "Drop stale per-layer pending plan without numbers",
        ),
    }


def test_the_first_block_of_a_layer_is_its_bootstrap() -> None:
    """Lengths are counted apart from those of later blocks."""
    update = (
        "[H2O-LOSSLESS] layer=1 tokens={} raw=9 eff_comp=9 updates={} fallback=0 "
        "backpressure=0 mode=2 zstd=0\n"
    )
    facts = read_log_facts(update.format(16, 1) + update.format(384, 2) + update.format(384, 3))
    assert facts.modes == {2}
    assert (facts.bootstrap_spans, facts.periodic_spans) == ({16: 1}, {384: 2})


PLAN = "[H2O] layer=3 kv=526 keep_ratio=0.3308 evict=352 lossy_ratio=3.0227 block=32\n"


def test_numbers_cut_off_by_the_end_are_not_read() -> None:
    """A line without its newline may have lost the last digits of its last number."""
    assert read_log_facts(PLAN[: PLAN.index("6 keep")]).plans == 0
    assert read_log_facts(PLAN[: PLAN.index("2 lossy")]).plans == 0
    assert read_log_facts(PLAN[: PLAN.index(" block")]).plans == 1
    assert read_log_facts(PLAN[: PLAN.index("6 keep")] + "\n").layers[3].plans == 0


@given(
    st.lists(st.text(st.characters(exclude_characters="\x1b\x00[DCIK"), max_size=30), max_size=12),
    st.integers(1, 3000),
)
def test_glued_lines_are_found_at_any_piece_border(texts: list[str], piece: int) -> None:
    """Plans behind any text are all counted, however the line is cut into pieces, and the text
    comes out whole.
    """
    output = "".join(text + PLAN for text in texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE_CHARS", piece)
        facts = read_log_facts(output)
        plain = "".join(
            segment.text for segment in segments(read_pieces(output)) if not segment.mark
        )
    assert facts.plans == len(texts)
    assert facts.evicted == 352 * len(texts)
    assert facts.findings == {}
    assert plain == "".join(texts).encode(errors="replace").decode()


@given(st.text(alphabet=st.sampled_from("[H2O]-LS layer=kv13.evict\n\x1b\x00"), max_size=300))
def test_random_text_never_crashes(text: str) -> None:
    """Any text gives facts and telling lines that are safe to print."""
    read_log_facts(text)
    assert all(line.isprintable() for line in telling_lines(text + "error: " + text))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "fail_bad_flag",
            ["error: invalid parameter for argument: --no-such-flag", "Parse arguments error"],
        ),
        (
            "fail_missing_config",
            [
                "Unable to open config file: models/none/config.json",
                "Error: No such file or directory (errno: 2)",
                "Unable to open llm_config file: models/none/llm_config.json",
                "File not exist: models/none/llm.mnn.weight",
            ],
        ),
        ("fail_missing_weights", []),
        (
            "fail_demo_missing_weights",
            [
                "config path is models/broken/config.json",
            ],
        ),
        (
            "fail_incompatible_model",
            [
                "Error for compute convolution shape, inputCount:256, outputCount:256, KH:1, "
                "KW:1, group:1",
                "Compute Shape Error for /layers.0/self_attn/o_proj/Linear",
                "inputChannel: 1, batch:1, width:1, height:256. Input data channel may be mismatch "
                "with filter channel count",
                "inputChannel: 64, batch:1, width:1, height:256. Input data channel may be "
                "mismatch with filter channel count",
            ],
        ),
    ],
)
def test_telling_lines_of_recorded_failures(name: str, expected: list[str]) -> None:
    """The lines that name the cause, stderr before stdout, each once."""
    assert telling_lines(RUNS / name / "stderr", RUNS / name / "stdout") == expected


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("fail_demo_missing_prompt", "prompt file is prompts/none.txt"),
        ("fail_demo_empty_prompt", "prompt file is /dev/null"),
        ("fail_killed_midway", "[H2O] floor-keep dominates target: kv=392 target=123 floor=136"),
    ],
)
def test_without_a_cause_the_last_lines_tell(name: str, last: str) -> None:
    """Four lines at most, the very last one last, and none that is said at every start."""
    found = telling_lines(RUNS / name / "stderr", RUNS / name / "stdout")
    assert len(found) <= 4
    assert found[-1] == last
    assert not any("cost time" in line or "device supports" in line for line in found)


def test_nothing_but_a_start() -> None:
    """Where a program said nothing else, that is how far it came."""
    assert telling_lines("The device supports: fp16:0\n") == ["The device supports: fp16:0"]


def test_telling_lines_put_causes_before_suspects_and_leave_out_log_lines() -> None:
    """A line that only looks like an error comes after one that names a cause, and routine log
    lines never.
    """
    text = (
        "step failed\nClamp invalid meta remove: remove=2 > kv_len=1.\nUnable to open x\n"
        + "retry failed\n" * 50
    )
    assert telling_lines(text) == ["Unable to open x", "step failed", "retry failed"]


def test_bytes_that_are_no_text_tell_nothing() -> None:
    """What a program that has gone wild prints is not repeated; a line of text among it is."""
    garbage = random.Random(1).randbytes(10_000).decode(errors="replace")
    assert telling_lines(f"{garbage}\nloading größe\n{garbage}") == ["loading größe"]


def test_telling_lines_are_safe_and_short() -> None:
    """Control characters are shown as escapes, long lines are cut around the cause, files that are
    absent left out.
    """
    (line,) = telling_lines(
        Path("absent"), "x" * 5000 + "\x1b[31merror: \x07bell \u202ebidi" + "y" * 5000
    )
    assert "error: \\x07bell \\u202ebidi" in line
    assert len(line) < 400
    assert printable("tab\té") == "tab é"


READERS: list[Callable[[Path], object]] = [
    read_log_facts,
    telling_lines,
    generated_text,
    read_tables,
    lambda path: read_demo(path, path, "x"),
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("unit", ["x", "| ", "[", "\x1b[", "[H2O] layer=1 ", "#", "\xe4"])
def test_a_huge_line_is_read_in_bounded_memory(
    tmp_path: Path, reader: Callable[[Path], object], unit: str
) -> None:
    """A long line takes a small part of its size, for every reader but the one that returns the
    text.
    """
    path = tmp_path / "huge"
    path.write_text(unit * (800_000 // len(unit)) + "\n")
    tracemalloc.start()
    reader(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (6_000_000 if reader is generated_text else 500_000)


def test_a_huge_line_takes_time_in_proportion_to_its_length(tmp_path: Path) -> None:
    """5 MB are cut into as many pieces as needed, and no character is handed out twice."""
    path = tmp_path / "huge"
    path.write_text("x" * 5_000_000)
    sizes = [len(piece.text) for piece in read_pieces(path)]
    assert (len(sizes), sum(sizes), max(sizes)) == (
        -(-5_000_000 // PIECE_CHARS),
        5_000_000,
        PIECE_CHARS,
    )
    plain = [len(segment.text) for segment in segments(read_pieces(path))]
    assert (sum(plain), max(plain)) == (5_000_000, PIECE_CHARS)
    marks = list(segments(read_pieces("[H2O] " * 100_000)))
    assert len(marks) == 100_000
    assert max(len(segment.text) for segment in marks) <= EVENT_CHARS


def test_bytes_are_decoded_with_replacement_and_cleaned(tmp_path: Path) -> None:
    """Colour codes, window titles and NUL bytes at the edges go; what cannot be read becomes
    replacement characters.
    """
    path = tmp_path / "out"
    path.write_bytes(b"\0\0\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x00\xff\xc3\xa9\r\nlast\0")
    first, last = read_pieces(path)
    assert (first.text, first.line, first.whole, first.newline) == (
        "red \ufffd\ufffdé\r",
        1,
        True,
        True,
    )
    assert (last.text, last.line, last.whole, last.newline) == ("last", 2, True, False)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """A directory or an absent file is an error in words."""
    with pytest.raises(ParseError, match="cannot be read: Is a directory"):
        read_log_facts(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ParseError, match="pipe: is no regular file"):
        read_log_facts(tmp_path / "pipe")


@pytest.mark.parametrize(
    "line",
    [
        "Can't Find type=3 backend",
        "model don't support this op",
        "Not enough memory for KV",
        "weights do not match the graph",
        "shape mismatch: 4 against 8",
        "Killed",
        "Illegal instruction (core dumped)",
        "llm: engine.cpp:12: Assertion `kv' failed.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "caught signal 11",
        "open: Permission denied",
        "write: No space left on device",
        "文件不存在: model.mnn",
        "Fehler beim Laden",
        "thread panicked at src/main.rs",
    ],
)
def test_telling_lines_by_shape(line: str) -> None:
    """Whoever wrote them, between lines of start-up and of progress."""
    chatter = "The device supports: i8sdot:0\nload tokenizer\nerrors: 0\n"
    assert telling_lines(f"{chatter}{line}\n{chatter}") == [line]
