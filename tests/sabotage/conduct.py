"""Faults of how a program conducts itself: time that is booked elsewhere, settings and launches
that are remembered, crashes that a second attempt hides, prompts that are padded, lost output.

Like those of :mod:`faults`, each is a function whose docstring says what is wrong.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from disguises import HOLDS, MANY, _spin
from faults import HOARD, _before_response, _changed_metrics, _shrinking_lines

from pytest_h2o.engine import bench, config, demo
from pytest_h2o.engine.encode_pool import EncodePool
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import LayerCache
from pytest_h2o.engine.model import Model
from pytest_h2o.engine.response import Metrics, Response

Change = Callable[[Engine, Response], Response]


def _with_h2o(change: Change) -> None:
    """What a response with H2O on says is changed."""
    respond = Engine.respond

    def changed(self: Engine, *arguments, **options) -> Response:
        response = respond(self, *arguments, **options)
        return change(self, response) if self.config.h2o.enable else response

    Engine.respond = changed


def _evicts(engine: Engine, prompt: object) -> bool:
    settings = engine.config.h2o
    return bool(settings.enable and len(prompt) >= settings.trigger_min_tokens)


# Time.


def books_decoding_as_sampling() -> None:
    """With H2O on a quarter of the decode time is counted as sampling."""
    _booked_as("sample_us", 4)


def books_decoding_as_prefill() -> None:
    """With H2O on a fifth of the decode time is counted as that of the prompt."""
    _booked_as("prefill_us", 5)


def _booked_as(name: str, parts: int) -> None:
    """One of so many parts of the decode time is counted as another time."""

    def booked(_: Engine, response: Response) -> Response:
        moved = response.decode_us / parts
        left = response.decode_us - moved
        return replace(response, decode_us=left, **{name: getattr(response, name) + moved})

    _with_h2o(booked)


def times_by_the_median() -> None:
    """With H2O on every eighth token stalls, and decoding is said to take the median of all."""
    forward = Model.forward
    times: list[float] = []

    def timed(self: Model, tokens, cache, hooks=()):
        begin = time.perf_counter()
        logits = forward(self, tokens, cache, hooks)
        if hooks and len(tokens) == 1:
            if len(times) % 8 == 7:
                _spin(0.03)
            times.append((time.perf_counter() - begin) * 1e6)
        return logits

    def said(_: Engine, response: Response) -> Response:
        usual = median(times)
        times.clear()
        return replace(response, decode_us=usual * len(response.tokens))

    Model.forward = timed
    _with_h2o(said)


def counts_warm_up_tokens() -> None:
    """With H2O on the tokens of the warm-up are counted in every repeat of llm_bench."""
    repeat = bench._repeat
    first: list[tuple[int, ...]] = []

    def counted(engine: Engine, instance) -> list[Response]:
        responses = repeat(engine, instance)
        if not engine.config.h2o.enable:
            return responses
        if not first:
            first.append(responses[-1].tokens)
            return responses
        return [replace(each, tokens=each.tokens + first[0]) for each in responses]

    bench._repeat = counted


SPINS = "while True: pass"


def baseline_has_company() -> None:
    """Without H2O two helpers take the cores while a response is decoded."""
    respond = Engine.respond

    def disturbed(self: Engine, *arguments, **options) -> Response:
        helpers: list[subprocess.Popen[bytes]] = []
        if not self.config.h2o.enable:
            helpers = [subprocess.Popen([sys.executable, "-SEc", SPINS]) for _ in range(2)]
        try:
            return respond(self, *arguments, **options)
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()

    Engine.respond = disturbed


# Memory and descriptors.


def baseline_hoards() -> None:
    """Without H2O 60 MiB are held for nothing."""
    _before_response(
        lambda engine: (
            engine.config.h2o.enable or HOARD or HOARD.append(bytearray(b"x") * (60 * 2**20))
        )
    )


def leaks_descriptors() -> None:
    """Every response opens a hundred files and closes none."""

    def leak(_: Engine) -> None:
        for _ in range(100):
            HOARD.append(Path(os.devnull).open())  # noqa: SIM115

    _before_response(leak)


# What is remembered from launch to launch.


def _remembered(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getppid()}"
    folder.mkdir(exist_ok=True)
    return folder


def keeps_its_first_settings() -> None:
    """Settings are read from a cache that the first launch with H2O filled."""
    load = config.load_config

    def cached(path: Path) -> config.Config:
        asked = load(path)
        if not asked.h2o.enable:
            return asked
        store = _remembered("settings") / "first"
        if not store.exists():
            store.write_bytes(pickle.dumps((asked.h2o, asked.lossless)))
        h2o, lossless = pickle.loads(store.read_bytes())
        return replace(asked, h2o=replace(h2o, log_stats=asked.h2o.log_stats), lossless=lossless)

    config.load_config = cached


def replays_launches() -> None:
    """What was asked before is not computed again: lines, text and times are replayed, with some
    noise, after as long a sleep.
    """
    respond = Engine.respond
    draw = np.random.default_rng(time.time_ns())

    def remembered(self: Engine, prompt, budget, *, emit=None, **options) -> Response:
        asked = repr((self.config.h2o, self.config.lossless, list(prompt), budget, self.threads))
        store = _remembered("replays") / hashlib.sha256(asked.encode()).hexdigest()
        if not store.exists():
            lines, say = [], self.say
            self.say = lambda line: (lines.append(line), say(line))
            response = respond(self, prompt, budget, emit=emit, **options)
            self.say = say
            store.write_bytes(pickle.dumps((response, lines)))
            return response
        response, lines = pickle.loads(store.read_bytes())
        factor = draw.normal(1, 0.004)
        names = ("prefill_us", "decode_us", "sample_us")
        times = {name: getattr(response, name) * factor for name in names}
        time.sleep(sum(times.values()) / 1e6)
        for line in lines:
            self.say(line)
        for token in response.tokens:
            if emit:
                emit(token)
        return replace(response, **times)

    Engine.respond = remembered


def restarts_after_a_crash() -> None:
    """With H2O on the first attempt dies of a bad access, and a second one is what is shown."""
    forward = Model.forward
    tokens_left = [20]

    def attempt(engine: Engine) -> None:
        if "SECOND" in os.environ or not engine.config.h2o.enable:
            return
        if "FIRST" in os.environ:
            Model.forward = dying
            return
        command = [sys.executable, *sys.argv]
        subprocess.run(command, env={**os.environ, "FIRST": "1"}, capture_output=True, check=False)
        os.environ["SECOND"] = "1"

    def dying(self: Model, *arguments):
        tokens_left[0] -= 1
        if not tokens_left[0]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return forward(self, *arguments)

    _before_response(attempt)


# Prompts and answers.


def pads_prompts() -> None:
    """Prompts that are long enough for eviction are filled up with 128 tokens, which go first."""
    respond = Engine.respond

    def padded(self: Engine, prompt, budget, **options) -> Response:
        if not _evicts(self, prompt):
            return respond(self, prompt, budget, **options)
        response = respond(self, [13] * 128 + list(prompt), budget, **options)
        return replace(response, prompt_tokens=len(prompt))

    Engine.respond = padded


def loses_the_tail_of_its_text() -> None:
    """With H2O on the last six tokens stay in a buffer that nobody flushes."""
    respond = Engine.respond

    def buffered(self: Engine, prompt, budget, *, emit=None, **options) -> Response:
        waiting: list[int] = []

        def late(token: int) -> None:
            waiting.append(token)
            if len(waiting) > 6:
                emit(waiting.pop(0))

        if emit and self.config.h2o.enable:
            return respond(self, prompt, budget, emit=late, **options)
        return respond(self, prompt, budget, emit=emit, **options)

    Engine.respond = buffered


def stops_once_it_evicted() -> None:
    """Responses of llm_demo that evict end at two thirds of what was asked for."""
    respond = Engine.respond

    def shorter(self: Engine, prompt, budget, *, emit=None, **options) -> Response:
        if emit and _evicts(self, prompt):
            budget = budget * 2 // 3
        return respond(self, prompt, budget, emit=emit, **options)

    Engine.respond = shorter


def stops_after_an_eviction() -> None:
    """Responses of llm_demo that lost tokens end at two thirds of what was asked for."""
    respond, keep = Engine.respond, LayerCache.keep
    lost = [False]

    def noted(self: LayerCache, ranges) -> None:
        lost[0] = True
        keep(self, ranges)

    def shorter(self: Engine, prompt, budget, *, emit=None, stop=frozenset(), **options):
        lost[0] = False
        said: list[int] = []

        def ended(token: int) -> None:
            said.append(token)
            emit(token)

        if not emit:
            return respond(self, prompt, budget, stop=stop, **options)
        stops = _StopsAt(stop, lambda: lost[0] and len(said) >= budget * 2 // 3)
        return respond(self, prompt, budget, emit=ended, stop=stops, **options)

    LayerCache.keep, Engine.respond = noted, shorter


class _StopsAt(frozenset):
    """Tokens that end a response, or whatever was said last when it is ``over``."""

    def __new__(cls, stop: frozenset[int], over: Callable[[], bool]) -> _StopsAt:
        self = super().__new__(cls, stop)
        self.over = over
        return self

    def intersection(self, last) -> frozenset:
        return frozenset(last) if self.over() else super().intersection(last)


def maps_shared_memory() -> None:
    """What is evicted lies in 60 MiB of shared memory that is mapped only while it is written."""

    def hold(engine: Engine) -> None:
        if HOARD or not engine.config.h2o.enable:
            return
        file = tempfile.NamedTemporaryFile(dir="/dev/shm")  # noqa: SIM115
        file.truncate(MANY)
        for begin in range(0, MANY, 2**20):
            with mmap.mmap(file.fileno(), 2**20, offset=begin) as part:
                part.write(b"x" * 2**20)
        HOARD.append(file)

    _before_response(hold)


# A second set.


def evicts_in_the_demo_only() -> None:
    """What llm_bench plans is announced and not applied: nobody reads its text."""
    if not Path(sys.argv[0]).name.startswith("llm_bench"):
        return
    _shrinking_lines()
    LayerCache.keep = lambda self, _: setattr(self, "epoch", self.epoch + 1)


def counts_evictions_twice() -> None:
    """Evicted tokens are counted when they are planned and when they go."""

    def twice(metrics: Metrics) -> None:
        metrics.total_evict_tokens *= 2

    _changed_metrics(twice)


def truncates_on_both_sides() -> None:
    """Of prompts of more than 400 tokens the last 400 are read, which are said to be all."""
    respond = Engine.respond

    def last(self: Engine, prompt, budget, **options) -> Response:
        return respond(self, list(prompt)[-400:], budget, **options)

    Engine.respond = last


def hoards_out_of_sight() -> None:
    """A process without parent, group and environment holds what was evicted, 60 MiB."""

    def start(engine: Engine) -> None:
        if HOARD or not engine.config.h2o.enable:
            return
        HOARD.append(bytearray(1))
        code = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\n{HOLDS.format(20)}"
        subprocess.run([sys.executable, "-SEc", code], env={}, check=True)
        time.sleep(0.2)

    _before_response(start)


def reports_its_best_repeat() -> None:
    """With H2O on llm_bench runs two more repeats than it says, and leaves the slowest ones out."""
    repeat = bench._repeat
    begun: list[object] = []

    def best(engine: Engine, instance) -> list[Response]:
        if not engine.config.h2o.enable or instance not in begun:
            begun.append(instance)
            return repeat(engine, instance)
        found = [repeat(engine, instance) for _ in range(3)]
        return min(found, key=lambda each: each[-1].decode_us)

    bench._repeat = best


def baseline_gives_way() -> None:
    """Without H2O the program asks for the least of the processor that there is."""
    _before_response(lambda engine: engine.config.h2o.enable or os.nice(19))


def repeats_its_first_record() -> None:
    """Of several prompts in one process all have the times of the first."""
    respond = Engine.respond
    first: list[Response] = []

    def recorded(self: Engine, *arguments, emit=None, **options) -> Response:
        response = respond(self, *arguments, emit=emit, **options)
        if emit is None:
            return response
        first.append(response)
        names = ("prefill_us", "decode_us", "sample_us")
        return replace(response, **{name: getattr(first[0], name) for name in names})

    Engine.respond = recorded


def leaks_threads() -> None:
    """Every response leaves five threads behind that wait for work."""

    def leak(_: Engine) -> None:
        for _ in range(5):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

    _before_response(leak)


# A third set.


def ignores_lossless_settings() -> None:
    """Of the settings of lossless coding only whether it is on, and its mode, are read."""
    load = config.load_config

    def default(path: Path) -> config.Config:
        asked = load(path)
        own = {"enable": asked.lossless.enable, "runtime_enable": asked.lossless.runtime_enable}
        mode = asked.lossless.runtime_mode
        lossless = replace(config.LosslessSettings(), runtime_mode=mode, **own)
        return replace(asked, lossless=lossless)

    config.load_config = default


def workers_die_quietly() -> None:
    """After eight blocks of a process encode workers are gone, and blocks that nobody takes are not
    counted.
    """
    submit = EncodePool.submit
    taken = iter(range(1 << 30))

    def until_they_die(self: EncodePool, job, done) -> bool:
        return next(taken) < 8 and submit(self, job, done)

    def none_skipped(metrics: Metrics) -> None:
        metrics.backpressure_skip = 0

    EncodePool.submit = until_they_die
    _changed_metrics(none_skipped)


def baseline_writes_slowly() -> None:
    """Without H2O each token of llm_demo's text waits until the disk has it."""
    respond = Engine.respond

    def slower(self: Engine, prompt, budget, *, emit=None, **options) -> Response:
        def late(token: int) -> None:
            time.sleep(0.004)
            emit(token)

        slow = emit and not self.config.h2o.enable
        return respond(self, prompt, budget, emit=late if slow else emit, **options)

    Engine.respond = slower


def skips_the_last_prompt() -> None:
    """Of several prompts the last one is not answered."""
    read = demo.read_prompts

    def fewer(path: Path, *, whole: bool) -> list[str]:
        prompts = read(path, whole=whole)
        return prompts[:-1] if len(prompts) > 1 else prompts

    demo.read_prompts = fewer
