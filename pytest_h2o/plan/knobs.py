"""Every setting a user may turn: one row of :data:`KNOBS` each.

Knobs that write an engine key come from the rows of :mod:`pytest_h2o.keys`; the others are here.

A knob has the same name on the command line (``--h2o-set NAME=VALUE``), in the environment and in
the ini file (``h2o_set``). Precedence: command line > environment > profile > ini > suite default >
runtime default > global default.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from pytest_h2o.keys import KEYS, NONE, Key, Origin
from pytest_h2o.plan.durations import seconds_of
from pytest_h2o.plan.specs import ConfigValue

Kind = Literal["int", "float", "bool", "str", "ints"]
KnobValue = bool | int | float | str | tuple[int, ...] | None

# Names below these prefixes belong to the kit, so an unknown one is a typing error.
OWNED_PREFIXES = ("H2O_", "KV_LOSSLESS_", "MAX_LOSSLESS_")


NEEDS_BASELINE = "needs DECODE_BASELINE=TOKENS_PER_SECOND, measured on this machine"


class KnobError(ValueError):
    """A knob's name or value is wrong; the message names it and what is accepted."""


@dataclass(frozen=True)
class Knob:
    """One setting.

    Attributes:
        default: where no suite has another one; None: not given.
        low, high: inclusive range.
        limit: a negative value turns off what it limits, whatever ``low`` says.
        key: the config key it writes.
        suites: its default in single suites.
        within: the knob that it stands for in one part of an acceptance.
        kit: which versions of the kit know it.
    """

    name: str
    kind: Kind
    default: KnobValue
    doc: str
    _: KW_ONLY
    unit: str = ""
    low: float | None = None
    high: float | None = None
    limit: bool = False
    choices: tuple[str, ...] = ()
    key: str | None = None
    suites: Mapping[str, KnobValue] = field(default_factory=dict)
    within: str = ""
    kit: Origin = "v5, v6"

    def parse(self, text: str) -> KnobValue:
        """The typed value of ``text``; raises :class:`KnobError` naming knob, value and what is
        accepted.
        """
        try:
            value = _PARSERS[self.kind](text.strip())
        except ValueError:
            raise KnobError(f"{self.name}={text!r}: expected {self.accepts}") from None
        self._check(value, text)
        return value

    def _check(self, value: KnobValue, text: str) -> None:
        if self.choices and value not in self.choices:
            raise KnobError(f"{self.name}={text!r}: expected {self.accepts}")
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, int | float) and not self._in_range(number):
                raise KnobError(f"{self.name}={text!r}: expected {self.accepts}")

    def _in_range(self, number: float) -> bool:
        if not math.isfinite(number):
            return False
        if self.high is not None and number > self.high:
            return False
        turned_off = self.limit and number < 0
        return self.low is None or number >= self.low or turned_off

    @property
    def accepts(self) -> str:
        """What the knob accepts, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        limits = []
        if self.low is not None:
            limits.append(f"at least {self.low:.9g}")
        if self.high is not None:
            limits.append(f"at most {self.high:.9g}")
        words = _KINDS[self.kind]
        if limits:
            words += " " + " and ".join(limits)
        if self.unit:
            words += f" ({self.unit})"
        if self.limit:
            words += ", or -1 for no limit"
        return words


_KINDS: Mapping[Kind, str] = {
    "int": "an integer",
    "float": "a number",
    "bool": "0 or 1",
    "str": "text",
    "ints": "integers, comma separated, each",
}


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError(text)


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
_LAUNCHING = (
    Knob("LLM_BENCH", "str", "",
         "llm_bench binary; empty: a build directory's, else the embedded runtime"),
    Knob("LLM_DEMO", "str", "", "llm_demo binary; empty: beside llm_bench", kit="v6"),
    Knob("H2O_BASELINE_LLM_BENCH", "str", "",
         "llm_bench of a second build, which the first is held against", kit="own"),
    Knob("H2O_BASELINE_LLM_DEMO", "str", "",
         "llm_demo of a second build; empty: beside its llm_bench", kit="own"),
    Knob("MODEL_CONFIG", "str", "", "config.json of the model"),
    Knob("PROMPT_DIR", "str", "",
         "directory with prompt_<bucket>_<n>.txt; empty: those that ship",
         kit="v6"),
    Knob("OUT", "str", "", "the run directory; empty: a new one below --h2o-out"),
    Knob("BASE_OUT", "str", "", "OUT of the m3, final and all_in_one suites", within="OUT"),
    Knob("PROMPTS", "ints", (512, 1024),
         "prompt lengths of the bench cases",
         low=1, high=1 << 20, unit="tokens"),
    Knob("GENS", "ints", (128,),
         "tokens decoded per bench response",
         low=1, high=1 << 20, unit="tokens"),
    Knob("REPEAT", "int", 3, "measured repeats per bench launch", low=1, high=1000),
    Knob("THREADS", "int", 4, "threads of the runtime", low=1, high=1024),
    Knob("BACKEND", "str", "cpu", "backend of the runtime: cpu, metal, opencl, cuda, hexagon, "
         "..."),
    Knob("ATTENTION_OPTION", "int", 0,
         "llm_bench -qatten; 1 and 2 quantise K, K and V to int8, 3 and 4 to TQ3, 5 and 6 to TQ4",
         low=0, high=6, kit="own"),
    Knob("KV_QUANT_OPTIONS", "ints", (1, 2, 3, 4, 5, 6),
         "kv_quant: the values of ATTENTION_OPTION that are judged, a case each; where "
         "ATTENTION_OPTION is given, that one",
         low=1, high=6, kit="own"),
    Knob("FULL_RUNS", "int", 3, "m3: launches of joint_full", low=1, high=100),
    Knob("STORE_RUNS", "int", 1, "m3: launches of joint_store", low=1, high=100),
    Knob("M3_FULL_RUNS", "int", 3,
         "FULL_RUNS, as the final and all_in_one suites call it",
         low=1, high=100, within="FULL_RUNS"),
    Knob("M3_STORE_RUNS", "int", 1,
         "STORE_RUNS, as the final and all_in_one suites call it",
         low=1, high=100, within="STORE_RUNS"),
    Knob("RUN_RUNTIME_FIXED", "bool", True,
         "all_in_one: runtime gates with a fixed decode baseline",
         kit="v6"),
    Knob("RUN_RUNTIME_SAME_BATCH", "bool", True,
         "all_in_one: runtime gates with a baseline of the same session",
         kit="v6"),
    Knob("RUN_RUNTIME_ROLLING", "bool", True,
         "all_in_one: runtime gates with the rolling decode baseline",
         kit="v6"),
    Knob("RUN_M3", "bool", True, "all_in_one: the m3 suite", kit="v6"),
    Knob("RUN_LLM_DEMO", "bool", True, "all_in_one: the llm_demo suite", kit="v6"),
    Knob("RUN_FINAL", "bool", True, "all_in_one: the final suite", kit="v6"),
    Knob("LAUNCH_TIMEOUT_S", "float", 0.0,
         "a launch that takes longer is ended; 0: by its work, 300 s, and 1 s per decoded "
         "token or 10 of the prompt",
         low=0, high=604800, unit="s", kit="own"),
    Knob("H2O_BUDGET", "str", "",
         "time for all launches of a session: 90s, 30m, 1h30m; empty: no limit",
         kit="own"),
    Knob("H2O_LAUNCHER", "str", "",
         "words put in front of every program: srun -N1; by kind of host: pixel=adb ...; b=ssh ...",
         kit="own"),
    Knob("H2O_HOSTS", "str", "",
         "hosts that {host} of H2O_LAUNCHER stands for: a,b,c or pixel=a,b server=c",
         kit="own"),
    Knob("H2O_COPY", "str", "",
         "directory on the hosts for copies of programs, model and prompts; empty: they see ours",
         kit="own"),
    Knob("H2O_COPY_TO", "str", "",
         "words that copy a file to a host: docker cp {source} {host}:{target}; empty: by the "
         "launcher",
         kit="own"),
    Knob("H2O_COPY_FROM", "str", "",
         "words that copy a file or directory from a host: docker cp {host}:{source} {target}",
         kit="own"),
    Knob("H2O_CPUS", "str", "", "CPUs of the launches as taskset -c takes them: 0-3,8", kit="own"),
    Knob("H2O_LAUNCH_ENV", "str", "",
         "environment of the launches: NAME=VALUE words, quoted as for a shell",
         kit="own"),
)
_JUDGING = (
    Knob("LOSSY_TARGET", "float", 3.0, "least lossy ratio", low=1, high=100, unit="ratio"),
    Knob("LOSSLESS_TARGET", "float", 1.3,
         "least offline online-sim lossless ratio",
         low=1, high=20, unit="ratio"),
    Knob("LOSSLESS_CODEC", "str", "compatible",
         "codec whose offline ratio is judged",
         choices=("compatible", "rope_row", "row_reference"), kit="own"),
    Knob("LOSSLESS_TENSOR_TARGET", "float", 1.0,
         "least offline online-sim ratio of K and of V alone",
         low=0, high=20, unit="ratio", kit="own"),
    Knob("LOSSLESS_UPPER_BOUND_TARGET", "float", 1.3,
         "least offline ratio of whole sequences",
         low=1, high=20, unit="ratio", kit="own"),
    Knob("EVALUATED_SHARE_TARGET", "float", 1.0,
         "least share of the dump that must be evaluated",
         low=0, high=1, unit="share", kit="own"),
    Knob("REQUIRE_ALL_ROWS", "bool", False,
         "ratio, speed and activity gates judge the worst row, not the best one",
         kit="own"),
    Knob("DECODE_BASELINE_MODE", "str", "same_batch",
         "what decode is compared with: interleaved pairs, launches of this session with H2O "
         "off, the median of earlier sessions, or DECODE_BASELINE",
         choices=("paired", "same_batch", "rolling", "fixed"), kit="v6",
         suites={"final": "paired", "all_in_one": "paired"}),
    Knob("DECODE_FASTEST_ROW", "bool", False,
         "same_batch compares the fastest row of either side alone, not each length",
         kit="own"),
    Knob("DECODE_BASELINE", "float", None,
         "decode speed of this machine: the baseline of mode fixed, and what rolling and "
         "same_batch fall back to",
         low=0.001, high=1e7, unit="tok/s"),
    Knob("DECODE_DROP_TARGET", "float", 0.05,
         "largest loss of decode speed",
         low=0, high=0.99, unit="share", suites={"llm_demo": 0.08}),
    Knob("LLM_DEMO_DECODE_DROP_TARGET", "float", 0.08,
         "DECODE_DROP_TARGET of real prompts",
         low=0, high=0.99, unit="share", within="DECODE_DROP_TARGET", kit="v6"),
    Knob("REQUIRE_QUALITY", "bool", False,
         "llm_bench --quality reports how well a held-out text is predicted",
         kit="own"),
    Knob("MAX_PERPLEXITY_INCREASE", "float", 0.05,
         "largest rise of perplexity under eviction, or with quantised KV",
         low=0, high=10, unit="share", kit="own"),
    Knob("MAX_MEMORY_INCREASE", "float", 0.15,
         "largest rise of peak resident memory above the baseline's",
         low=0, high=10, limit=True, unit="share", kit="own"),
    Knob("MAX_MEMORY_GROWTH", "float", 0.1,
         "largest rise of peak resident memory after the first measured repeat",
         low=0, high=10, limit=True, unit="share", kit="own"),
    Knob("MAX_SPEED_SPREAD", "float", 0.5,
         "m3: largest distance between the decode speeds of equal launches, as a share of their "
         "median",
         low=0, high=10, limit=True, unit="share", kit="own"),
    Knob("MAX_KV_DIVERGENCE", "float", 0.05,
         "kv_quant: largest divergence of what is predicted from what plain KV predicts",
         low=0, high=100, limit=True, unit="nats/token", kit="own"),
    Knob("KV_BYTES_TARGET", "float", 1.2,
         "kv_quant: least ratio of plain to quantised KV bytes a token",
         low=1, high=100, unit="ratio", kit="own"),
    Knob("MIN_GREEDY_AGREEMENT", "float", 0.0,
         "real prompts: least share of characters alike in candidate and baseline before they "
         "differ, mean over the evicted prompts of each bucket",
         low=0, high=1, unit="share", kit="own"),
    Knob("RELATION_PROMPTS", "int", 1,
         "real prompts of each bucket that relations between launches are tried on",
         low=1, high=100, unit="prompts", kit="own"),
    Knob("RELATION_TOKENS", "int", 64,
         "tokens decoded, at most, in launches that are made for a relation alone; twice as many "
         "of unseen prompts",
         low=1, unit="tokens", kit="own"),
    Knob("RELATION_LOSSLESS", "bool", True,
         "lossless off, full and store, encode workers, decode cache, block size and codec write "
         "the same text",
         kit="own"),
    Knob("RELATION_UNEVICTED", "bool", True,
         "where nothing is evicted the baseline's text is written",
         kit="own"),
    Knob("RELATION_SPEED", "bool", True,
         "the baseline is as fast as a candidate that has nothing to evict",
         kit="own"),
    Knob("RELATION_GREEDY", "bool", True,
         "a launch writes the same text when it is repeated",
         kit="own"),
    Knob("RELATION_STRANGERS", "bool", True,
         "a prompt that follows another one in a process is answered as it is alone",
         kit="own"),
    Knob("RELATION_UNSEEN", "bool", True,
         "prompts made for the session alone are answered as well as the others",
         kit="own"),
    Knob("RELATION_RECALL", "bool", True,
         "a passage that a prompt begins to repeat is continued as without eviction",
         kit="own"),
    Knob("RELATION_ORDER", "bool", True,
         "the more is asked to be evicted the less is kept, and a little changes little",
         kit="own"),
    Knob("RELATION_HEAVY", "bool", True,
         "where nearly all is evicted another text is written than the baseline's",
         kit="own"),
    Knob("MIN_MILD_AGREEMENT", "float", 0.4,
         "least share of an answer that stays the baseline's where a little is evicted in many "
         "steps, each of a target ratio of 1.012, median of four prompts or more",
         low=0, high=1, unit="share", kit="own"),
    Knob("MAX_RECALL_DROP", "float", 0.25,
         "largest share of a repeated passage that the candidate does not continue where the "
         "baseline does",
         low=0, high=1, unit="share", kit="own"),
    Knob("RELATION_BUILD", "bool", True,
         "with H2O off, the build under test is as fast as the second build and writes what it "
         "writes; off where no second build is named",
         kit="own"),
    Knob("MIN_BUILD_AGREEMENT", "float", 0.4,
         "least share of an answer that stays that of the second build, median of the prompts",
         low=0, high=1, unit="share", kit="own"),
    Knob("MAX_BUILD_LOSS", "float", 0.03,
         "release: largest loss of lossy and lossless ratio against the second build",
         low=0, high=10, limit=True, unit="share", kit="own"),
    Knob("UNSEEN_SEED", "int", 0,
         "seed of the prompts that are made for a session; 0: another one each time",
         low=0, high=(1 << 31) - 1, kit="own"),
    Knob("DECODE_BASELINE_HISTORY", "str", "",
         "file with the decode speeds of earlier sessions; empty: "
         "decode_baseline_history.jsonl beside the run directories",
         kit="v6"),
    Knob("DECODE_BASELINE_ROLLING_WINDOW", "int", 8,
         "latest sessions of the rolling baseline",
         low=1, high=10000, unit="sessions", kit="v6"),
    Knob("DECODE_BASELINE_ROLLING_MIN_SAMPLES", "int", 3,
         "sessions that a rolling baseline needs",
         low=1, high=10000, unit="sessions", kit="v6"),
    Knob("DECODE_BASELINE_KEY", "str", "",
         "what sessions must share to be compared; empty: host, backend, threads, lengths and "
         "repeats",
         kit="v6"),
    Knob("UPDATE_DECODE_BASELINE_HISTORY", "bool", True,
         "append the session's decode speeds to the history",
         kit="v6"),
    Knob("DECODE_BASELINE_HISTORY_FAILED", "bool", False,
         "cases that fail enter the history and count in it",
         kit="own"),
    Knob("RUN_ORDER", "str", "interleaved",
         "launches of a same_batch baseline and its candidate",
         choices=("interleaved", "baseline_first", "candidate_first"), kit="own"),
    Knob("DECODE_REPEAT", "int", 1,
         "measured repeats of the llm_bench launches that are compared in pairs, 0: REPEAT",
         low=0, high=1000, kit="own"),
    Knob("DECODE_MAX_PAIRS", "int", 20,
         "pairs after which a decode gate that is not sure is inconclusive",
         low=4, high=100, unit="pairs", kit="own"),
    Knob("DECODE_BUDGET_S", "float", 3600.0,
         "time for pairs after the first judgement, all decode gates of a worker",
         low=0, high=604800, unit="s", kit="own"),
    Knob("DECODE_INCONCLUSIVE", "str", "fail",
         "what a decode gate that decides nothing is",
         choices=("fail", "xfail", "skip", "warn"), kit="own"),
    Knob("DECODE_SEED", "int", 1, "seed of the launch order", low=0, kit="own"),
    Knob("MAX_LOSSLESS_QUEUE_PEAK", "float", 8.0,
         "largest queue peak",
         low=0, limit=True, unit="blocks"),
    Knob("MAX_LOSSLESS_FALLBACK", "float", 0.0,
         "largest fallback count",
         low=0, limit=True, unit="count"),
    Knob("MAX_LOSSLESS_BACKPRESSURE_SKIP", "float", -1.0,
         "largest backpressure count",
         low=0, limit=True, unit="count", kit="v6"),
    # A time below one microsecond was meant in seconds.
    Knob("MAX_LOSSLESS_DECOMP_US", "float", -1.0,
         "largest decompression time",
         low=1, limit=True, unit="µs"),
    Knob("MAX_LOSSLESS_ASYNC_WAIT_US", "float", -1.0,
         "largest time blocked on encode workers",
         low=1, limit=True, unit="µs", kit="v6"),
    Knob("FULL_DECOMP_BUDGET_US", "float", 30000.0,
         "MAX_LOSSLESS_DECOMP_US of full_strict",
         low=1, limit=True, unit="µs", within="MAX_LOSSLESS_DECOMP_US"),
    Knob("STORE_DECOMP_BUDGET_US", "float", 70000.0,
         "MAX_LOSSLESS_DECOMP_US of store_tuned",
         low=1, limit=True, unit="µs", within="MAX_LOSSLESS_DECOMP_US"),
    Knob("COVERAGE_DECOMP_BUDGET_US", "float", 70000.0,
         "MAX_LOSSLESS_DECOMP_US of full_coverage",
         low=1, limit=True, unit="µs", within="MAX_LOSSLESS_DECOMP_US"),
    Knob("M3_DECOMP_BUDGET_US", "float", 70000.0,
         "MAX_LOSSLESS_DECOMP_US of the m3 cases",
         low=1, limit=True, unit="µs", within="MAX_LOSSLESS_DECOMP_US"),
    Knob("REQUIRE_ASYNC_QUEUE_ACTIVITY", "bool", False,
         "encode workers must have had work",
         kit="v6"),
    Knob("REQUIRE_DECODE_CACHE_ACTIVITY", "bool", False,
         "the decode cache must have been asked",
         kit="v6"),
    Knob("REQUIRE_DECODE_CACHE_HIT", "bool", False, "the decode cache must have hit", kit="v6"),
    Knob("REQUIRE_RUNTIME_DECOMP", "bool", True,
         "real prompts: blocks must have been decoded",
         kit="v6"),
    Knob("REQUIRE_BUCKET_DECODE_PASS", "bool", True,
         "real prompts: every bucket passes on its own",
         kit="v6"),
    Knob("LLM_DEMO_REQUIRE_RUNTIME_DECOMP", "bool", True,
         "REQUIRE_RUNTIME_DECOMP of real prompts",
         within="REQUIRE_RUNTIME_DECOMP", kit="v6"),
    Knob("LLM_DEMO_REQUIRE_BUCKET_DECODE_PASS", "bool", True,
         "REQUIRE_BUCKET_DECODE_PASS of real prompts",
         within="REQUIRE_BUCKET_DECODE_PASS", kit="v6"),
    Knob("LLM_DEMO_REQUIRE_DECODE_CACHE_HIT", "bool", False,
         "REQUIRE_DECODE_CACHE_HIT of real prompts",
         within="REQUIRE_DECODE_CACHE_HIT", kit="v6"),
    Knob("STRICT_RUNTIME_METRIC_COLUMNS", "bool", True,
         "all metric columns must be printed",
         kit="v6"),
    Knob("PROMPT_PATTERN", "str", "prompt_*.txt",
         "file names taken from the prompt directory",
         kit="v6"),
    Knob("PROMPT_MANIFEST", "str", "",
         "list of prompt files, instead of the whole directory",
         kit="v6"),
    Knob("PROMPT_BUCKET_LIST", "str", "128,512,2048", "order of the buckets", kit="v6"),
    Knob("PROMPT_SAMPLE_MODE", "str", "stratified",
         "how prompts are taken from buckets",
         choices=("stratified", "sequential"), kit="v6"),
    Knob("MAX_PROMPTS", "int", 0, "prompts in all, 0 for no limit", low=0, kit="v6"),
    Knob("MAX_PROMPTS_PER_BUCKET", "int", 0,
         "prompts per bucket, 0 for no limit",
         low=0, suites={"kv_quant": 2}, kit="v6"),
    Knob("DECODE_TOKENS", "int", 512,
         "tokens decoded per real prompt",
         low=1, unit="tokens", suites={"kv_quant": 128}, kit="v6"),
    Knob("DUMP_DIR", "str", "",
         "KV dump to evaluate offline; empty: the runtime under test writes one"),
    Knob("KV_DUMP_PROMPTS", "int", 6,
         "real prompts whose KV is dumped for the offline gates",
         low=1, kit="own"),
    Knob("ONLINE_CHUNK_SEQ", "int", 192, "online-sim chunk", low=0, unit="tokens"),
    Knob("ONLINE_FRAMING_BYTES", "int", 8,
         "online-sim framing per chunk and tensor",
         low=0, unit="bytes"),
    Knob("ROPE_BASE", "float", 0.0,
         "RoPE base of a dump whose meta files name none, 0: leave keys rotated",
         low=0, kit="own"),
    Knob("ROPE_LAYOUT", "str", "half", "how the channels of a head pair",
         choices=("half", "interleaved"), kit="own"),
    Knob("ADAPTIVE_BLOCK_SEQ", "int", 64, "rows per predictor choice", low=1, unit="tokens"),
)
# fmt: on


def _of_key(key: Key) -> Knob:
    """The knob that writes ``key``.

    The suite of real prompts settles nothing by the mode: there an automatic value is the engine's
    default.
    """
    if key.automatic is None:
        return Knob(
            key.knob,
            key.kind,
            key.gates_default,
            key.meaning,
            unit=key.unit,
            low=key.low,
            high=key.high if key.knob_high is None else key.knob_high,
            choices=key.words(),
            key=key.name,
            kit=key.kit,
        )
    store, others = map(int, key.automatic)
    return Knob(
        key.knob,
        "int",
        -1,
        f"{key.meaning}; -1: store {store}, else {others}",
        unit=key.unit,
        low=-1,
        high=1 if key.kind == "bool" else key.high,
        key=key.name,
        suites={"llm_demo": int(key.engine)},
        kit=key.kit,
    )


_WRITING = tuple(_of_key(key) for key in KEYS.values() if key.knob != NONE)
KNOBS: Mapping[str, Knob] = {knob.name: knob for knob in _LAUNCHING + _WRITING + _JUDGING}
# Environment names with a prefix of ours that are not knobs of their own.
OTHER_NAMES = frozenset({"H2O_LOCK_DIR"})
# Second names of a knob; the other knobs that stand for one do so in single cases.
SESSION_WIDE = frozenset({"BASE_OUT", "M3_FULL_RUNS", "M3_STORE_RUNS"})


@dataclass(frozen=True)
class Knobs:
    """Effective values with their sources, in one suite; :meth:`for_case` applies what a case
    says.
    """

    given: Mapping[str, tuple[KnobValue, str]]
    defaults: Mapping[str, tuple[KnobValue, str]] = field(default_factory=dict)
    fixed: Mapping[str, KnobValue] = field(default_factory=dict)
    suite: str = ""

    def __getitem__(self, name: str) -> KnobValue:
        return self.with_source(name)[0]

    def with_source(self, name: str) -> tuple[KnobValue, str]:
        """The effective value and where it comes from."""
        if name in self.fixed:
            return self.fixed[name], "case"
        return self.given.get(name) or self.defaults.get(name) or (KNOBS[name].default, "default")

    def is_given(self, name: str) -> bool:
        """Whether the user set the knob, by whatever way."""
        return name in self.given

    def number(self, name: str) -> float:
        """A numeric knob as float."""
        value = self[name]
        assert isinstance(value, bool | int | float), name
        return float(value)

    def optional(self, name: str) -> float | None:
        """A numeric knob that may not be given."""
        return None if self[name] is None else self.number(name)

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

    def for_case(
        self, suite: str, defaults: Mapping[str, KnobValue], fixed: Mapping[str, KnobValue]
    ) -> Knobs:
        """These knobs as one case sees them: its defaults below the user's values, its defining
        values above them.
        """
        below = dict(self.defaults) | suite_defaults(suite)
        for name, value in defaults.items():
            below[name] = (value, "case default")
        return Knobs(self.given, below, {**self.fixed, **fixed}, self.suite)


def suite_defaults(suite: str) -> dict[str, tuple[KnobValue, str]]:
    """The defaults of one suite, with their source."""
    found: dict[str, tuple[KnobValue, str]] = {}
    for knob in KNOBS.values():
        if suite in knob.suites:
            found[knob.name] = (knob.suites[suite], f"{suite} default")
    return found


def resolve(  # noqa: PLR0913  one argument for each source
    command_line: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    ini: Iterable[str] = (),
    runtime_defaults: Mapping[str, KnobValue] | None = None,
    *,
    suite: str = "",
    profile: Mapping[str, str] | None = None,
) -> Knobs:
    """Merge the sources of user values; raises :class:`KnobError` for an unknown name or a bad
    value.

    An empty environment variable counts as not set. A knob that stands for another one is that
    knob's value, unless the other one is given as well.
    """
    environment = {name: text for name, text in (environment or {}).items() if text}
    for name in environment:
        if name.startswith(OWNED_PREFIXES) and name not in KNOBS and name not in OTHER_NAMES:
            raise KnobError(f"environment: {unknown(name)}")
    in_profile = [f"{name}={text}" for name, text in (profile or {}).items()]
    sources = {
        "ini": parse_assignments(ini),
        "profile": parse_assignments(in_profile),
        "environment": {name: text for name, text in environment.items() if name in KNOBS},
        "command line": parse_assignments(command_line),
    }
    given: dict[str, tuple[KnobValue, str]] = {}
    for source, pairs in sources.items():
        for name, text in pairs.items():
            given[name] = (KNOBS[name].parse(text), source)
    for name in SESSION_WIDE & given.keys():
        given.setdefault(KNOBS[name].within, given[name])
    defaults: dict[str, tuple[KnobValue, str]] = {}
    for name, value in (runtime_defaults or {}).items():
        defaults[name] = (value, "runtime default")
    return Knobs(given, defaults | suite_defaults(suite), suite=suite)


def check_together(knobs: Knobs) -> None:
    """Raise :class:`KnobError` if the user's values contradict each other or lack one that they
    need.
    """
    if knobs["H2O_BUDGET"]:
        try:
            seconds_of(knobs.text("H2O_BUDGET"))
        except ValueError as error:
            raise KnobError(f"H2O_BUDGET: {error}") from error
    mode = knobs["DECODE_BASELINE_MODE"]
    if mode == "fixed" and knobs["DECODE_BASELINE"] is None:
        raise KnobError(f"DECODE_BASELINE_MODE=fixed {NEEDS_BASELINE}")
    if mode == "paired" and knobs["RUN_ORDER"] != "interleaved":
        raise KnobError(
            f"RUN_ORDER={knobs['RUN_ORDER']} needs DECODE_BASELINE_MODE=same_batch; "
            "paired launches are ordered by DECODE_SEED"
        )


def scoped(knobs: Knobs, name: str) -> tuple[dict[str, KnobValue], dict[str, KnobValue]]:
    """What a knob that stands for another one means for its case: values below, and values above
    the user's.

    It wins where it is given; else the user's value of the other knob does.
    """
    value = {KNOBS[name].within: knobs[name]}
    return ({}, value) if knobs.is_given(name) else (value, {})


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping; raises :class:`KnobError` on a malformed one or an unknown
    name.
    """
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
    return f"unknown knob {name}{meant(name, KNOBS)} (pytest-h2o knobs lists them)"


def meant(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` for the known name that is nearest to a wrong one; empty for none."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """A message for each variable that is nearly a knob, which nothing reads."""
    messages: list[str] = []
    for name in sorted(environment.keys() - KNOBS):
        for near in difflib.get_close_matches(name, KNOBS, n=1, cutoff=0.9):
            messages.append(f"environment: {name} is no knob; did you mean {near}?")
    return messages


def engine_config(knobs: Knobs) -> dict[str, ConfigValue]:
    """The ``kv_*`` keys of a launch with H2O and lossless on, ``-1`` (auto) values settled by the
    runtime mode.
    """
    store = knobs["KV_LOSSLESS_RUNTIME_MODE"] == "store"
    config = {}
    for key in KEYS.values():
        value = _asked(key, knobs, store)
        if key.written(value, given=knobs.is_given(key.knob)):
            config[key.name] = value
    return config


def _asked(key: Key, knobs: Knobs, store: bool) -> ConfigValue:
    """What the knobs say about ``key``."""
    if key.knob == NONE:
        return key.gates_default
    value = knobs[key.knob]
    assert isinstance(value, bool | int | float | str), key.knob
    if key.automatic is not None and value == -1:
        in_store_mode, in_others = key.automatic
        value = in_store_mode if store else in_others
    return bool(value) if key.kind == "bool" else value


def baseline_config() -> dict[str, ConfigValue]:
    """The keys of a launch with H2O and lossless off."""
    return {
        "kv_h2o_enable": False,
        "kv_lossless_enable": False,
        "kv_lossless_runtime_enable": False,
    }
