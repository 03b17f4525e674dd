"""``llm_bench`` on the MNN wheel: its command line, its table, held-out perplexity."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from pytest_h2o.engine import bench_options as command_line
from pytest_h2o.engine import bench_rows as rows
from pytest_h2o.engine.bench_options import ArgumentsError, EngineSetup, Instance, Options
from pytest_h2o.engine.response import Response
from pytest_h2o.runtimes.pymnn import quality
from pytest_h2o.runtimes.pymnn.wheel import PRECISION, ModelError, Wheel, peak_mib, quiet

PROMPT_TOKEN = 16
WARM_UP_TOKENS = 16
HELD_OUT = Path(__file__).parents[2] / "engine" / "weights" / "heldout.txt"
QUANTISED = rows.TableColumn(
    "quantKv", 10, True, lambda result: str(result.instance.setup.quantised)
)
PEAK = rows.TableColumn("peak_memory_mb", 14, False, lambda result: f"{peak_mib():.2f} ± 0.00")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (255 for bad arguments, 1 for a model that cannot be
    used).
    """
    try:
        options = command_line.parse(sys.argv[1:] if argv is None else argv)
    except ArgumentsError as error:
        print(f"error: invalid parameter for argument: {error}", file=sys.stderr)
        return 255
    quiet()
    try:
        if options.quality is None:
            _measure(options)
        else:
            _predict(options)
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(options: Options) -> None:
    columns = _columns(options)
    lines = rows.header_lines(columns)
    for setup in command_line.setups(options):
        for result in _results(options, setup):
            lines.append(rows.row_line(columns, result))
    text = "\n".join(lines) + "\n"
    if options.table_file:
        with Path(options.table_file).open("a", encoding="utf-8") as table:
            table.write(text)
    else:
        print(text, end="", flush=True)


def _columns(options: Options) -> list[rows.TableColumn]:
    """The columns of stock llm_bench: none about H2O, quantKv where KV is quantised."""
    columns: list[rows.TableColumn] = []
    for column in rows.table_columns(options):
        if column.header == "attentionOption":
            columns.append(QUANTISED)
        elif not column.header.startswith("h2o_") and column.header != "decode_cost":
            columns.append(column)
    return [*columns, PEAK]


def _results(options: Options, setup: EngineSetup) -> Iterator[rows.Result]:
    started = perf_counter()
    wheel = load(setup)
    seconds = perf_counter() - started
    size = wheel.weights.stat().st_size
    for instance in command_line.instances(options, setup):
        _repeat(wheel, instance, min(instance.gen, WARM_UP_TOKENS))
        repeats = [_repeat(wheel, instance, instance.gen) for _ in range(options.repeats[0])]
        yield rows.Result(instance, "MNN wheel", size, [seconds], repeats)


def load(setup: EngineSetup, *, all_logits: bool = False) -> Wheel:
    """The model of a setup; raises :class:`ModelError` for a backend that the wheel has not."""
    if setup.backend != "cpu":
        raise ModelError(f"the MNN wheel runs on the cpu, not on {setup.backend}; BACKEND=cpu")
    return Wheel(
        Path(setup.model), threads=setup.threads, quantised=setup.quantised,
        precision=PRECISION.get(setup.precision, "low"), all_logits=all_logits,
    )  # fmt: skip


def _repeat(wheel: Wheel, instance: Instance, gen: int) -> list[Response]:
    """The responses of one repeat: one in demo mode, else one for the prompt and one for decode."""
    prompt = [PROMPT_TOKEN] * instance.prompt
    if instance.kind == "demo":
        return [wheel.respond(prompt, gen)]
    responses = []
    if prompt:
        responses.append(wheel.respond(prompt, 1))
    if gen:
        responses.append(wheel.respond([PROMPT_TOKEN], gen))
    return responses


def _predict(options: Options) -> None:
    text = Path(options.quality or HELD_OUT).read_text("utf-8")
    setup = next(command_line.setups(options))
    report = quality.measure(lambda each: load(each, all_logits=True), setup, text)
    if options.json_file:
        Path(options.json_file).write_text(json.dumps(report) + "\n", "utf-8")
    print(json.dumps(report, indent=1), flush=True)


if __name__ == "__main__":
    sys.exit(main())
