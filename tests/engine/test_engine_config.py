"""Strict reading of configs: what is refused, what is clamped, where files are looked for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import H2O, LOSSLESS, TINY

from pytest_h2o.engine.config import SHIPPED, Architecture, ConfigError, load_config

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kv_h2o_sink_token": 3},
            "kv_h2o_sink_token: unknown setting; did you mean kv_h2o_sink_tokens",
        ),
        ({"kv_zzz": 3}, "kv_zzz: unknown setting$"),
        ({"kv_h2o_enable": 1}, "kv_h2o_enable: 1 is not a JSON true or false"),
        ({"kv_h2o_enable": "true"}, "kv_h2o_enable: 'true' is not a JSON true or false"),
        ({"kv_h2o_block_tokens": 8.0}, "kv_h2o_block_tokens: 8.0 is not a JSON integer"),
        (
            {"kv_h2o_block_tokens": 2**31},
            "kv_h2o_block_tokens: 2147483648 does not fit into 32 bits",
        ),
        ({"kv_h2o_layer_end": -(2**31)}, "kv_h2o_layer_end: -2147483648 does not fit into 32 bits"),
        ({"kv_h2o_block_tokens": True}, "kv_h2o_block_tokens: True is not a JSON integer"),
        ({"kv_h2o_ema_alpha": "0.9"}, "kv_h2o_ema_alpha: '0.9' is not a JSON number"),
        (
            {"kv_h2o_target_mode": "best"},
            "kv_h2o_target_mode: 'best' is unknown; choose one of adaptive, static",
        ),
        ({"kv_h2o_policy": "best"}, "kv_h2o_policy: 'best' is unknown; choose one of h2o, window"),
        ({"kv_lossless_scope": "all"}, "kv_lossless_scope: 'all' is unknown"),
        ({"kv_lossless_runtime_mode": "on"}, "kv_lossless_runtime_mode: 'on' is unknown"),
        ({"kv_lossless_codec": "gzip"}, "kv_lossless_codec: 'gzip' is unknown"),
        ({"kv_lossless_codec_runtime": "v9"}, "kv_lossless_codec_runtime: 'v9' is unknown"),
        (
            {"kv_lossless_predictors_k": "raw,magic"},
            "kv_lossless_predictors_k: unknown predictor 'magic'",
        ),
        (
            {"kv_lossless_enable": True, "kv_lossless_runtime_enable": True},
            "kv_lossless_codec: None contradicts kv_lossless_runtime_enable",
        ),
        (
            {"kv_h2o_enable": True, "kv_h2o_layer_start": 3, "kv_h2o_layer_end": 1},
            "kv_h2o_layer_end: 1 lies before kv_h2o_layer_start 3",
        ),
        ({"layer_nums": 32}, "layer_nums: 32 contradicts num_hidden_layers 4"),
        ({"reuse_kv": True}, "reuse_kv: True is not supported"),
        ({"precision": "int4"}, "precision: 'int4' is unknown"),
        ({"sampler_type": "temperature"}, "sampler_type: 'temperature' is unknown"),
        ({"llm_config": "nowhere.json"}, "Unable to open config file: .*nowhere.json"),
    ],
)
def test_refused(write_config: Write, settings: dict[str, object], message: str) -> None:
    """Unknown keys, wrong types, unknown words and contradictions name the key and the file."""
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(settings))


@pytest.mark.parametrize(
    ("key", "given", "clamped"),
    [
        ("kv_h2o_layer_start", -3, 0),
        ("kv_h2o_block_tokens", 0, 1),
        ("kv_h2o_sink_tokens", -1, 0),
        ("kv_h2o_recent_tokens", -1, 0),
        ("kv_h2o_target_keep_ratio", 1.5, 1.0),
        ("kv_h2o_target_keep_ratio", -1, 0.0),
        ("kv_h2o_target_lossy_ratio", 0.5, 1.0),
        ("kv_h2o_ema_alpha", 7, 1.0),
        ("kv_h2o_update_interval", 0, 1),
        ("kv_h2o_trigger_min_tokens", 0, 1),
        ("kv_lossless_front_n", -1, 0),
        ("kv_lossless_block_tokens", 0, 1),
        ("kv_lossless_hot_recent_tokens", -1, 0),
        ("kv_lossless_hot_sink_tokens", -1, 0),
        ("kv_lossless_kept_sample_layers", -1, 0),
        ("kv_lossless_async_threads", -1, 0),
        ("kv_lossless_max_queue", 0, 1),
        ("kv_lossless_decode_cache_blocks", -1, 0),
    ],
)
def test_clamped(write_config: Write, key: str, given: float, clamped: float) -> None:
    """Numbers out of range are clamped as documented."""
    config = load_config(write_config({key: given}))
    section, name = (
        (config.h2o, key[7:]) if key.startswith("kv_h2o_") else (config.lossless, key[12:])
    )
    assert getattr(section, name) == clamped


def test_other_engines_keys_are_left_alone(write_config: Write) -> None:
    """Keys without the kv_ prefix that mean nothing here are no error."""
    assert (
        load_config(write_config(backend_type="cpu", penalty=1.1, memory="low")).engine.precision
        == "low"
    )


@pytest.mark.parametrize("content", ["[]", "{", '{"kv_h2o_ema_alpha": NaN}', "[" * 100_000])
def test_not_a_config(tmp_path: Path, content: str) -> None:
    """Whatever is in the file, the error names it."""
    path = tmp_path / "broken.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_config(path)


def test_no_model_keys(tmp_path: Path) -> None:
    """A config without any model key runs the shipped weights."""
    path = tmp_path / "plain.json"
    path.write_text(json.dumps({"kv_h2o_enable": True}))
    config = load_config(path)
    assert config.directory == SHIPPED
    assert config.weights.is_file()
    assert config.tokenizer.is_file()


def test_model_description_settles_what_the_config_leaves_open(tmp_path: Path) -> None:
    """Keys beside the model's shape are read as those of the config are; the config wins."""
    model = TINY | {
        "kv_h2o_sink_tokens": 5,
        "kv_h2o_recent_tokens": 7,
        "precision": "high",
        "thread_num": 3,
    }
    (tmp_path / "config.json").write_text(json.dumps(model))
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({"llm_weight": "w", "kv_h2o_recent_tokens": 9, "thread_num": 2}))
    config = load_config(path)
    assert (config.h2o.sink_tokens, config.h2o.recent_tokens) == (5, 9)
    assert (config.engine.precision, config.engine.thread_num) == ("high", 2)


def test_paths_start_at_the_config(tiny_model: Path) -> None:
    """Without base_dir, files lie beside the config; the model is called like its directory."""
    path = tiny_model / "beside.json"
    path.write_text(json.dumps({"llm_weight": "model.safetensors"}))
    config = load_config(path)
    assert config.weights == tiny_model / "model.safetensors"
    assert config.name == tiny_model.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_size": "big"}, "hidden_size: 'big' is not a number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"bos_token_id": None}, "bos_token_id"),
        ({"eos_token_id": [2, 96]}, "eos_token_id"),
        ({"max_position_embeddings": True}, "max_position_embeddings"),
    ],
)
def test_unsupported_model(change: dict[str, object], message: str) -> None:
    """A model this engine cannot run is refused by the key that says so."""
    with pytest.raises(ConfigError, match=message):
        Architecture.parse(TINY | change, Path("config.json"))


def test_gate_settings_are_accepted(write_config: Write) -> None:
    """All keys that a generated gate config holds are known."""
    config = load_config(
        write_config(H2O, LOSSLESS, kv_lossless_scope="front_n+h2o_kept", kv_h2o_log_stats=True)
    )
    assert config.lossless.front_scope
    assert config.lossless.kept_scope
