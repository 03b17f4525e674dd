"""What ``llm_demo`` reports: the summary block on stdout, the metrics record, and the text it
generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pytest_h2o.metrics import BY_DEMO, Sample
from pytest_h2o.parsers.json_text import NumberText, loads
from pytest_h2o.parsers.lines import printable, read_pieces
from pytest_h2o.parsers.loglines import segments
from pytest_h2o.parsers.numbers import parse_count, parse_number
from pytest_h2o.parsers.rows import ParseError, Row

INIT_ERROR = "LLM init error"
SUMMARY_BEGIN, SUMMARY_END = "#" * 33, "#" * 34
SKIPPED = "0 prompt tokens: the program skips an empty prompt and one whose first character is '#'"
LABELS = {
    "prompt tokens num",
    "decode tokens num",
    "vision time",
    "pixels_mp",
    "audio process time",
    "audio input time",
    "prefill time",
    "decode time",
    "sample time",
    "prefill speed",
    "decode speed",
    "vision speed",
    "audio RTF",
}
REQUIRED = ("prompt_tokens", "decode_tokens", "prefill_us", "decode_us")
MAX_TEXT_CHARS = 1 << 20
PER_SECOND = {"", "tok/s", "token/s", "tokens/s", "t/s", "tps"}


@dataclass
class _Summary:
    """The last summary block on stdout; ``line`` is 0 without one, ``blocks`` counts complete
    ones.
    """

    cells: dict[str, str] = field(default_factory=dict)
    line: int = 0
    blocks: int = 0
    init_error: bool = False


def read_demo(stdout: Path, metrics: Path | None, label: str) -> Row:
    """The row of one prompt, from the record that is last in the ``metrics`` file and the summary
    on ``stdout``.

    Without a record the row holds what the summary says. ``cells`` has the text of both, by summary
    label and by record key. Anything that makes the numbers doubtful is in ``problems``; nothing is
    raised. ``metrics`` is None if no metrics file was asked for.
    """
    summary = _Summary()
    problems: list[str] = []
    try:
        summary = _read_summary(stdout)
    except ParseError as error:
        problems.append(str(error))
    record: dict[str, object] = {}
    record_problems: list[str] = []
    if metrics:
        record, record_problems = _read_record(metrics)
    prompt = _count(record, "prompt_tokens", summary.cells, "prompt tokens num")
    decode = _count(record, "decode_tokens", summary.cells, "decode tokens num")
    problems += _summary_problems(summary)
    problems += _value_problems(record, summary.cells, prompt, decode)
    problems += record_problems
    problems += _disagreements(record, summary.cells)
    if prompt == 0:  # whatever else is odd comes of it
        problems = [SKIPPED]
    samples = _samples(record) | _speeds(record, summary.cells)
    cells = summary.cells | {key: str(value) for key, value in record.items()}
    said = tuple(map(printable, problems))
    return Row("demo", label, prompt, decode, samples, cells, stdout, summary.line, said)


def _read_summary(stdout: Path) -> _Summary:
    summary, inside = _Summary(), False
    for piece in read_pieces(stdout):
        text = piece.text.strip()
        if text == SUMMARY_BEGIN:
            summary.cells, summary.line, inside = {}, piece.line, True
        elif text == SUMMARY_END and inside:
            summary.blocks, inside = summary.blocks + 1, False
        elif inside:
            name, equals, value = text.partition(" = ")
            if equals and name.strip() in LABELS:
                summary.cells[name.strip()] = value.strip()
        summary.init_error |= INIT_ERROR in text
    return summary


def _read_record(path: Path) -> tuple[dict[str, object], list[str]]:
    """The last record of a metrics file and what is wrong with it; an older one never replaces a
    broken last one.
    """
    count, last = 0, None
    try:
        for piece in read_pieces(path):
            if piece.text.strip():
                count, last = count + piece.starts, piece
    except ParseError as error:
        return {}, [f"no metrics record: {error}"]
    if last is None:
        return {}, [f"no metrics record: {path} is empty"]
    problems: list[str] = []
    if count > 1:
        problems.append(
            f"{path} holds {count} records where one prompt was run; the last one is used"
        )
    record, reason = None, f"{path}:{last.line} is not a metrics record"
    try:
        if last.whole:
            record = loads(last.text)
    except ValueError as error:
        reason += f": {error}"
    if isinstance(record, dict):
        return record, problems
    problems.append(reason)
    return {}, problems


def _summary_problems(summary: _Summary) -> list[str]:
    if summary.blocks > 1:
        return [f"stdout holds {summary.blocks} summary blocks; the last one is used"]
    if summary.blocks:
        return []
    problems: list[str] = []
    if summary.init_error:  # only without a summary: a model may well write these words
        problems.append(f"{INIT_ERROR}: the model could not be loaded")
    if summary.line:
        problems.append("the summary block is cut off")
    else:
        problems.append("no summary block on stdout")
    return problems


def _number(value: object) -> float | None:
    return parse_number(value) if isinstance(value, NumberText) else None


def _printed(cells: Mapping[str, str], label: str) -> float | None:
    """The number of a summary line, whose unit follows it."""
    return parse_number(cells.get(label, "").partition(" ")[0])


def _is_per_second(cells: Mapping[str, str], label: str) -> bool:
    """Whether a speed has the unit of one, or none."""
    unit = cells.get(label, "").partition(" ")[2].strip().lower()
    return unit in PER_SECOND


def _count(
    record: Mapping[str, object], key: str, cells: Mapping[str, str], label: str
) -> int | None:
    text = record.get(key)
    if isinstance(text, NumberText):
        return parse_count(text)
    return parse_count(cells.get(label, ""))


def _samples(record: Mapping[str, object]) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for key, text in record.items():
        metric, value = BY_DEMO.get(key), _number(text)
        if metric and value is not None:
            samples[metric.name] = Sample(value * metric.demo_scale, None, 1)
    return samples


def _speeds(record: Mapping[str, object], cells: Mapping[str, str]) -> dict[str, Sample]:
    """Speeds from the record's tokens and times, which are exact, else as the summary prints
    them.
    """
    speeds = {}
    for kind, tokens_kind in (("prefill", "prompt"), ("decode", "decode")):
        tokens, us = _number(record.get(f"{tokens_kind}_tokens")), _number(record.get(f"{kind}_us"))
        speed = None
        if tokens and us and us > 0:
            speed = tokens * 1e6 / us
        elif not record and _is_per_second(cells, f"{kind} speed"):
            speed = _printed(cells, f"{kind} speed")
        if speed is not None:
            speeds[f"{kind}_tps"] = Sample(speed, None, 1)
    return speeds


def _value_problems(
    record: Mapping[str, object],
    cells: Mapping[str, str],
    prompt: int | None,
    decode: int | None,
) -> Iterator[str]:
    if decode == 0:
        yield "0 decode tokens: nothing was generated"
    elif (prompt is None or decode is None) and (record or cells):
        yield "prompt or decode tokens were not printed as a count"
    for label, count in (("prefill speed", prompt), ("decode speed", decode)):
        speed = _printed(cells, label)
        if count and speed is not None and not 0 < speed < float("inf"):
            yield f"{label} is {cells[label]}"
        elif speed is not None and not _is_per_second(cells, label):
            yield f"{label} is {cells[label]}, not in tokens per second"
    if record:
        yield from _record_problems(record, decode)


def _record_problems(record: Mapping[str, object], decode: int | None) -> Iterator[str]:
    others = [key for key in record if key in BY_DEMO and key not in REQUIRED]
    for key in chain(REQUIRED, others):
        value = _number(record.get(key))
        if value is None:
            shown = str(record[key])[:40] if key in record else "absent"
            yield f"the metrics record's {key} is {shown}, not a number"
        elif value <= 0 and key in ("prefill_us", "decode_us") and decode:
            yield f"the metrics record's {key} is {value:g}"


def _disagreements(record: Mapping[str, object], cells: Mapping[str, str]) -> Iterator[str]:
    """Summary against record; the summary has 2 decimals and is computed in single precision."""
    for kind, label in (("prompt", "prompt tokens num"), ("decode", "decode tokens num")):
        yield from _differs(cells, label, _number(record.get(f"{kind}_tokens")), 0, 0)
    for kind in ("prefill", "decode", "sample"):
        us = _number(record.get(f"{kind}_us"))
        if us is not None:
            yield from _differs(cells, f"{kind} time", us / 1e6, 0.006, 1e-4)
    for kind, speed in _speeds(record, {}).items():
        yield from _differs(cells, f"{kind.removesuffix('_tps')} speed", speed.mean, 0.006, 1e-3)


def _differs(
    cells: Mapping[str, str], label: str, recorded: float | None, absolute: float, relative: float
) -> Iterator[str]:
    printed = _printed(cells, label)
    if recorded is None or printed is None:
        return
    if abs(recorded - printed) <= absolute + relative * abs(recorded):
        return
    yield f"the summary's {label} is {cells[label]}, by the metrics record it is {recorded:g}"


def generated_text(source: Path | str) -> str:
    """The text that the model generated: stdout without program messages, log lines and summary.

    At most :data:`MAX_TEXT_CHARS` characters. Raises :class:`ParseError` if the file cannot be
    read.
    """
    parts, size = [], 0
    for segment in segments(read_pieces(source)):
        if not segment.mark:
            parts.append(segment.text)
            size += len(segment.text)
        if size > 2 * MAX_TEXT_CHARS:
            break
    whole = "".join(parts)
    before, announced, after = whole.partition("\nprompt file is ")
    body = after.partition("\n")[2] if announced else before
    generated, summary, rest = body.rpartition(f"\n{SUMMARY_BEGIN}\n")
    return (generated if summary else rest)[:MAX_TEXT_CHARS]
