"""Relations between launches over the same real prompt: which settings may not change its answer.

What the right outcome of a relation is, is known beforehand, whatever a program claims about
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_h2o.plan.cases import baseline_of
from pytest_h2o.plan.specs import ConfigValue, LaunchSpec

Config = Mapping[str, ConfigValue]
Changes = Mapping[str, Config]
# The knob that turns each relation off.
RELATIONS: Mapping[str, str] = {
    "lossless": "RELATION_LOSSLESS",
    "unevicted": "RELATION_UNEVICTED",
    "speed": "RELATION_SPEED",
    "greedy": "RELATION_GREEDY",
    "strangers": "RELATION_STRANGERS",
    "unseen": "RELATION_UNSEEN",
    "recall": "RELATION_RECALL",
    "order": "RELATION_ORDER",
    "heavy": "RELATION_HEAVY",
    "builds": "RELATION_BUILD",
    "release": "RELATION_BUILD",
}
MODE = "kv_lossless_runtime_mode"
CODEC = "kv_lossless_codec_runtime"
BLOCKS = "kv_lossless_block_tokens"
TRIGGER, SINK = "kv_h2o_trigger_min_tokens", "kv_lossless_hot_sink_tokens"
BOOTSTRAP, RECENT = "kv_lossless_store_bootstrap_tokens", "kv_lossless_hot_recent_tokens"
RECENT_TOKENS = 32
H2O_OFF: Config = {"kv_h2o_enable": False}
LOSSLESS_OFF: Config = {"kv_lossless_enable": False, "kv_lossless_runtime_enable": False}
KEEP_ALL: Config = {"kv_h2o_target_lossy_ratio": 1.0, "kv_h2o_target_keep_ratio": 1.0}
# A sampler that punishes what repeats itself keeps a model from copying.
GREEDY: Config = {"sampler_type": "greedy"}
RECENT_KEY = "kv_h2o_recent_tokens"
# More than any response has.
ALL_RECENT: Config = {RECENT_KEY: 1 << 20}
# A floor of protected tokens above the target would keep everything: the last block but one begins
# at most 15 tokens before the end.
FEW_PROTECTED: Config = {
    "kv_h2o_sink_tokens": 0,
    RECENT_KEY: 8,
    "kv_h2o_block_tokens": 8,
}
LEAST_KEPT = 18
# What a repeated passage and the words that repeat it come to, three tokens a word.
PASSAGE_TOKENS = 96
# Fewer than a response has: what goes wrong when a decode cache is full shows.
FEW_BLOCKS = 2
# Prompts from one that has an arm to the next that has it.
TURNS = 2
# Kernels may add up a block at a time, and then round otherwise in blocks of another length.
LAYOUT = frozenset({BLOCKS})


@dataclass(frozen=True)
class Arm:
    """A launch with settings changed, by what the changes are called.

    Without any it is ``base`` itself. Those of ``always`` are no suspects when texts differ.
    ``by_hand`` changes how the program is started: it must not tell.
    """

    base: LaunchSpec
    changes: Changes = field(default_factory=dict)
    always: Changes = field(default_factory=dict)
    by_hand: bool = False

    @property
    def title(self) -> str:
        """The arm in words."""
        names = list({**self.always, **self.changes})
        if self.by_hand:
            names.append("started by hand")
        return ", ".join(names) or self.base.arm

    @property
    def spec(self) -> LaunchSpec:
        """The launch."""
        config = dict(self.base.config)
        for change in (*self.always.values(), *self.changes.values()):
            config.update(change)
        if config == self.base.config and not self.by_hand:
            return self.base
        arm = _slug(self.title)
        return replace(self.base, arm=arm, config=config, by_hand=self.by_hand)

    @property
    def alone(self) -> list[Arm]:
        """One arm for each of several changes."""
        if len(self.changes) < 2:
            return []
        arms = [Arm(self.base, {name: each}, self.always) for name, each in self.changes.items()]
        if self.by_hand:
            arms.append(Arm(self.base, {}, self.always, by_hand=True))
        return arms

    @property
    def layout_only(self) -> bool:
        """Whether all that changes is how KV is laid out."""
        keys = {key for change in self.changes.values() for key in change}
        return bool(keys) and keys <= LAYOUT


@dataclass(frozen=True)
class SameText:
    """Two arms that must write the same text."""

    expected: Arm
    other: Arm

    @property
    def specs(self) -> list[LaunchSpec]:
        """Both launches."""
        return [self.expected.spec, self.other.spec]


def same_text(relation: str, candidates: Sequence[LaunchSpec], tokens: int) -> list[SameText]:
    """The arms of a relation for some real prompts; those of its own decode at most ``tokens``.

    Candidate and baseline are launched anyway, so an arm may write less than they do. Arms that are
    like each other are shared out among the prompts; a single one has all of them.
    """
    pairs: list[SameText] = []
    for turn, candidate in enumerate(candidates):
        short = replace(candidate, gen_tokens=min(tokens, candidate.gen_tokens))
        turns = {turn % TURNS} if len(candidates) > 1 else set(range(TURNS))
        pairs += _SAME_TEXT[relation](candidate, short, turns)
    return pairs


def _lossless(
    candidate: LaunchSpec, short: LaunchSpec, turns: Collection[int]
) -> Iterator[SameText]:
    """Several settings change at once, which costs one launch; the culprit is found when texts
    differ.
    """
    plain = Arm(short, {"lossless off": LOSSLESS_OFF})
    inline = other_mode(short) | {
        "0 encode workers": {"kv_lossless_async_threads": 0},
        "no decode cache": {"kv_lossless_decode_cache_blocks": 0},
    }
    store = {"store": stored(short)}
    workers: dict[str, Config] = {
        "4 encode workers": {"kv_lossless_async_threads": 4},
        f"decode cache of {FEW_BLOCKS}": {"kv_lossless_decode_cache_blocks": FEW_BLOCKS},
        **other_codec(short),
        **other_blocks(short),
    }
    yield SameText(plain, Arm(candidate))
    baseline = Arm(baseline_of(candidate))
    if 0 in turns:
        yield SameText(plain, Arm(short, inline))
        yield SameText(baseline, Arm(short, always={"H2O off": H2O_OFF}))
        yield SameText(baseline, Arm(short, inline, always={"H2O off": H2O_OFF}))
    if 1 in turns:
        yield SameText(plain, Arm(short, workers, always=store, by_hand=True))


def _unevicted(
    candidate: LaunchSpec, short: LaunchSpec, turns: Collection[int]
) -> Iterator[SameText]:
    baseline = Arm(baseline_of(candidate))
    if 0 in turns:
        yield SameText(baseline, Arm(short, {"target ratio 1": KEEP_ALL}))
    if 1 in turns:
        yield SameText(baseline, Arm(short, {"all tokens recent": ALL_RECENT}))


def _greedy(candidate: LaunchSpec, short: LaunchSpec, turns: Collection[int]) -> Iterator[SameText]:
    if 0 in turns:
        yield SameText(Arm(candidate), unlogged(Arm(short)))
        yield SameText(Arm(baseline_of(candidate)), repeated(Arm(baseline_of(short))))


def _heavy(candidate: LaunchSpec, short: LaunchSpec, turns: Collection[int]) -> Iterator[SameText]:
    """Two texts that must not be the same."""
    if 0 in turns:
        little = Arm(short, {"nearly all evicted": _kept_least(short)})
        yield SameText(Arm(baseline_of(candidate)), little)


def _kept_least(spec: LaunchSpec) -> Config:
    """Settings that keep next to nothing of a cache that is long enough to evict."""
    ratio = round(max(2.0, int(spec.config.get(TRIGGER, 0)) / LEAST_KEPT), 4)
    return {
        "kv_h2o_target_lossy_ratio": ratio,
        "kv_h2o_target_keep_ratio": round(1 / ratio, 4),
        **FEW_PROTECTED,
    }


# A little eviction, with next to nothing protected: most of an answer stays as it is, unless
# positions or scores are wrong. It comes in steps, as many to one that is asked for.
MILD_RATIO = 1.012
STEPS, SMALL_BLOCK = 8, 4
INTERVAL = "kv_h2o_update_interval"
_SAME_TEXT = {
    "lossless": _lossless,
    "unevicted": _unevicted,
    "greedy": _greedy,
    "heavy": _heavy,
}


def ratios(candidate: LaunchSpec, tokens: int) -> dict[float, Arm]:
    """The candidate's launch at three target ratios: nothing evicted, a little, and its own.

    A little goes in many small steps, with no more than a block of recent tokens protected: scores
    choose, and what is spoiled by the second eviction shows as early as what the first one spoils.
    """
    short = replace(candidate, gen_tokens=min(tokens, candidate.gen_tokens))
    own = target_ratio(candidate)
    mild = round(1 + min(MILD_RATIO - 1, (own - 1) / 2), 4)
    block = int(candidate.config.get("kv_h2o_block_tokens", RECENT_TOKENS))
    interval = int(candidate.config.get(INTERVAL, STEPS))
    few: dict[str, ConfigValue] = {
        "kv_h2o_target_lossy_ratio": mild,
        "kv_h2o_target_keep_ratio": round(1 / mild, 4),
        RECENT_KEY: block,
        "kv_h2o_block_tokens": min(SMALL_BLOCK, block),
        INTERVAL: max(1, interval // STEPS),
    }
    return {
        1.0: Arm(short, {"target ratio 1": KEEP_ALL}),
        mild: Arm(short, {f"target ratio {mild:g}, {block} recent tokens": few}),
        own: unlogged(Arm(short)),
    }


def mild_only(arms: dict[float, Arm]) -> dict[float, Arm]:
    """Of the launches at several target ratios that with a little eviction."""
    mild = sorted(arms)[:2][-1]
    return {mild: arms[mild]}


def target_ratio(spec: LaunchSpec) -> float:
    """The lossy ratio that a launch asks for."""
    if spec.config.get("kv_h2o_target_mode") == "static":
        return 1 / max(float(spec.config["kv_h2o_target_keep_ratio"]), 1e-3)
    return float(spec.config["kv_h2o_target_lossy_ratio"])


def other_mode(spec: LaunchSpec) -> dict[str, Config]:
    """``store`` where the launch is not in that mode, else ``full``."""
    mode = "full" if spec.config.get(MODE) == "store" else "store"
    return {mode: stored(spec) if mode == "store" else {MODE: mode}}


def stored(spec: LaunchSpec) -> Config:
    """Store mode in which as much goes through the codec as any layer has when it begins to."""
    trigger, sink = (int(spec.config.get(key, 0)) for key in (TRIGGER, SINK))
    first = max(16, trigger - sink - RECENT_TOKENS)
    return {MODE: "store", BOOTSTRAP: first, RECENT: RECENT_TOKENS}


def other_codec(spec: LaunchSpec) -> dict[str, Config]:
    """The other payload codec."""
    codec = "fp16_gear_seq_v1"
    if spec.config.get(CODEC) == codec:
        codec = "fp16_gear_predictive_v3"
    return {f"codec {codec}": {CODEC: codec}}


def other_blocks(spec: LaunchSpec) -> dict[str, Config]:
    """Lossless blocks of half the length."""
    tokens = max(1, int(spec.config.get(BLOCKS, 128)) // 2)
    return {f"blocks of {tokens}": {BLOCKS: tokens}}


def repeated(arm: Arm) -> Arm:
    """The same launch once more."""
    spec = arm.spec
    return Arm(replace(spec, arm=f"{spec.arm}-again", replicate=spec.replicate + 1))


def unlogged(arm: Arm) -> Arm:
    """The same launch once more, without log lines: nobody sees what it does."""
    spec = arm.spec
    config = {**spec.config, "kv_h2o_log_stats": False}
    replicate = spec.replicate + 1
    return Arm(replace(spec, arm=f"{spec.arm}-again", replicate=replicate, config=config))


def recalled(candidate: LaunchSpec, prompt: Path, tokens: int) -> SameText:
    """Baseline and candidate over a prompt that begins to repeat a passage of its own, both without
    a sampler that keeps them from copying; the passage is protected as recent.
    """
    short = replace(candidate, prompt_file=prompt, gen_tokens=min(tokens, candidate.gen_tokens))
    recent = max(PASSAGE_TOKENS, int(candidate.config.get(RECENT_KEY, 0)))
    baseline = _greedy_arm(baseline_of(short), {})
    return SameText(baseline, _greedy_arm(short, {RECENT_KEY: recent}))


def _greedy_arm(spec: LaunchSpec, protected: Config) -> Arm:
    config = {**spec.config, **GREEDY, **protected}
    return Arm(replace(spec, arm=f"{spec.arm}-greedy", config=config))


def on_threads(arm: Arm, threads: int) -> Arm:
    """The same launch on another number of threads."""
    spec = arm.spec
    return Arm(replace(spec, arm=f"{spec.arm}-on-{threads}-threads", threads=threads))


def _slug(text: str) -> str:
    return text.replace(",", "").replace(" ", "-")
