"""The command line of ``h2o-llm-bench``: the flags of llm_bench, read the way it reads them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

USAGE = """usage: {program} [options]

options:
  -h, --help
  -m, --model <filename>                    (default: the shipped weights)
  -a, --backends <cpu,opencl,metal>         (default: cpu) | Note: everything runs on the cpu
  -c, --precision <n>                       (default: 2)
                                            | Note: KV values (0:fp32, 1:fp32, 2:fp16)
  -t, --threads <n>                         (default: 4)
  -p, --n-prompt <n>                        (default: 512)
  -n, --n-gen <n>                           (default: 128)
  -pg <pp,tg>                               (default: 0,0)
  -mmp, --mmap <0|1>                        (default: 0)
  -rep, --n-repeat <n>                      (default: 5)
  -kv, --kv-cache <true|false>              (default: false)
                                            | Note: if true, one response per repeat,
                                            with h2o columns
  -fp, --file-print <filename>              (default: stdout)
  -scn, --sme-core-num <n>                  (default: 2)
  -load, --loading-time <true|false>        (default: false)
  -dyo, --dynamicOption <n>                 (default: 0)
  -mr, --miexdSme2NeonRatio <n>             (default: 41)
  -qatten, --quant-attention <0|1|2>        (default: 0)
                                            | Note: 1: int8 keys, 2: int8 keys and values;
                                            H2O is off then
  -j, --json <filename>                     (default: llm_bench.json)
                                            | Note: if set, output result to a JSON file
  --quality [filename]                      (default: the shipped held-out text)
                                            | Note: instead of speed, print the perplexity
                                            of the text with the full cache, with H2O and
                                            with a sliding window of the same size, how far
                                            each diverges from the full cache, and the
                                            perplexity of a passage that returns; -j writes
                                            {{"quality": [{{policy, target, perplexity,
                                            divergence, recall_perplexity, effective_ratio,
                                            window_losses, window_recall_losses,
                                            window_divergences}}]}}, nats per token
"""
Words = list[str]


class ArgumentsError(ValueError):
    """An argument that is unknown or lacks its value; the text is the argument."""


def to_int(text: str) -> int:
    """Leading integer of ``text`` as stream extraction reads it; 0 if there is none."""
    found = re.match(r"\s*[+-]?\d{1,9}", text)
    if found is None:
        return 0
    return int(found[0])


def _numbers(value: str) -> list[int]:
    return [to_int(part) for part in value.split(",")]


def _threads(value: str) -> list[int]:
    return sorted(_numbers(value), reverse=True)


def _pair(value: str) -> list[tuple[int, int]]:
    parts = _numbers(value)
    if len(parts) != 2:
        raise ArgumentsError("-pg")
    return [(parts[0], parts[1])]


class Flag(NamedTuple):
    """One flag: the field it fills, how a value is read, whether occurrences append or the last one
    wins.
    """

    field: str
    read: Callable[[str], Any]
    appends: bool = True


def _first(value: str) -> str:
    return value.split(",", maxsplit=1)[0]


FLAGS = {
    ("-m", "--model"): Flag("models", lambda value: value.split(",")),
    ("-a", "--backends"): Flag("backends", lambda value: value.split(",")),
    ("-c", "--precision"): Flag("precisions", _numbers),
    ("-t", "--threads"): Flag("threads", _threads),
    ("-p", "--n-prompt"): Flag("prompts", _numbers),
    ("-n", "--n-gen"): Flag("gens", _numbers),
    ("-pg",): Flag("pairs", _pair),
    ("-mmp", "--mmap"): Flag("mmap", lambda value: value == "1", appends=False),
    ("--memory",): Flag("memories", _numbers),
    ("--power",): Flag("powers", _numbers),
    ("-dyo", "--dynamicOption"): Flag("dynamic_options", _numbers),
    ("-rep", "--n-repeat"): Flag("repeats", _numbers),
    ("-kv", "--kv-cache"): Flag("kv", _first, appends=False),
    ("-fp", "--file-print"): Flag("table_file", _first, appends=False),
    ("-load", "--loading-time"): Flag("load", lambda value: _first(value) == "true", appends=False),
    ("-mr", "--miexdSme2NeonRatio"): Flag("ratios", _numbers),
    ("-scn", "--sme-core-num"): Flag("core_numbers", _numbers),
    ("-qatten", "--quant-attention"): Flag("quantised", _numbers),
}
_OPTIONAL = {
    "-j": ("json_file", "llm_bench.json"),
    "--json": ("json_file", "llm_bench.json"),
    "--quality": ("quality", ""),
}


def _flag(name: str) -> Flag | None:
    """The flag of a word; None if there is none."""
    for words, flag in FLAGS.items():
        if name in words:
            return flag
    return None


@dataclass
class Options:
    """All flags with their defaults; lists hold one value per instance to run."""

    models: Words = field(default_factory=lambda: [""])
    backends: Words = field(default_factory=lambda: ["cpu"])
    precisions: list[int] = field(default_factory=lambda: [2])
    threads: list[int] = field(default_factory=lambda: [4])
    prompts: list[int] = field(default_factory=lambda: [512])
    gens: list[int] = field(default_factory=lambda: [128])
    pairs: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    mmap: bool = False
    memories: list[int] = field(default_factory=lambda: [2])
    powers: list[int] = field(default_factory=lambda: [0])
    dynamic_options: list[int] = field(default_factory=lambda: [0])
    repeats: list[int] = field(default_factory=lambda: [5])
    kv: str = "false"
    table_file: str | None = None
    load: bool = False
    ratios: list[int] = field(default_factory=lambda: [41])
    core_numbers: list[int] = field(default_factory=lambda: [2])
    quantised: list[int] = field(default_factory=lambda: [0])
    json_file: str | None = None
    quality: str | None = None
    help: bool = False

    @property
    def demo_mode(self) -> bool:
        """Whether prompt and decode of one response are measured apart."""
        return self.kv == "true"


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """Everything but the lengths: the engine of one or more instances."""

    model: str
    backend: str
    precision: int
    memory: int
    power: int
    threads: int
    dynamic_option: int
    ratio: int
    core_number: int
    quantised: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One row: a setup, and how many tokens are read and written."""

    setup: EngineSetup
    prompt: int
    gen: int
    kind: Literal["demo", "prefill", "decode", "pair"]


def parse(argv: Sequence[str]) -> Options:
    """Options in ``argv``; ArgumentsError names the first argument that is unknown or lacks its
    value.
    """
    options, words = Options(), list(argv)
    given: set[str] = set()
    while words:
        word = words.pop(0)
        name = word
        if word.startswith("--"):
            name = word.replace("_", "-")
        if name in ("-h", "--help"):
            options.help = True
            return options
        if name in _OPTIONAL:
            target, value = _OPTIONAL[name]
            if words and not words[0].startswith("-"):
                value = words.pop(0)
            setattr(options, target, value)
            continue
        flag = _flag(name)
        if flag is None or not words:
            raise ArgumentsError(word)
        _apply(options, flag, words.pop(0), again=flag.field in given)
        given.add(flag.field)
    return options


def _apply(options: Options, flag: Flag, text: str, *, again: bool) -> None:
    """Set the option of ``flag``; what ``again`` occurs is added if it appends."""
    value = flag.read(text)
    if again and flag.appends:
        value = getattr(options, flag.field) + value
    setattr(options, flag.field, value)


def setups(options: Options) -> Iterator[EngineSetup]:
    """Engines in the order they run, the first dimension outermost."""
    dimensions = (
        options.models,
        options.backends,
        options.precisions,
        options.memories,
        options.powers,
        options.threads,
        options.dynamic_options,
        options.ratios,
        options.core_numbers,
        options.quantised,
    )
    return itertools.starmap(EngineSetup, itertools.product(*dimensions))


def instances(options: Options, setup: EngineSetup) -> list[Instance]:
    """Rows of one setup in the order they run."""
    if options.demo_mode:
        pairs = itertools.product(options.prompts, options.gens)
        return [Instance(setup, p, n, "demo") for p, n in pairs if p > 0 and n > 0]
    prefill = [Instance(setup, p, 0, "prefill") for p in options.prompts if p > 0]
    decode = [Instance(setup, 0, n, "decode") for n in options.gens if n > 0]
    both = [Instance(setup, p, n, "pair") for p, n in options.pairs if p > 0 or n > 0]
    return prefill + decode + both
