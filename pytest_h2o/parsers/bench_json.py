"""The JSON output of ``llm_bench`` (``-j``): the rows of the table with unrounded numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_h2o.metrics import BY_BENCH, BY_DEMO, Sample
from pytest_h2o.parsers.json_text import NumberText, loads
from pytest_h2o.parsers.numbers import parse_count, parse_number
from pytest_h2o.parsers.rows import ParseError, Row
from pytest_h2o.parsers.text_files import decoded

MAX_BYTES = 16 << 20


def read_bench_json(path: Path, n: int | None = None) -> tuple[Row, ...]:
    """One row per result; ``cells`` are the settings at the head of the file and the result's keys,
    ``line`` is 1.

    ``n`` is the number of measured repeats. Raises :class:`ParseError` naming file and offset if
    the file cannot be read or is not the program's JSON, e.g. because a number was NaN, which its
    writer cannot print.
    """
    text = _read(path)
    try:
        document = loads(text)
    except ValueError as error:
        raise ParseError(
            f"{path}: not the JSON of llm_bench: {error}; read its table instead"
        ) from error
    head: dict[str, object] = dict(document) if isinstance(document, dict) else {}
    results = head.pop("results", None)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ParseError(f"{path}: no list of results at offset 0; was it written by llm_bench -j?")
    settings = {key: str(value) for key, value in head.items() if not isinstance(value, list)}
    return tuple(_row(result, settings, path, n) for result in results)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ParseError(
            f"{path}: cannot be read: {error.strerror}; see whether the launch wrote it"
        ) from error
    if len(data) > MAX_BYTES:
        raise ParseError(f"{path}: not the JSON of llm_bench: longer than {MAX_BYTES} bytes")
    if not data.strip():
        raise ParseError(
            f"{path}: empty at offset 0; it is written at a normal exit, see how the launch ended"
        )
    return decoded(data)


def _row(
    result: Mapping[str, object], settings: Mapping[str, str], path: Path, n: int | None
) -> Row:
    cells = {**settings, **{key: str(value) for key, value in result.items()}}
    prompt = parse_count(cells.get("prompt_len", ""))
    decode = parse_count(cells.get("generate_len", ""))
    samples: dict[str, Sample] = {}
    problems: list[str] = []
    for name, key, std_key in _measurements(result):
        mean, std = _number(result[key]), _number(result.get(std_key))
        if mean is None or (std is None and std_key in result):
            problems.append(
                f"{key} is {cells[key][:40]!r} ± {cells.get(std_key, '')[:40]!r}, not a number"
            )
        else:
            samples[name] = Sample(mean, std, n)
    label = _label(prompt, decode, with_cache="prefill_tps" in result)
    return Row("bench", label, prompt, decode, samples, cells, path, 1, tuple(problems))


def _label(prompt: int | None, decode: int | None, *, with_cache: bool) -> str:
    if with_cache:
        return f"p{prompt}_g{decode}"
    parts: list[str] = []
    if prompt is not None:
        parts.append(f"pp{prompt}")
    if decode is not None:
        parts.append(f"tg{decode}")
    return "+".join(parts) or "pp0+tg0"


def _measurements(result: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Metric name, key of the mean and key of the standard deviation for everything measured in a
    result.
    """
    for key in result:
        if key == "tps":
            kind = "prefill" if result.get("type") == "prefill" else "decode"
            yield f"{kind}_tps", key, "std"
        elif key in ("prefill_tps", "decode_tps"):
            yield key, key, key.replace("tps", "std")
        elif key == "loading_time":
            yield "load_s", key, "loading_time_std"
        elif metric := BY_BENCH.get(key) or BY_DEMO.get(key):
            # The three ratios carry their record key.
            yield metric.name, key, f"{key}_std"


def _number(value: object) -> float | None:
    return parse_number(value) if isinstance(value, NumberText) else None
