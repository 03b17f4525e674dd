"""The rows of ``h2o-llm-bench`` as a Markdown table and as JSON, in the formats of llm_bench."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from pytest_h2o.engine.bench_options import Instance, Options
from pytest_h2o.engine.response import COLUMNS, EXTRA_COLUMNS, MIB, Column, Response

_PRECISIONS = {0: "Normal", 2: "Low"}
_QUANTISED = {1: "Int8 Q,K", 2: "Int8 Q,K,V"}


@dataclass(frozen=True, slots=True)
class Result:
    """One instance, measured: the responses of every repeat, and what is known about the model."""

    instance: Instance
    model: str
    weight_bytes: int
    load_seconds: Sequence[float]
    repeats: Sequence[Sequence[Response]]

    def statistic(self, read: Callable[[Response], float]) -> tuple[float, float]:
        """Mean and sample deviation over repeats of a value of the last response of each."""
        return mean_and_std([read(responses[-1]) for responses in self.repeats])

    def column(self, column: Column) -> tuple[float, float]:
        """Mean and deviation of one metric."""
        return self.statistic(lambda response: column.read(response.metrics))

    def prefill_speed(self) -> tuple[float, float]:
        """Prompt tokens per second."""
        return self._rates(lambda r: r.prompt_tokens, lambda r: r.prefill_us)

    def decode_speed(self) -> tuple[float, float]:
        """Tokens really sampled per second."""
        return self._rates(lambda r: len(r.tokens), lambda r: r.decode_us)

    def total_speed(self) -> tuple[float, float]:
        """Tokens per second where prompt and decode are timed as one."""
        tokens = self.instance.prompt + self.instance.gen
        rates = []
        for responses in self.repeats:
            microseconds = sum(each.prefill_us + each.decode_us for each in responses)
            if microseconds > 0:
                rates.append(tokens * 1e6 / microseconds)
        return mean_and_std(rates)

    def _rates(
        self, tokens: Callable[[Response], int], time: Callable[[Response], float]
    ) -> tuple[float, float]:
        rates = []
        for responses in self.repeats:
            last = responses[-1]
            if time(last) > 0:
                rates.append(tokens(last) * 1e6 / time(last))
        return mean_and_std(rates)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Arithmetic mean and sample standard deviation; 0 without values, deviation 0 for one."""
    if not values:
        return 0.0, 0.0
    if len(values) == 1:
        return fmean(values), 0.0
    return fmean(values), stdev(values)


def plus_minus(statistic: tuple[float, float], decimals: int) -> str:
    """``mean ± std``."""
    mean, std = statistic
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One printed column: header, least width in bytes, side, and the cell of a result."""

    header: str
    width: int
    left: bool
    cell: Callable[[Result], str]

    def pad(self, text: str) -> str:
        """``text`` filled with blanks to the column's width, counted in bytes."""
        blanks = " " * (self.width - len(text.encode()))
        if self.left:
            return text + blanks
        return blanks + text

    @property
    def rule(self) -> str:
        """The cell below the header."""
        if self.left:
            return "-" * self.width
        return "-" * (self.width - 1) + ":"


def table_columns(options: Options) -> list[TableColumn]:
    """Columns that ``options`` make llm_bench print, then those of this engine."""
    columns = _model_columns() + _option_columns(options)
    demo = options.kv != "false"
    if demo:
        columns += [_LENGTHS, _DEMO_SPEED]
        columns += _metric_columns(COLUMNS)
    else:
        columns += [_TEST, _TEST_SPEED]
    if options.load:
        columns.append(_LOADING_TIME)
    if demo:
        columns += _metric_columns(EXTRA_COLUMNS)
    return columns


def _model_columns() -> list[TableColumn]:
    return [
        TableColumn("model", 30, True, lambda result: result.model),
        TableColumn("modelSize", 10, False, lambda result: _size(result.weight_bytes)),
        TableColumn("backend", 10, True, lambda result: "CPU"),
        TableColumn("threads", 5, False, _setup("threads")),
        TableColumn("precision", 10, True, _word("precision", _PRECISIONS, "High")),
    ]


def _option_columns(options: Options) -> list[TableColumn]:
    """Columns that are printed only where an option is not at its default."""
    columns = []
    if len(options.memories) > 1:
        columns.append(TableColumn("memory", 10, True, _word("memory", _PRECISIONS, "High")))
    if len(options.dynamic_options) > 1:
        columns.append(TableColumn("dynamicOption", 13, True, _setup("dynamic_option")))
    if options.ratios != [41]:
        columns.append(TableColumn("divisionRatioSme2Neon", 21, True, _setup("ratio")))
    if options.quantised[0] != 0:
        quantised = _word("quantised", _QUANTISED, "")
        columns.append(TableColumn("attentionOption", 15, True, quantised))
    if options.core_numbers != [2]:
        columns.append(TableColumn("smeCoreNum", 10, True, _setup("core_number")))
    if options.mmap:
        columns.append(TableColumn("mmap", 4, False, lambda result: "true"))
    return columns


def _setup(name: str) -> Callable[[Result], str]:
    """The cell that shows a field of the setup."""
    return lambda result: str(getattr(result.instance.setup, name))


def _word(name: str, words: Mapping[int, str], other: str) -> Callable[[Result], str]:
    """The cell that shows the word for a field of the setup."""
    return lambda result: words.get(getattr(result.instance.setup, name), other)


def _metric_columns(columns: Sequence[Column]) -> list[TableColumn]:
    found: list[TableColumn] = []
    for column in columns:
        width = max(len(column.header), 10)
        found.append(TableColumn(column.header, width, False, _metric(column)))
    return found


def _metric(column: Column) -> Callable[[Result], str]:
    return lambda result: plus_minus(result.column(column), column.decimals)


def _lengths(result: Result) -> str:
    return f"prompt={result.instance.prompt}<br>decode={result.instance.gen}"


def _speed(result: Result) -> str:
    if result.instance.kind != "demo":
        return "0.00 ± 0.00<br>0.00 ± 0.00"
    return f"{plus_minus(result.prefill_speed(), 2)}<br>{plus_minus(result.decode_speed(), 2)}"


def _test_name(result: Result) -> str:
    prompt, gen = result.instance.prompt, result.instance.gen
    names = {"prefill": f"pp{prompt}", "decode": f"tg{gen}", "pair": f"pp{prompt}+tg{gen}"}
    return names[result.instance.kind]


def _loading_time(result: Result) -> str:
    return plus_minus(mean_and_std(result.load_seconds), 2)


_LENGTHS = TableColumn("llm_demo", 10, True, _lengths)
_DEMO_SPEED = TableColumn("speed(tok/s)", 12, True, _speed)
_TEST = TableColumn("test", 13, True, _test_name)
_TEST_SPEED = TableColumn("t/s", 10, False, lambda result: plus_minus(result.total_speed(), 2))
_LOADING_TIME = TableColumn("loadingTime(s)", 14, True, _loading_time)


def _size(count: int) -> str:
    if count < 2**30:
        return f"{count / MIB:.2f} MiB"
    return f"{count / 2**30:.2f} GiB"


def header_lines(columns: Sequence[TableColumn]) -> list[str]:
    """Header and separator."""
    headers = [column.pad(column.header) for column in columns]
    rules = [column.rule for column in columns]
    return [_line(headers), _line(rules)]


def row_line(columns: Sequence[TableColumn], result: Result) -> str:
    """One result."""
    return _line([column.pad(column.cell(result)) for column in columns])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def json_document(results: Sequence[Result], *, mmap: bool) -> dict[str, Any]:
    """The object that ``-j`` writes; the description is that of the first result."""
    if not results:
        return {}
    first = results[0]
    setup = first.instance.setup
    return {
        "model": first.model,
        "modelSize": first.weight_bytes / 2**30,
        "backend": "CPU",
        "threads": setup.threads,
        "useMmap": mmap,
        "precision": setup.precision,
        "memory": setup.memory,
        "power": setup.power,
        "attentionOption": setup.quantised,
        "results": [_json_result(result) for result in results],
    }


def _json_result(result: Result) -> dict[str, Any]:
    record = _json_kind(result)
    if len(result.load_seconds) > 1:
        record |= _twins("loading_time", mean_and_std(result.load_seconds))
    if result.repeats:
        for column in COLUMNS + EXTRA_COLUMNS:
            record |= _twins(column.key, result.column(column))
    return record


def _json_kind(result: Result) -> dict[str, Any]:
    kind, prompt, gen = result.instance.kind, result.instance.prompt, result.instance.gen
    mean, std = result.total_speed()
    if kind == "prefill":
        return {"type": kind, "prompt_len": prompt, "tps": mean, "std": std}
    if kind == "decode":
        return {"type": kind, "generate_len": gen, "tps": mean, "std": std}
    record: dict[str, Any] = {
        "type": "prefill_and_decode",
        "prompt_len": prompt,
        "generate_len": gen,
    }
    if kind == "demo":
        record["prefill_tps"], record["prefill_std"] = result.prefill_speed()
        record["decode_tps"], record["decode_std"] = result.decode_speed()
    return record


def _twins(key: str, statistic: tuple[float, float]) -> dict[str, float]:
    mean, std = statistic
    if not (math.isfinite(mean) and math.isfinite(std)):
        return {}
    return {key: mean, f"{key}_std": std}
