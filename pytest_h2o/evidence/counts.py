"""Are the counters of a table those of the log? Queue, failed and skipped blocks, decode times, and
what the protected tokens leave.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from pytest_h2o.evidence.look import Look, lacking, looks_at, overlooked, settle
from pytest_h2o.evidence.lossless import DECODED, TIMED, lossless_evidence
from pytest_h2o.evidence.lossless import RATIO as BYTES
from pytest_h2o.evidence.settings_in_force import ASYNC, QUEUE, asynchronous, queue_of_log
from pytest_h2o.parsers.loglines import LOSSLESS_ERRORS, LogFacts
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

FAILED = "failed blocks are those of the log"
SKIPPED = "skipped blocks are those of the log"
FEASIBLE = "no plan keeps less than what is protected"
# A floor is a share of a length that differs from plan to plan.
SLACK = 1.25
LINES = "[H2O-LOSSLESS] lines"
Check = Callable[[Look], Evidence | None]


def bytes_evidence_of(run: Run) -> list[Evidence]:
    """Whether bytes in and out are those that the ratio, or the log, is of."""
    return _about(lossless_evidence(run), (BYTES,))


def restored_evidence(run: Run) -> list[Evidence]:
    """Whether blocks were decoded, in the time that is told."""
    return _about(lossless_evidence(run), (DECODED, TIMED))


def queue_evidence(run: Run) -> list[Evidence]:
    """Whether the queue was as long as the log says."""
    return _evidence(run, queue_of_log, QUEUE)


def workers_evidence(run: Run) -> list[Evidence]:
    """Whether encode workers had work."""
    return _evidence(run, asynchronous, ASYNC, "the settings of the launch and encoded blocks")


def failed_evidence(run: Run) -> list[Evidence]:
    """Whether blocks that could not be encoded or restored are counted."""
    return _evidence(run, _failed, FAILED)


def skipped_evidence(run: Run) -> list[Evidence]:
    """Whether blocks that a full queue turned away are counted."""
    return _evidence(run, _skipped, SKIPPED)


def feasible_evidence(run: Run) -> list[Evidence]:
    """Whether the plans of a run keep to the floor that its ceiling is computed from."""
    return _evidence(run, _feasible, FEASIBLE, "[H2O] lines", lambda look: look.claims_eviction)


def _about(said: Sequence[Evidence], claims: Collection[str]) -> list[Evidence]:
    return [item for item in said if item.claim in claims]


def _evidence(
    run: Run,
    check: Check,
    claim: str,
    needs: str = LINES,
    claiming: Callable[[Look], bool] = lambda look: look.claims_blocks,
) -> list[Evidence]:
    """What one check says of the rows that claim something; nothing where none does."""
    if run.problems:
        return []
    looks = looks_at(run)
    found = list(overlooked(run, looks))
    said = [(look, list(_observed(check, look))) for look in looks if claiming(look)]
    if not said and not found:
        return []
    for _, own in said:
        found += own
    found += lacking(said, {claim: needs})
    return settle(found, {claim: needs})


def _observed(check: Check, look: Look) -> Iterator[Evidence]:
    if seen := check(look):
        yield seen


def _failed(look: Look) -> Evidence | None:
    facts = look.lines
    failures = facts.fallbacks
    for kind in LOSSLESS_ERRORS:
        if kind in facts.findings:
            failures += facts.findings[kind].count
    return _as_counted(look, "h2o_lossless_fallback", failures, FAILED)


def _skipped(look: Look) -> Evidence | None:
    return _as_counted(look, "h2o_lossless_backpressure_skip", look.lines.backpressure, SKIPPED)


def _as_counted(look: Look, column: str, seen: int, claim: str) -> Evidence | None:
    """Needs ``[H2O-LOSSLESS]`` lines; those of several rows may be of any of them."""
    counted = look.value(column)
    if counted is None or not look.lines.updates:
        return None
    elsewhere = any(row.samples[column].mean > 0 for row in look.rows if column in row.samples)
    text = f"{column} is {counted:g}, {seen} of {look.lines.updates} lines tell of one"
    return look.says(claim, not seen or counted > 0 or elsewhere, text)


def _feasible(look: Look) -> Evidence | None:
    """Needs ``[H2O]`` lines: the floor is what it is said to be, or plans would keep less."""
    floors = [look.value(name) for name in ("h2o_floor_keep", "h2o_quantized_keep")]
    shares = [floor for floor in floors if floor]
    if not shares or not look.plans_of_row:
        return None
    ceiling, best = 1 / max(shares), _best_ratio(look.lines)
    text = f"the floor allows a ratio of {ceiling:.4g}, the best plan kept 1/{best:.4g}"
    return look.says(FEASIBLE, best <= SLACK * ceiling, text)


def _best_ratio(facts: LogFacts) -> float:
    return max(layer.best_ratio for layer in facts.layers.values())
