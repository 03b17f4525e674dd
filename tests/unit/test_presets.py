"""Presets: the files that ship, and how they expand."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pytest_h2o.data import bundled
from pytest_h2o.plan.presets import (
    Preset,
    PresetError,
    distinct,
    expand,
    json_schema,
    load_preset,
    preset_names,
)

RUNS = {
    "target_core_gate": 4,
    "target_joint_scope": 4,
    "target_store": 4,
    "target_ratio": 27,
    "target_speed": 12,
}
DISTINCT = {
    "target_core_gate": 4,
    "target_joint_scope": 2,
    "target_store": 2,
    "target_ratio": 9,
    "target_speed": 4,
}


@pytest.mark.parametrize("name", preset_names())
def test_every_file_meets_the_schema(name: str) -> None:
    """Each preset is valid under the JSON Schema generated from the model, and loads."""
    jsonschema.validate(
        json.loads((bundled("presets") / f"{name}.json").read_text()), json.loads(json_schema())
    )
    load_preset(name)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(("stem", "runs"), RUNS.items())
def test_number_of_runs(stem: str, runs: int, version: int) -> None:
    """A sweep has as many launches as the original's table says."""
    assert len(list(expand(load_preset(f"{stem}_v{version}")))) == runs


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(("stem", "launches"), DISTINCT.items())
def test_distinct_launches(stem: str, launches: int, version: int) -> None:
    """Combinations that differ only in the unused keep ratio are one launch, the first of them."""
    specs = list(expand(load_preset(f"{stem}_v{version}")))
    first = distinct(specs)
    assert list(first) == [spec.arm for spec in specs]
    assert len({spec.key for spec in first.values()}) == launches
    for spec in specs:
        both = [{**each.config, "kv_h2o_target_keep_ratio": 0} for each in (spec, first[spec.arm])]
        assert both[0] == both[1]


def test_distinct_launches_in_static_mode() -> None:
    """In static mode the keep ratio counts and the target lossy ratio does not."""
    preset = Preset(
        h2o_target_mode="static", h2o_keep_ratios=[0.3, 0.4], h2o_target_lossy_ratios=[2.0, 3.0]
    )
    first = distinct(expand(preset))
    assert [spec.config["kv_h2o_target_keep_ratio"] for spec in first.values()] == [
        0.3,
        0.3,
        0.4,
        0.4,
    ]
    assert {spec.config["kv_h2o_target_lossy_ratio"] for spec in first.values()} == {2.0}


def test_launch_options() -> None:
    """What the command line adds reaches every launch; without H2O nothing is encoded either."""
    preset = Preset(
        kv_lossless_enable=True, kv_lossless_runtime_enable=True, kv_lossless_codec="gear_delta"
    )
    [spec] = expand(preset, threads=2, backend="metal", attention_option=1, timeout_s=5)
    assert (spec.threads, spec.backend, spec.attention_option, spec.timeout_s) == (2, "metal", 1, 5)
    assert spec.config["kv_lossless_codec"] == "gear_delta"
    [spec] = expand(preset, disable_h2o=True)
    assert [key for key in spec.config if key.endswith("_enable") and spec.config[key]] == []
    assert (spec.config["kv_lossless_scope"], spec.config["kv_lossless_codec"]) == ("none", "none")


def test_scalar_lossy_ratio(tmp_path: Path) -> None:
    """The scalar key of older files stands for a list of one."""
    path = tmp_path / "old.json"
    path.write_text('{"h2o_target_lossy_ratio": 3}')
    jsonschema.validate(json.loads(path.read_text()), json.loads(json_schema()))
    assert [
        spec.config["kv_h2o_target_lossy_ratio"] for spec in expand(load_preset(str(path)))
    ] == [3.0]


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
        ('{"prompts": []}', "Empty sweep dimension: prompts"),
        (
            '{"prompts": [], "gens": [], "repeat": 0}',
            "Empty sweep dimension: prompts, gens; repeat",
        ),
        ('{"promts": [512]}', "promts"),
        ('{"h2o_keep_ratios": [1.5]}', "h2o_keep_ratios"),
        (
            '{"h2o_keep_ratio": [0.3]}',
            r"h2o_keep_ratio: unknown key; did you mean h2o_keep_ratios\?",
        ),
        ("not json", "file"),
        ("", "file"),
        ("[" * 100_000, "file"),
        ("[1, 2]", "file"),
        ('{"prompts": ["512"]}', "prompts"),
        ('{"repeat": true}', "repeat"),
        ('{"h2o_log_stats": "yes"}', "h2o_log_stats"),
        ('{"h2o_target_lossy_ratios": [Infinity]}', "h2o_target_lossy_ratios"),
        ('{"h2o_ema_alphas": [NaN]}', "h2o_ema_alphas"),
        ('{"h2o_target_lossy_ratio": 3.0, "h2o_target_lossy_ratios": [3.0]}', "not both"),
        (
            f'{{"prompts": {list(range(1, 102))}, "gens": {list(range(1, 101))}}}',
            "10100 combinations",
        ),
        ('{"repeat": 3' + " " * 2**20 + "}", "file"),
    ],
)
def test_wrong_presets_name_the_key(tmp_path: Path, content: str, message: str) -> None:
    """An empty dimension, an unknown key, a value of the wrong type or out of range are errors that
    name it.
    """
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(PresetError, match=rf"mine\.json: .*{message}"):
        load_preset(str(path))


def test_preset_that_is_a_directory(tmp_path: Path) -> None:
    """A path that cannot be read is an error that says so."""
    (tmp_path / "mine.json").mkdir()
    with pytest.raises(PresetError, match=r"mine\.json: cannot be read: Is a directory"):
        load_preset(str(tmp_path / "mine.json"))


def test_unknown_preset_lists_the_known() -> None:
    """A name that no preset has is answered with those that exist."""
    with pytest.raises(PresetError, match="target_store_v6"):
        load_preset("target_sotre_v6")
