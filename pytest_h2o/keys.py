"""Every engine key (``kv_*``): one row each, from which all that knows a key derives.

The engine's settings, the knobs that write a key, the keys of presets, the columns of
``manifest.json``, their JSON schemas and the knob table of knobs.md come from these rows. To add
a key, add a field to :class:`H2OKeys` or :class:`LosslessKeys`, with ``kit="own"`` if the kit's
engines do not know it, and read it where it has its effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import Any, Literal, cast

Value = bool | int | float | str
Kind = Literal["bool", "int", "float", "str"]
# Whose kits have a key or knob; own: this project's engine alone.
Origin = Literal["v5, v6", "v6", "own"]
NONE = "none"  # in place of a derived name: there is no such knob, preset key or column


@dataclass(frozen=True)
class Key:
    """One engine key.

    Attributes:
        engine: the engine's default, whose type is the key's.
        meaning: one line.
        gates: what a gate's launch writes unless the user turns the knob; None: as the engine.
        presets: what a preset that leaves the key out means; None: as the engine.
        why: why the defaults differ.
        low, high: inclusive range; the engine clamps to it, knobs and presets refuse the rest.
        engine_high: the engine clamps to this although more may be asked for.
        knob_high: a knob refuses more than this as a typing error.
        choices: the words that it takes.
        aliases: further words that the engine and the knob take.
        package: a package with one module for each choice, which ``names()`` lists.
        automatic: what -1 of the knob means in store mode, and in the others.
        swept: a preset gives a list of values, all of which are combined.
        knob, preset, column: names, where they are not the derived ones.
        name: filled in, like ``attribute``, from the field that holds the row.
    """

    engine: Value
    meaning: str
    gates: Value | None = None
    presets: Value | None = None
    why: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    engine_high: float | None = None
    knob_high: float | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    package: str = ""
    automatic: tuple[Value, Value] | None = None
    swept: bool = False
    knob: str = ""
    preset: str = ""
    column: str = ""
    kit: Origin = "v5, v6"
    name: str = ""
    attribute: str = ""

    @property
    def kind(self) -> Kind:
        """The JSON type of the key's values."""
        return cast(Kind, type(self.engine).__name__)

    @property
    def gates_default(self) -> Value:
        """The default of a gate's launch."""
        return self.engine if self.gates is None else self.gates

    @property
    def presets_default(self) -> Value:
        """The default of a preset."""
        return self.engine if self.presets is None else self.presets

    def words(self) -> tuple[str, ...]:
        """Every word that the engine and the knob take; none where any text will do."""
        if self.package:
            return tuple(import_module(self.package).names())
        return self.choices + self.aliases

    def written(self, value: Value, *, given: bool) -> bool:
        """Whether a launch's config names the key: one that other engines do not know is left out
        where nobody asked for it and it changes nothing.
        """
        return self.kit != "own" or given or value != self.engine

    @property
    def differing(self) -> dict[str, Value]:
        """The defaults that are not that of the knob, by whose they are."""
        defaults = {"engine": self.engine, "presets": self.presets_default}
        return {whose: value for whose, value in defaults.items() if value != self.gates_default}


def row(key: Key) -> Any:
    """The dataclass field that holds a row."""
    return field(default=key.engine, metadata={"key": key})


_SWITCH = "the engine does nothing unasked, and a gate's launch is about what it does then"
_SHORT = "the engine's 32 + 256 protected tokens alone are more than a third of the gates' 512"
_AUTO = "a gate settles it by the runtime mode, as a launch of its suite needs it"


@dataclass(frozen=True)
class H2OKeys:
    """The ``kv_h2o_*`` keys: which layers lose tokens, when, and how many."""

    target_keep_ratio: float = row(
        Key(
            0.5,
            "share of KV to keep in static mode",
            gates=0.3,
            why="the static form of the ratio above 3 that gates ask for",
            unit="share",
            low=0,
            high=1,
            swept=True,
            knob="H2O_KEEP_RATIO",
            preset="h2o_keep_ratios",
            column="keep_ratio",
        )
    )
    block_tokens: int = row(
        Key(
            64,
            "eviction block",
            gates=32,
            why="blocks of 64 are coarse beside the 160 tokens that a gate keeps of 512",
            unit="tokens",
            low=1,
            swept=True,
            column="block_tokens",
        )
    )
    sink_tokens: int = row(
        Key(
            32,
            "protected prefix",
            gates=16,
            why=_SHORT,
            unit="tokens",
            low=0,
            swept=True,
            column="sink_tokens",
        )
    )
    recent_tokens: int = row(
        Key(
            256,
            "protected suffix",
            gates=96,
            why=_SHORT,
            unit="tokens",
            low=0,
            swept=True,
            column="recent_tokens",
        )
    )
    ema_alpha: float = row(
        Key(
            0.9,
            "weight of past scores",
            unit="share",
            low=0,
            high=1,
            swept=True,
            preset="h2o_ema_alphas",
            column="ema_alpha",
        )
    )
    update_interval: int = row(
        Key(
            16,
            "steps between evictions",
            unit="steps",
            low=1,
            swept=True,
            preset="h2o_update_intervals",
            column="update_interval",
        )
    )
    trigger_min_tokens: int = row(
        Key(
            512,
            "KV length below which nothing is evicted or encoded",
            gates=384,
            why="the shortest prompt of the gates, 512 tokens, must be above it, not on it",
            unit="tokens",
            low=1,
            swept=True,
            knob="H2O_TRIGGER_MIN",
            column="trigger_min_tokens",
        )
    )
    layer_start: int = row(Key(2, "first H2O layer", low=0))
    layer_end: int = row(Key(-1, "last H2O layer, -1 for the last of all", low=-1))
    target_mode: str = row(
        Key(
            "adaptive",
            "adaptive keeps 1/H2O_TARGET_LOSSY_RATIO, static keeps H2O_KEEP_RATIO",
            choices=("adaptive", "static"),
        )
    )
    target_lossy_ratio: float = row(
        Key(
            3.0,
            "adaptive target",
            gates=3.2,
            why="gates require 3, and what is reached deviates from the target by up to a block",
            unit="ratio",
            low=1,
            knob_high=100,
            swept=True,
            preset="h2o_target_lossy_ratios",
        )
    )
    enable: bool = row(
        Key(
            False,
            "evict",
            gates=True,
            why=_SWITCH,
            knob=NONE,
            preset=NONE,
            column="kv_h2o_enable",
        )
    )
    log_stats: bool = row(
        Key(
            False,
            "print a line for each eviction",
            gates=True,
            why="the lines are evidence for gates; a sweep looks at speed",
            knob=NONE,
            column=NONE,
        )
    )
    policy: str = row(
        Key(
            "h2o",
            "what makes a token worth keeping; only the embedded runtime heeds it",
            package="pytest_h2o.engine.policies",
            kit="own",
        )
    )


@dataclass(frozen=True)
class LosslessKeys:
    """The ``kv_lossless_*`` keys: which cold blocks are encoded, how, and what happens to the raw
    values.
    """

    enable: bool = row(Key(False, "encode", gates=True, why=_SWITCH, knob=NONE))
    scope: str = row(
        Key(
            "front_n",
            "which layers are encoded",
            gates="front_n_and_h2o_kept",
            presets="front_n_and_h2o_kept",
            why="the engine's default leaves out the layers that evict; gates and sweeps are about "
            "both",
            choices=("none", "front_n", "h2o_kept", "front_n_and_h2o_kept"),
            aliases=("front_n+h2o_kept",),
        )
    )
    front_n: int = row(Key(2, "front layers encoded whole", unit="layers", low=0))
    codec: str = row(
        Key(
            "none",
            "lossless codec family",
            gates="gear_delta",
            why=_SWITCH,
            choices=("none", "gear_delta"),
        )
    )
    runtime_enable: bool = row(
        Key(False, "encode while decoding", gates=True, why=_SWITCH, knob=NONE)
    )
    runtime_mode: str = row(
        Key(
            "probe",
            "full checks blocks, store drops raw bytes, probe samples a layer; the cases of "
            "runtime and m3 have their own",
            gates="full",
            presets="full",
            why="what probe sees of one layer is no acceptance",
            choices=("full", "store", "probe"),
        )
    )
    block_tokens: int = row(Key(128, "lossless block", unit="tokens", low=1))
    hot_recent_tokens: int = row(
        Key(
            256,
            "suffix that is never encoded",
            unit="tokens",
            low=0,
            knob="KV_LOSSLESS_HOT_RECENT",
        )
    )
    hot_sink_tokens: int = row(
        Key(
            16,
            "prefix that is never encoded",
            unit="tokens",
            low=0,
            knob="KV_LOSSLESS_HOT_SINK",
        )
    )
    kept_sample_layers: int = row(
        Key(1, "full mode: kept layers encoded, 0 for all", unit="layers", low=0)
    )
    kept_sample_token_interval: int = row(
        Key(
            1,
            "full mode: tokens between looks at kept layers, 0: every",
            gates=2,
            presets=2,
            why="every second token is enough to see what is kept, at half the cost",
            unit="tokens",
            low=0,
        )
    )
    front_sample_token_interval: int = row(
        Key(
            1,
            "tokens between looks at front layers",
            gates=-1,
            why=_AUTO,
            unit="tokens",
            low=0,
            automatic=(2, 1),
        )
    )
    store_disable_front: bool = row(
        Key(
            False,
            "store mode leaves front layers alone",
            gates=-1,
            why=_AUTO,
            automatic=(True, False),
        )
    )
    store_bootstrap_tokens: int = row(
        Key(
            32,
            "store mode: first block",
            gates=-1,
            why=_AUTO,
            unit="tokens",
            low=0,
            automatic=(32, 128),
        )
    )
    store_grouped_step_tokens: int = row(
        Key(
            256,
            "store mode: later blocks",
            gates=-1,
            why=_AUTO,
            unit="tokens",
            low=0,
            automatic=(256, 128),
        )
    )
    codec_runtime: str = row(Key("fp16_gear_predictive_v3", "payload codec of the runtime"))
    predictors_k: str = row(Key("raw,delta_seq,xor_seq,pair_delta", "predictors tried on K"))
    predictors_v: str = row(Key("raw,delta_seq,xor_seq", "predictors tried on V"))
    async_threads: int = row(
        Key(
            1,
            "encode workers, 0 encodes inline",
            low=0,
            engine_high=64,
            knob_high=256,
            kit="v6",
        )
    )
    max_queue: int = row(Key(256, "pending blocks per layer", unit="blocks", low=1))
    decode_cache_blocks: int = row(
        Key(64, "decoded blocks kept, 0 for none", unit="blocks", low=0, kit="v6")
    )
    strict_roundtrip_check: bool = row(Key(False, "compare hashes after every decode"))


def _rows(table: type[H2OKeys | LosslessKeys], prefix: str) -> list[Key]:
    """The rows of a table, with the names that follow from those of the fields.

    A ``kv_h2o_x`` is ``h2o_x`` in presets and manifests, a ``kv_lossless_x`` itself. Knobs have the
    same names in capitals.
    """
    rows = []
    for each in fields(table):
        key: Key = each.metadata["key"]
        name = prefix + each.name
        short = name.removeprefix("kv_") if prefix == "kv_h2o_" else name
        named = replace(
            key,
            name=name,
            attribute=each.name,
            knob=key.knob or short.upper(),
            preset=key.preset or short,
            column=key.column or short,
        )
        rows.append(named)
    return rows


H2O_PREFIX = "kv_h2o_"
LOSSLESS_PREFIX = "kv_lossless_"
H2O = _rows(H2OKeys, H2O_PREFIX)
LOSSLESS = _rows(LosslessKeys, LOSSLESS_PREFIX)
KEYS: Mapping[str, Key] = {key.name: key for key in H2O + LOSSLESS}
# Keys that a preset sets, in the order of the files that ship: those that it combines, outermost
# first, and those that all its launches share, of the lossless ones the switches first.
SWEPT = [key for key in KEYS.values() if key.swept]
SHARED = [key for key in H2O if not key.swept and key.preset != NONE]
SHARED += sorted(LOSSLESS, key=lambda key: key.knob != NONE)
