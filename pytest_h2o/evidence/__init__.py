"""Claims checked against what else a runtime printed. Pure but for reading the launches' own files.

Every check says which output it needs; where a runtime does not print it, the claim is *not
evidenced*.
"""

from pytest_h2o.evidence.answers import agreement, answers_beside, text_evidence
from pytest_h2o.evidence.bench_beside_demo import programs_evidence
from pytest_h2o.evidence.counts import (
    bytes_evidence_of,
    failed_evidence,
    feasible_evidence,
    queue_evidence,
    restored_evidence,
    skipped_evidence,
    workers_evidence,
)
from pytest_h2o.evidence.eviction import eviction_evidence, idle
from pytest_h2o.evidence.known import evicted_labels, table_evidence
from pytest_h2o.evidence.lossless import lossless_evidence
from pytest_h2o.evidence.settings_in_force import settings_evidence, spans_evidence
from pytest_h2o.evidence.speed import decode_evidence, launches_evidence
from pytest_h2o.evidence.stability import speed_spread, stability_evidence

__all__ = [
    "agreement",
    "answers_beside",
    "bytes_evidence_of",
    "decode_evidence",
    "evicted_labels",
    "eviction_evidence",
    "failed_evidence",
    "feasible_evidence",
    "idle",
    "launches_evidence",
    "lossless_evidence",
    "programs_evidence",
    "queue_evidence",
    "restored_evidence",
    "settings_evidence",
    "skipped_evidence",
    "spans_evidence",
    "speed_spread",
    "stability_evidence",
    "table_evidence",
    "text_evidence",
    "workers_evidence",
]
