"""``llm_demo`` on the MNN wheel: greedy answers to prompts from a file, with a record of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_h2o.engine.demo import Arguments, parse, read_prompts, summary_lines
from pytest_h2o.engine.response import Response
from pytest_h2o.runtimes.pymnn.wheel import FLASH, ModelError, Wheel, peak_mib, quiet

MAX_TOKENS = 512


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (1 for usage, load and prompt errors)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) < 2:
        print("usage: config.json prompt.txt [max_tokens]", file=sys.stderr)
        return 1
    arguments = parse(words)
    quiet()
    print(f"config path is {arguments.config}", flush=True)
    try:
        _run(arguments)
    except (ModelError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: Arguments) -> None:
    config = json.loads(arguments.config.read_bytes())
    quantised = max(0, int(config.get("attention_mode", FLASH)) - FLASH)
    wheel = Wheel(
        arguments.config, threads=int(config.get("thread_num", 4)), quantised=quantised,
        precision=str(config.get("precision", "low")),
    )  # fmt: skip
    budget = MAX_TOKENS if arguments.max_tokens is None else arguments.max_tokens
    path = arguments.prompt_file or Path()
    print(f"prompt file is {path}", flush=True)
    responses: list[Response] = []
    for prompt in read_prompts(path, whole=arguments.whole_file):
        response = wheel.respond(wheel.encode(prompt), budget)
        print("".join(map(wheel.decode, response.tokens)), flush=True)
        if arguments.metrics:
            _record(arguments.metrics, len(responses), response)
        responses.append(response)
    print("\n".join(summary_lines(responses)), flush=True)


def _record(path: Path, index: int, response: Response) -> None:
    record = {
        "prompt_index": index,
        "prompt_tokens": response.prompt_tokens,
        "decode_tokens": len(response.tokens),
        "prefill_us": int(response.prefill_us),
        "decode_us": int(response.decode_us),
        "sample_us": int(response.sample_us),
        "peak_memory_mb": round(peak_mib(), 2),
        "tokens": list(response.tokens),
    }
    with path.open("a", encoding="utf-8") as file:
        print(json.dumps(record, separators=(",", ":")), file=file)


if __name__ == "__main__":
    sys.exit(main())
