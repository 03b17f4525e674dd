"""llm_demo: recorded output, and summaries and metrics records that are missing, partial, repeated
or contradictory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.metrics import METRICS, Sample
from pytest_h2o.parsers.demo_output import MAX_TEXT_CHARS, generated_text, read_demo

RUNS = Path(__file__).parents[1] / "data" / "runs"
SKIPPED = "0 prompt tokens: the program skips an empty prompt and one whose first character is '#'"

# Read by eye: prompt tokens, prefill µs, decode µs, sample µs, keep, lossy, lossless, raw and
# compressed bytes, compress µs, decompress µs, queue peak, wait µs, hits, misses, tokens evicted
# last and in all. Always 256 decoded.
RECORDED = {
    "demo_baseline/prompt_128_2": "174 227672 2226718 12200 1 1 1 0 0 0 0 0 0 0 0 0 0",
    "demo_baseline/prompt_512_1": "751 379063 1536815 15311 1 1 1 0 0 0 0 0 0 0 0 0 0",
    "demo_baseline/prompt_2048_1": "2781 2293131 4372047 43997 1 1 1 0 0 0 0 0 0 0 0 0 0",
    "demo_full/prompt_128_2": "174 176900 1300113 6216 .38756 2.58 1.25956 344064 273163 10115 "
    "1638 1 0 0 3 0 512",
    "demo_full/prompt_512_1": "751 317696 2733643 15953 .365639 2.73468 1.24796 655360 525147 "
    "23077 2615 2 0 0 5 288 4736",
    "demo_full/prompt_2048_1": "2781 1976221 2463828 28986 .338843 2.95094 1.24502 655360 526387 "
    "18903 4134 2 0 0 5 320 19264",
    "demo_store/prompt_512_1": "751 316125 782372 15127 .365639 2.73468 1.26059 786432 623860 "
    "22895 1281 1 1304 10 0 288 5248",
    "demo_store/prompt_2048_1": "2781 2036102 976146 31060 .338843 2.95094 1.26713 786432 620642 "
    "22821 1265 1 1121 10 0 320 21184",
}
NAMES = [
    "prefill_us", "decode_us", "sample_us", "h2o_keep", "h2o_lossy", "h2o_lossless",
    "h2o_lossless_raw_mb", "h2o_lossless_comp_mb", "h2o_lossless_comp_us", "h2o_lossless_decomp_us",
    "h2o_lossless_queue_peak", "h2o_lossless_async_wait_us", "h2o_lossless_decode_cache_hit",
    "h2o_lossless_decode_cache_miss", "h2o_last_evict_tokens", "h2o_total_evict_tokens",
]  # fmt: skip


def files(name: str) -> tuple[Path, Path]:
    """Stdout and metrics file of a recorded launch."""
    return RUNS / f"{name}.stdout", RUNS / f"{name}.metrics.jsonl"


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_launches_read_to_the_numbers_in_them(name: str) -> None:
    """Record and summary agree, bytes become MiB, and speeds come from exact times."""
    prompt, *values = [float(word) for word in RECORDED[name].split()]
    stdout, metrics = files(name)
    row = read_demo(stdout, metrics, stdout.stem)
    assert row.problems == ()
    assert (row.kind, row.label, row.prompt_tokens, row.decode_tokens) == (
        "demo",
        stdout.stem,
        prompt,
        256,
    )
    expected = dict(zip(NAMES, values, strict=True))
    for mb in ("h2o_lossless_raw_mb", "h2o_lossless_comp_mb"):
        expected[mb] /= 1048576
    assert {metric: row.samples[metric] for metric in NAMES} == {
        k: Sample(v, None, 1) for k, v in expected.items()
    }
    assert row.samples["prefill_tps"].mean == pytest.approx(prompt * 1e6 / values[0])
    assert row.samples["decode_tps"].mean == pytest.approx(256e6 / values[1])
    assert row.samples["decode_tps"].mean == pytest.approx(
        float(row.cells["decode speed"].split()[0]), rel=1e-3
    )
    assert row.cells["prompt tokens num"] == row.cells["prompt_tokens"]
    assert stdout.read_bytes().splitlines()[row.line - 1] == b"#" * 33


@pytest.mark.parametrize("case", ["demo_baseline", "demo_full", "demo_store"])
def test_a_skipped_prompt_is_a_problem_and_not_a_zero(case: str) -> None:
    """The program ignored the prompt, exited 0 and printed -nan: that is said, and not what comes
    of it.
    """
    stdout, metrics = files(f"{case}/prompt_128_1")
    row = read_demo(stdout, metrics, "prompt_128_1")
    assert row.problems == (SKIPPED,)
    assert set(row.samples) == {"prefill_tps", "decode_tps"}
    assert all(math.isnan(sample.mean) for sample in row.samples.values())


@pytest.mark.parametrize(
    "name", ["fail_demo_empty_prompt", "fail_demo_missing_prompt", "fail_demo_missing_weights"]
)
def test_failed_launches_have_no_summary(name: str) -> None:
    """Nothing was measured, and it is said."""
    row = read_demo(RUNS / name / "stdout", None, "x")
    assert row.problems == ("no summary block on stdout",)
    assert (row.samples, row.prompt_tokens, row.line) == ({}, None, 0)


RECORD = json.loads((RUNS / "demo_full/prompt_512_1.metrics.jsonl").read_text())
STDOUT = (RUNS / "demo_full/prompt_512_1.stdout").read_text()


def demo(
    tmp_path: Path, stdout: str = STDOUT, metrics: str | None = json.dumps(RECORD)
) -> tuple[str, ...]:
    """The problems of a launch with these outputs."""
    (tmp_path / "out").write_text(stdout)
    if metrics is not None:
        (tmp_path / "metrics").write_text(metrics)
    row = read_demo(tmp_path / "out", tmp_path / "metrics", "x")
    return tuple(problem.replace(f"{tmp_path}/", "") for problem in row.problems)


def test_unchanged_output_has_no_problem(tmp_path: Path) -> None:
    """The damage tests below start from something sound."""
    assert demo(tmp_path) == ()


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (
            "prompt tokens num = 751",
            "prompt tokens num = 750",
            "prompt tokens num is 750, by the metrics record it is 751",
        ),
        (
            "decode tokens num = 256",
            "decode tokens num = 255",
            "decode tokens num is 255, by the metrics record it is 256",
        ),
        (
            "prefill time = 0.32 s",
            "prefill time = 0.34 s",
            "prefill time is 0.34 s, by the metrics record it is 0.317696",
        ),
        (
            "decode time = 2.73 s",
            "decode time = nan s",
            "decode time is nan s, by the metrics record it is 2.73364",
        ),
        (
            "sample time = 0.02 s",
            "sample time = 0.03 s",
            "sample time is 0.03 s, by the metrics record it is 0.015953",
        ),
        (
            "decode speed = 93.65",
            "decode speed = 193.65",
            "decode speed is 193.65 tok/s, by the metrics record it is 93.6479",
        ),
    ],
)
def test_disagreement_is_said(tmp_path: Path, before: str, after: str, problem: str) -> None:
    """A summary that contradicts the record is a problem that quotes both."""
    assert before in STDOUT
    assert demo(tmp_path, STDOUT.replace(before, after)) == (f"the summary's {problem}",)


@pytest.mark.parametrize("unit", ["ms/tok", "s/token", "tok/min"])
def test_speeds_in_other_units(tmp_path: Path, unit: str) -> None:
    """A time for a token, or tokens a minute, are no tokens per second."""
    (tmp_path / "out").write_text(STDOUT.replace("93.65 tok/s", f"93.65 {unit}"))
    row = read_demo(tmp_path / "out", None, "x")
    assert "decode_tps" not in row.samples
    assert row.problems == (f"decode speed is 93.65 {unit}, not in tokens per second",)


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ("", "no metrics record: metrics is empty"),
        ("\n\n", "no metrics record: metrics is empty"),
        (
            None,
            "no metrics record: metrics: cannot be read: No such file or directory; see whether "
            "the launch wrote it",
        ),
        (json.dumps(RECORD)[:90], "metrics:1 is not a metrics record: "),
        (
            json.dumps(RECORD) + "\n" + json.dumps(RECORD)[:50],
            "metrics holds 2 records where one prompt was run",
        ),
        ("[]", "metrics:1 is not a metrics record"),
        (
            '{"decode_us":1,"decode_us":2}',
            "metrics:1 is not a metrics record: key given twice: 'decode_us'",
        ),
        (json.dumps(RECORD).replace("2.73468", "-nan"), "metrics:1 is not a metrics record: "),
        ("[" * 20_000, "metrics:1 is not a metrics record"),
        ('{"a":"' + "x" * 20_000 + '"}', "metrics:1 is not a metrics record"),
    ],
)
def test_a_missing_or_broken_record_is_said(
    tmp_path: Path, metrics: str | None, problem: str
) -> None:
    """An older record never stands in for a broken last one; the summary's values remain."""
    problems = demo(tmp_path, metrics=metrics)
    assert problems[0].startswith(problem)
    row = read_demo(tmp_path / "out", tmp_path / "metrics", "x")
    assert (row.prompt_tokens, row.decode_tokens) == (751, 256)
    assert row.samples == {
        "prefill_tps": Sample(2363.90, None, 1),
        "decode_tps": Sample(93.65, None, 1),
    }


def test_the_last_of_several_records_is_used(tmp_path: Path) -> None:
    """Records of an earlier launch are not mixed in, and their presence is said."""
    stale = json.dumps(RECORD | {"h2o_lossy_ratio": 9})
    (problem,) = demo(tmp_path, metrics=f"{stale}\n{json.dumps(RECORD)}\n")
    assert problem == "metrics holds 2 records where one prompt was run; the last one is used"
    assert (
        read_demo(tmp_path / "out", tmp_path / "metrics", "x").samples["h2o_lossy"].mean == 2.73468
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"h2o_lossy_ratio": "2.7"}, "the metrics record's h2o_lossy_ratio is 2.7, not a number"),
        ({"h2o_lossy_ratio": None}, "the metrics record's h2o_lossy_ratio is None, not a number"),
        ({"prefill_us": 0}, "the metrics record's prefill_us is 0"),
        ({"decode_us": -5}, "the metrics record's decode_us is -5"),
        ({"prompt_tokens": -1}, "prompt or decode tokens were not printed as a count"),
    ],
)
def test_values_that_cannot_be_are_said(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    """A record with text, zero or negative times, or negative counts is not trusted."""
    assert problem in demo(tmp_path, metrics=json.dumps(RECORD | change))


@pytest.mark.parametrize("key", ["prompt_tokens", "decode_tokens", "prefill_us", "decode_us"])
def test_a_partial_record_is_said(tmp_path: Path, key: str) -> None:
    """Keys that every record has are missed."""
    partial = {name: value for name, value in RECORD.items() if name != key}
    assert demo(tmp_path, metrics=json.dumps(partial)) == (
        f"the metrics record's {key} is absent, not a number",
    )


def test_older_records_lack_metrics_without_a_problem(tmp_path: Path) -> None:
    """A key that is not there gives no sample."""
    partial = {name: value for name, value in RECORD.items() if "cache" not in name}
    assert demo(tmp_path, metrics=json.dumps(partial)) == ()
    assert (
        "h2o_lossless_decode_cache_hit"
        not in read_demo(tmp_path / "out", tmp_path / "metrics", "x").samples
    )


def test_every_metric_with_a_key_is_read(tmp_path: Path) -> None:
    """The record's keys come from the metric table alone, our own extra ones included."""
    keys = {metric.demo: metric for metric in METRICS if metric.demo}
    record = RECORD | {key: number for number, key in enumerate(keys, 1)}
    demo(tmp_path, metrics=json.dumps(record))
    samples = read_demo(tmp_path / "out", tmp_path / "metrics", "x").samples
    for number, metric in enumerate(keys.values(), 1):
        assert samples[metric.name].mean == number * metric.demo_scale


def test_init_errors_are_recognised(tmp_path: Path) -> None:
    """A model that cannot be loaded is said also where the program exits 0."""
    assert demo(tmp_path, "config path is x\nLLM init error\n", None)[:2] == (
        "LLM init error: the model could not be loaded",
        "no summary block on stdout",
    )


def test_generated_words_are_no_init_error(tmp_path: Path) -> None:
    """With a summary the words came from the model."""
    assert demo(tmp_path, STDOUT.replace("prompt file is", "LLM init error\nprompt file is")) == ()


def test_a_cut_summary_is_said(tmp_path: Path) -> None:
    """Without its last line a summary may have lost others."""
    assert demo(tmp_path, STDOUT.rstrip().rstrip("#")) == ("the summary block is cut off",)


def test_a_repeated_summary_is_said(tmp_path: Path) -> None:
    """The last block counts; a model may have imitated the others."""
    block = STDOUT[STDOUT.index("\n" + "#" * 33) :]
    fake = block.replace("256", "1")
    assert demo(tmp_path, STDOUT.replace(block, fake + block)) == (
        "stdout holds 2 summary blocks; the last one is used",
    )


def test_no_metrics_file_asked_for_is_no_problem(tmp_path: Path) -> None:
    """Programs without the metrics option are read from their summary."""
    (tmp_path / "out").write_text(STDOUT)
    row = read_demo(tmp_path / "out", None, "x")
    assert row.problems == ()
    assert row.samples["decode_tps"].mean == 93.65


def test_missing_stdout_is_a_problem(tmp_path: Path) -> None:
    """Nothing is raised; the row says what is missing."""
    row = read_demo(tmp_path / "absent", None, "x")
    assert row.problems[0].startswith(f"{tmp_path}/absent: cannot be read")


@given(stdout=st.binary(max_size=200), metrics=st.binary(max_size=200))
def test_random_bytes_never_crash(
    tmp_path_factory: pytest.TempPathFactory, stdout: bytes, metrics: bytes
) -> None:
    """Any output gives a row, with a problem unless it is what the program prints."""
    base = tmp_path_factory.getbasetemp()
    (base / "out").write_bytes(stdout)
    (base / "metrics").write_bytes(metrics)
    assert read_demo(base / "out", base / "metrics", "x").problems


def test_generated_text_is_what_the_model_wrote() -> None:
    """Baseline and candidate start with the same words, with log lines between them in one of the
    two.
    """
    baseline, full = (
        generated_text(RUNS / case / "prompt_128_2.stdout")
        for case in ("demo_baseline", "demo_full")
    )
    assert baseline.startswith("#\n# '   '   '   '   '   'b'\n# '   'bo\\n'\n             '   '")
    assert full == baseline
    assert generated_text(RUNS / "demo_baseline/prompt_2048_1.stdout") == "#\n" * 128
    assert generated_text(RUNS / "demo_full/prompt_128_1.stdout") == ""


def test_long_generated_text_is_bounded() -> None:
    """More text than a prompt can give is cut."""
    assert (
        len(generated_text("prompt file is x\n" + "word " * (MAX_TEXT_CHARS // 2)))
        == MAX_TEXT_CHARS
    )


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="[#DCIK\x00\x1b\n"), max_size=20),
            st.booleans(),
        ),
        max_size=10,
    )
)
def test_log_lines_are_cut_out_wherever_they_are_glued(parts: list[tuple[str, bool]]) -> None:
    """Text with log lines behind any of its parts gives the text alone."""
    log = (
        "[H2O] floor-keep dominates target: kv=384 target=120 floor=128 (sink=16 recent=96 "
        "block=32)\n"
    )
    stdout = (
        "config path is c\nprompt file is p\n"
        + "".join(text + log * glued for text, glued in parts)
        + "\n"
        + "#" * 33
        + "\n"
    )
    expected = "".join(text for text, _ in parts).encode(errors="replace").decode()
    assert generated_text(stdout) == expected
