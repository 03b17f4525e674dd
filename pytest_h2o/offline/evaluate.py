"""The offline evaluator: one pass over a dump, one reader and a pool of coding threads, sizes summed per layer."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.planes import Plane, Words, histogram, split
from pytest_h2o.codec.predictors import BY_MODE
from pytest_h2o.codec.tensors import EncodedPlane, EncodedTensor, PlaneCoding, contenders, decode_tensor, encode_tensor
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.dump import Entry, Loaded, Scan, Skip, load, scan
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result import Continuity, OfflineResult, PlaneTally, TensorTally

_BATCH_BYTES = 1 << 20  # small units share a task, and in fast mode the choice of predictors
_IN_FLIGHT_BYTES = 128 << 20  # read but not yet coded; one larger unit still passes
_HISTOGRAM_STEP = 8  # one row in so many goes into the histograms: counting all takes a tenth of the time
_STREAM_HEADER_BYTES = 8  # the adaptive mode charges this per stream, and a byte per block

Progress: TypeAlias = Callable[[int, int], None]


def evaluate(dump_dir: Path, options: OfflineOptions, progress: Progress | None = None) -> OfflineResult:
    """Select entries of ``dump_dir``, code them as ``options`` say, and sum the sizes.

    ``progress`` is called with the fp16 bytes coded so far and those selected. OfflineError when there is no dump or
    nothing in it is selected; whatever else is wrong with an entry skips that entry.
    """
    found = _scan(dump_dir, options)
    groups = _groups(found.entries, options)
    sums = _Sums(found)
    units = _units(groups, options, sums)
    total, done = sum(entry.raw_bytes for entry in found.entries), 0
    for unit, outcomes in _coded(units, options):
        sums.fold(unit, outcomes)
        done += unit.words.nbytes
        if progress:
            progress(done, total)
    return OfflineResult(
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
        raise OfflineError(f"dump directory {dump_dir} is not a directory; a KV-dump build writes one")
    found = scan(dump_dir, options)
    if not found.scanned:
        raise OfflineError(f"no meta_*.json under {dump_dir}; is it the directory that holds the run directories?")
    if not found.entries:
        reasons = ", ".join(sorted({skip.reason for skip in found.skipped.values()})) or "none was damaged"
        raise OfflineError(
            f"none of {found.scanned} entries under {dump_dir} is selected ({reasons}); "
            "check stage, scope and the length filters"
        )
    return found


def _groups(entries: Sequence[Entry], options: OfflineOptions) -> list[list[Entry]]:
    """Entries that are coded as one sequence; single ones unless the mode joins them."""
    if not options.grouped:
        return [[entry] for entry in entries]
    return list(_sequences(entries, by_stage=options.aggregate_by_stage).values())


def _sequences(entries: Sequence[Entry], by_stage: bool) -> dict[tuple[object, ...], list[Entry]]:
    """Entries by run, layer, width and (on demand) stage, each list in sequence order, then scan order."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.seq_start):
        key = entry.run_id, entry.layer_id, entry.shape[1:], by_stage and entry.stage
        groups.setdefault(key, []).append(entry)
    return groups


def _continuity(entries: Sequence[Entry]) -> Continuity:
    found = Continuity()
    for group in _sequences(entries, by_stage=False).values():
        end = group[0].seq_start
        for entry in group:
            found.sequence_gaps += entry.seq_start > end
            found.sequence_gap_tokens += max(0, entry.seq_start - end)
            found.sequence_overlaps += entry.seq_start < end
            found.sequence_overlap_tokens += max(0, min(end - entry.seq_start, entry.seq_len))
            end = max(end, entry.seq_start + entry.seq_len)
        found.mixed_stage_groups += len({entry.stage for entry in group}) > 1
    return found


@dataclass(frozen=True, slots=True)
class _Unit:
    """Rows that are coded together: ``words`` [2, seq, kv_heads, head_dim] from ``entries`` of one layer."""

    entries: Sequence[Entry]
    words: Words
    parts: tuple[int, ...]
    meta_bytes: int  # what the compatible accounting charges per tensor

    @property
    def layer_id(self) -> int:
        """The layer that all entries are of."""
        return self.entries[0].layer_id

    def tensor(self, name: str) -> Words:
        """K or V, [seq, kv_heads, head_dim]."""
        words: Words = self.words["kv".index(name)]
        return words


_Outcome: TypeAlias = TensorTally | Skip


@dataclass(slots=True)
class _Sums:
    """What the pass over the dump adds up; only the reading thread touches it."""

    found: Scan
    changed: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    tensors: dict[tuple[int, str], TensorTally] = field(default_factory=dict)

    def loaded(self, entries: Iterable[Entry]) -> Iterator[Loaded]:
        """The readable ones of ``entries``; the others are noted as skipped."""
        for entry in entries:
            try:
                loaded = load(entry)
            except Skip as skip:
                self.found.skipped[entry.name] = skip
                continue
            if loaded.changed:
                self.changed[entry.name] = loaded.changed
            yield loaded

    def fold(self, unit: _Unit, outcomes: Sequence[_Outcome]) -> None:
        """Add a coded unit, or note its entries as skipped when K or V failed: neither counts then."""
        tallies = [outcome for outcome in outcomes if isinstance(outcome, TensorTally)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Skip)]
        for failure in failures:
            for entry in unit.entries:
                self.found.skipped[entry.name] = Skip(failure.reason, failure.detail, entry.raw_bytes)
        if not failures:
            self.chunks += len(tallies)
            for tensor, tally in zip("kv", tallies, strict=True):
                self.tensors.setdefault((unit.layer_id, tensor), TensorTally()).add(tally)


def _units(groups: Iterable[list[Entry]], options: OfflineOptions, sums: _Sums) -> Iterator[_Unit]:
    rows = max(0, options.online_chunk_seq) if options.chunked else 0
    for group in groups:
        for pieces in _cut(sums.loaded(group), rows):
            entries = [piece.entry for piece in pieces]
            lengths = [piece.words.shape[1] for piece in pieces]
            words = pieces[0].words if len(pieces) == 1 else np.concatenate([piece.words for piece in pieces], axis=1)
            parts = tuple(lengths) if options.entry_mode == "aggregate" else (sum(lengths),)
            yield _Unit(entries, words, parts, _meta_bytes(options, len(pieces)))


def _cut(sequence: Iterable[Loaded], rows: int) -> Iterator[list[Loaded]]:
    """Pieces of ``sequence`` that make up ``rows`` tokens at a time (the last may be shorter); 0: all at once."""
    pieces: list[Loaded] = []
    free = rows
    for loaded in sequence:
        words = loaded.words
        while words.size:
            piece = words[:, :free] if rows else words
            pieces.append(Loaded(loaded.entry, piece, loaded.changed))
            words, free = words[:, piece.shape[1] :], free - piece.shape[1]
            if free == 0:
                yield pieces
                pieces, free = [], rows
    if pieces:
        yield pieces


def _meta_bytes(options: OfflineOptions, entries: int) -> int:
    if options.entry_mode == "aggregate":
        return 4 + 4 * entries
    return options.online_framing_bytes if options.chunked else 0


def _coded(units: Iterable[_Unit], options: OfflineOptions) -> Iterator[tuple[_Unit, list[_Outcome]]]:
    """Each unit with the outcomes of K and V, in order; reading runs ahead of coding by a bounded number of bytes."""
    pending: deque[tuple[list[_Unit], list[Future[list[_Outcome]]]]] = deque()
    in_flight = 0
    pool = _pool(options)
    try:
        for batch in _batches(units):
            pending.append((batch, [pool.submit(_code_batch, batch, tensor, options) for tensor in "kv"]))
            in_flight += _nbytes(batch)
            while pending and (in_flight > _IN_FLIGHT_BYTES or all(future.done() for future in pending[0][1])):
                in_flight -= _nbytes(pending[0][0])
                yield from _outcomes(*pending.popleft())
        while pending:
            yield from _outcomes(*pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(options: OfflineOptions) -> ThreadPoolExecutor:
    """Coding threads, each bound to a CPU when there is one for every CPU: threads that wake each other often, as these
    do, may otherwise be kept on the same one.
    """
    cpus = iter(sorted(os.sched_getaffinity(0)) if options.threads == 0 else ())

    def bind() -> None:
        with contextlib.suppress(OSError, StopIteration):
            os.sched_setaffinity(0, {next(cpus)})

    return ThreadPoolExecutor(options.worker_count(), thread_name_prefix="h2o-offline", initializer=bind)


def _batches(units: Iterable[_Unit]) -> Iterator[list[_Unit]]:
    batch: list[_Unit] = []
    for unit in units:
        batch.append(unit)
        if _nbytes(batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _nbytes(batch: Iterable[_Unit]) -> int:
    return sum(unit.words.nbytes for unit in batch)


def _outcomes(batch: list[_Unit], futures: list[Future[list[_Outcome]]]) -> Iterator[tuple[_Unit, list[_Outcome]]]:
    for unit, *outcomes in zip(batch, *(future.result() for future in futures), strict=True):
        yield unit, outcomes


def _code_batch(batch: Sequence[_Unit], tensor: str, options: OfflineOptions) -> list[_Outcome]:
    largest = {unit.layer_id: unit for unit in sorted(batch, key=lambda unit: unit.words.size)}
    codings = {layer: _codings(unit.tensor(tensor), tensor, options) for layer, unit in largest.items()}
    return [_code(unit, tensor, codings[unit.layer_id], options) for unit in batch]


def _codings(words: Words, tensor: str, options: OfflineOptions) -> list[PlaneCoding]:
    """How to code the low and the high plane of tensors like ``words``. Bit-shuffled residuals are always tried: their
    entropy says little.
    """
    rows = 0 if options.codec_mode == "legacy" else options.adaptive_block_seq
    ranked = options.fast and not options.bitshuffle
    names = {plane: options.predictors(tensor, plane) for plane in ("lo", "hi")}
    if ranked:
        names = {name: contenders(plane, names[name]) for name, plane in zip(names, split(words), strict=True)}
    return [PlaneCoding(each, rows, options.zstd_level, options.bitshuffle, ranked) for each in names.values()]


def _code(unit: _Unit, tensor: str, codings: Sequence[PlaneCoding], options: OfflineOptions) -> _Outcome:
    words, (lo, hi) = unit.tensor(tensor), codings
    try:
        encoded = encode_tensor(words, unit.parts, hi, lo)
        container = encoded.to_bytes()
        if options.verify:
            _verify(container, words, unit.parts)
    except (CodecError, MemoryError) as error:
        return Skip("compression_failed", f"{tensor}: {error}")
    return _tally(encoded, words, unit.meta_bytes, len(container), options)


def _verify(container: bytes, words: Words, parts: tuple[int, ...]) -> None:
    decoded, found = decode_tensor(container, words.nbytes)
    if found != parts or not np.array_equal(decoded, words):
        raise CodecError("the decoded tensor differs from its source")


def _tally(encoded: EncodedTensor, words: Words, meta: int, container: int, options: OfflineOptions) -> TensorTally:
    low, high = split(words[::_HISTOGRAM_STEP])
    hi, lo = (
        _plane_tally(plane, words.size, bytes_, options) for plane, bytes_ in ((encoded.hi, high), (encoded.lo, low))
    )
    return TensorTally(words.nbytes, hi.stream_bytes + lo.stream_bytes + meta, meta, container, hi, lo)


def _plane_tally(encoded: EncodedPlane, size: int, plane: Plane, options: OfflineOptions) -> PlaneTally:
    overhead = 0 if options.codec_mode == "legacy" else _STREAM_HEADER_BYTES + len(encoded.modes)
    tally = PlaneTally(size, len(encoded.payload) + overhead, counts=histogram(plane))
    tally.modes.update(BY_MODE[mode].name for mode in encoded.modes)
    return tally
