"""Presets: the files that ship, and how they expand."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pytest_h2o.data import bundled
from pytest_h2o.presets import PresetError, expand, json_schema, load_preset, preset_names

RUNS = {
    "target_core_gate": 4,
    "target_joint_scope": 4,
    "target_store": 4,
    "target_ratio": 27,
    "target_speed": 12,
}


@pytest.mark.parametrize("name", preset_names())
def test_every_file_meets_the_schema(name: str) -> None:
    """Each preset is valid under the JSON Schema generated from the model, and loads."""
    jsonschema.validate(json.loads((bundled("presets") / f"{name}.json").read_text()), json.loads(json_schema()))
    load_preset(name)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(("stem", "runs"), RUNS.items())
def test_number_of_runs(stem: str, runs: int, version: int) -> None:
    """A sweep has as many launches as the original's table says."""
    assert len(list(expand(load_preset(f"{stem}_v{version}")))) == runs


def test_order_and_names() -> None:
    """Run ids and order are the original's: prompts outermost, lossy ratios innermost."""
    assert [spec.arm for spec in expand(load_preset("target_core_gate_v6"))] == [
        "run_0001_p512_g128_k0.3_b32_lr3.0",
        "run_0002_p512_g128_k0.3_b32_lr3.2",
        "run_0003_p1024_g128_k0.3_b32_lr3.0",
        "run_0004_p1024_g128_k0.3_b32_lr3.2",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompts": []}', "prompts"),
        ('{"promts": [512]}', "promts"),
        ('{"h2o_keep_ratios": [1.5]}', "h2o_keep_ratios"),
        ("not json", "file"),
    ],
)
def test_wrong_presets_name_the_key(tmp_path: Path, content: str, message: str) -> None:
    """An empty dimension, an unknown key and a value out of range are errors that name it."""
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(PresetError, match=rf"mine\.json: .*{message}"):
        load_preset(str(path))


def test_unknown_preset_lists_the_known() -> None:
    """A name that no preset has is answered with those that exist."""
    with pytest.raises(PresetError, match="target_store_v6"):
        load_preset("target_sotre_v6")
