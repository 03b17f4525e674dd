"""Sweep presets: JSON files of settings to combine; a file's stem is the preset's name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from pytest_h2o.data import bundled
from pytest_h2o.keys import SHARED, SWEPT, Key, Kind
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.plan.knobs import Knobs, meant
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec
from pytest_h2o.plan.user_files import FileProblem, problems

Lengths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
_TYPES: Mapping[Kind, type] = {"bool": bool, "int": int, "float": float, "str": str}
OLD_LOSSY_RATIO = "h2o_target_lossy_ratio"  # a number, in place of the list
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


class SweepPreset(BaseModel):
    """What every preset has besides the engine keys that :data:`Preset` adds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    prompts: Lengths = [512]
    gens: Lengths = [128]
    repeat: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _one_lossy_setting(self) -> Self:
        if {OLD_LOSSY_RATIO, f"{OLD_LOSSY_RATIO}s"} <= self.model_fields_set:
            raise ValueError(f"give {OLD_LOSSY_RATIO}s or {OLD_LOSSY_RATIO}, not both")
        return self

    @property
    def dimensions(self) -> dict[str, list[int] | list[float]]:
        """The values of each sweep dimension, outermost first."""
        values: dict[str, list[int] | list[float]] = {}
        values |= {"prompts": self.prompts, "gens": self.gens}
        for key in SWEPT:
            values[key.preset] = getattr(self, key.preset)
        old = getattr(self, OLD_LOSSY_RATIO)
        if old is not None:
            values[f"{OLD_LOSSY_RATIO}s"] = [old]
        return values

    @property
    def shared(self) -> dict[str, ConfigValue]:
        """The engine keys that all launches share."""
        values = {}
        for key in SHARED:
            value = getattr(self, key.preset)
            if key.written(value, given=key.preset in self.model_fields_set):
                values[key.name] = value
        return values


def _field_of(key: Key) -> tuple[Any, Any]:
    """Type and default of a preset's value for ``key``."""
    kind: Any = _TYPES[key.kind]
    if key.choices:
        kind = Literal[key.choices]
    elif key.package:
        kind = Annotated[kind, AfterValidator(partial(_one_of, key))]
    if key.low is not None:
        kind = Annotated[kind, Field(ge=key.low, le=key.high)]
    if key.swept:
        return Annotated[list[kind], Field(min_length=1)], [key.presets_default]
    return kind, key.presets_default


def _one_of(key: Key, word: str) -> str:
    """``word`` if the key takes it; which words there are is no part of the schema."""
    if word not in key.words():
        raise ValueError(f"{word!r} is unknown; choose one of {', '.join(key.words())}")
    return word


def _key_fields() -> dict[str, Any]:
    """The fields of a preset that set engine keys."""
    swept = {key.preset: _field_of(key) for key in SWEPT}
    (number,) = get_args(get_args(swept[f"{OLD_LOSSY_RATIO}s"][0])[0])
    old = {OLD_LOSSY_RATIO: (number | None, None)}
    return swept | old | {key.preset: _field_of(key) for key in SHARED}


Preset = create_model(
    "Preset",
    __base__=SweepPreset,
    __module__=__name__,
    __doc__="One preset file. Lists are sweep dimensions; a missing key has the sweep's\ndefault.",
    **_key_fields(),
)


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(path.stem for path in bundled("presets").glob("*.json"))


def load_preset(name: str) -> SweepPreset:
    """A preset by name, or by path for one of the user's own; raises :class:`PresetError`."""
    path = Path(name) if name.endswith(".json") else bundled("presets") / f"{name}.json"
    content = _read(path)
    if wrong := problems(content, Preset.model_json_schema()):
        raise PresetError(f"{path}: {_described(wrong)}")
    try:
        preset = Preset.model_validate(content)
    except ValidationError as error:
        raise PresetError(f"{path}: {_describe(error)}") from None
    return _of_size(preset, str(path))


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = decoded(file.read(SIZE_LIMIT))  # cut off, a larger one is no JSON
        return json.loads(text)
    except FileNotFoundError:
        raise PresetError(
            f"{path}: no such preset{meant(path.stem, preset_names())}; "
            f"there are {', '.join(preset_names())}"
        ) from None
    except OSError as error:
        raise PresetError(
            f"{path}: cannot be read: {error.strerror}; give a JSON file or a preset's name"
        ) from None
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path}: file is no JSON: {error}; correct it") from None


def preset_of(texts: Mapping[str, str]) -> SweepPreset:
    """A preset from texts by key, lists comma separated; raises :class:`PresetError` naming the
    option.
    """
    lists = {name for name, field in Preset.model_fields.items() if isinstance(field.default, list)}
    values: dict[str, str | list[str]] = dict(texts)
    for name in lists & texts.keys():
        parts = map(str.strip, texts[name].split(","))
        values[name] = list(filter(None, parts))
    try:
        return _of_size(Preset.model_validate(values, strict=False), "options")
    except ValidationError as error:
        raise PresetError(_describe(error)) from None


def _of_size(preset: SweepPreset, source: str) -> SweepPreset:
    size = math.prod(map(len, preset.dimensions.values()))
    if size > MAX_COMBINATIONS:
        raise PresetError(
            f"{source}: {size} combinations, at most {MAX_COMBINATIONS}; give shorter lists"
        )
    return preset


def _describe(error: ValidationError) -> str:
    """What is wrong with a preset, key by key; empty dimensions first."""
    empty: list[str] = []
    others: list[str] = []
    for item in error.errors():
        place = ".".join(map(str, item["loc"]))
        if item["type"] == "too_short":
            empty.append(place)
        else:
            others.append(f"{place or 'file'}: {item['msg']}")
    return _together(empty, others)


def _described(wrong: Iterable[FileProblem]) -> str:
    """What is wrong with a file; empty dimensions first."""
    empty: list[str] = []
    others: list[str] = []
    for problem in wrong:
        if problem.rule == "minItems":
            empty.append(problem.place)
        else:
            others.append(str(problem))
    return _together(empty, others)


def _together(empty: list[str], others: list[str]) -> str:
    if empty:
        others.insert(0, f"Empty sweep dimension: {', '.join(empty)}")
    return "; ".join(others)


def expand(  # noqa: PLR0913  what the command line of a sweep adds to a preset
    preset: SweepPreset,
    *,
    program: str = "",
    threads: int = 4,
    backend: str = "cpu",
    attention_option: int = 0,
    timeout_s: float = 600.0,
    disable_h2o: bool = False,
    disable_lossless: bool = False,
) -> Iterator[LaunchSpec]:
    """One launch per combination, the last dimension fastest; ``arm`` is its run id.

    ``program`` is what is launched, empty where nothing will be.
    Without H2O there is nothing to encode, so ``disable_h2o`` turns lossless off as well.
    """
    fixed: dict[str, ConfigValue] = {"kv_h2o_enable": not disable_h2o}
    fixed |= preset.shared
    if disable_h2o:
        fixed["kv_h2o_log_stats"] = False
    if disable_h2o or disable_lossless or not fixed["kv_lossless_enable"]:
        fixed |= LOSSLESS_OFF
    names = [key.name for key in SWEPT]
    lengths_and_values = product(*preset.dimensions.values())
    for number, (prompt, gen, *chosen) in enumerate(lengths_and_values, start=1):
        config = fixed | dict(zip(names, chosen, strict=True))
        keep, block = config["kv_h2o_target_keep_ratio"], config["kv_h2o_block_tokens"]
        lossy = config["kv_h2o_target_lossy_ratio"]
        yield LaunchSpec(
            program=program,
            arm=f"run_{number:04}_p{prompt}_g{gen}_k{keep}_b{block}_lr{lossy}",
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
    preset: str | SweepPreset, knobs: Knobs, program: str, **disabled: bool
) -> list[LaunchSpec]:
    """Every combination of a preset, or of one by name, launched as the knobs say; raises
    :class:`PresetError`.
    """
    if isinstance(preset, str):
        preset = load_preset(preset)
    return list(
        expand(
            preset,
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
    heeded = dict(spec.config)
    heeded.pop(UNUSED[str(spec.config["kv_h2o_target_mode"])], None)
    return replace(spec, config=heeded)


def json_schema() -> str:
    """The JSON Schema of a preset file, generated from the model."""
    return json.dumps(Preset.model_json_schema(), indent=2) + "\n"
