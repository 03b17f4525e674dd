"""Settings of the engine: strict, typed reading of one JSON config and of the model description it
points to.

A key has one obvious field below. Unknown ``kv_*`` keys, wrong types, unknown words and settings
that contradict each other are errors that name the key; numbers out of range are clamped as the key
reference says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from pytest_h2o.codec import block_codecs
from pytest_h2o.codec.predictors import parse_predictors
from pytest_h2o.engine import policies

SHIPPED = Path(__file__).parent / "weights"
SIZE_LIMIT = 4 * 2**20
Json = Mapping[str, Any]
Section = TypeVar("Section", "H2OSettings", "LosslessSettings", "EngineSettings")


class ConfigError(ValueError):
    """A config or model file that cannot be used; the text names the file, the key and what to
    do.
    """


def at_least(default: Any, low: float, high: float | None = None) -> Any:
    """A number clamped to [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def one_of(default: str, *words: str) -> Any:
    """A word out of a closed list."""
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True)
class H2OSettings:
    """The ``kv_h2o_*`` keys: which layers lose tokens, when, and how many."""

    enable: bool = False
    layer_start: int = at_least(2, 0)
    layer_end: int = -1  # inclusive; negative: the last layer
    block_tokens: int = at_least(64, 1)
    sink_tokens: int = at_least(32, 0)
    recent_tokens: int = at_least(256, 0)
    target_keep_ratio: float = at_least(0.5, 0.0, 1.0)  # static mode
    target_mode: str = one_of("adaptive", "adaptive", "static")
    target_lossy_ratio: float = at_least(3.0, 1.0)  # adaptive mode
    ema_alpha: float = at_least(0.9, 0.0, 1.0)
    update_interval: int = at_least(16, 1)
    trigger_min_tokens: int = at_least(512, 1)
    log_stats: bool = False
    policy: str = "h2o"

    def layers(self, count: int) -> range:
        """Layers in the H2O range of a model with ``count`` layers."""
        last = count - 1 if self.layer_end < 0 else min(self.layer_end, count - 1)
        return range(min(self.layer_start, count - 1), last + 1)


@dataclass(frozen=True)
class LosslessSettings:
    """The ``kv_lossless_*`` keys: which cold blocks are encoded, how, and what happens to the raw
    values.
    """

    enable: bool = False
    scope: str = one_of(
        "front_n", "none", "front_n", "h2o_kept", "front_n_and_h2o_kept", "front_n+h2o_kept"
    )
    front_n: int = at_least(2, 0)
    codec: str = one_of("none", "none", "gear_delta")
    runtime_enable: bool = False
    runtime_mode: str = one_of("probe", "probe", "full", "store")
    block_tokens: int = at_least(128, 1)
    hot_recent_tokens: int = at_least(256, 0)
    hot_sink_tokens: int = at_least(16, 0)
    kept_sample_layers: int = at_least(1, 0)
    kept_sample_token_interval: int = 1
    front_sample_token_interval: int = 1
    store_disable_front: bool = False
    store_bootstrap_tokens: int = 32
    store_grouped_step_tokens: int = 256
    codec_runtime: str = "fp16_gear_predictive_v3"
    predictors_k: str = "raw,delta_seq,xor_seq,pair_delta"
    predictors_v: str = "raw,delta_seq,xor_seq"
    async_threads: int = at_least(1, 0, 64)
    max_queue: int = at_least(256, 1)
    decode_cache_blocks: int = at_least(64, 0)
    strict_roundtrip_check: bool = False

    @property
    def active(self) -> bool:
        """Whether blocks are encoded while decoding."""
        return self.enable and self.runtime_enable and self.codec != "none"

    @property
    def front_scope(self) -> bool:
        """Whether the first ``front_n`` layers are coded whole."""
        return self.scope.startswith("front_n")

    @property
    def kept_scope(self) -> bool:
        """Whether the layers of the H2O range are coded."""
        return self.scope.endswith("h2o_kept")


@dataclass(frozen=True)
class EngineSettings:
    """The engine keys without a prefix that have a meaning here; others (of other engines) are left
    alone.
    """

    base_dir: str = ""
    llm_config: str = "config.json"
    llm_model: str = ""
    llm_weight: str = ""
    tokenizer_file: str = "tokenizer.model"
    thread_num: int = at_least(4, 1)
    precision: str = one_of("low", "low", "normal", "high")
    sampler_type: str = one_of("greedy", "greedy")
    max_new_tokens: int = at_least(512, 0)
    reuse_kv: bool = False
    quantised: int = 0  # set by the bench's -qatten: 1 int8 keys, 2 int8 keys and values


@dataclass(frozen=True)
class Config:
    """One parsed config file and the files it points to."""

    path: Path
    directory: Path
    engine: EngineSettings
    h2o: H2OSettings
    lossless: LosslessSettings
    model: Json

    @property
    def name(self) -> str:
        """Name of the model directory."""
        return self.directory.resolve().name

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.directory / (
            self.engine.llm_weight or self.engine.llm_model or "model.safetensors"
        )

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return self.directory / self.engine.tokenizer_file

    @cached_property
    def architecture(self) -> Architecture:
        """The model's shape."""
        return Architecture.parse(self.model, self.directory / self.engine.llm_config)


@dataclass(frozen=True)
class Architecture:
    """Shape of a Llama model, from a Hugging Face ``config.json``."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    eps: float
    rope_theta: float
    bos: int
    eos: frozenset[int]

    @classmethod
    def parse(cls, model: Json, path: Path) -> Architecture:
        """Read and check ``model``; ConfigError names the key that does not describe a model this
        engine can run.
        """

        def number(key: str, default: float | None = None, high: float = 2**20) -> Any:
            value = model.get(key, default)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= high
            ):
                raise ConfigError(f"{path}: {key}: {value!r} is not a number in (0, {high:g}]")
            return value

        for key, wanted in (
            ("hidden_act", "silu"),
            ("rope_scaling", None),
            ("attention_bias", False),
            ("mlp_bias", False),
        ):
            if model.get(key, wanted) != wanted:
                raise ConfigError(
                    f"{path}: {key}: {model[key]!r} is not supported; this engine runs {key} = "
                    f"{wanted!r}"
                )
        sizes = {name: int(number(key)) for name, key in _SIZES.items()}
        heads = sizes["heads"]
        kv_heads = int(number("num_key_value_heads", heads))
        head_dim = int(number("head_dim", sizes["hidden"] // heads))
        if heads % kv_heads or head_dim % 2:
            raise ConfigError(
                f"{path}: num_key_value_heads: {heads} heads over {kv_heads} KV heads of {head_dim}"
            )
        eos = model.get("eos_token_id", 2)
        ids = [model.get("bos_token_id", 1), *(eos if isinstance(eos, list) else [eos])]
        if any(type(number) is not int or not 0 <= number < sizes["vocab"] for number in ids):
            raise ConfigError(
                f"{path}: bos_token_id, eos_token_id: {ids} are not tokens below vocab_size"
            )
        return cls(
            **sizes,
            kv_heads=kv_heads,
            head_dim=head_dim,
            eps=float(number("rms_norm_eps", 1e-6)),
            rope_theta=float(number("rope_theta", 10000.0, 1e12)),
            bos=ids[0],
            eos=frozenset(ids[1:]),
        )


_SIZES = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
}


def load_config(path: Path) -> Config:
    """Read the config at ``path`` and the model description it names, whose keys hold where the
    config has none.

    A config without any model key runs the shipped weights. ConfigError names the file, the key and
    the cause.
    """
    main = _read_json(path, "config")
    paths = _section(EngineSettings, "", main, path)
    directory = _directory(main, paths, path)
    model = _read_json(directory / paths.llm_config, "llm_config")
    raw = {**model, **main}
    settings = {key: raw[key] for key in raw if key.startswith("kv_")}
    config = Config(
        path=path,
        directory=directory,
        engine=_section(EngineSettings, "", raw, path),
        h2o=_section(H2OSettings, "kv_h2o_", settings, path),
        lossless=_section(LosslessSettings, "kv_lossless_", settings, path),
        model=model,
    )
    _reject_unknown(settings, path)
    _reject_contradictions(config, raw)
    return config


def override(config: Config, **values: object) -> Config:
    """``config`` with engine settings that a command line overrides."""
    return replace(config, engine=replace(config.engine, **values))  # type: ignore[arg-type]


def _directory(main: Json, engine: EngineSettings, path: Path) -> Path:
    if engine.base_dir:
        return Path(engine.base_dir)
    if not {"llm_config", "llm_model", "llm_weight", "tokenizer_file"} & main.keys():
        return SHIPPED
    return path.parent


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise ConfigError(f"{path}: {what} is larger than 4 MiB; give a JSON config")
        value = json.loads(path.read_bytes(), parse_constant=_reject_constant)
    except OSError as error:
        raise ConfigError(
            f"Unable to open config file: {path} ({error.strerror}); check the {what} path"
        ) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not JSON ({error}); correct the file") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no JSON object; correct the file")
    return value


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _section(cls: type[Section], prefix: str, raw: Json, path: Path) -> Section:
    """The fields of ``cls`` found in ``raw`` under ``prefix``."""
    known = {prefix + f.name: f for f in fields(cls)}
    values = {
        f.name: _value(raw[key], f.default, f.metadata, f"{path}: {key}")
        for key, f in known.items()
        if key in raw
    }
    return cls(**values)


def _value(value: Any, default: Any, rule: Mapping[str, Any], where: str) -> Any:
    """``value`` checked against the type of ``default`` and the field's rule."""
    wanted = type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where}: {value!r} is not a JSON {_JSON_TYPES[wanted]}")
    if wanted is int and abs(value) >= 2**31:
        raise ConfigError(f"{where}: {value} does not fit into 32 bits")
    if "words" in rule and value not in rule["words"]:
        raise ConfigError(
            f"{where}: {value!r} is unknown; choose one of {', '.join(rule['words'])}"
        )
    if "low" in rule:
        value = max(value, wanted(rule["low"]))
        value = value if rule["high"] is None else min(value, wanted(rule["high"]))
    return value


_JSON_TYPES = {bool: "true or false", int: "integer", float: "number", str: "string"}


def _reject_unknown(settings: Json, path: Path) -> None:
    known = {f"kv_{prefix}_{f.name}" for prefix, cls in _SECTIONS.items() for f in fields(cls)}
    for key in settings.keys() - known:
        from difflib import get_close_matches  # noqa: PLC0415 - only needed for the message

        near = get_close_matches(key, known, 1)
        raise ConfigError(
            f"{path}: {key}: unknown setting{f'; did you mean {near[0]}?' if near else ''}"
        )


_SECTIONS: dict[Literal["h2o", "lossless"], type[H2OSettings | LosslessSettings]] = {
    "h2o": H2OSettings,
    "lossless": LosslessSettings,
}


def _reject_contradictions(config: Config, raw: Json) -> None:
    h2o, lossless = config.h2o, config.lossless
    layers = config.architecture.layers
    problems = {
        "kv_h2o_layer_end": h2o.enable
        and not h2o.layers(layers)
        and f"lies before kv_h2o_layer_start {h2o.layer_start}",
        "kv_lossless_codec": lossless.enable
        and lossless.runtime_enable
        and lossless.codec == "none"
        and "contradicts kv_lossless_runtime_enable; set gear_delta or disable lossless",
        "layer_nums": raw.get("layer_nums", layers) != layers
        and f"contradicts num_hidden_layers {layers}",
        "reuse_kv": config.engine.reuse_kv
        and "is not supported: every response starts with an empty cache",
    }
    for key, problem in problems.items():
        if problem:
            raise ConfigError(f"{config.path}: {key}: {raw.get(key)!r} {problem}")
    for key, word, known in (
        ("kv_h2o_policy", h2o.policy, policies.names()),
        ("kv_lossless_codec_runtime", lossless.codec_runtime, block_codecs.names()),
    ):
        if word not in known:
            raise ConfigError(
                f"{config.path}: {key}: {word!r} is unknown; choose one of {', '.join(known)}"
            )
    for key in ("predictors_k", "predictors_v"):
        try:
            parse_predictors(getattr(lossless, key))
        except ValueError as error:
            raise ConfigError(f"{config.path}: kv_lossless_{key}: {error}") from None
