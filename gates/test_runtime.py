"""What every ``llm_bench`` case must meet: the ``runtime`` cases, and each launch of the ``m3`` cases."""

from __future__ import annotations

from pytest_h2o.decode import Comparison
from pytest_h2o.evidence import (
    decode_evidence,
    eviction_evidence,
    launches_evidence,
    lossless_evidence,
    settings_evidence,
)
from pytest_h2o.gate import Gate
from pytest_h2o.pairs import PairedStudy
from pytest_h2o.results import Run

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
    """Eviction must shrink the KV cache of the H2O layers (best row), and the log must not say that it did not."""
    gate.at_least(run.highest("h2o_lossy"), "LOSSY_TARGET", evidence=eviction_evidence(run))


def test_lossless_active(run: Run, gate: Gate) -> None:
    """Blocks must have been encoded to fewer bytes than they had; a ratio of exactly 1 means nothing was."""
    gate.positive(run.highest("h2o_lossless"), above=1.0, evidence=lossless_evidence(run))


def test_decode_drop(decode_study: PairedStudy | Comparison, gate: Gate) -> None:
    """Compression must not cost decode speed against what DECODE_BASELINE_MODE names.

    ``paired`` measures launches with H2O off beside the candidate's; ``same_batch``, ``rolling`` and ``fixed`` compare
    the fastest row, as the original did, which took the constant of one machine where no baseline was given, passed
    without a baseline, and let failed runs lower the rolling one.
    """
    gate.passes_study(decode_study, "DECODE_DROP_TARGET", evidence=decode_evidence(decode_study.records))


def test_decompression_active(run: Run, gate: Gate) -> None:
    """Encoded blocks must really have been decoded: a codec that is never read back proves nothing."""
    gate.positive(run.highest("h2o_lossless_decomp_us"))


def test_settings(run: Run, gate: Gate) -> None:
    """Every launch must have run as it was asked to: config, threads, blocks, workers, decode cache, repeats."""
    evidence = [*settings_evidence(run), *launches_evidence([run])]
    gate.holds("settings", run.problems, source=run.source, evidence=evidence)


def test_decompression_budget(run: Run, gate: Gate) -> None:
    """Decoding must stay within its time budget in the worst row."""
    gate.at_most(run.highest("h2o_lossless_decomp_us"), "MAX_LOSSLESS_DECOMP_US")


def test_queue_peak(run: Run, gate: Gate) -> None:
    """Encoding must keep up: the worst row's queue stays short."""
    gate.at_most(run.highest("h2o_lossless_queue_peak"), "MAX_LOSSLESS_QUEUE_PEAK")


def test_fallback(run: Run, gate: Gate) -> None:
    """No block may have failed to encode, decode or restore."""
    gate.at_most(run.highest("h2o_lossless_fallback"), "MAX_LOSSLESS_FALLBACK")


def test_backpressure(run: Run, gate: Gate) -> None:
    """Blocks skipped because the queue was full stay within the limit."""
    gate.at_most(run.highest("h2o_lossless_backpressure_skip"), "MAX_LOSSLESS_BACKPRESSURE_SKIP")


def test_async_wait(run: Run, gate: Gate) -> None:
    """Decode may wait for encode workers only so long in the worst row."""
    gate.at_most(run.highest("h2o_lossless_async_wait_us"), "MAX_LOSSLESS_ASYNC_WAIT_US")


def test_async_activity(run: Run, gate: Gate) -> None:
    """Encode workers must have had work; synchronous encoding would leave this at zero."""
    gate.needs("REQUIRE_ASYNC_QUEUE_ACTIVITY")
    gate.positive(run.highest("h2o_lossless_async_queue_peak"))


def test_decode_cache_activity(run: Run, gate: Gate) -> None:
    """The decode cache must have been asked at least once: a hit or a miss."""
    gate.needs("REQUIRE_DECODE_CACHE_ACTIVITY")
    gate.positive(run.highest_sum("h2o_lossless_decode_cache_hit", "h2o_lossless_decode_cache_miss"))


def test_decode_cache_hit(run: Run, gate: Gate) -> None:
    """The decode cache must have saved at least one decode."""
    gate.needs("REQUIRE_DECODE_CACHE_HIT")
    gate.positive(run.highest("h2o_lossless_decode_cache_hit"))


def test_metric_columns(run: Run, gate: Gate) -> None:
    """Every column that a gate reads must be there: the original read a missing one as 0, which meets any limit."""
    gate.needs("STRICT_RUNTIME_METRIC_COLUMNS")
    reasons = dict.fromkeys(reason for column in COLUMNS if (reason := run.missing(column)))
    gate.holds("columns", list(reasons), source=run.source)
