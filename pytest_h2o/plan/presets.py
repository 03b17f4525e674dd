"""Sweep presets: JSON files of settings to combine; a file's stem is the preset's name."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pytest_h2o.data import bundled
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec

Lengths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Shares = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
Ratios = Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=1)]
# Sweep dimensions, outermost first, with the config key that each one sets.
DIMENSIONS = {
    "h2o_keep_ratios": "kv_h2o_target_keep_ratio",
    "h2o_block_tokens": "kv_h2o_block_tokens",
    "h2o_sink_tokens": "kv_h2o_sink_tokens",
    "h2o_recent_tokens": "kv_h2o_recent_tokens",
    "h2o_ema_alphas": "kv_h2o_ema_alpha",
    "h2o_update_intervals": "kv_h2o_update_interval",
    "h2o_trigger_min_tokens": "kv_h2o_trigger_min_tokens",
    "h2o_target_lossy_ratios": "kv_h2o_target_lossy_ratio",
}
SCALARS = ("h2o_layer_start", "h2o_layer_end", "h2o_target_mode", "h2o_log_stats")
# The key that the engine does not look at in each target mode.
UNUSED = {"adaptive": "kv_h2o_target_keep_ratio", "static": "kv_h2o_target_lossy_ratio"}
LOSSLESS_OFF: Mapping[str, ConfigValue] = {
    "kv_lossless_enable": False,
    "kv_lossless_runtime_enable": False,
    "kv_lossless_scope": "none",
    "kv_lossless_codec": "none",
}
SIZE_LIMIT = 2**20
MAX_COMBINATIONS = 9999  # run ids have four digits


class PresetError(ValueError):
    """A preset is missing or wrong; the message names the file, the key and what is accepted."""


class Preset(BaseModel):
    """One preset file. Lists are sweep dimensions; a missing key has the original sweep's
    default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    prompts: Lengths = [512]
    gens: Lengths = [128]
    repeat: Annotated[int, Field(ge=1)] = 3
    h2o_keep_ratios: Shares = [0.5]
    h2o_block_tokens: Lengths = [64]
    h2o_sink_tokens: Counts = [32]
    h2o_recent_tokens: Counts = [256]
    h2o_ema_alphas: Shares = [0.9]
    h2o_update_intervals: Lengths = [16]
    h2o_trigger_min_tokens: Lengths = [512]
    h2o_target_lossy_ratios: Ratios = [3.0]
    h2o_target_lossy_ratio: Annotated[float, Field(ge=1)] | None = (
        None  # of older files, in place of the list
    )
    h2o_layer_start: Annotated[int, Field(ge=0)] = 2
    h2o_layer_end: Annotated[int, Field(ge=-1)] = -1
    h2o_target_mode: Literal["adaptive", "static"] = "adaptive"
    h2o_log_stats: bool = False
    kv_lossless_enable: bool = False
    kv_lossless_runtime_enable: bool = False
    kv_lossless_scope: Literal["none", "front_n", "h2o_kept", "front_n_and_h2o_kept"] = (
        "front_n_and_h2o_kept"
    )
    kv_lossless_front_n: Annotated[int, Field(ge=0)] = 2
    kv_lossless_codec: Literal["none", "gear_delta"] = "none"
    kv_lossless_runtime_mode: Literal["full", "store", "probe"] = "full"
    kv_lossless_block_tokens: Annotated[int, Field(ge=1)] = 128
    kv_lossless_hot_recent_tokens: Annotated[int, Field(ge=0)] = 256
    kv_lossless_hot_sink_tokens: Annotated[int, Field(ge=0)] = 16
    kv_lossless_kept_sample_layers: Annotated[int, Field(ge=0)] = 1
    kv_lossless_kept_sample_token_interval: Annotated[int, Field(ge=0)] = 2
    kv_lossless_front_sample_token_interval: Annotated[int, Field(ge=0)] = 1
    kv_lossless_store_disable_front: bool = False
    kv_lossless_store_bootstrap_tokens: Annotated[int, Field(ge=0)] = 32
    kv_lossless_store_grouped_step_tokens: Annotated[int, Field(ge=0)] = 256
    kv_lossless_codec_runtime: str = "fp16_gear_predictive_v3"
    kv_lossless_predictors_k: str = "raw,delta_seq,xor_seq,pair_delta"
    kv_lossless_predictors_v: str = "raw,delta_seq,xor_seq"
    kv_lossless_async_threads: Annotated[int, Field(ge=0)] = 1
    kv_lossless_max_queue: Annotated[int, Field(ge=1)] = 256
    kv_lossless_decode_cache_blocks: Annotated[int, Field(ge=0)] = 64
    kv_lossless_strict_roundtrip_check: bool = False

    @model_validator(mode="after")
    def _one_lossy_setting(self) -> Self:
        if {"h2o_target_lossy_ratio", "h2o_target_lossy_ratios"} <= self.model_fields_set:
            raise ValueError("give h2o_target_lossy_ratios or h2o_target_lossy_ratio, not both")
        return self

    @property
    def dimensions(self) -> dict[str, list[int] | list[float]]:
        """The values of each sweep dimension, outermost first."""
        values = {name: getattr(self, name) for name in ("prompts", "gens", *DIMENSIONS)}
        if self.h2o_target_lossy_ratio is not None:
            values["h2o_target_lossy_ratios"] = [self.h2o_target_lossy_ratio]
        return values


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(path.stem for path in bundled("presets").glob("*.json"))


def load_preset(name: str) -> Preset:
    """A preset by name, or by path for one of the user's own; raises :class:`PresetError`."""
    path = Path(name) if name.endswith(".json") else bundled("presets") / f"{name}.json"
    try:
        with path.open("rb") as file:
            preset = Preset.model_validate_json(
                file.read(SIZE_LIMIT)
            )  # cut off, a larger one is no JSON
    except FileNotFoundError:
        raise PresetError(
            f"{path}: no such preset; there are {', '.join(preset_names())}"
        ) from None
    except OSError as error:
        raise PresetError(
            f"{path}: cannot be read: {error.strerror}; give a JSON file or a preset's name"
        ) from None
    except ValidationError as error:
        raise PresetError(f"{path}: {_describe(error)}") from None
    return _of_size(preset, str(path))


def preset_of(texts: Mapping[str, str]) -> Preset:
    """A preset from texts by key, lists comma separated; raises :class:`PresetError` naming the
    option.
    """
    lists = {name for name, field in Preset.model_fields.items() if isinstance(field.default, list)}
    values = {
        name: [part.strip() for part in text.split(",") if part.strip()] if name in lists else text
        for name, text in texts.items()
    }
    try:
        return _of_size(Preset.model_validate(values, strict=False), "options")
    except ValidationError as error:
        raise PresetError(_describe(error)) from None


def _of_size(preset: Preset, source: str) -> Preset:
    if (size := math.prod(map(len, preset.dimensions.values()))) > MAX_COMBINATIONS:
        raise PresetError(
            f"{source}: {size} combinations, at most {MAX_COMBINATIONS}; give shorter lists"
        )
    return preset


def _describe(error: ValidationError) -> str:
    """What is wrong with a preset, key by key; empty dimensions first, in the original's words."""
    empty = [str(item["loc"][0]) for item in error.errors() if item["type"] == "too_short"]
    words = [f"Empty sweep dimension: {', '.join(empty)}"] if empty else []
    others = [item for item in error.errors() if item["type"] != "too_short"]
    return "; ".join(
        words
        + [f"{'.'.join(map(str, item['loc'])) or 'file'}: {_message(item)}" for item in others]
    )


def _message(item: ErrorDetails) -> str:
    """One error of pydantic's in words; an unknown key with the nearest one."""
    if item["type"] != "extra_forbidden":
        return item["msg"]
    near = difflib.get_close_matches(str(item["loc"][0]), Preset.model_fields, n=1, cutoff=0.5)
    return "unknown key" + (f"; did you mean {near[0]}?" if near else "")


def expand(  # noqa: PLR0913  what the original's command line adds to a preset
    preset: Preset,
    *,
    program: str = "",
    threads: int = 4,
    backend: str = "cpu",
    attention_option: int = 0,
    timeout_s: float = 600.0,
    disable_h2o: bool = False,
    disable_lossless: bool = False,
) -> Iterator[LaunchSpec]:
    """One launch per combination, in the original sweep's order; ``arm`` is the original's run id.

    ``program`` is what is launched, empty where nothing will be.
    Without H2O there is nothing to encode, so ``disable_h2o`` turns lossless off as well.
    """
    fixed: dict[str, ConfigValue] = {"kv_h2o_enable": not disable_h2o}
    fixed |= {f"kv_{name}": getattr(preset, name) for name in SCALARS}
    fixed["kv_h2o_log_stats"] = preset.h2o_log_stats and not disable_h2o
    fixed |= {name: value for name, value in preset if name.startswith("kv_lossless_")}
    if disable_h2o or disable_lossless or not preset.kv_lossless_enable:
        fixed |= LOSSLESS_OFF
    lengths_and_values = product(*preset.dimensions.values())
    for number, (prompt, gen, *chosen) in enumerate(lengths_and_values, start=1):
        config = fixed | dict(zip(DIMENSIONS.values(), chosen, strict=True))
        keep, block = config["kv_h2o_target_keep_ratio"], config["kv_h2o_block_tokens"]
        yield LaunchSpec(
            program=program,
            arm=f"run_{number:04}_p{prompt}_g{gen}_k{keep}_b{block}_lr{config['kv_h2o_target_lossy_ratio']}",
            replicate=1,
            config=config,
            prompt_tokens=int(prompt),
            gen_tokens=int(gen),
            repeat=preset.repeat,
            threads=threads,
            backend=backend,
            attention_option=attention_option,
            timeout_s=timeout_s,
        )


def combinations(
    preset: str | Preset, knobs: Knobs, program: str, **disabled: bool
) -> list[LaunchSpec]:
    """Every combination of a preset, or of one by name, launched as the knobs say; raises
    :class:`PresetError`.
    """
    return list(
        expand(
            load_preset(preset) if isinstance(preset, str) else preset,
            program=program,
            threads=knobs.integer("THREADS"),
            backend=knobs.text("BACKEND"),
            attention_option=knobs.integer("ATTENTION_OPTION"),
            timeout_s=knobs.number("LAUNCH_TIMEOUT_S"),
            **disabled,
        )
    )


def distinct(specs: Iterable[LaunchSpec]) -> dict[str, LaunchSpec]:
    """For each arm the first spec that the engine runs in the same way: it ignores one ratio in
    each target mode.
    """
    first: dict[str, LaunchSpec] = {}
    return {spec.arm: first.setdefault(_heeded(spec).key, spec) for spec in specs}


def _heeded(spec: LaunchSpec) -> LaunchSpec:
    """``spec`` with only those keys that the engine looks at."""
    if not spec.config["kv_h2o_enable"]:
        return replace(spec, config={})
    unused = UNUSED[str(spec.config["kv_h2o_target_mode"])]
    return replace(spec, config={key: value for key, value in spec.config.items() if key != unused})


def json_schema() -> str:
    """The JSON Schema of a preset file, generated from the model."""
    return json.dumps(Preset.model_json_schema(), indent=2) + "\n"
