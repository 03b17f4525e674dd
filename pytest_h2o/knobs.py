"""Every setting a user may turn: one row of :data:`KNOBS` each.

A knob has the same name on the command line (``--h2o-set NAME=VALUE``), in the environment and in the ini file
(``h2o_set``). Precedence: command line > environment > ini > case default > runtime default > global default.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from pytest_h2o.specs import ConfigValue

Kind = Literal["int", "float", "bool", "str", "ints"]
KnobValue = bool | int | float | str | tuple[int, ...]

# Names below these prefixes belong to the kit, so an unknown one is a typing error.
OWNED_PREFIXES = ("H2O_", "KV_LOSSLESS_", "MAX_LOSSLESS_")


class KnobError(ValueError):
    """A knob's name or value is wrong; the message names it and what is accepted."""


@dataclass(frozen=True)
class Knob:
    """One setting: ``key`` is the config key it writes, ``low``/``high`` its inclusive range."""

    name: str
    kind: Kind
    default: KnobValue
    doc: str
    _: KW_ONLY
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    key: str | None = None

    def parse(self, text: str) -> KnobValue:
        """The typed value of ``text``; raises :class:`KnobError` naming knob, value and what is accepted."""
        try:
            value = _PARSERS[self.kind](text.strip())
        except ValueError:
            raise KnobError(f"{self.name}={text!r}: expected {self.accepts}") from None
        self._check(value, text)
        return value

    def _check(self, value: KnobValue, text: str) -> None:
        if self.choices and value not in self.choices:
            raise KnobError(f"{self.name}={text!r}: expected {self.accepts}")
        numbers = value if isinstance(value, tuple) else (value,) if not isinstance(value, str) else ()
        for number in numbers:
            below = self.low is not None and number < self.low
            above = self.high is not None and number > self.high
            if below or above or not math.isfinite(number):
                raise KnobError(f"{self.name}={text!r}: expected {self.accepts}")

    @property
    def accepts(self) -> str:
        """What the knob accepts, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {
            "int": "an integer",
            "float": "a number",
            "bool": "0 or 1",
            "str": "text",
            "ints": "integers, comma separated",
        }
        limits = [f"at least {self.low:g}"] if self.low is not None else []
        limits += [f"at most {self.high:g}"] if self.high is not None else []
        return (
            words[self.kind]
            + ("" if not limits else " " + " and ".join(limits))
            + (f" ({self.unit})" if self.unit else "")
        )


def _parse_bool(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _parse_ints(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(",") if part.strip())
    if not values:
        raise ValueError(text)
    return values


_PARSERS: Mapping[Kind, Callable[[str], KnobValue]] = {
    "int": int,
    "float": float,
    "bool": _parse_bool,
    "str": str,
    "ints": _parse_ints,
}


# fmt: off
_TABLE = (
    Knob("PROMPTS", "ints", (512, 1024), "prompt lengths of the bench cases", low=1, unit="tokens"),
    Knob("GENS", "ints", (128,), "tokens decoded per bench response", low=1, unit="tokens"),
    Knob("REPEAT", "int", 3, "measured repeats per bench launch", low=1),
    Knob("THREADS", "int", 4, "threads of the runtime", low=1),
    Knob("BACKEND", "str", "cpu", "backend of the runtime", choices=("cpu", "metal", "opencl")),
    Knob("ATTENTION_OPTION", "int", 0, "llm_bench -qatten; 1 and 2 quantise KV", low=0, high=2),
    Knob("FULL_RUNS", "int", 3, "m3: launches of joint_full", low=1),
    Knob("STORE_RUNS", "int", 1, "m3: launches of joint_store", low=1),
    Knob("RUN_RUNTIME_FIXED", "bool", True, "all_in_one: runtime gates with a fixed decode baseline"),
    Knob("RUN_RUNTIME_SAME_BATCH", "bool", True, "all_in_one: runtime gates with a baseline of the same session"),
    Knob("RUN_RUNTIME_ROLLING", "bool", True, "all_in_one: runtime gates with the rolling decode baseline"),
    Knob("RUN_M3", "bool", True, "all_in_one: the m3 suite"),
    Knob("RUN_LLM_DEMO", "bool", True, "all_in_one: the llm_demo suite"),
    Knob("RUN_FINAL", "bool", True, "all_in_one: the final suite"),
    Knob("LAUNCH_TIMEOUT_S", "float", 900.0, "a launch that takes longer is ended", low=0.1, unit="s"),
    Knob("H2O_KEEP_RATIO", "float", 0.3, "share of KV to keep in static mode",
         low=0, high=1, key="kv_h2o_target_keep_ratio"),
    Knob("H2O_BLOCK_TOKENS", "int", 32, "eviction block", low=1, unit="tokens", key="kv_h2o_block_tokens"),
    Knob("H2O_SINK_TOKENS", "int", 16, "protected prefix", low=0, unit="tokens", key="kv_h2o_sink_tokens"),
    Knob("H2O_RECENT_TOKENS", "int", 96, "protected suffix", low=0, unit="tokens", key="kv_h2o_recent_tokens"),
    Knob("H2O_TARGET_MODE", "str", "adaptive", "adaptive keeps 1/H2O_TARGET_LOSSY_RATIO, static keeps H2O_KEEP_RATIO",
         choices=("adaptive", "static"), key="kv_h2o_target_mode"),
    Knob("H2O_TARGET_LOSSY_RATIO", "float", 3.2, "adaptive target", low=1, key="kv_h2o_target_lossy_ratio"),
    Knob("H2O_EMA_ALPHA", "float", 0.9, "weight of past scores", low=0, high=1, key="kv_h2o_ema_alpha"),
    Knob("H2O_UPDATE_INTERVAL", "int", 16, "steps between evictions",
         low=1, unit="steps", key="kv_h2o_update_interval"),
    Knob("H2O_TRIGGER_MIN", "int", 384, "KV length below which nothing is evicted or encoded",
         low=1, unit="tokens", key="kv_h2o_trigger_min_tokens"),
    Knob("H2O_LAYER_START", "int", 2, "first H2O layer", low=0, key="kv_h2o_layer_start"),
    Knob("H2O_LAYER_END", "int", -1, "last H2O layer, -1 for the last of all", low=-1, key="kv_h2o_layer_end"),
    Knob("KV_LOSSLESS_SCOPE", "str", "front_n_and_h2o_kept", "which layers are encoded",
         key="kv_lossless_scope", choices=("none", "front_n", "h2o_kept", "front_n_and_h2o_kept", "front_n+h2o_kept")),
    Knob("KV_LOSSLESS_FRONT_N", "int", 2, "front layers encoded whole",
         low=0, unit="layers", key="kv_lossless_front_n"),
    Knob("KV_LOSSLESS_CODEC", "str", "gear_delta", "lossless codec family",
         choices=("gear_delta", "none"), key="kv_lossless_codec"),
    Knob("KV_LOSSLESS_RUNTIME_MODE", "str", "full", "full checks blocks, store drops raw bytes, probe samples a layer",
         choices=("full", "store", "probe"), key="kv_lossless_runtime_mode"),
    Knob("KV_LOSSLESS_BLOCK_TOKENS", "int", 128, "lossless block",
         low=1, unit="tokens", key="kv_lossless_block_tokens"),
    Knob("KV_LOSSLESS_HOT_RECENT", "int", 256, "suffix that is never encoded",
         low=0, unit="tokens", key="kv_lossless_hot_recent_tokens"),
    Knob("KV_LOSSLESS_HOT_SINK", "int", 16, "prefix that is never encoded",
         low=0, unit="tokens", key="kv_lossless_hot_sink_tokens"),
    Knob("KV_LOSSLESS_KEPT_SAMPLE_LAYERS", "int", 1, "full mode: kept layers encoded, 0 for all",
         low=0, unit="layers", key="kv_lossless_kept_sample_layers"),
    Knob("KV_LOSSLESS_KEPT_SAMPLE_TOKEN_INTERVAL", "int", 2, "full mode: tokens between looks at kept layers, 0: every",
         low=0, unit="tokens", key="kv_lossless_kept_sample_token_interval"),
    Knob("KV_LOSSLESS_FRONT_SAMPLE_TOKEN_INTERVAL", "int", -1, "tokens between looks at front layers, -1: auto",
         low=-1, unit="tokens", key="kv_lossless_front_sample_token_interval"),
    Knob("KV_LOSSLESS_STORE_DISABLE_FRONT", "int", -1, "store mode leaves front layers alone; -1: store 1, else 0",
         low=-1, high=1, key="kv_lossless_store_disable_front"),
    Knob("KV_LOSSLESS_STORE_BOOTSTRAP_TOKENS", "int", -1, "store mode: first block; -1: store 32, else 128",
         low=-1, unit="tokens", key="kv_lossless_store_bootstrap_tokens"),
    Knob("KV_LOSSLESS_STORE_GROUPED_STEP_TOKENS", "int", -1, "store mode: later blocks; -1: store 256, else 128",
         low=-1, unit="tokens", key="kv_lossless_store_grouped_step_tokens"),
    Knob("KV_LOSSLESS_CODEC_RUNTIME", "str", "fp16_gear_predictive_v3", "payload codec of the runtime",
         key="kv_lossless_codec_runtime"),
    Knob("KV_LOSSLESS_PREDICTORS_K", "str", "raw,delta_seq,xor_seq,pair_delta", "predictors tried on K",
         key="kv_lossless_predictors_k"),
    Knob("KV_LOSSLESS_PREDICTORS_V", "str", "raw,delta_seq,xor_seq", "predictors tried on V",
         key="kv_lossless_predictors_v"),
    Knob("KV_LOSSLESS_ASYNC_THREADS", "int", 1, "encode workers, 0 encodes inline",
         low=0, key="kv_lossless_async_threads"),
    Knob("KV_LOSSLESS_MAX_QUEUE", "int", 256, "pending blocks per layer",
         low=1, unit="blocks", key="kv_lossless_max_queue"),
    Knob("KV_LOSSLESS_DECODE_CACHE_BLOCKS", "int", 64, "decoded blocks kept, 0 for none",
         low=0, unit="blocks", key="kv_lossless_decode_cache_blocks"),
    Knob("KV_LOSSLESS_STRICT_ROUNDTRIP_CHECK", "bool", False, "compare hashes after every decode",
         key="kv_lossless_strict_roundtrip_check"),
    Knob("LOSSY_TARGET", "float", 3.0, "least lossy ratio", low=1, unit="ratio"),
    Knob("LOSSLESS_TARGET", "float", 1.3, "least offline online-sim lossless ratio", low=1, unit="ratio"),
    Knob("LOSSLESS_TENSOR_TARGET", "float", 1.0, "least offline online-sim ratio of K and of V alone",
         low=0, unit="ratio"),
    Knob("LOSSLESS_UPPER_BOUND_TARGET", "float", 1.3, "least offline ratio of whole sequences", low=1, unit="ratio"),
    Knob("EVALUATED_SHARE_TARGET", "float", 1.0, "least share of the dump that must be evaluated",
         low=0, high=1, unit="share"),
    Knob("DECODE_DROP_TARGET", "float", 0.05, "bench: largest loss of decode speed", low=0, high=0.99, unit="share"),
    Knob("LLM_DEMO_DECODE_DROP_TARGET", "float", 0.08, "real prompts: largest loss of decode speed",
         low=0, high=0.99, unit="share"),
    Knob("DECODE_REPEAT", "int", 1, "measured repeats of the llm_bench launches that are compared in pairs", low=1),
    Knob("DECODE_MAX_PAIRS", "int", 20, "pairs measured before a decode gate is inconclusive", low=6, unit="pairs"),
    Knob("DECODE_BUDGET_S", "float", 3600.0, "time for pairs after the first look, all decode gates together",
         low=0, unit="s"),
    Knob("DECODE_INCONCLUSIVE", "str", "fail", "what a decode gate that decides nothing is",
         choices=("fail", "xfail")),
    Knob("DECODE_SEED", "int", 1, "seed of the launch order", low=0),
    Knob("MAX_LOSSLESS_QUEUE_PEAK", "float", 8.0, "largest queue peak, -1 off", low=-1, unit="blocks"),
    Knob("MAX_LOSSLESS_FALLBACK", "float", 0.0, "largest fallback count, -1 off", low=-1, unit="count"),
    Knob("MAX_LOSSLESS_BACKPRESSURE_SKIP", "float", -1.0, "largest backpressure count, -1 off", low=-1, unit="count"),
    Knob("MAX_LOSSLESS_DECOMP_US", "float", -1.0, "largest decompression time, -1 off", low=-1, unit="us"),
    Knob("MAX_LOSSLESS_ASYNC_WAIT_US", "float", -1.0, "largest time blocked on encode workers, -1 off",
         low=-1, unit="us"),
    Knob("FULL_DECOMP_BUDGET_US", "float", 30000.0, "MAX_LOSSLESS_DECOMP_US of full_strict", low=-1, unit="us"),
    Knob("STORE_DECOMP_BUDGET_US", "float", 70000.0, "MAX_LOSSLESS_DECOMP_US of store_tuned", low=-1, unit="us"),
    Knob("COVERAGE_DECOMP_BUDGET_US", "float", 70000.0, "MAX_LOSSLESS_DECOMP_US of full_coverage", low=-1, unit="us"),
    Knob("M3_DECOMP_BUDGET_US", "float", 70000.0, "MAX_LOSSLESS_DECOMP_US of the m3 cases", low=-1, unit="us"),
    Knob("REQUIRE_ASYNC_QUEUE_ACTIVITY", "bool", False, "encode workers must have had work"),
    Knob("REQUIRE_DECODE_CACHE_ACTIVITY", "bool", False, "the decode cache must have been asked"),
    Knob("REQUIRE_DECODE_CACHE_HIT", "bool", False, "the decode cache must have hit"),
    Knob("REQUIRE_RUNTIME_DECOMP", "bool", True, "real prompts: blocks must have been decoded"),
    Knob("REQUIRE_BUCKET_DECODE_PASS", "bool", True, "real prompts: every bucket passes on its own"),
    Knob("STRICT_RUNTIME_METRIC_COLUMNS", "bool", True, "all metric columns must be printed"),
    Knob("PROMPT_PATTERN", "str", "prompt_*.txt", "file names taken from the prompt directory"),
    Knob("PROMPT_MANIFEST", "str", "", "list of prompt files, instead of the whole directory"),
    Knob("PROMPT_BUCKET_LIST", "str", "128,512,2048", "order of the buckets"),
    Knob("PROMPT_SAMPLE_MODE", "str", "stratified", "how prompts are taken from buckets",
         choices=("stratified", "sequential")),
    Knob("MAX_PROMPTS", "int", 0, "prompts in all, 0 for no limit", low=0),
    Knob("MAX_PROMPTS_PER_BUCKET", "int", 0, "prompts per bucket, 0 for no limit", low=0),
    Knob("DECODE_TOKENS", "int", 512, "tokens decoded per real prompt", low=1, unit="tokens"),
    Knob("DUMP_DIR", "str", "", "KV dump to evaluate offline; empty: the runtime under test writes one"),
    Knob("KV_DUMP_PROMPTS", "int", 6, "real prompts whose KV is dumped for the offline gates", low=1),
    Knob("ONLINE_CHUNK_SEQ", "int", 192, "online-sim chunk", low=0, unit="tokens"),
    Knob("ONLINE_FRAMING_BYTES", "int", 8, "online-sim framing per chunk and tensor", low=0, unit="bytes"),
    Knob("ADAPTIVE_BLOCK_SEQ", "int", 64, "rows per predictor choice", low=1, unit="tokens"),
)
# fmt: on


KNOBS: Mapping[str, Knob] = {knob.name: knob for knob in _TABLE}
# Environment names with a prefix of ours that are not knobs of their own.
OTHER_NAMES = frozenset({"H2O_RUNS_DIR", "H2O_LOCK_DIR"})


@dataclass(frozen=True)
class Knobs:
    """Effective values with their sources; :meth:`get` with a case's defaults applied by :meth:`for_case`."""

    given: Mapping[str, tuple[KnobValue, str]]
    defaults: Mapping[str, KnobValue] = field(default_factory=dict)
    fixed: Mapping[str, KnobValue] = field(default_factory=dict)

    def __getitem__(self, name: str) -> KnobValue:
        return self.with_source(name)[0]

    def with_source(self, name: str) -> tuple[KnobValue, str]:
        """The effective value and where it comes from."""
        if name in self.fixed:
            return self.fixed[name], "case"
        if name in self.given:
            return self.given[name]
        if name in self.defaults:
            return self.defaults[name], "suite default"
        return KNOBS[name].default, "default"

    def number(self, name: str) -> float:
        """A numeric knob as float."""
        value = self[name]
        assert isinstance(value, bool | int | float), name
        return float(value)

    def integer(self, name: str) -> int:
        """An integer knob."""
        return int(self.number(name))

    def text(self, name: str) -> str:
        """A text knob."""
        return str(self[name])

    def integers(self, name: str) -> tuple[int, ...]:
        """A list knob."""
        value = self[name]
        assert isinstance(value, tuple), name
        return value

    def on(self, name: str) -> bool:
        """Whether a switch is on, or a limit (negative is off) is in force."""
        value = self[name]
        return value if isinstance(value, bool) else self.number(name) >= 0

    def for_case(self, defaults: Mapping[str, KnobValue], fixed: Mapping[str, KnobValue]) -> Knobs:
        """These knobs as one case sees them: its defaults below the user's values, its defining values above them."""
        return Knobs(self.given, {**self.defaults, **defaults}, {**self.fixed, **fixed})


def resolve(
    command_line: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    ini: Iterable[str] = (),
    runtime_defaults: Mapping[str, KnobValue] | None = None,
) -> Knobs:
    """Merge the three sources of user values; raises :class:`KnobError` for an unknown name or a bad value."""
    environment = environment or {}
    for name in environment:
        if name.startswith(OWNED_PREFIXES) and name not in KNOBS and name not in OTHER_NAMES:
            raise KnobError(f"environment: {unknown(name)}")
    given: dict[str, tuple[KnobValue, str]] = {}
    for source, pairs in (
        ("ini", parse_assignments(ini)),
        ("environment", {name: text for name, text in environment.items() if name in KNOBS}),
        ("command line", parse_assignments(command_line)),
    ):
        given.update({name: (KNOBS[name].parse(text), source) for name, text in pairs.items()})
    return Knobs(given, dict(runtime_defaults or {}))


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping; raises :class:`KnobError` on a malformed one or an unknown name."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise KnobError(f"{text!r}: expected NAME=VALUE")
        if name.strip() not in KNOBS:
            raise KnobError(unknown(name.strip()))
        pairs[name.strip()] = value
    return pairs


def unknown(name: str) -> str:
    """The message for a name that no knob has, with the nearest one."""
    near = difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.5)
    return f"unknown knob {name}" + (f"; did you mean {near[0]}?" if near else "") + " (pytest-h2o knobs lists them)"


def engine_config(knobs: Knobs) -> dict[str, ConfigValue]:
    """The ``kv_*`` keys of a launch with H2O and lossless on, ``-1`` (auto) values settled by the runtime mode."""
    store = knobs["KV_LOSSLESS_RUNTIME_MODE"] == "store"
    automatic: dict[str, ConfigValue] = {
        "kv_lossless_front_sample_token_interval": 2 if store else 1,
        "kv_lossless_store_disable_front": store,
        "kv_lossless_store_bootstrap_tokens": 32 if store else 128,
        "kv_lossless_store_grouped_step_tokens": 256 if store else 128,
    }
    config: dict[str, ConfigValue] = {"kv_h2o_enable": True, "kv_h2o_log_stats": True}
    config |= {"kv_lossless_enable": True, "kv_lossless_runtime_enable": True}
    for knob in KNOBS.values():
        if knob.key is None:
            continue
        value = knobs[knob.name]
        assert not isinstance(value, tuple)
        config[knob.key] = automatic[knob.key] if knob.key in automatic and value == -1 else value
    config["kv_lossless_store_disable_front"] = bool(config["kv_lossless_store_disable_front"])
    return config


def baseline_config() -> dict[str, ConfigValue]:
    """The keys of a launch with H2O and lossless off."""
    return {"kv_h2o_enable": False, "kv_lossless_enable": False, "kv_lossless_runtime_enable": False}
