"""The embedded engine with one fault: ``faults.main(program, fault)`` is ``h2o-llm-bench`` or
``h2o-llm-demo`` with it.

Unlike stand-ins these really compute, so that what they write, hold and wait for is that of the
fault. A fault's docstring says what is wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pytest_h2o.codec.blocks import EncodedBlock
from pytest_h2o.engine import (
    bench,
    bench_options,
    bench_rows,
    demo,
    evictor,
    lossless_store,
    response,
)
from pytest_h2o.engine.block_coder import BlockCoder, Encoded
from pytest_h2o.engine.config import H2OSettings
from pytest_h2o.engine.evictor import Evictor
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.held_blocks import HeldBlocks
from pytest_h2o.engine.kv_cache import Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.lossless_store import LosslessStore, total_time
from pytest_h2o.engine.model import Model
from pytest_h2o.engine.response import Metrics, Response
from pytest_h2o.engine.sampler import Greedy, Penalty

PROMPTS = Path(__file__).parents[2] / "prompts"
HOARD: list[bytearray] = []


def honest() -> None:
    """Nothing."""


def honest_but_rounding_by_batch() -> None:
    """Nothing: a kernel for one token rounds otherwise than that for many."""
    _rounding(lambda x: len(x) > 1)


def honest_but_rounding_by_threads() -> None:
    """Nothing: sums are split among threads, and rounded by how many there are."""
    threads = _counting_threads()
    _rounding(lambda _: threads[-1] % 2 == 1)


def honest_but_racing() -> None:
    """Nothing: threads add up in the order in which they end, so that only one repeats itself."""
    threads = _counting_threads()
    draw = np.random.default_rng(time.time_ns())
    _rounding(lambda _: threads[-1] > 1 and draw.random() < 0.5)


def _counting_threads() -> list[int]:
    prefill, seen = Model.prefill, [1]

    def counting(self: Model, prompt, cache: KVCache, threads: int = 1, hooks=()):
        seen.append(threads)
        return prefill(self, prompt, cache, threads, hooks)

    Model.prefill = counting
    return seen


def _rounding(coarse: Callable[[Floats], bool]) -> None:
    """What the model's matrices are given has as many bits as a kernel that was chosen leaves."""
    normalise = Model._normalise

    def rounded(self: Model, x: Floats) -> Floats:
        normal = np.ascontiguousarray(normalise(self, x), np.float32)
        _mask(normal, 0xFFFF0000 if coarse(x) else 0xFFFFF000)
        return normal

    Model._normalise = rounded


def _before_response(act: Callable[[Engine], object]) -> None:
    respond = Engine.respond

    def with_fault(self: Engine, *arguments, **options) -> Response:
        act(self)
        return respond(self, *arguments, **options)

    Engine.respond = with_fault


def _changed_metrics(change: Callable[[Metrics], None]) -> None:
    finish = LosslessStore.finish

    def with_fault(self: LosslessStore) -> None:
        finish(self)
        change(self._metrics)

    LosslessStore.finish = with_fault


def _restored(change: Callable[[Floats], None]) -> None:
    """What store mode gives back is changed, and so is what full mode has checked."""
    restore, apply = LayerCache.restore, LosslessStore._apply

    def with_fault(self: LayerCache, begin: int, values: Floats) -> None:
        values = values.copy()
        change(values)
        restore(self, begin, values)

    def apply_and_write(self: LosslessStore, task: Encoded) -> None:
        apply(self, task)
        cache = self._cache.layers[task.layer]
        if not self._storing and task.epoch == self._states[task.layer].epoch:
            with_fault(cache, task.span.begin, cache.copy(task.span.begin, task.span.size))

    LayerCache.restore, LosslessStore._apply = with_fault, apply_and_write


def _mask(values: Floats, mask: int) -> None:
    bits = values.view(np.uint32)
    bits &= np.uint32(mask)


def drops_a_bit_of_keys() -> None:
    """Decoded keys lack a bit of mantissa; the check compares what was encoded with itself."""
    _restored(lambda values: _mask(values[0], 0xFFBFFFFF))


def drops_bits_of_values() -> None:
    """Decoded values have three bits of mantissa."""
    _restored(lambda values: _mask(values[1], 0xFFF00000))


def block_of_before_the_eviction() -> None:
    """An eviction moves the tokens, and blocks are restored to where they were."""
    HeldBlocks.forget = lambda *_: None


def block_of_another_request() -> None:
    """The decode cache finds blocks by their size, and serves the values of others."""
    _restored(lambda values: np.copyto(values[1], np.roll(values[1], 1, axis=1)))


def _failing(say: Callable[[], None], share: int = 2) -> None:
    encode = BlockCoder.encode
    apply = LosslessStore._apply

    def failing(self: BlockCoder, task: Encoded, *block: Floats) -> Encoded:
        if task.layer % share == 1:
            say()
            task.updates = -1
            return task
        return encode(self, task, *block)

    def only_good(self: LosslessStore, task: Encoded) -> None:
        if task.updates > 0:
            apply(self, task)

    BlockCoder.encode, LosslessStore._apply = failing, only_good


def workers_fail_with_a_word() -> None:
    """Half of the encodes raise; the worker says so on stderr and goes on."""
    _failing(lambda: print("encode worker 0: exception ignored: bad block", file=sys.stderr))


def workers_fail_silently() -> None:
    """Half of the encodes raise, and nobody says so."""
    _failing(lambda: None)


def workers_fail_later() -> None:
    """After the first response the blocks of the first layer are lost."""
    apply, first = LosslessStore._apply, set[int]()

    def once(self: LosslessStore, task: Encoded) -> None:
        if not first:
            first.add(id(self))
        if task.layer or id(self) in first:
            KEPT.append(self)
            apply(self, task)

    LosslessStore._apply = once


KEPT: list[LosslessStore] = []


def applies_blocks_twice() -> None:
    """Every result is counted and printed twice."""
    apply = LosslessStore._apply

    def twice(self: LosslessStore, task: Encoded) -> None:
        apply(self, task)
        apply(self, task)

    LosslessStore._apply = twice


def encodes_blocks_again() -> None:
    """Every block is encoded a second time, under a number of its own."""
    apply = LosslessStore._apply

    def again(self: LosslessStore, task: Encoded) -> None:
        apply(self, task)
        task.updates += 1
        apply(self, task)

    LosslessStore._apply = again


def doubles_its_bytes() -> None:
    """The columns say twice the bytes that the lines do."""

    def double(metrics: Metrics) -> None:
        metrics.raw_bytes *= 2
        metrics.comp_bytes *= 2

    _changed_metrics(double)


def _decoding(change: Callable[[KVCache], None]) -> None:
    """The cache is changed before each token is decoded; a prompt is read in windows of it."""
    forward = Model.forward

    def with_fault(self: Model, tokens, cache: KVCache, *arguments):
        if isinstance(cache, KVCache):
            change(cache)
        return forward(self, tokens, cache, *arguments)

    Model.forward = with_fault


def renumbers_positions() -> None:
    """After an eviction the next token's position is the length of the cache."""

    def renumber(cache: KVCache) -> None:
        cache.position = min(layer.length for layer in cache.layers)

    _decoding(renumber)


def shifts_positions() -> None:
    """Every eviction moves all later positions on by what it dropped."""
    keep = LayerCache.keep
    dropped: list[int] = []

    def counting(self: LayerCache, ranges: Ranges) -> None:
        before = self.length
        keep(self, ranges)
        dropped.append(before - self.length)

    def shift(cache: KVCache) -> None:
        cache.position += sum(dropped) // (len(cache.layers) - 2)
        dropped.clear()

    LayerCache.keep = counting
    _decoding(shift)


def _scoring(change: Callable[[Floats], None]) -> None:
    """The policy is that of the engine, and its scores are changed where blocks are chosen."""
    select = evictor.select

    def with_fault(kv: int, scores: Floats, settings: H2OSettings) -> evictor.Selection:
        change(scores)
        return select(kv, scores, settings)

    evictor.select = with_fault


def inverts_scores() -> None:
    """What drew the least attention stays: a comparison the wrong way round."""
    _scoring(lambda scores: np.negative(scores, out=scores))


def scores_of_other_blocks() -> None:
    """Scores are read from the wrong end, so that each block has those of another one."""
    _scoring(lambda scores: np.copyto(scores, scores[::-1].copy()))


def _sampling(pick: Callable[[Floats, int], int]) -> None:
    count = iter(range(1 << 30))
    for kind in (Greedy, Penalty):
        kind.choose = lambda self, logits: pick(logits, next(count))


def draws_at_random() -> None:
    """Greedy decoding takes the second best token now and then, by the clock."""

    def pick(logits: Floats, number: int) -> int:
        rank = -2 if number % 3 == 2 and time.time_ns() % 7 < 3 else -1
        return int(np.argpartition(logits, rank)[rank])

    _sampling(pick)


def reads_memory_that_was_not_set() -> None:
    """Logits have noise that is another in every process."""
    noise = np.random.default_rng(time.time_ns())
    _sampling(lambda logits, _: int((logits + noise.normal(0, 0.6, logits.shape)).argmax()))


def _slow_baseline(wait: Callable[[float], None]) -> None:
    forward = Model.forward

    def slower(self: Model, tokens, cache: KVCache, hooks=()):
        begin = time.perf_counter()
        logits = forward(self, tokens, cache, hooks)
        if not hooks:
            wait(0.15 * (time.perf_counter() - begin))
        return logits

    Model.forward = slower


def baseline_sleeps() -> None:
    """Decoding without H2O sleeps a seventh of its time."""
    _slow_baseline(time.sleep)


def baseline_spins() -> None:
    """Decoding without H2O computes something else for a seventh of its time."""

    def spin(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    _slow_baseline(spin)


def _quantised_baseline(steps: float) -> None:
    append = LayerCache.append

    def rounded(self: LayerCache, kv: Floats) -> None:
        if not QUANTISE[0]:
            append(self, kv)
            return
        scale = np.abs(kv).max(axis=-1, keepdims=True) / steps
        append(self, np.round(kv / scale) * scale)

    _before_response(
        lambda engine: QUANTISE.__setitem__(0, not engine.config.h2o.enable)  # type: ignore[func-returns-value]
    )
    LayerCache.append = rounded


QUANTISE = [False]


def baseline_of_three_bits() -> None:
    """Without H2O, KV has seven steps."""
    _quantised_baseline(3)


def baseline_of_four_bits() -> None:
    """Without H2O, KV has fifteen steps."""
    _quantised_baseline(7)


def _waiting_in_lines() -> None:
    """Workers take their time, and the decoding thread waits for them at every token, as real
    builds do.
    """
    encode, after = BlockCoder.encode, LosslessStore.after_attention

    def slow(self: BlockCoder, task: Encoded, *block: Floats) -> Encoded:
        time.sleep(0.003)
        return encode(self, task, *block)

    def drained(self: LosslessStore, layer: int, attention) -> None:
        after(self, layer, attention)
        if layer == len(self._states) - 1:
            self._waits.append(self._pool.drain())
            self._apply_finished()

    BlockCoder.encode, LosslessStore.after_attention = slow, drained


def honest_but_waiting() -> None:
    """Nothing: encoding is slow, which is said truly."""
    _waiting_in_lines()


def waits_in_milliseconds() -> None:
    """The column of waiting times is in milliseconds."""
    _waiting_in_lines()
    _changed_metrics(lambda metrics: setattr(metrics, "async_wait_us", metrics.async_wait_us / 1e3))


def waits_in_nanoseconds() -> None:
    """The column of waiting times is in nanoseconds."""
    _waiting_in_lines()
    _changed_metrics(lambda metrics: setattr(metrics, "async_wait_us", metrics.async_wait_us * 1e3))


def lines_wait_in_nanoseconds() -> None:
    """The lines' waiting times are in nanoseconds."""
    _waiting_in_lines()
    lossless_store.total_time = lambda waits: total_time(waits) * 1000
    _changed_metrics(lambda metrics: setattr(metrics, "async_wait_us", metrics.async_wait_us / 1e3))


def _known() -> set[str]:
    return {path.read_text().rstrip("\r\n") for path in PROMPTS.glob("prompt_*.txt")}


def knows_the_prompts() -> None:
    """Shipped prompts are answered from a table of what the full cache answered."""
    known = _known()
    _knows(lambda prompt, _: prompt in known)


def _with_full_cache() -> None:
    """Evictions only take the length away from what is counted."""
    LayerCache.keep = lambda self, ranges: setattr(self, "epoch", self.epoch + 1)


def _knows(is_known: Callable[[str, int], bool]) -> None:
    """Known prompts get the full cache's answer, and the lines of one that evicts."""
    answer = demo._answer

    def looked_up(engine: Engine, tokenizer, prompt: str, budget: int, **options) -> Response:
        keep = LayerCache.keep
        if is_known(prompt, len(tokenizer.encode(prompt))):
            _with_full_cache()
        try:
            return answer(engine, tokenizer, prompt, budget, **options)
        finally:
            LayerCache.keep = keep

    demo._answer = looked_up


def knows_first_sentences() -> None:
    """Prompts that begin like a shipped one get the full cache's answer."""
    known = {prompt[:40] for prompt in _known()}
    _knows(lambda prompt, _: prompt[:40] in known)


def leaks_every_response() -> None:
    """A response leaves 20 MiB behind."""
    _before_response(lambda _: HOARD.append(bytearray(b"x") * (20 * 2**20)))


def leaks_every_token() -> None:
    """Every decoded token under H2O leaves half a MiB behind."""
    after = Evictor.after_attention

    def leaking(self: Evictor, layer: int, attention) -> None:
        after(self, layer, attention)
        HOARD.append(bytearray(b"x") * 2**17)

    Evictor.after_attention = leaking


def slows_with_every_response() -> None:
    """Every response leaves a list behind that each later token looks through."""
    after = Evictor.after_attention
    past: list[int] = []

    def searching(self: Evictor, layer: int, attention) -> None:
        after(self, layer, attention)
        time.sleep(0.0005 * len(past))

    _before_response(lambda _: past.append(1))
    Evictor.after_attention = searching


def keeps_a_copy() -> None:
    """Whatever is evicted stays in a copy of 50 MiB."""
    keep = LayerCache.keep

    def keep_both(self: LayerCache, ranges: Ranges) -> None:
        if not HOARD:
            HOARD.append(bytearray(b"x") * (50 * 2**20))
        keep(self, ranges)

    LayerCache.keep = keep_both


def assertion_in_c() -> None:
    """An assertion of a library fails on a worker, which ends alone."""
    _at_exit("llm_bench: KVMeta.cpp:81: void sync(): Assertion `remove <= kv_len' failed.")


def terminate_called() -> None:
    """A worker dies of an exception that the program survives."""
    _at_exit("terminate called after throwing an instance of 'std::bad_alloc'\n  what(): bad_alloc")


def thread_with_a_traceback() -> None:
    """A thread ends with a traceback."""

    def thread() -> None:
        raise AssertionError("block 3 does not round trip")

    _before_response(lambda _: threading.Thread(target=thread).start())


def sanitizer_report() -> None:
    """A sanitizer finds a write behind a buffer, and the program goes on."""
    _at_exit("==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000ffc")


def _at_exit(text: str) -> None:
    _before_response(lambda _: print(text, file=sys.stderr, flush=True))


def _put_off(lie: bool) -> None:
    """Plans are printed when they are made and applied when the last token has been decoded."""
    keep, respond = LayerCache.keep, Engine.respond
    pending: list[tuple[LayerCache, int]] = []

    def later(self: LayerCache, ranges: Ranges) -> None:
        pending.append((self, sum(length for _, length in ranges)))
        self.epoch += 1

    def then_applied(self: Engine, *arguments, **options) -> Response:
        pending.clear()
        return respond(self, *arguments, **options)

    def close(self: Engine, metrics: Metrics) -> None:
        for layer, kept in pending:
            if kept < layer.length:
                keep(layer, [(0, kept)])
        metrics.evictions_applied = metrics.evictions_planned
        closed(self, metrics)

    closed = Engine._close
    LayerCache.keep, Engine.respond, Engine._close = later, then_applied, close
    if lie:
        _shrinking_lines()


def _shrinking_lines() -> None:
    log, planned = Engine._log, set[str]()

    def forged(self: Engine, line: str) -> None:
        layer = line.split(" ")[1]
        if line.startswith("[H2O] layer=") and layer in planned:
            return
        planned.add(layer)
        log(self, line)

    _before_response(lambda _: planned.clear())
    Engine._log = forged


def plans_applied_at_the_end() -> None:
    """Plans are applied when the last token has been decoded."""
    _put_off(lie=False)


def plans_applied_at_the_end_and_told_once() -> None:
    """The same, and of the plans that are made again and again only the first is printed."""
    _put_off(lie=True)


def evicts_one_layer() -> None:
    """Only the first H2O layer loses tokens, and the ratio is that of this layer."""
    _only(lambda layer, first: layer == first)


def evicts_every_third_layer() -> None:
    """Every third H2O layer loses tokens, and the ratio is theirs."""
    _only(lambda layer, first: (layer - first) % 3 == 0)


def _only(chosen: Callable[[int, int], bool]) -> None:
    trigger, publish = Evictor._trigger, Evictor._publish

    def some(self: Evictor, layer: int, state, cache: LayerCache) -> None:
        first = min(self._states)
        if chosen(layer, first):
            trigger(self, layer, state, cache)

    def of_these(self: Evictor, selection, microseconds: float) -> None:
        every = self._states
        self._states = {layer: state for layer, state in every.items() if state.last}
        publish(self, selection, microseconds)
        self._states = every

    Evictor._trigger, Evictor._publish = some, of_these


def reads_half_of_the_prompt() -> None:
    """Of every prompt the first half is left out, which makes everything faster."""
    prefill = Model.prefill
    Model.prefill = lambda self, prompt, *rest: prefill(self, prompt[len(prompt) // 2 :], *rest)


def reads_nine_tenths_of_the_prompt() -> None:
    """The last tenth of every prompt is left out."""
    prefill = Model.prefill
    Model.prefill = lambda self, prompt, *rest: prefill(
        self, prompt[: len(prompt) * 9 // 10], *rest
    )


def evicts_the_first_response_only() -> None:
    """After the first response nothing is evicted, and its numbers are printed again."""
    _after_the_first(lambda: setattr(Evictor, "_trigger", lambda *_: None))


def plans_every_other_response() -> None:
    """Every second response evicts nothing and prints the numbers of the one before."""
    trigger = Evictor._trigger
    turns = iter(range(1 << 30))

    def turn() -> None:
        Evictor._trigger = trigger if next(turns) % 2 else lambda *_: None

    _after_the_first(turn)


def _after_the_first(act: Callable[[], None]) -> None:
    respond = Engine.respond
    seen: list[Response] = []

    def later(self: Engine, *arguments, **options) -> Response:
        if seen:
            act()
        response = respond(self, *arguments, **options)
        seen.append(response)
        if response.metrics.lossy == 1:
            for name in ("lossy", "keep", "total_evict_tokens", "evictions_planned"):
                setattr(response.metrics, name, getattr(seen[0].metrics, name))
        return response

    Engine.respond = later


def encodes_zeros() -> None:
    """What is encoded is a block of zeros, which shrinks well; what is held is the raw values."""
    encode = BlockCoder._encode_block

    def zeros(self: BlockCoder, k, v, positions) -> EncodedBlock:
        return encode(self, np.zeros_like(k), np.zeros_like(v), positions)

    BlockCoder._encode_block = zeros
    BlockCoder._check = lambda *_: True


def encodes_one_layer_for_all() -> None:
    """Every layer's blocks are those of the first layer."""
    schedule = LosslessStore._schedule

    def of_the_first(self: LosslessStore, layer: int, state) -> None:
        copy = LayerCache.copy
        first = self._cache.layers[0]
        LayerCache.copy = lambda _, begin, count: copy(first, begin, count)
        schedule(self, layer, state)
        LayerCache.copy = copy

    LosslessStore._schedule = of_the_first


def skips_front_layers() -> None:
    """The front layers, whose blocks are the largest, are not encoded."""
    schedule = LosslessStore._schedule
    LosslessStore._schedule = lambda self, layer, state: layer < 2 or schedule(self, layer, state)


def main(program: str, fault: str, *, plain: bool = False) -> None:
    """Run the command line with the fault; a ``plain`` program prints what a real build does."""
    if plain:
        only_what_real_builds_print()
    find(fault)()
    sys.exit(bench.main() if program == "llm_bench" else demo.main())


def find(fault: str) -> Callable[[], None]:
    """The function that has a fault's name."""
    import borders  # noqa: PLC0415  these import this module
    import conduct  # noqa: PLC0415
    import disguises  # noqa: PLC0415
    import pretences  # noqa: PLC0415

    for module in (borders, conduct, disguises, pretences):
        if hasattr(module, fault):
            found: Callable[[], None] = getattr(module, fault)
            return found
    return globals()[fault]


def only_what_real_builds_print() -> None:
    """Leave out the engine's own columns and options, and what it does between tokens to fill
    them.
    """
    response.EXTRA_COLUMNS = bench_rows.EXTRA_COLUMNS = ()
    respond, parse = Engine.respond, bench_options.parse

    def unmeasured(self: Engine, *arguments, **options) -> Response:
        return respond(self, *arguments, **{**options, "measured": False})

    def parse_known(words: Sequence[str]) -> bench_options.Options:
        if "--quality" in words:
            raise bench_options.ArgumentsError("--quality")
        return parse(words)

    Engine.respond, bench_options.parse = unmeasured, parse_known
