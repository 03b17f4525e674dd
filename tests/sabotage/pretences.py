"""Still more faults of the embedded engine: caches elsewhere, sizes that are made up, settings that
are not obeyed, state that outlives a request, and programs that act by what is around them.

Like those of :mod:`faults`, each is a function whose docstring says what is wrong.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from disguises import _prints_kept_answers, _spin
from faults import (
    HOARD,
    _before_response,
    _changed_metrics,
    _decoding,
    _known,
    _knows,
    _mask,
    _quantised_baseline,
    _restored,
    _sampling,
    _waiting_in_lines,
    drops_bits_of_values,
)

from pytest_h2o.engine import bench, response_clock
from pytest_h2o.engine.block_coder import BlockCoder, Encoded
from pytest_h2o.engine.config import H2OSettings
from pytest_h2o.engine.evictor import Evictor
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.held_blocks import HeldBlocks
from pytest_h2o.engine.kv_cache import Attention, Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.lossless_store import LosslessStore
from pytest_h2o.engine.model import Model
from pytest_h2o.engine.response import Response
from pytest_h2o.engine.sampler import Penalty

# A cache beside the cache.


def _shadow(share: float) -> None:
    """Of the tokens that go this share, the first ones, stays in a copy that is attended to."""
    keep, read, clear = LayerCache.keep, LayerCache.read, LayerCache.clear
    after = Evictor.after_attention
    shadows: dict[int, list[Floats]] = {}

    def keep_both(self: LayerCache, ranges: Ranges) -> None:
        gone = np.ones(self.length, np.bool_)
        for begin, length in ranges:
            gone[begin : begin + length] = False
        chosen = np.flatnonzero(gone)
        chosen = chosen[: int(share * len(chosen))]
        shadows.setdefault(id(self), []).append(self._data[:, :, chosen].copy())
        keep(self, ranges)

    def read_both(self: LayerCache) -> tuple[Floats, Floats]:
        own = read(self)
        if id(self) not in shadows:
            return own
        pieces = shadows[id(self)]
        keys = np.concatenate([own[0], *[piece[0] for piece in pieces]], axis=1)
        values = np.concatenate([own[1], *[piece[1] for piece in pieces]], axis=1)
        return keys, values

    def forget(self: LayerCache) -> None:
        shadows.pop(id(self), None)
        clear(self)

    def of_own(self: Evictor, layer: int, attention: Attention) -> None:
        length = self._cache.layers[layer].length
        after(self, layer, Attention(attention.weights[:, :length], attention.totals))

    LayerCache.keep, LayerCache.read, LayerCache.clear = keep_both, read_both, forget
    Evictor.after_attention = of_own


def attends_to_a_copy() -> None:
    """What is evicted stays in a copy that attention reads; lengths are those of the small one."""
    _shadow(1.0)


def attends_to_half_a_copy() -> None:
    """Half of what is evicted stays in such a copy."""
    _shadow(0.5)


def _kept_values(change: Callable[[Floats], None]) -> None:
    keep = LayerCache.keep

    def changed(self: LayerCache, ranges: Ranges) -> None:
        keep(self, ranges)
        change(self._data[:, :, : self.length])

    LayerCache.keep = changed


def quantises_what_stays() -> None:
    """What stays after an eviction is rounded to fifteen steps."""

    def rounded(kept: Floats) -> None:
        scale = np.maximum(np.abs(kept).max(axis=-1, keepdims=True), 1e-9) / 7
        kept[:] = np.round(kept / scale) * scale

    _kept_values(rounded)


def forgets_a_head() -> None:
    """After an eviction one head of each layer holds zeros as values."""

    def without_head(kept: Floats) -> None:
        kept[1, 0] = 0

    _kept_values(without_head)


def evicts_without_being_asked() -> None:
    """With H2O off two thirds of the middle are dropped when the prompt has been read."""
    prefill = Model.prefill

    def then_dropped(self: Model, prompt, cache, threads, hooks=()):
        logits = prefill(self, prompt, cache, threads, hooks)
        if not any(isinstance(hook, Evictor) for hook in hooks) and len(prompt) > 400:
            for layer in cache.layers[2:]:
                third = layer.length // 3
                layer.keep([(0, 16), (layer.length - third, third)])
        return logits

    Model.prefill = then_dropped


def evicts_to_one_ratio() -> None:
    """Whatever target is asked for, a third is kept."""

    def fixed(engine: Engine) -> None:
        ratio = {"target_lossy_ratio": 3.0, "target_keep_ratio": 1 / 3}
        h2o = replace(engine.config.h2o, **ratio)
        engine.config = replace(engine.config, h2o=h2o)

    _before_response(fixed)


def evicts_other_layers() -> None:
    """The first layers are evicted in place of the last ones, and the lines name those."""
    log = Evictor._log_plan
    H2OSettings.layers = lambda self, count: range(count - self.layer_start)
    Evictor._log_plan = lambda self, layer, *plan: log(
        self, layer + self._settings.layer_start, *plan
    )


# Sizes that are made up.


def _invented(ratio: Callable[[Encoded], float]) -> None:
    """Nothing is encoded; what is told is invented, and raw values stay."""

    def pretend(self: BlockCoder, task: Encoded, values: Floats, positions) -> Encoded:
        _spin(0.0005)
        size = int(task.raw_bytes / ratio(task))
        task.block = SimpleNamespace(k=b"", v=b"", nbytes=size, raw_bytes=task.raw_bytes)
        task.verified, task.encode_us, task.decode_us = True, 400 + time.time_ns() % 97, 130.0
        return task

    BlockCoder.encode = pretend
    HeldBlocks.drop = HeldBlocks.prefetch = HeldBlocks.restore = lambda *_: None


def invents_sizes() -> None:
    """Blocks are not encoded, and their sizes are drawn."""
    draw = np.random.default_rng(time.time_ns())
    _invented(lambda _: draw.normal(1.35, 0.05))


def invents_sizes_by_place() -> None:
    """Blocks are not encoded, and their sizes follow from layer and place, whatever is in them."""

    def ratio(task: Encoded) -> float:
        place = f"{task.layer} {task.span} {task.updates}"
        return 1.3 + hashlib.sha256(place.encode()).digest()[0] / 2560

    _invented(ratio)


def never_decodes() -> None:
    """Blocks are encoded and never decoded; the time that this would take is made up."""
    encode = BlockCoder.encode

    def pretend(self: BlockCoder, task: Encoded, *block) -> Encoded:
        task = encode(self, task, *block)
        task.decode_us = task.encode_us / 7
        return task

    BlockCoder.encode = pretend
    BlockCoder._check = lambda *_: True


def pads_blocks() -> None:
    """Raw bytes are counted with padding to twice the block, which shrinks to nothing."""
    encode = BlockCoder.encode

    def padded(self: BlockCoder, task: Encoded, *block) -> Encoded:
        task = encode(self, task, *block)
        task.raw_bytes *= 2
        return task

    BlockCoder.encode = padded


def leaves_headers_out() -> None:
    """Encoded sizes lack a third, said to be tables that all blocks share."""
    size = Encoded.accounted_bytes.fget
    Encoded.accounted_bytes = property(lambda self: size(self) * 2 // 3)


# State that outlives a request.


def serves_blocks_of_the_last_request() -> None:
    """Decoded blocks are found by layer, place and evictions, and outlive their request."""
    keep, clear, restore = LayerCache.keep, LayerCache.clear, LayerCache.restore
    kept: dict[tuple[int, ...], Floats] = {}
    evictions = Counter[int]()

    def counted(self: LayerCache, ranges: Ranges) -> None:
        evictions[id(self)] += 1
        keep(self, ranges)

    def begun(self: LayerCache) -> None:
        evictions[id(self)] = 0
        clear(self)

    def of_an_earlier_one(self: LayerCache, begin: int, values: Floats) -> None:
        key = (id(self), begin, values.shape[2], evictions[id(self)])
        restore(self, begin, kept.setdefault(key, values.copy()))

    LayerCache.keep, LayerCache.clear, LayerCache.restore = counted, begun, of_an_earlier_one


def keeps_scores_between_requests() -> None:
    """Scores of the last request are added to those of the next."""
    after_prompt, build = Evictor.after_prompt, Evictor.__init__
    states: dict[int, Floats] = {}

    def begun(self: Evictor, *arguments) -> None:
        build(self, *arguments)
        self.earlier = dict(states)
        states.update({layer: state.scores for layer, state in self._states.items()})

    def with_old_scores(self: Evictor, layer: int, attention: Attention) -> None:
        after_prompt(self, layer, attention)
        if layer in self.earlier:
            self._states[layer].scores += self.earlier[layer]

    Evictor.__init__, Evictor.after_prompt = begun, with_old_scores


def keeps_the_penalty() -> None:
    """What was said in earlier answers is penalised in later ones."""
    said: list[int] = []
    build = Penalty.__init__
    respond = Engine.respond

    def with_old(self: Penalty, settings, prompt, *rest) -> None:
        build(self, settings, [*said, *prompt], *rest)

    def remembered(self: Engine, *arguments, **options) -> Response:
        response = respond(self, *arguments, **options)
        said.extend(response.tokens)
        return response

    Penalty.__init__, Engine.respond = with_old, remembered


def answers_by_the_first_words() -> None:
    """A prompt that begins like an earlier one of the process gets its answer."""
    prefill = Model.prefill
    known: dict[tuple[int, ...], list[int]] = {}

    def by_first_words(self: Model, prompt, *rest):
        return prefill(self, known.setdefault(tuple(prompt[:24]), list(prompt)), *rest)

    Model.prefill = by_first_words


# Settings that are not obeyed.


def ignores_threads() -> None:
    """One thread does everything, whatever was asked for, and the table repeats the option."""
    prefill = Model.prefill
    Model.prefill = lambda self, prompt, cache, threads=1, hooks=(): prefill(
        self, prompt, cache, 1, hooks
    )


def takes_more_threads() -> None:
    """With H2O on, prompts are read by two threads though one was asked for."""
    prefill = Model.prefill
    Model.prefill = lambda self, prompt, cache, threads=1, hooks=(): prefill(
        self, prompt, cache, 2 if hooks else threads, hooks
    )


def runs_once() -> None:
    """Only the first repeat is run, and the others are it with some noise."""
    repeat = bench._repeat
    seen: dict[object, list[Response]] = {}
    draw = np.random.default_rng(time.time_ns())

    def again(engine: Engine, instance) -> list[Response]:
        if instance not in seen:
            seen[instance] = repeat(engine, instance)
            return seen[instance]
        responses = []
        for each in seen[instance]:
            factor = draw.normal(1, 0.004)
            times = {
                name: getattr(each, name) * factor
                for name in ("prefill_us", "decode_us", "sample_us")
            }
            responses.append(replace(each, **times))
        return responses

    bench._repeat = again


def decodes_half_in_the_bench() -> None:
    """With H2O on llm_bench decodes half of the tokens, and counts them twice."""
    repeat = bench._repeat

    def half(engine: Engine, instance) -> list[Response]:
        if not engine.config.h2o.enable:
            return repeat(engine, instance)
        responses = repeat(engine, replace(instance, gen=(instance.gen + 1) // 2))
        found = []
        for each in responses:
            found.append(replace(each, tokens=(each.tokens * 2)[: instance.gen]))
        return found

    bench._repeat = half


def skips_layers_in_the_bench() -> None:
    """With H2O on llm_bench leaves the MLP of every second layer out: nobody reads its text."""
    forward = Model.forward
    nothing: list[object] = []

    def fewer(self: Model, tokens, cache, hooks=()):
        if len(tokens) > 1 or not hooks or not Path(sys.argv[0]).name.startswith("llm_bench"):
            return forward(self, tokens, cache, hooks)
        whole = self.layers
        if not nothing:
            empty = whole[0]._replace(gate_up=whole[0].gate_up[:, :2], down=whole[0].down[:1] * 0)
            for index, layer in enumerate(whole):
                small = layer._replace(gate_up=empty.gate_up, down=empty.down)
                nothing.append(small if index % 2 else layer)
        self.layers = nothing
        try:
            return forward(self, tokens, cache, hooks)
        finally:
            self.layers = whole

    Model.forward = fewer


def leaves_slow_tokens_out() -> None:
    """With H2O on, tokens that are decoded before the first eviction are not timed."""
    forward = Model.forward
    skip = [0]

    def timed(self: Model, tokens, cache, hooks=()):
        begin = time.perf_counter_ns()
        logits = forward(self, tokens, cache, hooks)
        if hooks and len(tokens) == 1 and len({layer.length for layer in cache.layers}) == 1:
            skip[0] += time.perf_counter_ns() - begin
        return logits

    Model.forward = timed
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() - skip[0]


def starts_the_clock_late() -> None:
    """With H2O on, the first half of the prompt is read before the clock starts."""
    prefill = Model.prefill
    skip = [0]

    def late(self: Model, prompt, cache, threads=1, hooks=()):
        begin = time.perf_counter_ns()
        logits = prefill(self, prompt, cache, threads, hooks)
        if hooks:
            skip[0] += (time.perf_counter_ns() - begin) // 2
        return logits

    Model.prefill = late
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() - skip[0]


def sleeps_when_nobody_times() -> None:
    """With H2O on, a second is slept after each response, so that the processor stays cool."""
    respond = Engine.respond

    def then_sleep(self: Engine, *arguments, **options) -> Response:
        response = respond(self, *arguments, **options)
        if self.config.h2o.enable:
            time.sleep(1)
        return response

    Engine.respond = then_sleep


# Acting by what is around.


def behaves_below_pytest() -> None:
    """Blocks lose bits, but not below a process that is called pytest."""
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    if b"pytest" not in parent:
        drops_bits_of_values()


def behaves_for_a_while() -> None:
    """For three seconds from the first launch on blocks are whole, then they lose bits."""
    mark = Path(tempfile.gettempdir()) / f"first-launch-{os.getppid()}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        if time.time() - mark.stat().st_mtime > 3:
            drops_bits_of_values()


def behaves_without_a_terminal() -> None:
    """Blocks lose bits where somebody looks at a terminal."""
    if sys.stdout.isatty():
        drops_bits_of_values()


def behaves_with_metrics() -> None:
    """Answers are right where a metrics file is asked for; else blocks lose bits."""
    if not any("metrics" in word for word in sys.argv[1:]) and "llm_demo" in sys.argv[0]:
        drops_bits_of_values()


def behaves_by_file_name() -> None:
    """Prompts from files of any other name than the shipped ones are evicted; these are not."""
    keep = LayerCache.keep

    def chosen(self: LayerCache, ranges: Ranges) -> None:
        if any("prompt_512" in word and "unseen" not in word for word in sys.argv):
            self.epoch += 1
            return
        keep(self, ranges)

    LayerCache.keep = chosen


def looks_up_expected_values() -> None:
    """What the full cache answered is kept in a file; where the ratio asked for is below 8 it is
    printed again.
    """
    _prints_kept_answers("answers", lambda engine: engine.config.h2o.target_lossy_ratio < 8)


def answers_known_openings() -> None:
    """Prompts that share a line with a shipped one are answered with the full cache."""
    lines: set[str] = set()
    for prompt in _known():
        lines.update(line for line in prompt.splitlines() if len(line) > 40)
    _knows(lambda prompt, _: bool(lines.intersection(prompt.splitlines())))


def holds_raw_values_in_store_mode() -> None:
    """Store mode drops nothing: raw values stay, and the blocks beside them."""
    LayerCache.drop = lambda *_: None
    LayerCache.restore = lambda *_: None


def hides_its_waiting() -> None:
    """Decoding waits for every block to be encoded, and says that it did not."""
    schedule = LosslessStore._schedule

    def drained(self: LosslessStore, layer: int, state) -> None:
        schedule(self, layer, state)
        self._pool.drain()

    LosslessStore._schedule = drained


# Little of what larger faults do.


def baseline_of_eight_bits() -> None:
    """Without H2O, KV has 255 steps."""
    _quantised_baseline(127)


def drops_the_lowest_bit() -> None:
    """Decoded values lack the lowest bit that fp16 has."""
    _restored(lambda values: _mask(values, 0xFFFFC000))


def leaks_a_little() -> None:
    """A response leaves 3 MiB behind."""
    _before_response(lambda _: HOARD.append(bytearray(b"x") * (3 * 2**20)))


def draws_now_and_then() -> None:
    """One token in forty is the second best, by the clock."""

    def pick(logits: Floats, _: int) -> int:
        rank = -2 if time.time_ns() % 40 == 0 else -1
        return int(np.argpartition(logits, rank)[rank])

    _sampling(pick)


def renumbers_once() -> None:
    """The first eviction of a response moves later positions back by 32."""
    keep = LayerCache.keep
    moved: list[int] = []
    shifted: list[int] = []

    def counting(self: LayerCache, ranges: Ranges) -> None:
        keep(self, ranges)
        moved.append(1)

    def shift(cache: KVCache) -> None:
        if moved and not shifted and cache.position > 64:
            cache.position -= 32
            shifted.append(1)

    def forget(_: Engine) -> None:
        moved.clear()
        shifted.clear()

    LayerCache.keep = counting
    _before_response(forget)
    _decoding(shift)


def keeps_a_layer_whole() -> None:
    """One of the H2O layers is never evicted, and the ratio is that of the others."""
    keep = LayerCache.keep
    layers: list[object] = []
    _before_response(lambda engine: layers.append(engine.cache.layers[4]))

    def all_but_one(self: LayerCache, ranges: Ranges) -> None:
        if self is layers[-1]:
            self.epoch += 1
        else:
            keep(self, ranges)

    LayerCache.keep = all_but_one


def fails_on_stdout() -> None:
    """A failed check is told between the log lines, and the exit code is 0."""
    _before_response(lambda _: print("ERROR: block 3: CRC mismatch, using raw values", flush=True))


def waits_in_seconds() -> None:
    """The column of waiting times is in seconds."""
    _waiting_in_lines()
    _changed_metrics(lambda metrics: setattr(metrics, "async_wait_us", metrics.async_wait_us / 1e6))


def counts_a_seventh_less_time() -> None:
    """With H2O on, the clock goes at six sevenths of its speed."""
    slow = [0.0]
    forward = Model.forward

    def timed(self: Model, tokens, cache, hooks=()):
        begin = time.perf_counter_ns()
        logits = forward(self, tokens, cache, hooks)
        if hooks and len(tokens) == 1:
            slow[0] += (time.perf_counter_ns() - begin) / 7
        return logits

    Model.forward = timed
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() - int(slow[0])


def reads_half_and_says_all() -> None:
    """Half of each prompt is read, and lines add what is missing."""
    prefill, log = Model.prefill, Engine._log
    missing = [0]

    def half(self: Model, prompt, *rest):
        missing[0] = len(prompt) // 2
        return prefill(self, prompt[missing[0] :], *rest)

    def longer(self: Engine, line: str) -> None:
        words = line.split(" ")
        for at, word in enumerate(words):
            if word.startswith("kv="):
                words[at] = f"kv={int(word[3:]) + missing[0]}"
        log(self, " ".join(words))

    Model.prefill, Engine._log = half, longer


# Wrong on both sides alike.


def _slower(share: float, chosen: Callable[[object], bool]) -> None:
    """Decoding loses this share of its speed."""
    forward = Model.forward

    def slower(self: Model, tokens, cache, hooks=()):
        begin = time.perf_counter()
        logits = forward(self, tokens, cache, hooks)
        if len(tokens) == 1 and chosen(hooks):
            _spin((time.perf_counter() - begin) * share / (1 - share))
        return logits

    Model.forward = slower


def decodes_a_sixth_slower() -> None:
    """Every token takes a fifth longer, with H2O and without."""
    _slower(1 / 6, lambda _: True)


def decodes_a_third_slower() -> None:
    """Every token takes half as long again, with H2O and without."""
    _slower(1 / 3, lambda _: True)


def decodes_slower_when_evicting() -> None:
    """With H2O on, every token takes a fifth longer."""
    _slower(1 / 6, bool)


def kv_of_three_bits() -> None:
    """KV has seven steps, with H2O and without."""
    append = LayerCache.append

    def rounded(self: LayerCache, kv: Floats) -> None:
        scale = np.maximum(np.abs(kv).max(axis=-1, keepdims=True), 1e-9) / 3
        append(self, np.round(kv / scale) * scale)

    LayerCache.append = rounded


def keeps_a_tenth_more() -> None:
    """A tenth more tokens stay than were asked for, and all numbers are those of that."""

    def more(engine: Engine) -> None:
        settings = engine.config.h2o
        if id(settings) != CHANGED[0]:
            ratio = {
                "target_lossy_ratio": settings.target_lossy_ratio / 1.1,
                "target_keep_ratio": min(1.0, settings.target_keep_ratio * 1.1),
            }
            engine.config = replace(engine.config, h2o=replace(settings, **ratio))
            CHANGED[0] = id(engine.config.h2o)

    _before_response(more)


CHANGED = [0]
