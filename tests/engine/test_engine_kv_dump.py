"""KV dumps: off by default, and exactly what the cache held."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import H2O

from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_dump import KVDump


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory to which engines made in this test dump."""
    monkeypatch.setenv("MNN_KV_DUMP_DIR", str(tmp_path / "dump"))
    monkeypatch.setenv("MNN_KV_DUMP_RUN_ID", "run")
    return tmp_path / "dump" / "run"


def entries(layer: Path) -> dict[str, dict]:
    """Metas of one layer by name."""
    return {path.name: json.loads(path.read_text()) for path in layer.glob("meta_*.json")}


def test_prompt_is_dumped_as_it_was_cached(
    make_engine: Callable[..., Engine], dump: Path, prompt: list[int]
) -> None:
    """One entry per layer holds the keys and values of the whole prompt, token by token."""
    engine = make_engine()
    engine.respond(prompt, 0)
    assert sorted(path.name for path in dump.iterdir()) == [f"layer_{index}" for index in range(4)]
    meta = entries(dump / "layer_2")["meta_t0_160.json"]
    assert (meta["seq_start"], meta["seq_len"], meta["stage"], meta["run_id"]) == (
        0,
        160,
        "prefill",
        "run",
    )
    for name, cached in zip("kv", engine.cache.layers[2].read(), strict=True):
        values = np.fromfile(dump / "layer_2" / meta[f"{name}_file"], "<f2")
        dumped = values.reshape(meta["seq_len"], meta["kv_heads"], meta["head_dim"])
        np.testing.assert_array_equal(dumped.transpose(1, 0, 2), cached)


def test_fp32(make_engine: Callable[..., Engine], dump: Path, prompt: list[int]) -> None:
    """An fp32 cache is dumped with 4 bytes per element."""
    make_engine(precision="high").respond(prompt, 0)
    meta = entries(dump / "layer_0")["meta_t0_160.json"]
    assert (meta["dtype"], meta["bytes_per_elem"]) == ("fp32", 4)
    assert (dump / "layer_0" / meta["k_file"]).stat().st_size == 160 * 2 * 8 * 4


@pytest.mark.parametrize(("stage", "spans"), [("prefill", 1), ("decode", 3), ("both", 4)])
def test_stages(  # noqa: PLR0913, PLR0917 - fixtures and a table
    make_engine: Callable[..., Engine],
    dump: Path,
    prompt: list[int],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    spans: int,
) -> None:
    """The stage chooses the prompt, the decoded tokens one by one, or both; eviction does not
    disturb it.
    """
    monkeypatch.setenv("MNN_KV_DUMP_STAGE", stage)
    make_engine(H2O).respond(prompt, 3)
    metas = entries(dump / "layer_3")
    assert len(metas) == spans
    assert {meta["stage"] for meta in metas.values()} == (
        {"prefill", "decode"} if stage == "both" else {stage}
    )


def test_token_limit(
    make_engine: Callable[..., Engine],
    dump: Path,
    prompt: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit keeps the first tokens of each entry."""
    monkeypatch.setenv("MNN_KV_DUMP_MAX_TOKENS", "10")
    make_engine().respond(prompt, 0)
    meta = entries(dump / "layer_1")["meta_t0_10.json"]
    assert (meta["seq_len"], meta["add"]) == (10, 160)
    assert (dump / "layer_1" / meta["v_file"]).stat().st_size == 10 * 2 * 8 * 2


@pytest.mark.parametrize("value", [None, "", "0", "off", "False"])
def test_off(value: str | None) -> None:
    """Nothing is dumped unless a directory is named."""
    assert KVDump.from_environment({} if value is None else {"MNN_KV_DUMP_DIR": value}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MNN_KV_DUMP_STAGE", "all"),
        ("MNN_KV_DUMP_MAX_TOKENS", "-1"),
        ("MNN_KV_DUMP_RUN_ID", "../up"),
    ],
)
def test_bad_environment(name: str, value: str) -> None:
    """A variable that makes no sense is named."""
    with pytest.raises(ValueError, match=name):
        KVDump.from_environment({"MNN_KV_DUMP_DIR": "d", name: value})
