"""``h2o-llm-bench``: measure the embedded engine, with llm_bench's command line and output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from pytest_h2o.engine import bench_options as command_line
from pytest_h2o.engine.bench_options import ArgumentsError, Instance, Options, Setup
from pytest_h2o.engine.threads import single_threaded_blas

if TYPE_CHECKING:
    from pytest_h2o.engine.bench_rows import Result
    from pytest_h2o.engine.generate import Engine
    from pytest_h2o.engine.response import Response

PROMPT_TOKEN = 16
WARM_UP_TOKENS = 16
BANNER = "The device supports: i8sdot:0, fp16:0, i8mm: 0, sve2: 0, sme2: 0"
PRECISION_WORDS = {0: "normal", 1: "high", 2: "low"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (255 for bad arguments, 1 for anything that cannot be
    loaded).
    """
    usage = command_line.USAGE.format(program=Path(sys.argv[0]).name)
    try:
        options = command_line.parse(sys.argv[1:] if argv is None else argv)
    except ArgumentsError as error:
        print(f"error: invalid parameter for argument: {error}", file=sys.stderr)
        print(usage + "Parse arguments error")
        return 255
    if options.help:
        print(usage)
        return 0
    single_threaded_blas()
    from pytest_h2o.engine.config import ConfigError  # noqa: PLC0415 - numpy reads the environment when imported

    try:
        print(BANNER, flush=True)
        if options.quality is None:
            _run(options)
        else:
            _run_quality(options)
    except (ConfigError, OSError) as error:
        print(f"error: {_reason(error)}", file=sys.stderr)
        return 1
    print(flush=True)
    return 0


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _run(options: Options) -> None:
    from pytest_h2o.engine import bench_rows as rows  # noqa: PLC0415

    columns = rows.table_columns(options)
    results: list[Result] = []
    with ExitStack() as stack:
        table: TextIO = sys.stdout
        report: TextIO | None = None
        if options.table_file:
            table = stack.enter_context(Path(options.table_file).open("a", encoding="utf-8"))
        if options.json_file:
            report = stack.enter_context(Path(options.json_file).open("w", encoding="utf-8"))
        for setup in command_line.setups(options):
            for result in _measure_setup(options, setup):
                lines = [rows.row_line(columns, result)]
                if not results:
                    lines = rows.header_lines(columns) + lines
                print("\n".join(lines), file=table, flush=True)
                results.append(result)
        if report:
            document = rows.json_document(results, mmap=options.mmap)
            print(json.dumps(document, separators=(",", ":"), allow_nan=False), file=report)


def _run_quality(options: Options) -> None:
    """Print, and write where ``-j`` says, how well a text is predicted under each eviction
    policy.
    """
    from pytest_h2o.engine import policy_quality  # noqa: PLC0415
    from pytest_h2o.engine.config import SHIPPED, ConfigError  # noqa: PLC0415
    from pytest_h2o.engine.tokenizer import Tokenizer  # noqa: PLC0415

    path = Path(options.quality or SHIPPED / "heldout.txt")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; give a text") from None
    engine, _ = _load(next(command_line.setups(options)), 1)
    tokens = Tokenizer(engine.config.tokenizer, engine.config.architecture).encode(text)
    rows = policy_quality.measure(engine, tokens)
    print("\n".join(policy_quality.table_lines(rows)))
    if options.json_file:
        document = json.dumps({"quality": [row.record() for row in rows]})
        Path(options.json_file).write_text(document + "\n", "utf-8")


def _measure_setup(options: Options, setup: Setup) -> Iterator[Result]:
    from pytest_h2o.engine.bench_rows import Result  # noqa: PLC0415

    for instance in command_line.instances(options, setup):
        engine, seconds = _load(setup, 3 if options.load else 1)
        engine.tune()
        _repeat(engine, replace(instance, gen=min(instance.gen, WARM_UP_TOKENS)))
        repeats = [_repeat(engine, instance) for _ in range(options.repeats[0])]
        size = engine.config.weights.stat().st_size
        yield Result(instance, engine.config.name, size, seconds, repeats)


def _load(setup: Setup, times: int) -> tuple[Engine, list[float]]:
    """The engine of ``setup``, and the seconds each load took."""
    from pytest_h2o.engine.config import SHIPPED, load_config, override  # noqa: PLC0415
    from pytest_h2o.engine.generate import Engine  # noqa: PLC0415

    path = Path(setup.model or SHIPPED / "h2o.json")
    precision = PRECISION_WORDS.get(setup.precision, "low")
    seconds = []
    for _ in range(times):
        started = perf_counter()
        config = override(
            load_config(path),
            precision=precision,
            quantised=setup.quantised,
            sampler_type="greedy",
        )
        engine = Engine(config, threads=setup.threads)
        seconds.append(perf_counter() - started)
    return engine, seconds


def _repeat(engine: Engine, instance: Instance) -> list[Response]:
    """The responses of one repeat: one in demo mode, else one for the prompt and one for the
    decoding.

    The whole budget is decoded: an end-of-text token does not cut a measurement short.
    """
    prompt = [PROMPT_TOKEN] * instance.prompt
    if instance.kind == "demo":
        return [engine.respond(prompt, instance.gen)]
    responses = []
    if prompt:
        responses.append(engine.respond(prompt, 1, measured=False))
    if instance.gen:
        responses.append(engine.respond([PROMPT_TOKEN], instance.gen, measured=False))
    return responses


if __name__ == "__main__":
    sys.exit(main())
