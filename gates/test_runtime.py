"""What every ``llm_bench`` case must meet: the ``runtime`` cases, and each launch of the ``m3``
cases.
"""

from __future__ import annotations

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.evidence import (
    bytes_evidence_of,
    decode_evidence,
    eviction_evidence,
    failed_evidence,
    feasible_evidence,
    idle,
    launches_evidence,
    lossless_evidence,
    queue_evidence,
    restored_evidence,
    settings_evidence,
    skipped_evidence,
    spans_evidence,
    workers_evidence,
)
from pytest_h2o.lab.decode import Comparison
from pytest_h2o.runs.results import Run
from pytest_h2o.session.gate import Gate

COLUMNS = [
    "decode_tps",
    "h2o_lossy",
    "h2o_lossless",
    "h2o_lossless_decomp_us",
    "h2o_lossless_queue_peak",
    "h2o_lossless_fallback",
    "h2o_lossless_backpressure_skip",
    "h2o_lossless_async_queue_peak",
    "h2o_lossless_async_wait_us",
    "h2o_lossless_decode_cache_hit",
    "h2o_lossless_decode_cache_miss",
]


def test_lossy(run: Run, gate: Gate) -> None:
    """Eviction must shrink the KV cache of the H2O layers, and the log must not say that it did
    not.

    The best row counts, which shows that the target can be reached; one good configuration hides
    all others, so REQUIRE_ALL_ROWS takes the worst one.
    """
    lossy = run.best("h2o_lossy", every_row=gate.every_row)
    gate.at_least(lossy, "LOSSY_TARGET", evidence=eviction_evidence(run))


def test_keep_feasible(run: Run, gate: Gate) -> None:
    """The protected tokens and the block size must leave room for the lossy target.

    ``1 / larger of floor and quantised keep`` is the most that an eviction can reach: a lossy gate
    that fails is the settings' fault where this one fails too.
    """
    ceiling = run.ceiling(every_row=gate.every_row)
    evidence = feasible_evidence(run)
    gate.at_least(ceiling, "LOSSY_TARGET", evidence=evidence, root=idle(run))


def test_lossless_active(run: Run, gate: Gate) -> None:
    """Blocks must have been encoded to fewer bytes than they had; a ratio of exactly 1 means
    nothing was.
    """
    lossless = run.best("h2o_lossless", every_row=gate.every_row)
    gate.positive(lossless, above=1.0, evidence=lossless_evidence(run), root=idle(run))


def test_lossless_accounted(run: Run, gate: Gate) -> None:
    """A row that compressed must show what: bytes in, bytes out and the time that encoding took,
    all above 0.

    One such row is enough, since short prompts may have nothing to encode, unless REQUIRE_ALL_ROWS
    asks for all.
    """
    least = len(run.rows) - 1 if gate.every_row else 0
    counted = run.rows_with("h2o_lossless_raw_mb", "h2o_lossless_comp_mb", "h2o_lossless_comp_us")
    gate.positive(counted, above=least, evidence=bytes_evidence_of(run), root=idle(run))


def test_block_spans(run: Run, gate: Gate) -> None:
    """Blocks must be as long as the settings say: the first one of a layer, and the later ones.

    Their length decides what a codec can save and what a decode costs, so a ratio measured with
    other blocks is not that of the settings under test. Where a setting of 0 leaves the length to
    the engine, the engine's own rule is expected.
    """
    gate.holds(
        "block_spans",
        run.problems,
        source=run.source,
        cause=run.cause_of(),
        evidence=spans_evidence(run),
    )


def test_decode_drop(decode_study: PairedStudy | Comparison, gate: Gate) -> None:
    """Compression must not cost decode speed against what DECODE_BASELINE_MODE names.

    ``paired`` measures launches with H2O off beside the candidate's, and ``same_batch`` launches
    them once: both judge each length, since a short prompt hides what a long one loses.
    DECODE_FASTEST_ROW=1, ``rolling`` and ``fixed`` compare the fastest row. Without a baseline the
    gate fails: a constant of another machine is none, and a session that failed does not lower the
    rolling one.
    """
    gate.passes_study(
        decode_study, "DECODE_DROP_TARGET", evidence=decode_evidence(decode_study.records)
    )


def test_decompression_active(run: Run, gate: Gate) -> None:
    """Encoded blocks must really have been decoded: a codec that is never read back proves nothing.

    Decoded blocks that the cache gave back count too, though they cost no time.
    """
    decoded = run.best_of(
        "h2o_lossless_decomp_us", "h2o_lossless_decode_cache_hit", every_row=gate.every_row
    )
    gate.positive(decoded, evidence=restored_evidence(run), root=idle(run))


def test_settings(run: Run, gate: Gate) -> None:
    """Every launch must have run as it was asked to: config, threads, blocks, workers, decode
    cache, repeats.
    """
    evidence = settings_evidence(run) + launches_evidence([run])
    gate.holds("settings", run.problems, source=run.source, cause=run.cause_of(), evidence=evidence)


def test_decompression_budget(run: Run, gate: Gate) -> None:
    """Decoding must stay within its time budget in the worst row."""
    slowest = run.highest("h2o_lossless_decomp_us")
    gate.at_most(slowest, "MAX_LOSSLESS_DECOMP_US", evidence=restored_evidence(run))


def test_queue_peak(run: Run, gate: Gate) -> None:
    """Encoding must keep up: the worst row's queue stays short.

    Some programs count decoded blocks that they retain as well, up to
    KV_LOSSLESS_DECODE_CACHE_BLOCKS.
    """
    longest = run.highest("h2o_lossless_queue_peak")
    gate.at_most(longest, "MAX_LOSSLESS_QUEUE_PEAK", evidence=queue_evidence(run))


def test_fallback(run: Run, gate: Gate) -> None:
    """No block may have failed to encode, decode or restore.

    A program that encoded nothing hides the count; ``test_lossless_active`` fails such a run.
    """
    failed = run.highest("h2o_lossless_fallback")
    gate.at_most(failed, "MAX_LOSSLESS_FALLBACK", evidence=failed_evidence(run))


def test_backpressure(run: Run, gate: Gate) -> None:
    """Blocks skipped because the queue was full stay within the limit."""
    skipped = run.highest("h2o_lossless_backpressure_skip")
    gate.at_most(skipped, "MAX_LOSSLESS_BACKPRESSURE_SKIP", evidence=skipped_evidence(run))


def test_async_wait(run: Run, gate: Gate) -> None:
    """Decode may wait for encode workers only so long in the worst row."""
    gate.at_most(run.highest("h2o_lossless_async_wait_us"), "MAX_LOSSLESS_ASYNC_WAIT_US")


def test_async_activity(run: Run, gate: Gate) -> None:
    """Encode workers must have had work; synchronous encoding would leave this at zero."""
    gate.needs("REQUIRE_ASYNC_QUEUE_ACTIVITY")
    most = run.best("h2o_lossless_async_queue_peak", every_row=gate.every_row)
    gate.positive(most, evidence=workers_evidence(run))


def test_decode_cache_activity(run: Run, gate: Gate) -> None:
    """The decode cache must have been asked at least once: a hit or a miss."""
    gate.needs("REQUIRE_DECODE_CACHE_ACTIVITY")
    asked = run.best_sum(
        "h2o_lossless_decode_cache_hit", "h2o_lossless_decode_cache_miss", every_row=gate.every_row
    )
    gate.positive(asked)


def test_decode_cache_hit(run: Run, gate: Gate) -> None:
    """The decode cache must have saved at least one decode."""
    gate.needs("REQUIRE_DECODE_CACHE_HIT")
    gate.positive(run.best("h2o_lossless_decode_cache_hit", every_row=gate.every_row))


def test_metric_columns(run: Run, gate: Gate) -> None:
    """Every column that a gate reads must be there: a missing one is not 0, which would meet any
    limit.
    """
    gate.needs("STRICT_RUNTIME_METRIC_COLUMNS")
    missing, cause = run.missing_columns(COLUMNS), run.cause_of(*COLUMNS)
    gate.holds("columns", missing, source=run.source, cause=cause)
