"""One recorded session of the embedded runtime, damaged in one place at a time: exactly the gates
in charge fail.
"""

from __future__ import annotations

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
    "REQUIRE_QUALITY": "0",
    "RELATION_LOSSLESS": "0",
    "RELATION_UNEVICTED": "0",
    "RELATION_SPEED": "0",
    "RELATION_GREEDY": "0",
    "RELATION_STRANGERS": "0",
    "RELATION_UNSEEN": "0",
    "RELATION_ORDER": "0",
    "RELATION_HEAVY": "0",
    "RELATION_RECALL": "0",
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


def judge(
    pytester: pytest.Pytester, session: Path, select: str = "not joint", *arguments: str
) -> set[str]:
    """Replay ``session`` and return the names of the gates that did not pass; none may error."""
    settings = [
        word for name, value in SETTINGS.items() for word in ("--h2o-set", f"{name}={value}")
    ]
    result = pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-rf", "-m", "final",
        "-k",
        select,
        "--h2o-replay",
        str(session),
        "--h2o-runtime",
        "embedded",
        *settings,
        *arguments,
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
        (cell("h2o_lossless_backpressure_skip", "1.00 ± 0.00"), {"test_backpressure[full_strict]"}),
        (cell("h2o_lossless_async_wait_us", "90000.00 ± 0.00"), {"test_async_wait[full_strict]"}),
        (
            cell("h2o_lossless_decode_cache_miss", "0.00 ± 0.00"),
            {"test_decode_cache_activity[full_strict]"},
        ),
        (
            random_kv,
            {
                "test_online_sim_lossless",
                "test_upper_bound_lossless",
                "test_offline_verified",
                *(f"test_tensor_lossless[{t}]" for t in "kv"),
            },
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
