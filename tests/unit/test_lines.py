"""What single log lines say of a launch, on lines that a test makes up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.evidence.eviction import _from_the_beginning
from pytest_h2o.evidence.log_consistency import (
    IN_TIME,
    TIMED_ANEW,
    blocks_evidence,
    ended_well,
    plans_evidence,
    waited,
)
from pytest_h2o.evidence.look import Look
from pytest_h2o.evidence.speed import _same_bytes
from pytest_h2o.lab.offline import coded_alike
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.loglines import read_log_facts
from pytest_h2o.parsers.repeats import MOST, LoggedBlock, Plan, Repeats
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runs.results import read_launch

CONFIG = {
    "kv_h2o_layer_start": 0,
    "kv_h2o_layer_end": 1,
    "kv_h2o_trigger_min_tokens": 384,
    "kv_h2o_update_interval": 16,
    "kv_lossless_runtime_mode": "full",
    "kv_lossless_kept_sample_token_interval": 2,
}
RESPONSE = "".join(
    f"[H2O] layer={layer} kv={kv} evict={evict}\n"
    for layer, kv, evict in ((0, 520, 352), (1, 530, 352))
)


def plan(layer: int, kv: int, evict: int = 352) -> str:
    return f"[H2O] layer={layer} kv={kv} evict={evict}\n"


def block(layer: int = 0, comp: int = 900, number: int = 1, wait: int = 0, start: int = 16) -> str:
    return (
        f"[H2O-LOSSLESS] layer={layer} kv=520 start={start} tokens=128 raw=1000 attempt_comp={comp}"
        f" eff_comp={comp} updates={number} async_wait_us={wait} mode=1\n"
    )


def look(
    tmp_path: Path,
    text: str,
    stderr: str = "",
    config: dict[str, object] | None = None,
    **metrics: float,
) -> Look:
    """A bench launch of two responses of 512 and 64 tokens that printed ``text``."""
    paths = standard_paths(tmp_path)
    (tmp_path / "stdout").write_text(text)
    (tmp_path / "stderr").write_text(stderr)
    spec = LaunchSpec(
        program="llm_bench", arm="full", replicate=1, config=CONFIG | (config or {}), gen_tokens=64,
        repeat=1, threads=1, prompt_tokens=512,
    )  # fmt: skip
    record = LaunchRecord(spec=spec, status="ok", reason="exit code 0", **paths)
    row = Row(
        kind="bench", label="p512_g64", prompt_tokens=512, decode_tokens=64, cells={}, line=1,
        samples={name: Sample(value) for name, value in metrics.items()},
        source=tmp_path / "log.md", problems=(),
    )  # fmt: skip
    return Look(record, row, read_log_facts(text_file(tmp_path)))


def text_file(tmp_path: Path) -> Path:
    return tmp_path / "stdout"


def against(found: object) -> list[str]:
    """The claims that are contradicted."""
    return [each.claim for each in found if each.standing == "contradicted"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (RESPONSE * 2, []),
        (plan(0, 440) + RESPONSE * 2, ["plans are made with the prompt in the cache"]),
        (RESPONSE + plan(0, 200) + plan(1, 210), ["every response was evicted"]),
        (plan(0, 520) + plan(0, 536) + plan(0, 520) + plan(1, 530), []),
        (plan(0, 520) + plan(0, 200) + plan(0, 1040, 700) + plan(1, 1050), []),
    ],
    ids=["honest", "short prompt", "one response", "cancelled plan", "kept kv"],
)
def test_plans(tmp_path: Path, text: str, claims: list[str]) -> None:
    """Plans begin at the prompt, once in every response, also where they are made again."""
    assert against(plans_evidence(look(tmp_path, text))) == claims


def test_idle_layers(tmp_path: Path) -> None:
    """Where most H2O layers never plan the ratio is of the others; one that has no turn is a
    doubt.
    """
    text = plan(0, 520) * 2 + plan(1, 520) * 2
    of_five = look(tmp_path, text, config={"kv_h2o_layer_end": 4})
    assert against(plans_evidence(of_five)) == ["every H2O layer takes part"]
    of_three = list(plans_evidence(look(tmp_path, text, config={"kv_h2o_layer_end": 2})))
    assert against(of_three) == []
    assert of_three[-1].standing == "doubtful"


@pytest.mark.parametrize(
    ("text", "config", "claims"),
    [
        (block() * 2, {}, []),
        (block() * 3, {}, ["a block is encoded once a response"]),
        (block() * 3, {"kv_lossless_kept_sample_token_interval": 0}, []),
        (
            block() * 2 + block(number=3, start=300),
            {},
            ["every block that was submitted was encoded"],
        ),
        (block() * 2 + block(1, 700), {"kv_lossless_scope": "front_n"}, []),
        (
            block(1) * 2,
            {"kv_lossless_scope": "front_n", "kv_lossless_front_n": 2,
             "kv_lossless_front_sample_token_interval": 1},
            ["every H2O layer takes part"],
        ),
        (block(0) * 2, {"kv_lossless_scope": "h2o_kept", "kv_lossless_kept_sample_layers": 0},
         ["every H2O layer takes part"]),
    ],
)  # fmt: skip
def test_blocks(tmp_path: Path, text: str, config: dict[str, object], claims: list[str]) -> None:
    """A block is encoded once a response, comes back, and is of the layers that were asked for."""
    assert against(blocks_evidence(look(tmp_path, text, config=config))) == claims


def test_equal_sizes_are_a_doubt(tmp_path: Path) -> None:
    """Blocks of three layers that all have one size are not refused, and said."""
    found = list(blocks_evidence(look(tmp_path, (block(0) + block(1) + block(2)) * 2)))
    assert found[-1].standing == "doubtful"
    assert "several layers" in found[-1].text


@pytest.mark.parametrize(
    ("column", "standing"),
    [(3000.0, "supported"), (3.0, "contradicted"), (3e6, "doubtful")],
)
def test_waiting_times(tmp_path: Path, column: float, standing: str) -> None:
    """A column in milliseconds is a thousand times too small; what is waited for after the last
    line may be more.
    """
    text = (block(wait=1000) + block(1, wait=3000)) * 2
    found = waited(look(tmp_path, text, h2o_lossless_async_wait_us=column))
    assert found
    assert found.standing == standing


@pytest.mark.parametrize(
    "line",
    [
        "a.out: x.c:3: main: Assertion `n > 0' failed.",
        "terminate called without an active exception",
        "AssertionError: not equal",
        "==1==ERROR: LeakSanitizer: detected memory leaks",
        "encode worker 2: exception ignored",
        "thread 'encode' panicked at src/lib.rs",
        "Unhandled exception: error in stage 2",
        "timeout: sending signal TERM to command ‘./llm_bench’",
        "h2o.service: Main process exited, code=killed, status=9/KILL",
        "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT",
        "Process finished with exit code -1073741819 (0xC0000005)",
        "*** SIGSEGV (@0x0) received by PID 42 ***",
        "Caught signal 11",
        "run.sh: 行 12:  4242 已杀死               ./llm_bench -m c.json",
        "./run.sh: line 3: 77 Bo'ldi       ./llm_bench -m c.json",
        "Parçalama arızası (çekirdek döküldü)",
        "Abandon",
        "llm_bench exited with status 139",
    ],
)
def test_trouble_on_stderr(tmp_path: Path, line: str) -> None:
    """What broke is said although the exit code is 0."""
    found = ended_well(look(tmp_path, "", f"all well\n{line}\n"))
    assert found
    assert found.standing == "contradicted"


@pytest.mark.parametrize(
    "line",
    [
        "[llm_bench] -kv true is deprecated: use `-pg <pp>,<tg>` instead",
        "Can't open /dev/dma_heap, fall back to CPU",
        "warning: 4 worker threads on 2 cores",
        "0 errors, 0 failed",
        "encode worker 0: 12 blocks, failed: 0",
        "llm_bench exited with status 0",
        "signal handlers installed",
        "memory limit: 16 GiB",
        "model.cpp: line 3: 120 tensors loaded",
        "",
    ],
)
def test_harmless_stderr(tmp_path: Path, line: str) -> None:
    """Warnings and settings that do not suit are nothing that broke."""
    assert ended_well(look(tmp_path, "", f"{line}\n")) is None


def test_text_of_a_model_is_not_trouble(tmp_path: Path) -> None:
    """What a model writes about exceptions is on stdout, and nobody's failure."""
    seen = look(tmp_path, "Traceback (most recent call last): ValueError")
    demo = replace(seen.spec, program="llm_demo", prompt_tokens=None, prompt_file=Path("p.txt"))
    seen = replace(seen, record=replace(seen.record, spec=demo))
    assert ended_well(seen) is None


def test_repeats_are_bounded() -> None:
    """Endless logs are cut, which is noted."""
    repeats = Repeats()
    for number in range(MOST + 1):
        repeats.plan(Plan(0, number, 1))
        repeats.block(LoggedBlock(0, number, 1, 2, 1, 1), number)
    assert (len(repeats.plans), len(repeats.blocks), repeats.cut) == (MOST, MOST, True)
    assert repeats.least_wait_us(1) == MOST


def test_only_the_warm_up_waited(tmp_path: Path) -> None:
    """What one response waited for may be in no column: it was not measured."""
    text = block(wait=20_000) + block(1, wait=22_000) + block() + block(1)
    assert waited(look(tmp_path, text, h2o_lossless_async_wait_us=0.0)) is None


PLANNED = "".join(plan(layer, kv) for layer, kv in ((0, 513), (1, 514), (0, 513), (1, 514)))


@pytest.mark.parametrize(
    ("mean", "final", "standing"),
    [(2.4, 2.6, "supported"), (1.05, 2.6, "contradicted"), (9.0, 2.6, "contradicted")],
)
def test_mean_and_final_ratio(tmp_path: Path, mean: float, final: float, standing: str) -> None:
    """What is planned at once is gone for most of a response, so both ratios are alike."""
    seen = look(tmp_path, PLANNED, h2o_effective_ratio_mean=mean, h2o_effective_ratio=final)
    found = _from_the_beginning(seen)
    assert found
    assert found.standing == standing


@pytest.mark.parametrize(
    ("baseline", "candidate", "standing"),
    [(5.76, 5.2, "supported"), (2.88, 5.2, "contradicted"), (5.76, 9.0, "contradicted")],
)
def test_bytes_of_both_sides(
    tmp_path: Path, baseline: float, candidate: float, standing: str
) -> None:
    """Before any eviction a token takes as many bytes in the candidate as in the baseline."""
    before = look(tmp_path, "", h2o_kv_peak_mb=baseline)
    after = look(tmp_path, "", h2o_kv_peak_mb=candidate)
    (found,) = _same_bytes(before, after)
    assert found.standing == standing


def late(kv: int, us: int = 3000) -> str:
    return block().replace("kv=520", f"kv={kv}").replace("updates", f"comp_us={us} updates")


BLOCKS = {"kv_lossless_block_tokens": 128, "kv_lossless_hot_recent_tokens": 256}


@pytest.mark.parametrize(
    ("kvs", "claimed"), [((514, 530), []), ((528, 576), ["in time"]), ((528, 530), [])]
)
def test_blocks_that_come_at_the_end(
    tmp_path: Path, kvs: tuple[int, ...], claimed: list[str]
) -> None:
    """First blocks that are due at the prompt and come with the last token were put off; the
    warm-up may end earlier.
    """
    found = blocks_evidence(look(tmp_path, "".join(map(late, kvs)), config=BLOCKS))
    wrong = [each for each in found if each.claim == IN_TIME and each.standing == "contradicted"]
    assert len(wrong) == len(claimed)


@pytest.mark.parametrize(
    ("times", "standing"),
    [
        ((1001, 1002, 1003, 1004, 1005, 1005), "supported"),
        ((1001, 1002) * 3, "contradicted"),
        ((1000, 2000) * 3, None),
        ((1001, 1001), None),
    ],
)
def test_times_that_come_again(
    tmp_path: Path, times: tuple[int, ...], standing: str | None
) -> None:
    """Times of encoding that agree to the microsecond were not measured, unless the clock is
    coarse.
    """
    text = "".join(late(520, us) for us in times)
    found = [each for each in blocks_evidence(look(tmp_path, text)) if each.claim == TIMED_ANEW]
    assert [each.standing for each in found] == ([standing] if standing else [])


@pytest.mark.parametrize(("comp", "standing"), [(600, "supported"), (500, "contradicted")])
def test_blocks_smaller_than_any_coder_makes_them(tmp_path: Path, comp: int, standing: str) -> None:
    """Blocks of front layers are held against what the same values come to here."""
    seen = look(tmp_path, block(0, comp) + block(1, comp) + block(4, 100))
    values = {
        "lossless_ratio": 1.35,
        "selected_layers": [0, 1],
        "codecs": [{"lossless_ratio": 1.5}, {"lossless_ratio": None}],
    }
    (found,) = coded_alike([seen.record], values)
    assert found.standing == standing
    assert coded_alike([], values) == []


HEADER = "| model | llm_demo | speed(tok/s) |\n|---|---|---|\n"


@pytest.mark.parametrize(
    ("speed", "problems"),
    [("100.00 ± 1.00<br>10.00 ± 0.10", 0), ("100.00 ± 1.00<br>12.00 ± 0.10", 1)],
)
def test_a_table_on_stdout_beside_the_file(tmp_path: Path, speed: str, problems: int) -> None:
    """What is printed twice must be the same twice."""
    record = look(tmp_path, HEADER + f"| m | prompt=512<br>decode=64 | {speed} |\n").record
    row = "| m | prompt=512<br>decode=64 | 100.00 ± 1.00<br>10.00 ± 0.10 |\n"
    record.table.write_text(HEADER + row)
    found = read_launch(record)[1]
    assert len(found) == problems
    assert all("another in the table on stdout" in each for each in found)
