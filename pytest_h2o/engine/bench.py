"""``h2o-llm-bench``: measure the embedded engine, with llm_bench's command line and output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TextIO, cast

from pytest_h2o.engine import bench_options as command_line
from pytest_h2o.engine.bench_options import ArgumentsError, Instance, Options, Setup
from pytest_h2o.engine.threads import single_threaded_blas

if TYPE_CHECKING:
    from pytest_h2o.engine.bench_table import Result
    from pytest_h2o.engine.generate import Engine
    from pytest_h2o.engine.metrics import Response

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
        _run(options) if options.quality is None else _run_quality(options)
    except (ConfigError, OSError) as error:
        reason = (
            f"{error.filename}: {error.strerror}"
            if isinstance(error, OSError) and error.filename
            else error
        )
        print(f"error: {reason}", file=sys.stderr)
        return 1
    print(flush=True)
    return 0


def _run(options: Options) -> None:
    from pytest_h2o.engine import bench_table as tables  # noqa: PLC0415

    columns = tables.table_columns(options)
    results: list[Result] = []
    with ExitStack() as stack:
        table = _open(stack, options.table_file, "a") if options.table_file else sys.stdout
        report = _open(stack, options.json_file, "w") if options.json_file else None
        for setup in command_line.setups(options):
            for result in _measure_setup(options, setup):
                lines = [] if results else tables.header_lines(columns)
                results.append(result)
                print(*lines, tables.row_line(columns, result), sep="\n", file=table, flush=True)
        if report:
            document = tables.json_document(results, mmap=options.mmap)
            print(json.dumps(document, separators=(",", ":"), allow_nan=False), file=report)


def _run_quality(options: Options) -> None:
    """Print, and write where ``-j`` says, how well a text is predicted under each eviction
    policy.
    """
    from pytest_h2o.engine import quality  # noqa: PLC0415
    from pytest_h2o.engine.config import SHIPPED, ConfigError  # noqa: PLC0415
    from pytest_h2o.engine.tokenizer import Tokenizer  # noqa: PLC0415

    path = Path(options.quality or SHIPPED / "heldout.txt")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; give a text") from None
    engine, _ = _load(next(command_line.setups(options)), 1)
    tokens = Tokenizer(engine.config.tokenizer, engine.config.architecture).encode(text)
    rows = quality.measure(engine, tokens)
    print(*quality.table_lines(rows), sep="\n")
    if options.json_file:
        Path(options.json_file).write_text(
            json.dumps({"quality": [row.record() for row in rows]}) + "\n", "utf-8"
        )


def _open(stack: ExitStack, name: str, mode: str) -> TextIO:
    return stack.enter_context(cast(TextIO, Path(name).open(mode, encoding="utf-8")))


def _measure_setup(options: Options, setup: Setup) -> Iterator[Result]:
    from pytest_h2o.engine.bench_table import Result  # noqa: PLC0415

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

    seconds = []
    for _ in range(times):
        started = perf_counter()
        config = load_config(Path(setup.model) if setup.model else SHIPPED / "h2o.json")
        words = {
            "precision": PRECISION_WORDS.get(setup.precision, "low"),
            "quantised": setup.quantised,
        }
        engine = Engine(override(config, **words), threads=setup.threads)
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
    read = [engine.respond(prompt, 1, measured=False)] if prompt else []
    return read + (
        [engine.respond([PROMPT_TOKEN], instance.gen, measured=False)] if instance.gen else []
    )


if __name__ == "__main__":
    sys.exit(main())
