"""Generated configs: the path rules of the original runner, and nothing lost of the user's base
config.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.runtimes.base import RuntimeSetupError
from pytest_h2o.runtimes.launch_config import (
    PATH_FIELDS,
    config_text,
    launch_config,
    overridden_values,
    read_config,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A model directory, a config directory beside it, and a symlink to the model directory."""
    root = tmp_path / "größe, 'x' y"
    for folder in ("model/sub", "configs"):
        (root / folder).mkdir(parents=True)
    (root / "model" / "llm.mnn").touch()
    (root / "link").symlink_to(root / "model")
    return root.resolve()


@pytest.mark.parametrize(
    ("config", "base_dir", "expected"),
    [
        ("model/config.json", None, "model"),
        ("model/config.json", "", "model"),
        ("model/config.json", 7, "model"),
        ("model/config.json", ".", "model"),
        ("model/config.json", "sub", "model/sub"),
        ("model/config.json", "sub/", "model/sub"),
        ("configs/config.json", "../model", "model"),
        ("configs/config.json", "../link", "model"),
        ("link/config.json", None, "model"),
        ("configs/config.json", "{root}/model", "model"),
        ("configs/config.json", "{root}/link/", "model"),
        ("configs/config.json", "../absent", "absent"),
    ],
)
def test_base_dir(tree: Path, config: str, base_dir: object, expected: str) -> None:
    """base_dir is resolved against the config file's directory and always absolute with a trailing
    slash.
    """
    text = base_dir.format(root=tree) if isinstance(base_dir, str) else base_dir
    base = {} if base_dir is None else {"base_dir": text}
    assert launch_config(base, tree / config, {})["base_dir"] == f"{tree}/{expected}/"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("llm.mnn", "llm.mnn"),
        ("./llm.mnn", "llm.mnn"),
        ("sub/../llm.mnn", "llm.mnn"),
        ("../other/llm.mnn", "../other/llm.mnn"),
        ("{root}/model/llm.mnn", "llm.mnn"),
        ("{root}/link/llm.mnn", "llm.mnn"),
        ("../link/llm.mnn", "llm.mnn"),
        ("{root}/other/llm.mnn", "../other/llm.mnn"),
        ("", ""),
        (None, None),
        (3, 3),
    ],
)
@pytest.mark.parametrize("field", PATH_FIELDS)
def test_path_fields(tree: Path, field: str, value: object, expected: object) -> None:
    """The six path fields become relative to base_dir; what is empty or no string is left as it
    is.
    """
    text = value.format(root=tree) if isinstance(value, str) else value
    assert launch_config({field: text}, tree / "model" / "config.json", {})[field] == expected


@given(
    st.lists(st.sampled_from([".", "..", "a", "b", "model", "link"]), min_size=1, max_size=6),
    st.booleans(),
)
def test_engine_finds_the_same_file(parts: list[str], absolute: bool) -> None:
    """The engine joins base_dir and field as text; that names the file the user's config named."""
    value = ("/" if absolute else "") + "/".join(parts)
    config = launch_config({"llm_model": value}, Path("/models/x/config.json"), {})
    joined = f"{config['base_dir']}{config['llm_model']}"
    assert os.path.realpath(joined) == os.path.realpath(Path("/models/x", value))


def test_other_keys_are_copied_and_missing_fields_stay_missing(tmp_path: Path) -> None:
    """Only base_dir is added; path fields that are not the six, and unknown keys, are not
    rewritten.
    """
    base = {
        "visual_model": "../v.mnn",
        "sampler_type": "greedy",
        "x": [1, {"y": None}],
        "kv_h2o_enable": False,
    }
    config = launch_config(base, tmp_path / "config.json", {"kv_h2o_enable": True, "kv_new": 0.5})
    assert config == {
        **base,
        "kv_h2o_enable": True,
        "base_dir": f"{tmp_path.resolve()}/",
        "kv_new": 0.5,
    }


def test_overridden_values_names_changed_keys_only() -> None:
    """A launch that replaces a value or its JSON type is reported; equal values and new keys are
    not.
    """
    base = {"kv_a": 64, "kv_b": True, "kv_c": 1, "kv_d": "x"}
    assert overridden_values(base, {"kv_a": 32, "kv_b": 1, "kv_c": 1, "kv_e": 5}) == {
        "kv_a": 64,
        "kv_b": True,
    }


def test_config_text_is_ascii_json() -> None:
    """Generated files are ASCII, indented by 2 and keep the order of keys."""
    text = config_text({"base_dir": "/größe/", "a": True})
    assert text == '{\n  "base_dir": "/gr\\u00f6\\u00dfe/",\n  "a": true\n}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b'{"llm_model": "a\\u0000b"}', "llm_model contains a NUL"),
    ],
)
def test_unusable_config(tmp_path: Path, content: bytes, words: str) -> None:
    """Each kind of broken config is one clear error that names the file."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(RuntimeSetupError, match=words) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_config_that_is_no_file(tmp_path: Path) -> None:
    """A directory and a missing file are told apart, each with what to do."""
    with pytest.raises(RuntimeSetupError, match="is a directory; give the config"):
        read_config(tmp_path)
    with pytest.raises(RuntimeSetupError, match="does not exist; correct --model-config"):
        read_config(tmp_path / "none.json")


def test_huge_config_is_refused(tmp_path: Path) -> None:
    """A file that is too large for a config is not read into memory."""
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(RuntimeSetupError, match="larger than 16 MiB"):
        read_config(path)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """A config saved by a Windows editor is read."""
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_config(path) == {"a": 1}
