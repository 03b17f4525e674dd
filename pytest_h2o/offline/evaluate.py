"""The offline evaluator: one pass over a dump, one reader and a pool of coding threads, sizes
summed per layer.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pytest_h2o.codec.planes import Words
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.batches import Batch, batches, grouped, sequences
from pytest_h2o.offline.coding import Outcome, code
from pytest_h2o.offline.dump import DumpEntry, Scan, Skip, load, scan
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result import Continuity, DumpEvaluation
from pytest_h2o.offline.tallies import TensorTally

_IN_FLIGHT_BYTES = 32 << 20  # read but not yet coded; one larger batch still passes

Progress: TypeAlias = Callable[[int, int], None]


def evaluate(
    dump_dir: Path, options: OfflineOptions, progress: Progress | None = None
) -> DumpEvaluation:
    """Select entries of ``dump_dir``, code them as ``options`` say, and sum the sizes.

    ``progress`` is called with the fp16 bytes coded so far and those selected. OfflineError when
    there is no dump or nothing in it is selected; whatever else is wrong with an entry skips that
    entry.
    """
    found = _scan(dump_dir, options)
    groups = grouped(found.entries, options)
    sums = _Sums(found)
    total = sum(entry.raw_bytes for entry in found.entries)
    done = 0
    for batch, outcomes in _coded(batches(groups, options, sums.read), options):
        sums.fold(batch, outcomes)
        done += batch.nbytes
        if progress:
            progress(done, total)
    return DumpEvaluation(
        dump_dir=dump_dir.absolute(),
        options=options,
        scanned=found.scanned,
        entries=found.entries,
        skipped=found.skipped,
        changed_values=sums.changed,
        groups=len(groups) if options.grouped else 0,
        chunks=sums.chunks if options.chunked else 0,
        tensors=sums.tensors,
        continuity=_continuity(found.entries),
    )


def _scan(dump_dir: Path, options: OfflineOptions) -> Scan:
    if not dump_dir.is_dir():
        raise OfflineError(
            f"dump directory {dump_dir} is not a directory; a KV-dump build writes one"
        )
    found = scan(dump_dir, options)
    if not found.scanned:
        raise OfflineError(
            f"no meta_*.json under {dump_dir}, nor .npz or .safetensors; is it the directory that "
            f"holds the run directories?"
        )
    if not found.entries:
        raise OfflineError(
            f"none of {found.scanned} entries under {dump_dir} is selected {_why(found)}"
        )
    return found


def _why(found: Scan) -> str:
    """Each reason with the first entry that it is about, and what to do."""
    first: dict[str, str] = {}
    for name, skip in found.skipped.items():
        first.setdefault(skip.reason, f"{skip.reason}, {name}: {skip.detail}")
    if not first:
        return "(none was damaged); check stage, scope and the length filters"
    step = "mend what is named"
    if len(found.skipped) < found.scanned:
        step += ", and check stage, scope and the length filters"
    reasons = [first[reason] for reason in sorted(first)]
    return f"({'; '.join(reasons)}); {step}"


def _continuity(entries: Sequence[DumpEntry]) -> Continuity:
    found = Continuity()
    for group in sequences(entries, by_stage=False).values():
        end = group[0].seq_start
        for entry in group:
            found.sequence_gaps += entry.seq_start > end
            found.sequence_gap_tokens += max(0, entry.seq_start - end)
            found.sequence_overlaps += entry.seq_start < end
            found.sequence_overlap_tokens += max(0, min(end - entry.seq_start, entry.seq_len))
            end = max(end, entry.seq_start + entry.seq_len)
        stages = {entry.stage for entry in group}
        found.mixed_stage_groups += len(stages) > 1
    return found


@dataclass(slots=True)
class _Sums:
    """What the pass over the dump adds up; only the reading thread touches it."""

    found: Scan
    changed: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    tensors: dict[tuple[int, str], TensorTally] = field(default_factory=dict)

    def read(self, entry: DumpEntry) -> Words | None:
        """K and V of ``entry``, [2, seq, kv_heads, head_dim]; None when it cannot be read, which is
        noted.
        """
        try:
            loaded = load(entry)
        except Skip as skip:
            self.found.skipped[entry.name] = skip
            return None
        if loaded.changed:
            self.changed[entry.name] = loaded.changed
        return loaded.words

    def fold(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Add a coded batch, or note its entries as skipped when K or V failed: neither counts
        then.
        """
        tallies: list[TensorTally] = []
        for outcome in outcomes:
            if isinstance(outcome, TensorTally):
                tallies.append(outcome)
            else:
                self._skip(batch, outcome)
        if len(tallies) == len(outcomes):
            self.chunks += len(tallies) * len(batch.units)
            for tensor, tally in zip("kv", tallies, strict=True):
                self.tensors.setdefault((batch.layer_id, tensor), TensorTally()).add(tally)

    def _skip(self, batch: Batch, failure: Skip) -> None:
        for entry in batch.entries:
            skip = Skip(failure.reason, failure.detail, entry.raw_bytes)
            self.found.skipped[entry.name] = skip


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch that the pool is coding."""

    batch: Batch
    k: Future[Outcome]
    v: Future[Outcome]

    @property
    def done(self) -> bool:
        return self.k.done() and self.v.done()


def _coded(todo: Iterable[Batch], options: OfflineOptions) -> Iterator[tuple[Batch, list[Outcome]]]:
    """Each batch with the outcomes of K and V, in order; reading runs ahead of coding by a bounded
    number of bytes.
    """
    pending: deque[_Pending] = deque()
    in_flight = 0
    pool = _pool(options)
    _keep_freed_memory()
    # The pool has the CPUs; BLAS pools inside it would spin for them.
    blas = threadpool_limits(1, user_api="blas")
    try:
        for batch in todo:
            k = pool.submit(code, batch, "k", options)
            v = pool.submit(code, batch, "v", options)
            pending.append(_Pending(batch, k, v))
            in_flight += batch.nbytes
            while pending and (in_flight > _IN_FLIGHT_BYTES or pending[0].done):
                in_flight -= pending[0].batch.nbytes
                yield from _outcomes(pending.popleft(), options)
        while pending:
            yield from _outcomes(pending.popleft(), options)
    finally:
        pool.shutdown(cancel_futures=True)
        blas.restore_original_limits()


def _outcomes(pending: _Pending, options: OfflineOptions) -> Iterator[tuple[Batch, list[Outcome]]]:
    """What became of K and V; the units of a batch that failed are coded one by one, for most of
    them may be sound.
    """
    batch = pending.batch
    outcomes = [pending.k.result(), pending.v.result()]
    failed = any(isinstance(outcome, Skip) for outcome in outcomes)
    if not failed or len(batch.units) == 1:
        yield batch, outcomes
        return
    for alone in batch.split():
        yield alone, [code(alone, "k", options), code(alone, "v", options)]


def _pool(options: OfflineOptions) -> ThreadPoolExecutor:
    """Coding threads, each bound to a CPU when there is one for every CPU: threads that wake each
    other often, as these do, may otherwise be kept on the same one.
    """
    cpus: list[int] = []
    if options.threads == 0:
        cpus = sorted(os.sched_getaffinity(0), reverse=True)

    def bind() -> None:
        with contextlib.suppress(OSError, IndexError):
            os.sched_setaffinity(0, {cpus.pop()})

    return ThreadPoolExecutor(
        options.worker_count(), thread_name_prefix="h2o-offline", initializer=bind
    )


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep what each batch frees for the next one: returning it and taking the page
    faults again would cost a fifth of the time. It does so for blocks below the largest one ever
    freed, at most 32 MiB.
    """
    np.empty(31 << 20, np.uint8)
