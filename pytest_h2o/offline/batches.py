"""From the entries of a dump to batches: rows that are coded together, with as many of their kind
as fit a task.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np

from pytest_h2o.codec.payload import IntArray
from pytest_h2o.codec.planes import Words
from pytest_h2o.offline.dump import DumpEntry
from pytest_h2o.offline.options import OfflineOptions

# Of K and V: few calls do all the work, and in fast mode one choice of predictors serves many rows.
_BATCH_BYTES = 1 << 22

Kind: TypeAlias = tuple[int, tuple[int, int]]


class EntryPiece(NamedTuple):
    """Rows of an entry, ``words`` [2, rows, kv_heads, head_dim], and the position of the first."""

    entry: DumpEntry
    words: Words
    position: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are coded as one tensor, from entries of one layer."""

    pieces: Sequence[EntryPiece]

    @property
    def nbytes(self) -> int:
        """Bytes of K and V."""
        return sum(piece.words.nbytes for piece in self.pieces)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each piece."""
        return tuple(piece.words.shape[1] for piece in self.pieces)

    @property
    def positions(self) -> IntArray:
        """The position of each row."""
        runs = []
        for piece in self.pieces:
            runs.append(piece.position + np.arange(piece.words.shape[1]))
        return np.concatenate(runs)

    def tensor(self, name: str) -> Words:
        """K or V, [seq, kv_heads, head_dim]."""
        index = "kv".index(name)
        return np.concatenate([piece.words[index] for piece in self.pieces])


@dataclass(frozen=True, slots=True)
class Batch:
    """Units of one layer and width, and the bytes of their K and V."""

    units: Sequence[Unit]
    nbytes: int

    @property
    def layer_id(self) -> int:
        """The layer that all units are of."""
        return _kind(self.units[0])[0]

    @property
    def entries(self) -> list[DumpEntry]:
        """The entries of all units; one that was cut occurs several times."""
        found: list[DumpEntry] = []
        for unit in self.units:
            found.extend(piece.entry for piece in unit.pieces)
        return found

    def tensor(self, name: str) -> Words:
        """K or V of all units, stacked along the sequence, [seq, kv_heads, head_dim]."""
        index = "kv".index(name)
        tensors: list[Words] = []
        for unit in self.units:
            tensors.extend(piece.words[index] for piece in unit.pieces)
        if len(tensors) == 1:
            return tensors[0]
        return np.concatenate(tensors)

    def split(self) -> "list[Batch]":
        """A batch for each unit."""
        return [Batch([unit], unit.nbytes) for unit in self.units]


def grouped(entries: Sequence[DumpEntry], options: OfflineOptions) -> list[list[DumpEntry]]:
    """Entries that are coded as one sequence, single ones unless the mode joins them; like kinds
    follow each other.
    """
    groups = [[entry] for entry in entries]
    if options.grouped:
        groups = list(sequences(entries, by_stage=options.aggregate_by_stage).values())
    return sorted(groups, key=lambda group: _kind_of(group[0]))


def sequences(
    entries: Sequence[DumpEntry], by_stage: bool
) -> dict[tuple[object, ...], list[DumpEntry]]:
    """Entries by run, layer, width and (on demand) stage, each list in sequence order, then scan
    order.
    """
    groups: dict[tuple[object, ...], list[DumpEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.seq_start):
        key = entry.run_id, entry.layer_id, entry.shape[1:], by_stage and entry.stage
        groups.setdefault(key, []).append(entry)
    return groups


def batches(
    groups: Iterable[list[DumpEntry]],
    options: OfflineOptions,
    read: Callable[[DumpEntry], Words | None],
) -> Iterator[Batch]:
    """Cut the groups into units and stack those of a kind; an entry that ``read`` has no words of
    is left out.
    """
    rows = 0
    if options.chunked:
        rows = max(0, options.online_chunk_seq)

    def units() -> Iterator[Unit]:
        for group in groups:
            yield from map(Unit, _cut(_pieces(group, read), rows))

    for _, alike in groupby(units(), _kind):
        yield from _stacked(alike)


def _pieces(
    group: Iterable[DumpEntry], read: Callable[[DumpEntry], Words | None]
) -> Iterator[EntryPiece]:
    for entry in group:
        words = read(entry)
        if words is not None:
            yield EntryPiece(entry, words, entry.seq_start)


def _kind(unit: Unit) -> Kind:
    return _kind_of(unit.pieces[0].entry)


def _kind_of(entry: DumpEntry) -> Kind:
    return entry.layer_id, (entry.kv_heads, entry.head_dim)


def _cut(pieces: Iterable[EntryPiece], rows: int) -> Iterator[list[EntryPiece]]:
    """``pieces`` in lists of ``rows`` rows (the last may have fewer); 0: all in one."""
    unit: list[EntryPiece] = []
    free = rows
    for whole in pieces:
        entry, rest, position = whole
        while rest.size:
            piece = rest[:, :free] if rows else rest
            unit.append(EntryPiece(entry, piece, position))
            taken = piece.shape[1]
            rest = rest[:, taken:]
            position += taken
            free -= taken
            if free == 0:
                yield unit
                unit, free = [], rows
    if unit:
        yield unit


def _stacked(units: Iterable[Unit]) -> Iterator[Batch]:
    batch, size = [], 0
    for unit in units:
        batch.append(unit)
        size += unit.nbytes
        if size >= _BATCH_BYTES:
            yield Batch(batch, size)
            batch, size = [], 0
    if batch:
        yield Batch(batch, size)
