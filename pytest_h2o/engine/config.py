"""Settings of the engine: strict, typed reading of one JSON config and of the model description it
points to.

The ``kv_*`` keys are declared in :mod:`pytest_h2o.keys`, the others below. Unknown ``kv_*`` keys,
wrong types, unknown words and settings that contradict each other are errors that name the key;
numbers out of range are clamped to the range of their key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pytest_h2o.codec import block_codecs
from pytest_h2o.codec.predictors import parse_predictors
from pytest_h2o.keys import (
    H2O_PREFIX,
    KEYS,
    LOSSLESS_PREFIX,
    H2OKeys,
    Key,
    LosslessKeys,
    Value,
    row,
)

SHIPPED = Path(__file__).parent / "weights"
SIZE_LIMIT = 4 * 2**20
Json = Mapping[str, Any]
Section = TypeVar("Section", "H2OSettings", "LosslessSettings", "EngineSettings")


class ConfigError(ValueError):
    """A config or model file that cannot be used; the text names the file, the key and what to
    do.
    """


@dataclass(frozen=True)
class H2OSettings(H2OKeys):
    """The ``kv_h2o_*`` keys of one config."""

    def layers(self, count: int) -> range:
        """Layers in the H2O range of a model with ``count`` layers."""
        last = count - 1 if self.layer_end < 0 else min(self.layer_end, count - 1)
        return range(min(self.layer_start, count - 1), last + 1)


@dataclass(frozen=True)
class LosslessSettings(LosslessKeys):
    """The ``kv_lossless_*`` keys of one config."""

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
    thread_num: int = row(Key(4, "threads", low=1))
    precision: str = row(Key("low", "of the weights", choices=("low", "normal", "high")))
    sampler_type: str = row(Key("greedy", "how tokens are chosen", choices=("greedy", "penalty")))
    penalty: float = row(Key(1.1, "what a token that was said loses by", low=1, high=100))
    ngram: int = row(Key(8, "tokens that are not to be repeated together", low=2, high=64))
    ngram_factor: float = row(Key(1.0, "further loss for each token repeated", low=1, high=10))
    max_penalty: float = row(Key(10.0, "what a token loses by at most", low=1, high=1000))
    max_new_tokens: int = row(Key(512, "where a response ends", low=0))
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
        name = self.engine.llm_weight or self.engine.llm_model or "model.safetensors"
        return self.directory / name

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
        _reject_other_models(model, path)
        sizes = {name: int(_number(model, key, path)) for name, key in _SIZES.items()}
        heads = sizes["heads"]
        kv_heads = int(_number(model, "num_key_value_heads", path, heads))
        head_dim = int(_number(model, "head_dim", path, sizes["hidden"] // heads))
        if heads % kv_heads or head_dim % 2:
            raise ConfigError(
                f"{path}: num_key_value_heads: {heads} heads over {kv_heads} KV heads of {head_dim}"
            )
        bos, eos = _special_tokens(model, sizes["vocab"], path)
        return cls(
            **sizes,
            kv_heads=kv_heads,
            head_dim=head_dim,
            eps=float(_number(model, "rms_norm_eps", path, 1e-6)),
            rope_theta=float(_number(model, "rope_theta", path, 10000.0, high=1e12)),
            bos=bos,
            eos=eos,
        )


def _reject_other_models(model: Json, path: Path) -> None:
    for key, wanted in _ONLY.items():
        if model.get(key, wanted) != wanted:
            raise ConfigError(
                f"{path}: {key}: {model[key]!r} is not supported; this engine runs {key} = "
                f"{wanted!r}"
            )


def _number(
    model: Json, key: str, path: Path, default: float | None = None, *, high: float = 2**20
) -> float:
    """The positive number called ``key``."""
    value = model.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= high:
        raise ConfigError(f"{path}: {key}: {value!r} is not a number in (0, {high:g}]")
    return cast(float, value)


def _special_tokens(model: Json, vocab: int, path: Path) -> tuple[int, frozenset[int]]:
    """The token that begins a text, and those that end one."""
    eos = model.get("eos_token_id", 2)
    ends = eos if isinstance(eos, list) else [eos]
    ids = [model.get("bos_token_id", 1)]
    ids += ends
    for number in ids:
        if type(number) is not int or not 0 <= number < vocab:
            raise ConfigError(
                f"{path}: bos_token_id, eos_token_id: {ids} are not tokens below vocab_size"
            )
    return ids[0], frozenset(ends)


_ONLY = {"hidden_act": "silu", "rope_scaling": None, "attention_bias": False, "mlp_bias": False}
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
        h2o=_section(H2OSettings, H2O_PREFIX, settings, path),
        lossless=_section(LosslessSettings, LOSSLESS_PREFIX, settings, path),
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
    values = {}
    for each in fields(cls):
        name = prefix + each.name
        if name in raw:
            key = each.metadata.get("key") or Key(cast(Value, each.default), "")
            values[each.name] = _value(raw[name], key, f"{path}: {name}")
    return cls(**values)


def _value(value: Any, key: Key, where: str) -> Any:
    """``value`` checked against the type and the choices of ``key``, and clamped to its range."""
    if key.kind == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != key.kind:
        raise ConfigError(f"{where}: {value!r} is not a JSON {_JSON_TYPES[key.kind]}")
    if key.kind == "int" and abs(value) >= 2**31:
        raise ConfigError(f"{where}: {value} does not fit into 32 bits")
    words = key.words()
    if words and value not in words:
        raise ConfigError(f"{where}: {value!r} is unknown; choose one of {', '.join(words)}")
    high = key.high if key.engine_high is None else key.engine_high
    if key.low is not None:
        value = max(value, type(value)(key.low))
    if high is not None:
        value = min(value, type(value)(high))
    return value


_JSON_TYPES = {"bool": "true or false", "int": "integer", "float": "number", "str": "string"}


def _reject_unknown(settings: Json, path: Path) -> None:
    for name in settings.keys() - KEYS.keys():
        near = get_close_matches(name, KEYS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{path}: {name}: unknown setting{hint}")


def _reject_contradictions(config: Config, raw: Json) -> None:
    """Raise ConfigError for settings that exclude each other, or that this engine cannot follow."""
    for key, problem in _contradictions(config, raw):
        raise ConfigError(f"{config.path}: {key}: {raw.get(key)!r} {problem}")
    codecs = block_codecs.names()
    if config.lossless.codec_runtime not in codecs:
        raise ConfigError(
            f"{config.path}: kv_lossless_codec_runtime: {config.lossless.codec_runtime!r} is "
            f"unknown; choose one of {', '.join(codecs)}"
        )
    for name in ("predictors_k", "predictors_v"):
        try:
            parse_predictors(getattr(config.lossless, name))
        except ValueError as error:
            raise ConfigError(f"{config.path}: kv_lossless_{name}: {error}") from None


def _contradictions(config: Config, raw: Json) -> Iterator[tuple[str, str]]:
    """Keys with what is wrong about them."""
    h2o, lossless = config.h2o, config.lossless
    layers = config.architecture.layers
    if h2o.enable and not h2o.layers(layers):
        yield "kv_h2o_layer_end", f"lies before kv_h2o_layer_start {h2o.layer_start}"
    if lossless.enable and lossless.runtime_enable and lossless.codec == "none":
        yield (
            "kv_lossless_codec",
            "contradicts kv_lossless_runtime_enable; set gear_delta or disable lossless",
        )
    if raw.get("layer_nums", layers) != layers:
        yield "layer_nums", f"contradicts num_hidden_layers {layers}"
    if config.engine.reuse_kv:
        yield "reuse_kv", "is not supported: every response starts with an empty cache"
