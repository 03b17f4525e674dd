"""One recorded session of the embedded runtime, damaged in one place at a time: exactly the gate in charge fails."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "session"
SETTINGS = {
    "PROMPTS": "512",
    "GENS": "48",
    "REPEAT": "1",
    "THREADS": "2",
    "FULL_RUNS": "1",
    "PROMPT_PATTERN": "prompt_512_*.txt",
    "DECODE_TOKENS": "64",
    "KV_DUMP_PROMPTS": "1",
    "MAX_LOSSLESS_BACKPRESSURE_SKIP": "0",
    # The recording keeps the dump of the prefill of one prompt only.
    "LOSSLESS_TARGET": "1.2",
    "LOSSLESS_UPPER_BOUND_TARGET": "1.2",
    # The recording was made on a busy machine; a sabotaged speed is far beyond this.
    "DECODE_DROP_TARGET": "0.8",
    "LLM_DEMO_DECODE_DROP_TARGET": "0.8",
}
# Extension modules cannot be imported twice in one process, so the outer test run loads them first.
PRELOADED = (np, pd)
Damage = Callable[[Path], None]


def judge(pytester: pytest.Pytester, session: Path, select: str = "not joint", *arguments: str) -> set[str]:
    """Replay ``session`` and return the names of the gates that did not pass; none may error."""
    settings = [word for name, value in SETTINGS.items() for word in ("--h2o-set", f"{name}={value}")]
    result = pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-m", "final", "-k", select,
        "--h2o-replay", str(session), "--h2o-runtime", "embedded", *settings, *arguments,
    )  # fmt: skip
    outcomes = result.parseoutcomes()
    assert "errors" not in outcomes
    return set(re.findall(r"^FAILED \S+::(\S+)", result.stdout.str(), re.MULTILINE))


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A copy of the recorded session that may be damaged."""
    return Path(shutil.copytree(RECORDED, tmp_path / "session"))


def cell(column: str, text: str, launch: str = "bench-*-full-r1") -> Damage:
    """Replace one cell of the tables of some launches."""

    def damage(session: Path) -> None:
        for path in session.glob(f"launches/{launch}/log.md"):
            header, dashes, row = path.read_text().splitlines()
            index = [name.strip() for name in header.split("|")].index(column)
            cells = row.split("|")
            cells[index] = f" {text} "
            path.write_text("\n".join([header, dashes, "|".join(cells)]) + "\n")

    return damage


def record(key: str, value: object, launch: str = "demo-*-candidate-r1") -> Damage:
    """Replace one value of the metrics records of some launches."""

    def damage(session: Path) -> None:
        for path in session.glob(f"launches/{launch}/metrics.jsonl"):
            path.write_text(json.dumps({**json.loads(path.read_text()), key: value}) + "\n")

    return damage


def slow_prompts(session: Path) -> None:
    """Decode a hundred times slower, in the record and in the summary on stdout alike."""
    for path in session.glob("launches/demo-*-candidate-r1/metrics.jsonl"):
        values = json.loads(path.read_text())
        seconds = values["decode_us"] / 1e4
        record("decode_us", round(seconds * 1e6), path.parent.name)(session)
        stdout = path.with_name("stdout").read_bytes()
        stdout = re.sub(rb" decode time = \S+ s", b" decode time = %.2f s" % seconds, stdout)
        speed = b" decode speed = %.2f tok/s" % (values["decode_tokens"] / seconds)
        path.with_name("stdout").write_bytes(re.sub(rb" decode speed = \S+ tok/s", speed, stdout))


def rename_column(session: Path) -> None:
    """A binary that does not print one of the columns."""
    for path in session.glob("launches/bench-*-full-r1/log.md"):
        path.write_text(path.read_text().replace("h2o_lossless_backpressure_skip", "something_else"))


def random_kv(session: Path) -> None:
    """KV that no lossless codec can shrink."""
    for number, path in enumerate(session.glob("launches/*/kv_dump/**/*.bin")):
        state = number + 1
        words = bytearray()
        while len(words) < path.stat().st_size:
            state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
            words += (state >> 32).to_bytes(4, "little")
        path.write_bytes(bytes(words[: path.stat().st_size]))


def truncated_kv(session: Path) -> None:
    """A dump whose last file was cut off."""
    path = max(session.glob("launches/*/kv_dump/**/k_*.bin"))
    path.write_bytes(path.read_bytes()[:-2])


def test_the_recorded_session_is_accepted(pytester: pytest.Pytester, session: Path) -> None:
    """Undamaged, every gate passes, and nothing is launched."""
    assert judge(pytester, session, "test") == set()


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        (cell("h2o_lossy", "2.99 ± 0.00"), {"test_lossy[full_strict]"}),
        (cell("h2o_evictions_applied", "5.00 ± 0.00"), {"test_lossy[full_strict]"}),
        (cell("h2o_lossless", "1.000 ± 0.000"), {"test_lossless_active[full_strict]"}),
        (
            cell("speed(tok/s)", "100 ± 0<br>1.00 ± 0.00", "bench-*-full-r*"),
            {"test_decode_drop[full_strict]", "test_settings[full_strict]"},
        ),
        (
            cell("h2o_lossless_decomp_us", "0.00 ± 0.00"),
            {"test_decompression_active[full_strict]", "test_lossless_active[full_strict]"},
        ),
        (cell("h2o_lossless_decomp_us", "1.2e+06 ± 0.00"), {"test_decompression_budget[full_strict]"}),
        (cell("h2o_lossless_queue_peak", "9.00 ± 0.00"), {"test_queue_peak[full_strict]"}),
        (cell("h2o_lossless_fallback", "0.33 ± 0.58"), {"test_fallback[full_strict]"}),
        (cell("h2o_lossless_backpressure_skip", "1.00 ± 0.00"), {"test_backpressure[full_strict]"}),
        (cell("h2o_lossless_async_wait_us", "90000.00 ± 0.00"), {"test_async_wait[full_strict]"}),
        (
            cell("h2o_lossless_async_queue_peak", "0.00 ± 0.00"),
            {"test_async_activity[full_strict]", "test_settings[full_strict]"},
        ),
        (cell("h2o_lossless_decode_cache_miss", "0.00 ± 0.00"), {"test_decode_cache_activity[full_strict]"}),
        (rename_column, {"test_backpressure[full_strict]", "test_metric_columns[full_strict]"}),
        (record("h2o_total_evict_tokens", 0), {"test_eviction_active"}),
        (record("h2o_lossless_decompress_us", 0), {"test_decompression_active"}),
        (record("h2o_lossless_fallback_count", 1, "demo-prompt_512_3-candidate-r1"), {"test_fallback"}),
        (slow_prompts, {"test_decode_drop", "test_bucket_decode[512]", "test_launches"}),
        (
            random_kv,
            {"test_online_sim_lossless", "test_upper_bound_lossless", *(f"test_tensor_lossless[{t}]" for t in "kv")},
        ),
        (truncated_kv, {"test_offline_complete"}),
    ],
)
def test_damage_fails_the_gate_in_charge(
    pytester: pytest.Pytester, session: Path, damage: Damage, failing: set[str]
) -> None:
    """One wrong number fails the gate that reads it, and no other."""
    damage(session)
    assert judge(pytester, session) == failing


def test_a_lost_launch_fails_the_pack(pytester: pytest.Pytester, session: Path) -> None:
    """An m3 launch that was planned but is not there fails the pack's gate."""
    assert judge(pytester, session, "every_launch", "--h2o-set", "FULL_RUNS=9") == {
        "test_every_launch_usable[joint_full]"
    }


def test_a_crashed_prompt_is_not_averaged_away(pytester: pytest.Pytester, session: Path) -> None:
    """A prompt without a record fails every gate on real prompts, with its name."""
    session.joinpath("launches/demo-prompt_512_2-candidate-r1/metrics.jsonl").unlink()
    assert "test_launches" in judge(pytester, session, "llm_demo and launches")


def test_an_ignored_prompt_is_named(pytester: pytest.Pytester, session: Path, tmp_path: Path) -> None:
    """A prompt that the program would skip fails the prompt gate; the others are judged as before."""
    prompts = Path(shutil.copytree(ROOT / "prompts", tmp_path / "prompts"))
    prompts.joinpath("prompt_512_7.txt").write_text("# a heading\n")
    assert judge(pytester, session, "not joint", "--prompt-dir", str(prompts)) == {"test_prompts"}
