"""``h2o-llm-demo``: answer prompts from a file, with llm_demo's command line and output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_h2o.engine.bench import BANNER
from pytest_h2o.engine.bench_options import to_int
from pytest_h2o.engine.threads import single_threaded_blas

if TYPE_CHECKING:
    from pytest_h2o.engine.generate import Engine
    from pytest_h2o.engine.response import Response
    from pytest_h2o.engine.tokenizer import Tokenizer

WHOLE_FILE_WORDS = ("--prompt-file-mode=whole", "--prompt-file-as-whole")
PROMPT_LIMIT = 16 * 2**20


@dataclass
class Arguments:
    """``CONFIG [PROMPT_FILE [MAX_TOKENS [EXTRA...]]]``; ``max_tokens`` is None when it was left
    out.
    """

    config: Path
    prompt_file: Path | None = None
    max_tokens: int | None = None
    metrics: Path | None = None
    whole_file: bool = False
    no_thinking: bool = False


def parse(words: Sequence[str]) -> Arguments:
    """Read the words after the program name; there must be one."""
    arguments = Arguments(Path(words[0]))
    if len(words) > 1:
        arguments.prompt_file = Path(words[1])
    if len(words) > 2:
        arguments.max_tokens = max(0, to_int(words[2]))
    if path := os.environ.get("LLM_DEMO_METRICS_JSONL"):
        arguments.metrics = Path(path)
    extra = list(words[3:])
    while extra:
        _read_extra(arguments, extra.pop(0), extra)
    return arguments


def _read_extra(arguments: Arguments, word: str, rest: list[str]) -> None:
    """Apply one word after MAX_TOKENS, taking its value from ``rest`` if it has one."""
    if word.startswith("--metrics-jsonl="):
        arguments.metrics = Path(word.partition("=")[2])
    elif word == "--metrics-jsonl" and rest:
        arguments.metrics = Path(rest.pop(0))
    elif word == "--prompt-file-mode" and rest:
        arguments.whole_file |= rest.pop(0) in ("whole", "file")
    elif word in WHOLE_FILE_WORDS:
        arguments.whole_file = True
    else:
        arguments.no_thinking = True


def read_prompts(path: Path, *, whole: bool) -> list[str]:
    """Prompts of a file: the whole text, or one per line that is not empty. OSError or ValueError
    if it has none.
    """
    if path.stat().st_size > PROMPT_LIMIT:
        raise ValueError("larger than 16 MiB; give a text")
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    if whole:
        prompts = [text.rstrip("\r\n")]
    else:
        prompts = [line.removesuffix("\r") for line in text.split("\n") if line]
    if not any(prompts):
        raise ValueError("no prompt in it")
    return prompts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (1 for usage, load and prompt errors)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(f"Usage: {Path(sys.argv[0]).name} config.json <prompt.txt> <max_tokens>")
        return int(not words)
    arguments = parse(words)
    single_threaded_blas()
    from pytest_h2o.engine.config import ConfigError  # noqa: PLC0415 - numpy reads the environment when imported

    try:
        return _run(arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        print("LLM init error")
        return 1


def _run(arguments: Arguments) -> int:
    engine, tokenizer = _start(arguments)
    budget = arguments.max_tokens
    if budget is None:
        budget = engine.config.engine.max_new_tokens
    if arguments.prompt_file is None:
        return _chat(engine, tokenizer, budget)
    print(f"prompt file is {arguments.prompt_file}", flush=True)
    try:
        prompts = read_prompts(arguments.prompt_file, whole=arguments.whole_file)
    except (OSError, ValueError) as error:
        print(f"error: prompt file {arguments.prompt_file}: {error}", file=sys.stderr)
        return 1
    responses = []
    measured = arguments.metrics is not None
    for index, prompt in enumerate(prompts):
        if not prompt.startswith("#"):
            response = _answer(engine, tokenizer, prompt, budget, measured=measured)
            _record(arguments.metrics, index, response)
            responses.append(response)
    print("\n".join(summary_lines(responses)), flush=True)
    return 0


def _start(arguments: Arguments) -> tuple[Engine, Tokenizer]:
    from pytest_h2o.engine.config import load_config  # noqa: PLC0415
    from pytest_h2o.engine.generate import Engine  # noqa: PLC0415
    from pytest_h2o.engine.tokenizer import Tokenizer  # noqa: PLC0415

    print(BANNER)
    print(f"config path is {arguments.config}", flush=True)
    started = perf_counter()
    config = load_config(arguments.config)
    engine = Engine(config)
    tokenizer = Tokenizer(config.tokenizer, config.architecture)
    _print_cost(started)
    print("Prepare for tuning opt Begin")
    started = perf_counter()
    engine.tune()
    print("Prepare for tuning opt End")
    _print_cost(started)
    if arguments.no_thinking:
        print("Set not thinking, only valid for Qwen3")
    return engine, tokenizer


def _print_cost(started: float) -> None:
    """Time since ``started``, labelled with the caller's line as ``llm_demo`` does."""
    line = sys._getframe(1).f_lineno
    print(f"main, {line}, cost time: {(perf_counter() - started) * 1e3:.6f} ms", flush=True)


def _answer(
    engine: Engine, tokenizer: Tokenizer, prompt: str, budget: int, *, measured: bool = False
) -> Response:
    """Answer one prompt, its text streamed to stdout token by token as raw bytes."""
    stop, out = engine.config.architecture.eos, sys.stdout.buffer

    def emit(token: int) -> None:
        out.write(b"\n" if token in stop else tokenizer.piece(token))
        out.flush()

    sys.stdout.flush()
    return engine.respond(tokenizer.encode(prompt), budget, stop=stop, emit=emit, measured=measured)


def _record(path: Path | None, index: int, response: Response) -> None:
    """Append the prompt's record to the metrics file."""
    from pytest_h2o.engine.response import demo_record  # noqa: PLC0415

    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8") as file:
            print(json.dumps(demo_record(index, response), separators=(",", ":")), file=file)
    except OSError as error:
        print(f"error: metrics file {path}: {error.strerror}", file=sys.stderr)


def _chat(engine: Engine, tokenizer: Tokenizer, budget: int) -> int:
    """Answer lines from stdin until it ends or says /exit."""
    print("\nUser: ", end="", flush=True)
    for line in sys.stdin:
        prompt = line.strip()
        if prompt == "/exit":
            break
        if prompt and prompt != "/reset":
            print("\nA: ", end="", flush=True)
            _answer(engine, tokenizer, prompt, budget)
        print("\nUser: ", end="", flush=True)
    return 0


def summary_lines(responses: Sequence[Response]) -> Iterator[str]:
    """The block after the last prompt: sums over all prompts."""
    prompt = decoded = 0
    prefill_us = decode_us = sample_us = 0.0
    for response in responses:
        prompt += response.prompt_tokens
        decoded += len(response.tokens)
        prefill_us += response.prefill_us
        decode_us += response.decode_us
        sample_us += response.sample_us
    prefill, decode, sample = prefill_us / 1e6, decode_us / 1e6, sample_us / 1e6
    yield "\n#################################"
    yield f"prompt tokens num = {prompt}"
    yield f"decode tokens num = {decoded}"
    yield " vision time = 0.00 s"
    yield " pixels_mp = 0.00 MP"
    yield "  audio process time = 0.00 s"
    yield "  audio input time = 0.00 s"
    yield f"prefill time = {prefill:.2f} s"
    yield f" decode time = {decode:.2f} s"
    yield f" sample time = {sample:.2f} s"
    yield f"prefill speed = {_rate(prompt, prefill)} tok/s"
    yield f" decode speed = {_rate(decoded, decode)} tok/s"
    yield " vision speed = 0.000 MP/s"
    yield " audio RTF = -nan "
    yield "##################################"


def _rate(count: int, seconds: float) -> str:
    if seconds > 0:
        return f"{count / seconds:.2f}"
    if count:
        return "inf"
    return "-nan"


if __name__ == "__main__":
    sys.exit(main())
