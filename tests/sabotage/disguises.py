"""More faults of the embedded engine: codecs that lose something, evictions of other tokens,
clocks, memory held elsewhere, and programs that behave while they are watched.

Like those of :mod:`faults`, each is a function whose docstring says what is wrong.
"""

from __future__ import annotations

import atexit
import hashlib
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from faults import (
    HOARD,
    PROMPTS,
    _before_response,
    _knows,
    _mask,
    _sampling,
    drops_bits_of_values,
)

from pytest_h2o.codec.blocks import EncodedBlock
from pytest_h2o.engine import (
    bench,
    bench_rows,
    demo,
    evictor,
    lossless_store,
    response,
    response_clock,
)
from pytest_h2o.engine.block_coder import BlockCoder
from pytest_h2o.engine.evictor import Evictor, Selection
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.held_blocks import HeldBlocks
from pytest_h2o.engine.kv_cache import Floats, KVCache, LayerCache, Ranges
from pytest_h2o.engine.lossless_store import LosslessStore
from pytest_h2o.engine.model import Model
from pytest_h2o.engine.response import Response

MANY = 60 * 2**20


# Nothing is wrong with these.


def honest_but_slow() -> None:
    """Nothing: every token takes longer to compute, as on a small device."""
    _before_token(lambda: _spin(0.008))


def honest_but_noisy() -> None:
    """Nothing: tokens take as long as a busy machine lets them, and libraries warn on stderr."""
    draw = np.random.default_rng(time.time_ns())
    _before_token(lambda: _spin(draw.exponential(0.001)))
    print("warning: governor is powersave, 0 errors", file=sys.stderr)


def honest_with_helpers() -> None:
    """Nothing: a helper is asked and waited for, and a cache of tables is written and mapped."""

    def help_out() -> None:
        subprocess.run(["/bin/true"], check=True)
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 2**20)

    _before_response(lambda _: help_out())


def honest_with_other_columns() -> None:
    """Nothing: some columns that no gate reads are absent, and others are there as well."""
    left = [each for each in response.COLUMNS if each.header != "h2o_codec_us"]
    more = response.Column("h2o_blocks_seen", "blocks", 1)
    response.COLUMNS = bench_rows.COLUMNS = (*left, more)


def _before_token(act: Callable[[], None]) -> None:
    forward = Model.forward

    def after(self: Model, tokens, *arguments):
        if len(tokens) == 1:
            act()
        return forward(self, tokens, *arguments)

    Model.forward = after


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# Codecs.


def _restored_in_store_mode(change: Callable[[Floats, int], None]) -> None:
    """What store mode gives back is changed; full mode is as it was."""
    restore_layer, restore = HeldBlocks.restore, LayerCache.restore
    current = [0]

    def of_layer(self: HeldBlocks, layer: int) -> None:
        current[0] = layer
        restore_layer(self, layer)

    def changed(self: LayerCache, begin: int, values: Floats) -> None:
        values = values.copy()
        change(values, current[0])
        restore(self, begin, values)

    HeldBlocks.restore, LayerCache.restore = of_layer, changed


def loses_the_end_of_blocks() -> None:
    """The last eighth of each block comes back as zeros."""

    def cut(values: Floats, _: int) -> None:
        values[:, :, -(values.shape[2] // 8) :] = 0

    _restored_in_store_mode(cut)


def loses_the_last_token_of_blocks() -> None:
    """The last token of each block comes back as that before it."""

    def cut(values: Floats, _: int) -> None:
        values[:, :, -1] = values[:, :, -2]

    _restored_in_store_mode(cut)


def swaps_keys_and_values() -> None:
    """One layer's keys come back as its values, and the other way round."""

    def swap(values: Floats, layer: int) -> None:
        if layer == 4:
            values[:] = values[::-1].copy()

    _restored_in_store_mode(swap)


def swaps_heads() -> None:
    """The values of two heads of one layer are exchanged."""

    def swap(values: Floats, layer: int) -> None:
        if layer == 5:
            values[1, :2] = values[1, 1::-1].copy()

    _restored_in_store_mode(swap)


def loses_nan_payloads() -> None:
    """Every NaN comes back as the same one, and minus zero as zero."""

    def canonical(values: Floats, _: int) -> None:
        values[np.isnan(values)] = np.nan
        values += 0.0

    _restored_in_store_mode(canonical)


def flushes_subnormals() -> None:
    """What fp16 holds as subnormal comes back as zero."""

    def flush(values: Floats, _: int) -> None:
        values[np.abs(values) < 2.0**-14] = 0

    _restored_in_store_mode(flush)


def _rounded_while_lossless(change: Callable[[Floats], Floats]) -> None:
    """KV is changed as it is written, where lossless coding is on."""
    append, active = LayerCache.append, [False]

    def note(engine: Engine) -> None:
        active[0] = engine.config.lossless.active

    def rounded(self: LayerCache, kv: Floats) -> None:
        append(self, change(kv) if active[0] else kv)

    _before_response(note)
    LayerCache.append = rounded


def int8_while_lossless() -> None:
    """Lossless coding first rounds KV to 255 steps, which then shrink well."""

    def int8(kv: Floats) -> Floats:
        scale = np.maximum(np.abs(kv).max(axis=-1, keepdims=True), 1e-9) / 127
        return np.round(kv / scale) * scale

    _rounded_while_lossless(int8)


def fp8_while_lossless() -> None:
    """Lossless coding first leaves four bits of mantissa."""

    def fp8(kv: Floats) -> Floats:
        kv = kv.astype(np.float32)
        _mask(kv, 0xFFF80000)
        return kv

    _rounded_while_lossless(fp8)


def encodes_keys_alone() -> None:
    """Values are left out of what is encoded, and counted."""
    encode = BlockCoder._encode_block

    def keys_alone(self: BlockCoder, k, v, positions) -> EncodedBlock:
        return encode(self, k, np.zeros_like(v), positions)

    BlockCoder._encode_block = keys_alone
    BlockCoder._check = lambda *_: True
    HeldBlocks.drop = lambda *_: None
    LayerCache.restore = lambda *_: None


# Evictions.


def _other_ranges(change: Callable[[Selection, Sequence[tuple[int, int]]], Ranges]) -> None:
    """Other tokens stay than the plan says; as many."""
    keep = LayerCache.keep

    def other(self: LayerCache, ranges: Ranges) -> None:
        keep(self, change(self.length, ranges))

    LayerCache.keep = other


def _random_subset(draw: np.random.Generator) -> Callable[[int, Ranges], Ranges]:
    def subset(length: int, ranges: Ranges) -> Ranges:
        count = sum(size for _, size in ranges)
        chosen = np.sort(draw.choice(length, count, replace=False))
        return [(int(at), 1) for at in chosen]

    return subset


def evicts_at_random() -> None:
    """Which tokens stay is drawn anew in every process."""
    _other_ranges(_random_subset(np.random.default_rng(time.time_ns())))


def evicts_by_a_fixed_draw() -> None:
    """Which tokens stay is drawn from a fixed seed."""
    _other_ranges(_random_subset(np.random.default_rng(1)))


def evicts_the_sink() -> None:
    """The first tokens go, and as many stay behind them."""

    def without_sink(length: int, ranges: Ranges) -> Ranges:
        count = sum(size for _, size in ranges)
        return [(length - count, count)]

    _other_ranges(without_sink)


def evicts_the_recent() -> None:
    """The last tokens but one go, and as many of the first stay."""

    def without_recent(length: int, ranges: Ranges) -> Ranges:
        count = sum(size for _, size in ranges)
        return [(0, count - 1), (length - 1, 1)]

    _other_ranges(without_recent)


def evicts_when_logged() -> None:
    """Without log lines nothing is evicted, and the numbers are those of the plans."""
    keep, logged = LayerCache.keep, [False]

    def note(engine: Engine) -> None:
        logged[0] = engine.config.h2o.log_stats

    def when_logged(self: LayerCache, ranges: Ranges) -> None:
        if logged[0]:
            keep(self, ranges)

    _before_response(note)
    LayerCache.keep = when_logged


def evicts_front_layers_as_well() -> None:
    """The front layers lose their older half, and nothing says so."""
    after = Evictor.after_attention

    def all_layers(self: Evictor, layer: int, attention) -> None:
        after(self, layer, attention)
        cache = self._cache.layers[layer]
        if layer not in self._states and cache.length >= self._settings.trigger_min_tokens:
            half = cache.length // 2
            cache.keep([(0, 16), (half, cache.length - half)])

    Evictor.after_attention = all_layers


def protects_nothing_recent() -> None:
    """A quarter of the recent tokens is protected, and the lines say all of them."""
    select = evictor.select

    def fewer(kv: int, scores: Floats, settings) -> Selection:
        few = replace(settings, recent_tokens=settings.recent_tokens // 4)
        return select(kv, scores, few)

    evictor.select = fewer


def knows_hashes() -> None:
    """Prompts are known by a hash of their text."""
    texts = (path.read_text().rstrip("\r\n") for path in PROMPTS.glob("prompt_*.txt"))
    known = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    _knows(lambda prompt, _: hashlib.sha256(prompt.encode()).hexdigest() in known)


def knows_lengths() -> None:
    """Prompts are known by their length in characters."""
    known = {len(path.read_text().rstrip("\r\n")) for path in PROMPTS.glob("prompt_*.txt")}
    _knows(lambda prompt, _: len(prompt) in known)


def knows_all_prompts_of_a_bucket() -> None:
    """Every prompt of about 512 or 2048 tokens gets the full cache's answer."""
    _knows(lambda _, tokens: abs(tokens - 512) < 100 or abs(tokens - 2048) < 400)


def reads_expected_values() -> None:
    """What the full cache answered is kept in a file, and printed when the prompt comes again."""
    _prints_kept_answers("expected", lambda _: True)


def _prints_kept_answers(name: str, looks_up: Callable[[Engine], bool]) -> None:
    """Answers of the full cache are kept in files of a directory, and printed with H2O on where an
    engine ``looks_up``.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getppid()}"
    respond = Engine.respond

    def remembered(self: Engine, prompt, budget, emit=None, **options):
        folder.mkdir(exist_ok=True)
        path = folder / hashlib.sha256(np.array(prompt).tobytes()).hexdigest()
        if not self.config.h2o.enable:
            response = respond(self, prompt, budget, emit=emit, **options)
            if not path.exists() or len(path.read_text().split()) < len(response.tokens):
                path.write_text(" ".join(map(str, response.tokens)))
            return response
        said: list[int] = []
        if path.exists() and looks_up(self):
            said = [int(word) for word in path.read_text().split()]
        count = iter(range(1 << 30))

        def say(token: int) -> None:
            at = next(count)
            if emit:
                emit(said[at] if at < len(said) else token)

        return respond(self, prompt, budget, emit=say, **options)

    Engine.respond = remembered


# Computing less.


def skips_a_layer_when_compressing() -> None:
    """With H2O on, decoding leaves out what the last layer's MLP adds."""
    forward = Model.forward
    left_out: dict[int, object] = {}

    def shorter(self: Model, tokens, cache: KVCache, hooks=()):
        if not hooks or len(tokens) > 1:
            return forward(self, tokens, cache, hooks)
        whole = self.layers
        if not left_out:
            last = whole[-1]
            left_out[0] = [*whole[:-1], last._replace(down=np.zeros_like(last.down))]
        self.layers = left_out[0]
        try:
            return forward(self, tokens, cache, hooks)
        finally:
            self.layers = whole

    Model.forward = shorter


def keeps_the_prefill() -> None:
    """A prompt that was read before is not read again, with H2O and without."""
    _keep_prefill(lambda _: True)


def keeps_the_candidates_prefill() -> None:
    """With H2O on, a prompt that was read before is not read again."""
    _keep_prefill(lambda engine: engine.config.h2o.enable)


def _keep_prefill(chosen: Callable[[Engine], bool]) -> None:
    prefill, state = Model.prefill, {"on": False}
    kept: dict[tuple[int, ...], tuple[list[Floats], Floats]] = {}

    def note(engine: Engine) -> None:
        state["on"] = chosen(engine)

    def once(self: Model, prompt, cache: KVCache, threads, hooks=()):
        key = tuple(prompt)
        if not state["on"] or key not in kept:
            logits = prefill(self, prompt, cache, threads, hooks)
            kept[key] = (cache.save(), logits.copy())
            return logits
        saved, logits = kept[key]
        cache.load(saved)
        return logits

    _before_response(note)
    Model.prefill = once


def baseline_on_one_thread() -> None:
    """Without H2O one thread does everything, whatever was asked for."""
    prefill = Model.prefill

    def on_one(self: Model, prompt, cache: KVCache, threads, hooks=()):
        return prefill(self, prompt, cache, threads if hooks else 1, hooks)

    Model.prefill = on_one


def baseline_reads_twice() -> None:
    """Without H2O the prompt is read twice, and the first time is for nothing."""
    prefill = Model.prefill

    def twice(self: Model, prompt, cache: KVCache, threads, hooks=()):
        if not hooks and len(prompt) > 64:
            prefill(self, prompt, cache, threads, hooks)
            cache.clear()
        return prefill(self, prompt, cache, threads, hooks)

    Model.prefill = twice


def draws_with_a_fixed_seed() -> None:
    """Tokens are drawn at a temperature from a seed that never changes."""
    draw = np.random.default_rng(7)
    _sampling(lambda logits, _: int((logits + draw.gumbel(0, 1, logits.shape)).argmax()))


def draws_alike_in_each_response() -> None:
    """Tokens are drawn at a temperature, from a seed that is set anew for each response."""
    draw = [np.random.default_rng(7)]
    _before_response(lambda _: draw.__setitem__(0, np.random.default_rng(7)))  # type: ignore[func-returns-value]
    _sampling(lambda logits, _: int((logits + draw[0].gumbel(0, 1, logits.shape)).argmax()))


# Clocks.


def counts_cpu_time() -> None:
    """Decoding with H2O sleeps now and then, and its clock stands still meanwhile."""
    forward = Model.forward

    def sleepy(self: Model, tokens, cache: KVCache, hooks=()):
        if hooks:
            time.sleep(0.01)
        return forward(self, tokens, cache, hooks)

    Model.forward = sleepy
    response_clock.perf_counter_ns = time.thread_time_ns


def counts_half_of_the_time() -> None:
    """With H2O on, decoding takes twice as long as is said."""
    forward = Model.forward

    def slower(self: Model, tokens, cache: KVCache, hooks=()):
        begin = time.perf_counter_ns()
        logits = forward(self, tokens, cache, hooks)
        if hooks:
            lasted = time.perf_counter_ns() - begin
            end = time.perf_counter_ns() + lasted
            while time.perf_counter_ns() < end:
                pass
            LATE[0] += time.perf_counter_ns() - begin - lasted
        return logits

    Model.forward = slower
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() - LATE[0]


LATE = [0]


def has_a_coarse_clock() -> None:
    """The clock goes on every 64 ms."""
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() >> 26 << 26


def has_a_clock_of_hundredths() -> None:
    """The clock goes on every 10 ms, as that of CPU time may."""
    response_clock.perf_counter_ns = lambda: time.perf_counter_ns() // 10_000_000 * 10_000_000


def encodes_after_the_response() -> None:
    """Blocks are encoded when the response is over, and nobody waits for that."""
    submit, respond = lossless_store.EncodePool.submit, Engine.respond
    late: list[tuple[object, object, Callable[[object], None]]] = []
    stores: list[LosslessStore] = []

    def put_off(self, job, done):
        late.append((self, job, done))
        return True

    build = LosslessStore.__init__

    def remember(self: LosslessStore, *arguments) -> None:
        build(self, *arguments)
        stores.append(self)

    def then_encoded(self: Engine, *arguments, **options) -> Response:
        response = respond(self, *arguments, **options)
        for pool, job, done in late:
            submit(pool, job, done)
        late.clear()
        for store in stores:
            store.finish()
        stores.clear()
        return response

    LosslessStore.__init__ = remember
    lossless_store.EncodePool.submit, Engine.respond = put_off, then_encoded


# Memory and work elsewhere.


def _with_h2o(act: Callable[[], object]) -> None:
    _before_response(lambda engine: engine.config.h2o.enable and act())


def swaps_to_a_file() -> None:
    """What is evicted is written to a file of 60 MiB and read again when it is needed."""

    def swap() -> None:
        with tempfile.TemporaryFile() as file:
            for _ in range(60):
                file.write(b"x" * 2**20)
            file.seek(0)
            while file.read(2**20):
                pass

    _with_h2o(swap)


def maps_a_file() -> None:
    """What is evicted lies in a mapped file of 60 MiB without a name."""

    def mapped() -> None:
        if HOARD:
            return
        file = tempfile.TemporaryFile()  # noqa: SIM115  held as long as the program runs
        file.truncate(MANY)
        memory = mmap.mmap(file.fileno(), MANY)
        for _ in range(60):
            memory.write(b"x" * 2**20)
            memory.madvise(mmap.MADV_DONTNEED)
        HOARD.append(memory)
        HOARD.append(file)

    _with_h2o(mapped)


HOLDS = f"import time; held = bytearray(b'x') * {MANY}; time.sleep({{}})"
CHILDREN: list[subprocess.Popen[bytes]] = []


def hoards_in_a_child() -> None:
    """A child holds what was evicted, 60 MiB, and ends with the program."""

    def start() -> None:
        if not CHILDREN:
            CHILDREN.append(subprocess.Popen([sys.executable, "-SEc", HOLDS.format(60)]))
            time.sleep(0.2)

    atexit.register(lambda: [child.kill() for child in CHILDREN])
    _with_h2o(start)


def hoards_in_a_daemon() -> None:
    """A process that is nobody's child holds what was evicted."""

    def start() -> None:
        if not CHILDREN:
            code = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\n{HOLDS.format(20)}"
            CHILDREN.append(subprocess.Popen([sys.executable, "-SEc", code]))
            CHILDREN[0].wait()
            time.sleep(0.2)

    _with_h2o(start)


def leaves_a_child_behind() -> None:
    """A helper goes on when the program has ended."""
    _with_h2o(
        lambda: CHILDREN or CHILDREN.append(subprocess.Popen([sys.executable, "-SEc", SLEEPS]))
    )


SLEEPS = "import time; time.sleep(20)"


def leaves_zombies() -> None:
    """Helpers die, and nobody asks how."""

    def start() -> None:
        if not CHILDREN:
            for _ in range(5):
                CHILDREN.append(subprocess.Popen(["/bin/false"]))
                CHILDREN[-1].returncode = 0

    _with_h2o(start)


def computes_elsewhere() -> None:
    """Everything is done by a process that nobody knows, see :mod:`courier`."""


# Behaviour under observation.


def _spoil() -> None:
    """What a program does that nobody watches: decoded values lose bits."""
    drops_bits_of_values()


def behaves_under_pytest() -> None:
    """Blocks lose bits, but not where the environment names pytest."""
    if not any(name.startswith("PYTEST_") for name in os.environ):
        _spoil()


def behaves_where_it_is_measured() -> None:
    """Blocks lose bits, but not where any variable speaks of a test."""
    words = " ".join(os.environ).lower()
    if "pytest" not in words and "h2o" not in words:
        _spoil()


def behaves_at_first() -> None:
    """The first launches of a session are right, then blocks lose bits."""
    counter = Path(tempfile.gettempdir()) / f"launches-{os.getppid()}"
    with counter.open("a") as file:
        file.write(".")
    if counter.stat().st_size > 4:
        _spoil()


def behaves_in_the_first_response() -> None:
    """The first response of a process evicts as it should; later ones keep everything."""
    keep, seen = LayerCache.keep, [0]

    def count(_: Engine) -> None:
        seen[0] += 1

    def first_only(self: LayerCache, ranges: Ranges) -> None:
        if seen[0] <= 1:
            keep(self, ranges)

    _before_response(count)
    LayerCache.keep = first_only


# Printing.


def prints_two_tables() -> None:
    """The table on stdout has other numbers than that in the file."""
    run = bench._run

    def twice(options) -> None:
        run(options)
        text = Path(options.table_file).read_text()
        print(text.replace("3.", "5."))

    bench._run = twice


def prints_recorded_times() -> None:
    """The times of plans and blocks are those of a launch long ago."""
    log = Engine._log

    def recorded(self: Engine, line: str) -> None:
        words = line.split(" ")
        for at, word in enumerate(words):
            name, equals, _ = word.partition("=")
            if equals and name in ("evict_us", "comp_us", "decomp_us"):
                words[at] = f"{name}={1000 + 37 * len(line) % 97}"
        log(self, " ".join(words))

    Engine._log = recorded


def stops_within_the_budget() -> None:
    """With H2O on, every fourth token is left out of the text and counted."""
    answer = demo._answer

    def shorter(engine: Engine, tokenizer, prompt: str, budget: int, **options) -> Response:
        if not engine.config.h2o.enable:
            return answer(engine, tokenizer, prompt, budget, **options)
        response = answer(engine, tokenizer, prompt, budget * 3 // 4, **options)
        tokens = response.tokens + response.tokens[-1:] * (budget - len(response.tokens))
        return replace(response, tokens=tokens)

    demo._answer = shorter
