"""Did the program run with the settings it was given? Generated config, echoes, block spans,
workers and cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_h2o.evidence.deviations import deviations
from pytest_h2o.evidence.host import computed, ended_alone
from pytest_h2o.evidence.log_consistency import ended_well
from pytest_h2o.evidence.look import Look, lacking, looks_at, overlooked, said_by, said_of, settle
from pytest_h2o.evidence.rows_asked import rows_as_asked, values_asked
from pytest_h2o.parsers.argv_options import base_name
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes.base import NO_FILE
from pytest_h2o.runtimes.launch_config import kept_config
from pytest_h2o.verdict import Evidence

CONFIG = "the launch had the generated config"
ECHO = "the program used the settings it was given"
ASYNC = "encoding was asynchronous"
CACHE = "the decode cache works"
QUEUE = "the queue peak is that of the log"
SPANS = "blocks are as long as asked for"
NEEDS_LINES = "[H2O-LOSSLESS] lines and the settings of the launch"
NEEDS = {
    CONFIG: "the config.json of the launch",
    ECHO: "a table with threads and backend, or log lines",
}
MODES = {"probe": 0, "full": 1, "store": 2}
ECHOED = {
    "target": "target_keep_ratio",
    "recent": "recent_tokens",
    "sink": "sink_tokens",
    "block": "block_tokens",
}
HEAD_BYTES = 64 * 1024
# What a program may keep busy beside its threads and encode workers, reading files for instance.
SPARE_CORES = 1


def settings_evidence(run: Run) -> list[Evidence]:
    """Whether each launch ran as it was asked to."""
    if run.problems:
        return []
    looks = looks_at(run)
    said = said_of(looks, _observations)
    found = list(overlooked(run, looks))
    for _, own in said:
        found += own
    found += lacking(said, NEEDS)
    found += rows_as_asked(looks)
    return settle(found, NEEDS)


def spans_evidence(run: Run) -> list[Evidence]:
    """Whether each launch cut blocks of the length that its settings say."""
    if run.problems:
        return []
    looks = looks_at(run)
    found = list(overlooked(run, looks))
    said: list[tuple[Look, list[Evidence]]] = []
    for look in looks:
        own = list(said_by((_spans,), look)) if look.spec.config else []
        said.append((look, own))
        found += own
    needs = {SPANS: NEEDS_LINES}
    found += lacking(said, needs)
    return settle(found, needs)


def _observations(look: Look) -> Iterator[Evidence]:
    yield from said_by((config_used, cells_echo, cores_used, _started_with), look)
    yield from said_by((ended_well, ended_alone, computed), look)
    yield from deviations(look)
    # Of a launch that somebody else recorded the settings may be unknown.
    if look.spec.config:
        yield from said_by((_log_echo, _layers, queue_of_log, asynchronous, _cache), look)


def config_used(look: Look) -> Evidence | None:
    """Needs ``config.json``: it must still hold every value of the launch."""
    written = read_config(look.record)
    name = look.record.config_path.name
    asked: Mapping[str, object] = look.spec.config
    if look.record.inputs:
        asked = look.program.config(look.spec)
    elif written is None:
        return None  # what somebody else recorded has no settings but those in its config
    if written is None:
        gone = f"{name} is gone, is no JSON object or is larger than 16 MiB"
        return look.says(CONFIG, False, gone)
    wrong: list[str] = []
    for key, value in asked.items():
        if written.get(key) != value:
            wrong.append(f"{key} is {written.get(key)!r}, asked for {value!r}")
    return look.says(CONFIG, not wrong, "; ".join(wrong[:3]) or f"{name} has every key")


def read_config(record: LaunchRecord) -> dict[str, object] | None:
    """The config of a launch, None if it cannot be read."""
    return kept_config(record.config_path)


def cells_echo(look: Look) -> Evidence | None:
    """Needs the ``threads`` and ``backend`` columns."""
    asked = {
        "threads": values_asked(look, "-t") or [str(look.spec.threads)],
        "backend": values_asked(look, "-a") or [look.spec.backend.upper()],
    }
    if asked.keys().isdisjoint(look.row.cells) or not look.record.argv:
        return None
    wrong: list[str] = []
    for column, expected in asked.items():
        text = look.row.cells.get(column, expected[0])
        if text.upper() not in expected:
            wrong.append(f"{column} is {text}, asked for {', '.join(expected)}")
    return look.says(ECHO, not wrong, "; ".join(wrong) or "threads and backend as asked for")


def cores_used(look: Look) -> Evidence | None:
    """Needs wall and CPU time of a launch on the CPU that was asked for a number of threads."""
    wall, cpu = look.record.seconds, look.record.cpu_seconds
    if not wall or cpu is None or look.spec.backend != "cpu" or not look.record.argv:
        return None
    workers = look.setting("kv_lossless_async_threads")
    threads = look.spec.threads
    for word in values_asked(look, "-t"):
        if word.isdigit():
            threads = max(threads, int(word))
    allowed, used = threads + workers + SPARE_CORES, cpu / wall
    text = (
        f"{used:.1f} cores were busy on average, asked for {threads} threads and "
        f"{workers} encode workers"
    )
    return look.says(ECHO, used <= allowed, text)


def _log_echo(look: Look) -> Evidence | None:
    """Needs ``[H2O]`` lines, which repeat the keys, or ``mode=`` of ``[H2O-LOSSLESS]`` lines."""
    config, wrong = look.spec.config, list[str]()
    for word, key in ECHOED.items():
        asked, seen = config.get(f"kv_h2o_{key}"), look.lines.echo.get(word, set())
        if not isinstance(asked, int | float):
            continue
        for text in seen:
            if not _same_number(text, asked):
                wrong.append(f"{word}={text}, asked for {asked:g}")
    asked_mode = str(config.get("kv_lossless_runtime_mode"))
    for mode in look.lines.modes - {MODES.get(asked_mode, -1)}:
        wrong.append(f"mode={mode}, asked for {asked_mode}")
    if not look.lines.echo and not look.lines.modes:
        return None
    return look.says(ECHO, not wrong, "; ".join(wrong[:3]) or "log lines repeat the settings")


def _layers(look: Look) -> Evidence | None:
    """Needs ``layer=`` of plan lines: only layers of the H2O range lose tokens, if the model is as
    deep as that.
    """
    start, end = look.h2o_layers
    planned = [layer for layer, facts in look.lines.layers.items() if facts.plans]
    if not planned or max(look.lines.layers) < start:
        return None
    outside = [str(layer) for layer in sorted(planned) if layer < start or 0 <= end < layer]
    if not outside:
        return look.says(ECHO, True, "plans for layers of the H2O range")
    last = str(end) if end >= 0 else "the last"
    text = f"plans for layers {', '.join(outside[:5])}, asked for {start} to {last}"
    return look.says(ECHO, False, text)


def queue_of_log(look: Look) -> Evidence | None:
    """Needs ``queue=`` of lines: the column is the peak of the responses that are measured, the
    lines of all.
    """
    peak, seen = look.value("h2o_lossless_queue_peak"), look.facts.max_queue
    if peak is None or not seen or not look.responses:
        return None
    holds = seen <= 4 * (peak * look.responses + 1)
    return look.says(QUEUE, holds, f"h2o_lossless_queue_peak is {peak:g}, lines reach queue={seen}")


def _same_number(text: str, asked: float) -> bool:
    try:
        return abs(float(text) - asked) < 0.001
    except ValueError:
        return False


def _started_with(look: Look) -> Evidence | None:
    """Needs the ``config path is`` and ``prompt file is`` lines, as ``llm_demo`` prints them."""
    if look.record.reused_from or look.spec.prompt_file is None:
        return None
    if look.record.metrics == NO_FILE and not look.record.argv:
        return None  # what was asked for is known from these lines alone
    with look.record.stdout.open("rb") as file:
        head = decoded(file.read(HEAD_BYTES))
    asked = {
        "config path is ": {look.record.config_path.name},
        "prompt file is ": {look.spec.prompt_file.name},
    }
    # Of a recording, the config may be kept under another name, or not at all.
    if not look.record.inputs:
        given = {base_name(word) for word in look.record.argv if word.endswith(".json")}
        asked["config path is "] |= given
    said: list[str] = []
    wrong: list[str] = []
    for mark, names in asked.items():
        lines = [line for line in head.splitlines() if line.startswith(mark)]
        said += lines[-1:]
        if lines and base_name(lines[-1].removeprefix(mark)) not in names:
            wrong.append(f"{lines[-1]}, asked for {' or '.join(sorted(names))}")
    if not said:
        return None
    return look.says(ECHO, not wrong, "; ".join(wrong) or "config and prompt file as asked for")


def _spans(look: Look) -> Evidence | None:
    """Needs ``[H2O-LOSSLESS]`` lines: first and later blocks are as long as the config says."""
    if not look.lines.updates:
        return None
    config = look.spec.config
    # The cold region begins behind the hot sink, in store mode with an overlap of an eighth: a
    # block may lack these.
    sink = look.setting("kv_lossless_hot_sink_tokens")
    overlap = 0.125 if config.get("kv_lossless_runtime_mode") == "store" else 0.0
    first, later = _expected_spans(look)
    seen = (
        ("first", look.lines.bootstrap_spans, first),
        ("later", look.lines.periodic_spans, later),
    )
    wrong: list[str] = []
    for kind, spans, expected in seen:
        if spans and not (1 - overlap) * expected - sink <= max(spans) <= expected:
            shortest = ", ".join(map(str, sorted(spans)[:5]))
            wrong.append(f"{kind} blocks of {shortest} tokens, asked for {expected}")
    good = f"first and later blocks of {(first, later)} tokens"
    return look.says(SPANS, not wrong, "; ".join(wrong) or good)


def _expected_spans(look: Look) -> tuple[int, int]:
    """Tokens of the first block of a layer, and of its later ones."""
    mode = look.spec.config.get("kv_lossless_runtime_mode")
    block = look.setting("kv_lossless_block_tokens")
    if mode == "probe":
        return min(block, 32), block
    if mode != "store":
        return block, block
    bootstrap = look.setting("kv_lossless_store_bootstrap_tokens")
    if bootstrap <= 0:
        bootstrap = max(16, block // 2)
    step = look.setting("kv_lossless_store_grouped_step_tokens")
    if step <= 0:
        step = 3 * block
    return bootstrap, step


def asynchronous(look: Look) -> Evidence | None:
    """Needs ``h2o_lossless_async_queue_peak`` where encode workers are configured and blocks were
    encoded.
    """
    config, peak = look.spec.config, look.value("h2o_lossless_async_queue_peak")
    workers = config.get("kv_lossless_async_threads", 0)
    probe = config.get("kv_lossless_runtime_mode") == "probe"
    if peak is None or not look.claims_blocks or not workers or probe:
        return None
    return look.says(
        ASYNC, peak > 0, f"{workers} encode workers, most tasks queued or running: {peak:g}"
    )


def _cache(look: Look) -> Evidence | None:
    """Needs hits and misses, and the number of blocks (``h2o_lossless_blocks`` or log lines)."""
    hits = look.value("h2o_lossless_decode_cache_hit")
    misses = look.value("h2o_lossless_decode_cache_miss")
    if hits is None or misses is None or not hits + misses:
        return None
    size = look.setting("kv_lossless_decode_cache_blocks")
    blocks = look.value("h2o_lossless_blocks")
    if not blocks:
        blocks = look.facts.updates / look.responses if look.responses else 0.0
    asked = f"{hits:g} hits and {misses:g} misses"
    if not look.claims_blocks or (look.logs and not look.lines.updates):
        return look.says(CACHE, False, f"{asked}, and no block was encoded")
    if hits and size <= 0:
        return look.says(CACHE, False, f"{asked} of a cache that is configured to hold nothing")
    if not hits and blocks and misses >= 2 * blocks + 2 and size >= blocks:
        return look.says(
            CACHE, False, f"{misses:g} lookups of {blocks:g} blocks and no hit; it may hold {size}"
        )
    return look.says(CACHE, True, asked)
