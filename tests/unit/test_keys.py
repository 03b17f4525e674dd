"""Engine keys: one row each is all it takes, and the defaults are those of the key reference."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.keys import KEYS, NONE, H2OKeys, Key
from pytest_h2o.plan.knobs import KNOBS, engine_config, resolve
from pytest_h2o.plan.presets import Preset, PresetError, expand, load_preset

PACKAGE = Path(__file__).parents[2] / "pytest_h2o"
# Defaults of engine, sweep and runtime gate as the original's sources have them, where they differ.
DIFFERENT = """
kv_h2o_enable false true true
kv_h2o_block_tokens 64 64 32
kv_h2o_sink_tokens 32 32 16
kv_h2o_recent_tokens 256 256 96
kv_h2o_target_keep_ratio 0.5 0.5 0.3
kv_h2o_target_lossy_ratio 3.0 3.0 3.2
kv_h2o_trigger_min_tokens 512 512 384
kv_h2o_log_stats false false true
kv_lossless_enable false false true
kv_lossless_scope "front_n" "front_n_and_h2o_kept" "front_n_and_h2o_kept"
kv_lossless_codec "none" "none" "gear_delta"
kv_lossless_runtime_enable false false true
kv_lossless_runtime_mode "probe" "full" "full"
kv_lossless_kept_sample_token_interval 1 2 2
kv_lossless_front_sample_token_interval 1 1 -1
kv_lossless_store_disable_front false false -1
kv_lossless_store_bootstrap_tokens 32 32 -1
kv_lossless_store_grouped_step_tokens 256 256 -1
"""
ROW = """
    spare_tokens: int = row(
        Key(7, "kept for later", low=2, high=99, gates=9, why="for the test", kit="own")
    )
    policy: str = row("""
# What a copy of the package that has the row says about it.
LOOK = """
import json, sys
from pathlib import Path
from pytest_h2o.docs.generated import knob_table
from pytest_h2o.engine.config import ConfigError, load_config
from pytest_h2o.kit import documents as kit
from pytest_h2o.kit.manifest import manifest_entry
from pytest_h2o.plan.knobs import KNOBS, KnobError, engine_config, resolve
from pytest_h2o.plan.presets import Preset, expand, preset_of

directory = Path(sys.argv[1])

def read(value):
    path = directory / "config.json"
    path.write_text(json.dumps({"kv_h2o_spare_tokens": value}))
    try:
        return load_config(path).h2o.spare_tokens
    except ConfigError as error:
        return str(error).partition(": ")[2]

def turned(text):
    try:
        return engine_config(resolve([f"H2O_SPARE_TOKENS={text}"]))["kv_h2o_spare_tokens"]
    except KnobError as error:
        return str(error)

specs = [*expand(preset_of({"h2o_spare_tokens": "12"})), *expand(preset_of({}))]
entries = [manifest_entry(spec, 0, config=directory, log=directory) for spec in specs]
print(json.dumps({
    "package": kit.__file__,
    "engine": [read(value) for value in (50, 1, 100, "x")],
    "knob": [KNOBS["H2O_SPARE_TOKENS"].default, turned("12"), turned("1")],
    "gate": engine_config(resolve())["kv_h2o_spare_tokens"],
    "presets": [spec.config.get("kv_h2o_spare_tokens") for spec in specs],
    "manifest": [entry.get("h2o_spare_tokens") for entry in entries],
    "table": [line for line in knob_table().splitlines() if "SPARE" in line],
    "preset schema": Preset.model_json_schema()["properties"]["h2o_spare_tokens"],
    "manifest schema": kit.ManifestEntry.model_json_schema()["properties"]["h2o_spare_tokens"],
    "valid": [kit.ManifestEntry.model_validate(entry).h2o_spare_tokens for entry in entries],
}))
"""


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the package knows about a key after one row more in ``keys.py``."""
    root = tmp_path_factory.mktemp("copy")
    copy = root / "pytest_h2o"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    (copy / "engine" / "weights").symlink_to(PACKAGE / "engine" / "weights")
    source = (copy / "keys.py").read_text("utf-8")
    assert source.count("\n    policy: str = row(") == 1
    (copy / "keys.py").write_text(source.replace("\n    policy: str = row(", ROW), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", LOOK, str(root)],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    seen: dict[str, Any] = json.loads(result.stdout)
    assert Path(seen["package"]).is_relative_to(root)
    return seen


def test_an_added_key_is_a_setting_of_the_engine(added: dict[str, Any]) -> None:
    """It is read, clamped to its range, and refused with another type."""
    *numbers, refused = added["engine"]
    assert numbers == [50, 2, 99]
    assert refused == "kv_h2o_spare_tokens: 'x' is not a JSON integer"


def test_an_added_key_is_a_knob(added: dict[str, Any]) -> None:
    """Its knob writes it, refuses what is out of range, and stands in the table; a gate's launch
    has its default.
    """
    default, turned, refused = added["knob"]
    assert (default, turned, added["gate"]) == (9, 12, 9)
    assert refused == "H2O_SPARE_TOKENS='1': expected an integer at least 2 and at most 99"
    assert added["table"] == [
        "| `H2O_SPARE_TOKENS` | 9; engine: 7; presets: 7 | an integer at least 2 and at most 99 | "
        "kept for later | own |"
    ]


def test_an_added_key_is_a_key_of_presets_and_a_column(added: dict[str, Any]) -> None:
    """A preset sets it, the manifest shows it, and both schemas describe it."""
    assert added["presets"] == added["manifest"] == [12, None]
    assert added["valid"] == [12, 7]
    title = {"title": "H2O Spare Tokens", "type": "integer", "default": 7}
    assert added["preset schema"] == {**title, "minimum": 2, "maximum": 99}
    assert added["manifest schema"] == title


def test_defaults() -> None:
    """Engine, presets and gates have the defaults of the key reference, and a reason wherever they
    differ.
    """
    different = {}
    for line in DIFFERENT.strip().splitlines():
        name, *words = line.split()
        different[name] = [json.loads(word) for word in words]
    for key in KEYS.values():
        defaults = [key.engine, key.presets_default, key.gates_default]
        expected = different.get(key.name, [key.engine] * 3)
        if key.preset == NONE:  # the sweep turns it on, not a preset
            defaults[1] = expected[1]
        assert json.dumps(defaults) == json.dumps(expected), key.name
        assert bool(key.why) == (key.name in different), key.name


def test_names_are_unique() -> None:
    """No two keys share a knob, a preset key or a column."""
    for names in (
        [key.knob for key in KEYS.values()],
        [key.preset for key in KEYS.values()],
        [key.column for key in KEYS.values()],
    ):
        given = [name for name in names if name != NONE]
        assert len(given) == len(set(given))


def test_engine_settings_have_the_engine_defaults() -> None:
    """Settings without a config are those of the rows."""
    settings = H2OKeys()
    for key in KEYS.values():
        if key.name.startswith("kv_h2o_"):
            assert getattr(settings, key.attribute) == key.engine


@pytest.mark.parametrize(
    ("settings", "written"),
    [([], None), (["H2O_POLICY=window"], "window"), (["H2O_POLICY=h2o"], "h2o")],
)
def test_policy(settings: list[str], written: str | None) -> None:
    """The knob reaches the config; unless it is turned, launches are those of the kit, which has no
    such key.
    """
    assert engine_config(resolve(settings)).get("kv_h2o_policy") == written


def test_policy_of_a_preset(tmp_path: Path) -> None:
    """A preset takes the policies that there are, and names them where it asks for another."""
    [spec] = expand(Preset.model_validate({"h2o_policy": "window"}))
    assert spec.config["kv_h2o_policy"] == "window"
    path = tmp_path / "mine.json"
    path.write_text('{"h2o_policy": "oldest"}')
    with pytest.raises(
        PresetError, match=r"h2o_policy: .*'oldest' is unknown; choose one of h2o, w"
    ):
        load_preset(str(path))


def test_choices_of_the_policy_knob() -> None:
    """The words are the files of the policies, so a new file is a new word."""
    files = {path.stem for path in (PACKAGE / "engine" / "policies").glob("[!_]*.py")}
    assert set(KNOBS["H2O_POLICY"].choices) == files
    assert Key("a", "b", package="pytest_h2o.engine.policies").words() == tuple(sorted(files))
