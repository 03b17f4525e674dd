"""The metric table."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_h2o.metrics import BY_BENCH, BY_DEMO, METRICS
from pytest_h2o.parsers.bench_table import read_tables

RUNS = Path(__file__).parents[1] / "data" / "runs"


def test_names_headers_and_keys_are_unique() -> None:
    """Each name, header and key belongs to one metric."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len(BY_BENCH) == sum(metric.bench is not None for metric in METRICS)
    assert len(BY_DEMO) == sum(metric.demo is not None for metric in METRICS)


def test_the_recorded_columns_are_all_known_and_in_order() -> None:
    """The h2o columns of a real table are metrics of the same name, in the table's order."""
    (table,) = read_tables(RUNS / "bench_full/logs/run_0001_p512_g128.log")
    columns = [column for column in table.columns if column.startswith("h2o_")]
    assert len(columns) == 19
    assert [metric.name for metric in METRICS if metric.bench in columns] == columns
    assert all(BY_BENCH[column].name == column for column in columns)


def test_the_recorded_keys_are_all_known() -> None:
    """Every key of a real metrics record is a metric, except the counts that rows carry
    themselves.
    """
    record = json.loads((RUNS / "demo_full/prompt_512_1.metrics.jsonl").read_text())
    assert set(record) - set(BY_DEMO) == {"prompt_index", "prompt_tokens", "decode_tokens"}


def test_bytes_become_mebibytes() -> None:
    """Only the byte counts are scaled."""
    scaled = {metric.demo for metric in METRICS if metric.demo_scale != 1}
    assert scaled == {key for key in BY_DEMO if key.endswith("_bytes")}
    assert all(
        metric.unit == "MiB" and metric.demo_scale * 1048576 == 1
        for metric in METRICS
        if metric.demo in scaled
    )


def test_every_metric_says_what_it_is() -> None:
    """Unit and description are given for each."""
    assert all(metric.unit and metric.doc for metric in METRICS)
