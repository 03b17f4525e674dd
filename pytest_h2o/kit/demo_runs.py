"""One line per real prompt and side, as the original's runner wrote them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from pytest_h2o.kit.documents import DemoRun, Number
from pytest_h2o.metrics import Sample
from pytest_h2o.parsers.demo_output import REQUIRED
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.prompts import bucket_of
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launch
from pytest_h2o.runtimes import find_program

SUMMARY = ("prompt tokens num", "decode tokens num", "prefill time", "decode time")


def demo_runs(tag: str, run: Run) -> list[DemoRun]:
    """The launches of one side, failed ones included; what was not printed is null."""
    return [_demo_run(tag, number, record) for number, record in enumerate(run.launches, start=1)]


def _demo_run(tag: str, number: int, record: LaunchRecord) -> DemoRun:
    row = _row(record)
    problems = read_launch(record)[1]
    cells = row.cells
    prompt = record.spec.prompt_file
    prefill_us = _number(cells, "prefill_us")
    decode_us = _number(cells, "decode_us")
    cli = _numbers(cells, SUMMARY)
    h2o = [name for name in cells if name.startswith("h2o_")]
    return DemoRun.model_validate(
        {
            "run_index": number,
            "run_tag": tag,
            "prompt_file": str(prompt or ""),
            "prompt_bucket": bucket_of(prompt.name) if prompt else "",
            "returncode": record.returncode,
            "effective_returncode": (record.returncode or 2) if problems else 0,
            "status_reason": _reason(record, problems),
            "has_cli_summary_metrics": bool(cli["prompt tokens num"] and cli["prefill time"]),
            "has_jsonl_summary_metrics": all(_numbers(cells, REQUIRED).values()),
            "prompt_tokens": row.prompt_tokens,
            "decode_tokens": row.decode_tokens,
            "prefill_s": cli["prefill time"] if prefill_us is None else prefill_us / 1e6,
            "decode_s": cli["decode time"] if decode_us is None else decode_us / 1e6,
            "prefill_tps": _sample(row.samples, "prefill_tps"),
            "decode_tps": _sample(row.samples, "decode_tps"),
            "h2o_metrics": _numbers(cells, h2o),
            "cli_prompt_tokens": cli["prompt tokens num"],
            "cli_decode_tokens": cli["decode tokens num"],
            "cli_prefill_s": cli["prefill time"],
            "cli_decode_s": cli["decode time"],
            "stdout_log": str(record.stdout),
            "stderr_log": str(record.stderr),
            "metrics_jsonl": str(record.metrics),
        }
    )


def _row(record: LaunchRecord) -> Row:
    """What its program reads in a launch, however it ended; an empty row where it finds nothing."""
    rows: Sequence[Row] = ()
    # A program of somebody else may raise anything; why is said where the launch is judged.
    with suppress(Exception):
        rows, _ = find_program(record.program).read(record, fresh=False)
    if rows:
        return rows[0]
    return Row("demo", record.label, None, None, {}, {}, record.stdout, 0, ())


def _reason(record: LaunchRecord, problems: list[str]) -> str:
    """The original's word for how it ended, else what is wrong."""
    code = record.returncode or 0
    if code < 0:
        return f"signal_{-code}"
    if code > 0:
        return f"rc_{code}"
    return problems[0] if problems else "ok"


def _numbers(cells: Mapping[str, str], names: Iterable[str]) -> dict[str, Number]:
    return {name: _number(cells, name) for name in names}


def _number(cells: Mapping[str, str], name: str) -> Number:
    """The number that a cell begins with; None if there is none, or none that is finite."""
    try:
        value = float(cells[name].split()[0])
    except (KeyError, IndexError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _sample(samples: Mapping[str, Sample], name: str) -> Number:
    """The mean of a metric; None if there is none, or none that is finite."""
    mean = samples[name].mean if name in samples else math.nan
    return mean if math.isfinite(mean) else None
