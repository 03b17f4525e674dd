"""Eviction: the selection against brute force, the clock, the move, and what is published."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import H2O

from pytest_h2o.engine.config import H2OSettings
from pytest_h2o.engine.evictor import Evictor, select
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import Attention, KVCache, KVShape
from pytest_h2o.engine.response import Metrics

GATE = H2OSettings(
    enable=True,
    block_tokens=32,
    sink_tokens=16,
    recent_tokens=96,
    target_lossy_ratio=3.2,
    trigger_min_tokens=384,
)


def brute_force_kept(
    kv: int, scores: list[float], rules: H2OSettings
) -> tuple[list[int], int, int, int]:
    """Kept token positions, floor, target and quantised size, token by token and without numpy."""
    size = rules.block_tokens
    blocks = [list(range(begin, min(begin + size, kv))) for begin in range(0, kv, size)]
    protected = {token // size for token in range(0, min(kv, rules.sink_tokens), size)}
    protected |= set(range(max(0, kv - rules.recent_tokens) // size, len(blocks)))
    floor = sum(len(blocks[index]) for index in protected)
    static = rules.target_mode == "static"
    ratio = (
        np.float32(rules.target_keep_ratio)
        if static
        else np.float32(1) / np.float32(rules.target_lossy_ratio)
    )
    target = min(max(math.ceil(Fraction(float(np.float32(ratio * np.float32(kv))))), 1), kv)
    quantised = floor
    while quantised < target:
        quantised += size
    quantised = min(quantised, max(kv, floor))
    if floor >= target:
        return list(range(kv)), floor, target, floor
    kept = set(protected)
    for index in sorted(
        set(range(len(blocks))) - protected, key=lambda block: (-scores[block], block)
    ):
        if sum(len(blocks[block]) for block in kept) < quantised:
            kept.add(index)
    return [token for index in sorted(kept) for token in blocks[index]], floor, target, quantised


rules_strategy = st.builds(
    H2OSettings,
    block_tokens=st.integers(1, 40),
    sink_tokens=st.integers(0, 60),
    recent_tokens=st.integers(0, 120),
    target_keep_ratio=st.floats(0, 1, width=32),
    target_mode=st.sampled_from(["static", "adaptive"]),
    target_lossy_ratio=st.floats(1, 8, width=32),
)


@given(data=st.data(), kv=st.integers(1, 400), rules=rules_strategy)
@settings(max_examples=300)
def test_selection_equals_brute_force(data: st.DataObject, kv: int, rules: H2OSettings) -> None:
    """Every decision equals a token-by-token version of the rules, score ties included."""
    blocks = -(-kv // rules.block_tokens)
    scores = data.draw(
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=blocks, max_size=blocks)
    )
    tokens, floor, target, quantised = brute_force_kept(kv, scores, rules)
    chosen = select(kv, np.array(scores, np.float32), rules)
    kept = [token for begin, length in chosen.ranges for token in range(begin, begin + length)]
    assert (chosen.floor, chosen.target, chosen.quantised) == (floor, target, quantised)
    assert chosen.dominated == (floor >= target)
    assert chosen.dominated or kept == tokens
    assert chosen.evicted == kv - len(tokens)


def test_worked_example() -> None:
    """521 tokens at 3.2: 137 protected, 163 asked for, 169 kept, 352 evicted, lossy ratio
    3.0826.
    """
    scores = np.zeros(17, np.float32)
    scores[1] = 1
    plan = select(521, scores, GATE)
    assert (plan.floor, plan.target, plan.quantised, plan.final, plan.evicted) == (
        137,
        163,
        169,
        169,
        352,
    )
    assert plan.ranges == [(0, 64), (416, 105)]
    assert f"{521 * 1024 / plan.held_bytes(1024):.4f}" == "3.0826"


def test_ties_break_by_position() -> None:
    """Of blocks with equal scores the earlier one stays."""
    assert select(521, np.ones(17, np.float32), GATE).ranges == [(0, 64), (416, 105)]


class Rig:
    """An evictor on a cache whose values are token numbers, driven by made-up attention."""

    def __init__(self, rules: H2OSettings, layers: int, prompt: int, heads: int = 1) -> None:
        self.lines: list[str] = []
        self.metrics = Metrics()
        self.cache = KVCache(KVShape(heads, 2, np.dtype(np.float16)), layers, 1024)
        self.evictor = Evictor(rules, self.cache, self.metrics, self.lines.append)
        for layer in self.cache.layers:
            layer.append(np.repeat(np.arange(prompt, dtype=np.float32)[:, None], 4 * heads, axis=1))
        self.cache.position = prompt

    def step(self, draw: Callable[[int, int], np.ndarray]) -> None:
        """One decode token; ``draw(layer, length)`` gives the unnormalised weights [kv_heads,
        length, 2].
        """
        token = self.cache.position
        self.cache.position += 1
        for index, layer in enumerate(self.cache.layers):
            layer.append(np.full((1, 4 * self.cache.shape.heads), token, np.float32))
            weights = draw(index, layer.length)
            self.evictor.after_attention(index, Attention(weights, weights.sum(axis=1)))

    def tokens(self, layer: int) -> list[int]:
        """Token numbers that the layer still holds."""
        return self.cache.layers[layer].read()[0][0, :, 0].astype(int).tolist()


@given(
    seed=st.integers(0, 2**32 - 1),
    prompt=st.integers(20, 90),
    interval=st.integers(1, 9),
    alpha=st.floats(0, 1),
)
@settings(max_examples=40)
def test_eviction_equals_brute_force(seed: int, prompt: int, interval: int, alpha: float) -> None:
    """Over many tokens and layers, scores and kept tokens equal a simulation that knows nothing of
    arrays or moves.
    """
    rules = replace(
        GATE, block_tokens=8, sink_tokens=8, recent_tokens=16, target_lossy_ratio=2.0,
        update_interval=interval, trigger_min_tokens=40, ema_alpha=alpha, layer_start=1,
    )  # fmt: skip
    rig, rng = Rig(rules, 3, prompt, heads=2), np.random.default_rng(seed)
    held = {layer: list(range(prompt)) for layer in range(3)}
    scores: dict[int, list[float]] = {}
    for layer in (1, 2):
        seen = rng.gamma(0.3, 1, (2, prompt, 6)).astype(np.float32) + np.float32(1e-3)
        rig.evictor.after_prompt(layer, Attention(seen, seen.sum(axis=1)))
        mass = (seen / seen.sum(1, keepdims=True)).mean((0, 2))
        scores[layer] = [float(mass[begin : begin + 8].sum()) for begin in range(0, prompt, 8)]
    for step in range(1, 30):
        drawn = {}

        def draw(layer: int, length: int, drawn: dict[int, np.ndarray] = drawn) -> np.ndarray:
            drawn[layer] = rng.gamma(0.3, 1, (2, length, 2)).astype(np.float32) + np.float32(1e-3)
            return drawn[layer]

        rig.step(draw)
        for layer, tokens in held.items():
            tokens.append(prompt + step - 1)
            if layer == 0:
                continue
            mass = (drawn[layer] / drawn[layer].sum(1, keepdims=True)).mean((0, 2))
            current = [float(mass[begin : begin + 8].sum()) for begin in range(0, len(tokens), 8)]
            old = scores[layer] + [0.0] * (len(current) - len(scores[layer]))
            scores[layer] = [
                alpha * before + (1 - alpha) * now for before, now in zip(old, current, strict=True)
            ]
            turn = math.ceil(layer * interval / 2)
            if (step - turn) % interval or len(tokens) < 40:
                continue
            kept, *_ = brute_force_kept(len(tokens), scores[layer], rules)
            if len(kept) < len(tokens):
                scores[layer] = [score for b, score in enumerate(scores[layer]) if b * 8 in kept]
                held[layer] = [tokens[position] for position in kept]
        assert {layer: rig.tokens(layer) for layer in held} == held


def test_scores_begin_with_the_prompt() -> None:
    """Before the first decoded token a layer knows what the end of the prompt attended to."""
    rig = Rig(replace(GATE, layer_start=0, layer_end=0, update_interval=1), 1, 520)
    weights = np.ones((1, 520, 6), np.float32)
    weights[:, 200:210] = 50
    rig.evictor.after_prompt(0, Attention(weights, weights.sum(axis=1)))
    rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
    assert rig.tokens(0) == [*range(32), *range(192, 224), *range(416, 521)]


def test_every_layer_evicts_in_turn() -> None:
    """Each H2O layer evicts once per interval, no two in one token, and the layers outside the
    range never.
    """
    rules = replace(GATE, layer_start=2, layer_end=4, update_interval=6, trigger_min_tokens=200)
    rig = Rig(rules, 6, 520)
    lengths = []
    for _ in range(6):
        rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
        lengths.append([layer.length for layer in rig.cache.layers])
    evicting = [[layer for layer in range(6) if after[layer] < 300] for after in lengths]
    assert evicting == [[], [2], [2], [2, 3], [2, 3], [2, 3, 4]]
    assert (
        rig.metrics.evictions_planned,
        rig.metrics.evictions_applied,
        rig.metrics.evictions_dropped,
    ) == (3, 3, 0)


def test_plan_line() -> None:
    """A plan prints the original's line, key by key."""
    rig = Rig(replace(GATE, layer_start=0, layer_end=0, update_interval=1), 1, 520)
    rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
    line, time = rig.lines[0].split(" evict_us=")
    assert line == "[H2O] layer=0 kv=521 keep_ratio=0.3244 evict=352 lossy_ratio=3.0468"
    assert time.split(" ", 1)[1] == (
        "reserve_pairs=2 target=0.500 effective=0.313 floor=0.263 quantized=0.324 recent=96 "
        "sink=16 block=32"
    )


def test_floor_line() -> None:
    """When sink and recent exceed the target, nothing is evicted and the reason is printed."""
    rig = Rig(replace(GATE, layer_start=0, layer_end=0, update_interval=1), 1, 399)
    rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
    assert rig.lines == [
        "[H2O] floor-keep dominates target: kv=400 target=125 floor=144 (sink=16 recent=96 "
        "block=32)"
    ]
    assert rig.cache.layers[0].length == 400
    assert (rig.metrics.keep, rig.metrics.lossy, rig.metrics.last_evict_tokens) == (1, 1, 0)
    assert rig.metrics.floor_keep == pytest.approx(144 / 400)


def test_published_ratios_are_sums_over_layers() -> None:
    """Keep and lossy weigh every H2O layer by its bytes; a layer that has not evicted yet counts as
    kept whole.
    """
    rig = Rig(replace(GATE, layer_start=0, update_interval=4), 2, 520)
    for _ in range(2):
        rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
    kept = 522 - 352
    assert rig.metrics.keep == pytest.approx(
        (kept + 521) / (522 + 521)
    )  # layer 1 has not seen this token yet
    for _ in range(2):
        rig.step(lambda layer, length: np.ones((1, length, 2), np.float32))
    size = rig.cache.shape.token_bytes
    assert rig.metrics.lossy == pytest.approx((522 + 524) * size / ((kept + 172) * size + 2 * 16))


def test_effective_ratio(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """The effective ratio is tokens seen over tokens held in the H2O layers, at the end and
    averaged over steps.
    """
    engine, seen = make_engine(H2O), []

    def watch(token: int) -> None:
        held = [layer.length for layer in engine.cache.layers[1:]]
        seen.append(3 * engine.cache.position / sum(held))

    metrics = engine.respond(prompt, 24, emit=watch).metrics
    assert metrics.evictions_applied > 0
    assert metrics.kv_tokens_end == pytest.approx(184 * (1 + 3 / metrics.effective_ratio) / 4)
    assert metrics.effective_ratio_mean == pytest.approx(
        np.mean([*seen[1:], metrics.effective_ratio])
    )


def test_keep_everything(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """A keep ratio of 1 gives the very tokens of a run without H2O."""
    keep_all = H2O | {"kv_h2o_target_mode": "static", "kv_h2o_target_keep_ratio": 1.0}
    assert (
        make_engine(keep_all).respond(prompt, 40).tokens == make_engine().respond(prompt, 40).tokens
    )


def test_eviction_changes_output(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """Eviction is real: with little kept, the random model answers differently."""
    assert make_engine(H2O).respond(prompt, 40).tokens != make_engine().respond(prompt, 40).tokens


def test_responses_do_not_see_each_other(
    make_engine: Callable[..., Engine], prompt: list[int]
) -> None:
    """A second response starts from an empty cache and fresh counters."""
    engine = make_engine(H2O)
    first, second = engine.respond(prompt, 24), engine.respond(prompt, 24)
    assert first.tokens == second.tokens
    times = {"evict_us": 0, "decode_cost": 0}
    assert replace(first.metrics, **times) == replace(second.metrics, **times)


def test_window_policy() -> None:
    """The window policy keeps the newest blocks, however much attention the old ones draw."""
    rig = Rig(
        replace(GATE, layer_start=0, update_interval=1, sink_tokens=0, policy="window"), 1, 520
    )
    rig.step(
        lambda layer, length: np.geomspace(1e3, 1, length, dtype=np.float32)[None, :, None].repeat(
            2, 2
        )
    )
    assert rig.tokens(0) == list(range(352, 521))
