"""The rows of ``h2o-llm-bench`` as a Markdown table and as JSON, in the formats of llm_bench."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from pytest_h2o.engine.bench_options import Instance, Options
from pytest_h2o.engine.metrics import COLUMNS, EXTRA_COLUMNS, MIB, Column, Response

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
        microseconds = [
            sum(r.prefill_us + r.decode_us for r in responses) for responses in self.repeats
        ]
        return mean_and_std([tokens * 1e6 / us for us in microseconds if us > 0])

    def _rates(
        self, tokens: Callable[[Response], int], time: Callable[[Response], float]
    ) -> tuple[float, float]:
        last = [responses[-1] for responses in self.repeats]
        return mean_and_std([tokens(r) * 1e6 / time(r) for r in last if time(r) > 0])


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Arithmetic mean and sample standard deviation; 0 without values, deviation 0 for one."""
    if not values:
        return 0.0, 0.0
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


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
        return text + blanks if self.left else blanks + text

    @property
    def rule(self) -> str:
        """The cell below the header."""
        return "-" * (self.width - 1) + ("-" if self.left else ":")


def table_columns(options: Options) -> list[TableColumn]:
    """Columns that ``options`` make llm_bench print, then those of this engine."""

    def setup(name: str) -> Callable[[Result], str]:
        return lambda result: str(getattr(result.instance.setup, name))

    def word(name: str, words: Mapping[int, str], other: str) -> Callable[[Result], str]:
        return lambda result: words.get(getattr(result.instance.setup, name), other)

    optional = (
        (
            len(options.memories) > 1,
            TableColumn("memory", 10, True, word("memory", _PRECISIONS, "High")),
        ),
        (
            len(options.dynamic_options) > 1,
            TableColumn("dynamicOption", 13, True, setup("dynamic_option")),
        ),
        (options.ratios != [41], TableColumn("divisionRatioSme2Neon", 21, True, setup("ratio"))),
        (
            options.quantised[0] != 0,
            TableColumn("attentionOption", 15, True, word("quantised", _QUANTISED, "")),
        ),
        (options.core_numbers != [2], TableColumn("smeCoreNum", 10, True, setup("core_number"))),
        (options.mmap, TableColumn("mmap", 4, False, lambda result: "true")),
    )
    demo = options.kv != "false"
    load = TableColumn(
        "loadingTime(s)", 14, True, lambda result: plus_minus(mean_and_std(result.load_seconds), 2)
    )
    return [
        TableColumn("model", 30, True, lambda result: result.model),
        TableColumn("modelSize", 10, False, lambda result: _size(result.weight_bytes)),
        TableColumn("backend", 10, True, lambda result: "CPU"),
        TableColumn("threads", 5, False, setup("threads")),
        TableColumn("precision", 10, True, word("precision", _PRECISIONS, "High")),
        *(column for wanted, column in optional if wanted),
        *(_demo_columns(COLUMNS) if demo else _TEST_COLUMNS),
        *([load] if options.load else []),
        *(_metric_columns(EXTRA_COLUMNS) if demo else []),
    ]


def _demo_columns(columns: Sequence[Column]) -> list[TableColumn]:
    lengths = TableColumn(
        "llm_demo", 10, True, lambda r: f"prompt={r.instance.prompt}<br>decode={r.instance.gen}"
    )
    return [lengths, TableColumn("speed(tok/s)", 12, True, _speed), *_metric_columns(columns)]


def _metric_columns(columns: Sequence[Column]) -> list[TableColumn]:
    def cell(column: Column) -> Callable[[Result], str]:
        return lambda result: plus_minus(result.column(column), column.decimals)

    return [
        TableColumn(column.header, max(len(column.header), 10), False, cell(column))
        for column in columns
    ]


def _speed(result: Result) -> str:
    if result.instance.kind != "demo":
        return "0.00 ± 0.00<br>0.00 ± 0.00"
    return f"{plus_minus(result.prefill_speed(), 2)}<br>{plus_minus(result.decode_speed(), 2)}"


def _test_name(result: Result) -> str:
    prompt, gen = result.instance.prompt, result.instance.gen
    names = {"prefill": f"pp{prompt}", "decode": f"tg{gen}", "pair": f"pp{prompt}+tg{gen}"}
    return names[result.instance.kind]


_TEST_COLUMNS = [
    TableColumn("test", 13, True, _test_name),
    TableColumn("t/s", 10, False, lambda result: plus_minus(result.total_speed(), 2)),
]


def _size(count: int) -> str:
    return f"{count / MIB:.2f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


def header_lines(columns: Sequence[TableColumn]) -> list[str]:
    """Header and separator."""
    return [
        _line(column.pad(column.header) for column in columns),
        _line(column.rule for column in columns),
    ]


def row_line(columns: Sequence[TableColumn], result: Result) -> str:
    """One result."""
    return _line(column.pad(column.cell(result)) for column in columns)


def _line(cells: Any) -> str:
    return "".join(f"| {cell} " for cell in cells) + "|"


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
    prompt, gen = result.instance.prompt, result.instance.gen
    if result.instance.kind in ("prefill", "decode"):
        mean, std = result.total_speed()
        length = (
            {"prompt_len": prompt} if result.instance.kind == "prefill" else {"generate_len": gen}
        )
        return {"type": result.instance.kind, **length, "tps": mean, "std": std}
    record = {"type": "prefill_and_decode", "prompt_len": prompt, "generate_len": gen}
    if result.instance.kind == "demo":
        speeds = {"prefill": result.prefill_speed(), "decode": result.decode_speed()}
        for name, (mean, std) in speeds.items():
            record |= {f"{name}_tps": mean, f"{name}_std": std}
    return record


def _twins(key: str, statistic: tuple[float, float]) -> dict[str, float]:
    mean, std = statistic
    if not (math.isfinite(mean) and math.isfinite(std)):
        return {}
    return {key: mean, f"{key}_std": std}
