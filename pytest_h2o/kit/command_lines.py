"""What recorded command lines of ``llm_bench`` and ``llm_demo`` asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import TypeVar

from pytest_h2o.parsers.argv_options import is_program, plain_path
from pytest_h2o.runtimes import LLM_BENCH, LLM_DEMO

T = TypeVar("T")
# The options of llm_bench that are asked about here, by every spelling; others keep their own.
OPTIONS = {
    "-m": "config", "--model": "config",
    "-a": "backend", "--backends": "backend",
    "-t": "threads", "--threads": "threads",
    "-p": "prompts", "--n-prompt": "prompts",
    "-n": "gens", "--n-gen": "gens",
    "-pg": "pairs",
    "-rep": "repeat", "--n-repeat": "repeat",
    "-kv": "demo", "--kv-cache": "demo",
    "-fp": "table", "--file-print": "table",
    "-j": "json", "--json": "json",
    "-load": "loading", "--loading-time": "loading",
    "-mmp": "mmap", "--mmap": "mmap",
}  # fmt: skip
# Lengths are combined, and these have one value; any other multiplies the rows by its values.
LENGTHS = {"prompts", "gens", "pairs"}
SINGLE = {"repeat", "demo", "table", "json", "loading", "mmap"}
_OPTION = re.compile(r"--?[A-Za-z][A-Za-z-]*")
PROGRAMS = (LLM_BENCH.name, LLM_DEMO.name)


@dataclass(frozen=True)
class BenchLine:
    """A command line of ``llm_bench``, with the program's defaults for what it does not say.

    ``labels`` are those of the rows that it must print, none where they are unknown; ``configs``
    and ``table`` are named as it names them.
    """

    configs: tuple[str, ...]
    backend: str
    threads: int
    prompt_tokens: int | None
    gen_tokens: int
    repeat: int | None
    labels: tuple[str, ...]
    table: str | None


UNKNOWN = BenchLine(
    configs=(), backend="cpu", threads=4, prompt_tokens=None, gen_tokens=0, repeat=None, labels=(),
    table=None,
)  # fmt: skip


@dataclass(frozen=True)
class DemoLine:
    """A command line of ``llm_demo``; ``config`` is named as it names it, ``metrics`` is the file
    for its record; either is empty if none is named.
    """

    prompt: Path
    gen_tokens: int
    metrics: str
    config: str = ""


def is_demo(argv: Sequence[str]) -> bool:
    """Whether the program is ``llm_demo``; without any it is taken for ``llm_bench``."""
    words = _from_program(argv)
    return bool(words) and is_program(words[0], LLM_DEMO.name)


def bench_line(argv: Sequence[str]) -> BenchLine:
    """What a command line of ``llm_bench`` asks for; of none at all nothing is known."""
    if not argv:
        return UNKNOWN
    options = _options(_from_program(argv))
    lengths = _integers(options.get("prompts", ["512"]))
    prompts = [length for length in lengths if length]  # the program skips 0
    gens = [length for length in _integers(options.get("gens", ["128"])) if length]
    backend = options.get("backend", ["cpu"])[0]
    return BenchLine(
        configs=tuple(options.get("config", [])),
        backend=backend,
        threads=_first(_integers(options.get("threads", [])), 4),
        prompt_tokens=_first(prompts, None),
        gen_tokens=_first(gens, 0),
        repeat=_first(_integers(options.get("repeat", ["5"])), None),
        labels=_labels(options, prompts, gens),
        table=options["table"][-1] if "table" in options else None,
    )


def demo_line(argv: Sequence[str]) -> DemoLine:
    """What a command line of ``llm_demo`` asks for: config, prompt, token budget, options."""
    words = _from_program(argv)
    prompt = plain_path(words[2]) if len(words) > 2 else "unnamed"
    budget = _first(_integers(words[3:4]), 0)
    config = words[1] if len(words) > 1 else ""
    return DemoLine(Path(prompt), budget, _metrics(words[3:]), config)


def _from_program(argv: Sequence[str]) -> Sequence[str]:
    """The words from the program on: ``taskset -c 0,1`` and the like have options that look like
    the program's.
    """
    for at, word in enumerate(argv):
        if any(is_program(word, program) for program in PROGRAMS):
            return argv[at:]
    return argv


def _separate(words: Iterable[str]) -> Iterator[str]:
    """Words in which an option and its value, joined by an equals sign, are two."""
    for word in words:
        if word.startswith("--"):
            yield from word.split("=", 1)
        else:
            yield word


def _labels(
    options: dict[str, list[str]], prompts: Sequence[int], gens: Sequence[int]
) -> tuple[str, ...]:
    """One label per row of the table; none where ``-kv true`` and ``-pg`` meet."""
    copies = prod(len(values) for name, values in options.items() if name not in LENGTHS | SINGLE)
    pairs = _integers(options.get("pairs", []))
    if options.get("demo", ["false"])[-1] == "true":
        if any(pairs):
            return ()
        return tuple(f"p{p}_g{g}" for p, g in product(prompts, gens)) * copies
    labels = [f"pp{p}" for p in prompts]
    labels += [f"tg{g}" for g in gens]
    for p, g in zip(pairs[::2], pairs[1::2], strict=False):
        if p and g:
            labels.append(f"pp{p}+tg{g}")
    return tuple(labels) * copies


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """The values of all options; the program adds up lists that are given twice."""
    values: dict[str, list[str]] = {}
    for word, value in pairwise(_separate(argv)):
        spelling = word.replace("_", "-") if word.startswith("--") else word
        if not _OPTION.fullmatch(spelling) or _OPTION.fullmatch(value):
            continue
        name = OPTIONS.get(spelling, spelling)
        parts = value.split(",")
        if name in ("demo", "table", "json"):
            parts = parts[:1]
        values.setdefault(name, []).extend(parts)
    return values


def _metrics(words: Iterable[str]) -> str:
    """The value of ``--metrics-jsonl``, with a blank or an equals sign; the last one counts."""
    last = ""
    for word, value in pairwise(_separate(words)):
        if word == "--metrics-jsonl":
            last = value
    return last


def _integers(words: Iterable[str]) -> list[int]:
    return [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 10]


def _first(numbers: Sequence[int], default: T) -> int | T:
    return numbers[0] if numbers else default
