"""The account of an evaluated dump: sums that travel from host to host as JSON, and are added up
there. Ratios are made of the added sums alone, never of other ratios.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.dump import Binary, DumpEntry, Skip
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result import Continuity, DumpEvaluation
from pytest_h2o.offline.tallies import PlaneTally, RowTally, TensorTally

SIZE_LIMIT = 512 << 20
NOT_HERE = Binary("", 0, (0, 0))

Count = Annotated[int, Field(ge=0, lt=1 << 62)]
Text = Annotated[str, Field(max_length=4096)]


class AccountPart(BaseModel):
    """A JSON object without other keys than these."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PlaneAccount(AccountPart):
    """The sums of one byte plane."""

    raw_bytes: Count
    stream_bytes: Count
    modes: dict[Text, Count]
    counts: Annotated[list[Count], Field(min_length=256, max_length=256)]


class RowAccount(AccountPart):
    """The sums of one row codec."""

    compressed_bytes: Count
    derotated: Count
    error: Text


class TensorAccount(AccountPart):
    """The sums over K or V of one layer."""

    layer: int
    tensor: Literal["k", "v"]
    raw_bytes: Count
    compressed_bytes: Count
    meta_bytes: Count
    container_bytes: Count
    hi: PlaneAccount
    lo: PlaneAccount
    rows: dict[Text, RowAccount]


class EntryAccount(AccountPart):
    """What a result says of an entry."""

    name: Text
    dump: Text
    stage: Text
    layer_id: int
    seq_start: Count
    seq_len: Count
    kv_heads: Count
    head_dim: Count
    bytes_per_elem: Count


class SkipAccount(AccountPart):
    """Why an entry was not evaluated."""

    name: Text
    reason: Text
    detail: Text
    raw_bytes: Count


class DumpAccount(AccountPart):
    """Everything that a result is made of, but the options."""

    account_version: Literal[1] = 1
    options: Text
    scanned: Count
    groups: Count
    chunks: Count
    entries: list[EntryAccount]
    skipped: list[SkipAccount]
    changed_values: dict[Text, Count]
    continuity: dict[Text, Count]
    tensors: list[TensorAccount]


def account_text(result: DumpEvaluation) -> str:
    """The account of a result as JSON."""
    entries = []
    for entry in result.entries:
        values = {name: getattr(entry, name) for name in EntryAccount.model_fields}
        entries.append(EntryAccount.model_validate(values))
    skipped = [
        SkipAccount(name=name, reason=each.reason, detail=each.detail, raw_bytes=each.raw_bytes)
        for name, each in result.skipped.items()
    ]
    account = DumpAccount(
        options=_options_text(result.options), scanned=result.scanned, groups=result.groups,
        chunks=result.chunks, entries=entries, skipped=skipped,
        changed_values=dict(result.changed_values), continuity=asdict(result.continuity),
        tensors=[_tensor(*key, tally) for key, tally in result.tensors.items()],
    )  # fmt: skip
    return account.model_dump_json() + "\n"


def read_account(path: Path, dump: str, options: OfflineOptions) -> DumpEvaluation:
    """The result whose account is in a file, of a dump by its name; OfflineError for a file that is
    none, or is of an evaluation with other options.
    """
    if path.stat().st_size > SIZE_LIMIT:
        raise OfflineError(f"{dump}: its account is larger than {SIZE_LIMIT >> 20} MiB")
    try:
        account = DumpAccount.model_validate_json(path.read_bytes())
    except ValueError as error:
        first = str(error).partition("\n")[0]
        raise OfflineError(f"{dump}: no account of a dump was printed: {first}") from None
    if account.options != _options_text(options):
        raise OfflineError(
            f"{dump}: evaluated with other options; install the same pytest-h2o on all hosts"
        )
    skipped: dict[str, Skip] = {}
    for each in account.skipped:
        skipped[each.name] = Skip(each.reason, each.detail, each.raw_bytes)
    return DumpEvaluation(
        dump_dir=Path(dump), options=options, scanned=account.scanned,
        entries=[_entry(each) for each in account.entries],
        skipped=skipped,
        changed_values=account.changed_values, groups=account.groups, chunks=account.chunks,
        tensors={(each.layer, each.tensor): _tally(each) for each in account.tensors},
        continuity=Continuity(**account.continuity),
    )  # fmt: skip


def merged(results: Sequence[DumpEvaluation]) -> DumpEvaluation:
    """One result of several dumps; their entries have the name of their dump before their own."""
    if len(results) == 1:
        return results[0]
    tensors: dict[tuple[int, str], TensorTally] = {}
    continuity = Continuity()
    entries: list[DumpEntry] = []
    skipped: dict[str, Skip] = {}
    changed: dict[str, int] = {}
    scanned = groups = chunks = 0
    for result in results:
        scanned += result.scanned
        groups += result.groups
        chunks += result.chunks
        for key, tally in result.tensors.items():
            tensors.setdefault(key, TensorTally()).add(tally)
        for each in fields(Continuity):
            total = getattr(continuity, each.name) + getattr(result.continuity, each.name)
            setattr(continuity, each.name, total)
        named = _named(str(result.dump_dir))
        for entry in result.entries:
            entries.append(entry._replace(name=named(entry.name), dump=named(entry.dump)))
        for name, skip in result.skipped.items():
            skipped[named(name)] = skip
        for name, count in result.changed_values.items():
            changed[named(name)] = count
    return replace(
        results[0],
        dump_dir=Path(", ".join(str(result.dump_dir) for result in results)),
        scanned=scanned, entries=entries, skipped=skipped, changed_values=changed, groups=groups,
        chunks=chunks, tensors=tensors, continuity=continuity,
    )  # fmt: skip


def _named(dump: str) -> Callable[[str], str]:
    return lambda name: f"{dump}/{name}"


def _options_text(options: OfflineOptions) -> str:
    """What sizes depend on; how many threads code does not matter."""
    return repr(replace(options, threads=0))


def _tensor(layer: int, tensor: str, tally: TensorTally) -> TensorAccount:
    rows: dict[str, RowAccount] = {}
    for codec, row in tally.rows.items():
        rows[codec] = RowAccount.model_validate(asdict(row))
    return TensorAccount(
        layer=layer, tensor="k" if tensor == "k" else "v", raw_bytes=tally.raw_bytes,
        compressed_bytes=tally.compressed_bytes, meta_bytes=tally.meta_bytes,
        container_bytes=tally.container_bytes, hi=_plane(tally.hi), lo=_plane(tally.lo), rows=rows,
    )  # fmt: skip


def _plane(tally: PlaneTally) -> PlaneAccount:
    return PlaneAccount(
        raw_bytes=tally.raw_bytes, stream_bytes=tally.stream_bytes, modes=dict(tally.modes),
        counts=tally.counts.tolist(),
    )  # fmt: skip


def _tally(account: TensorAccount) -> TensorTally:
    rows: dict[str, RowTally] = {}
    for codec, row in account.rows.items():
        rows[codec] = RowTally(row.compressed_bytes, row.derotated, row.error)
    return TensorTally(
        account.raw_bytes, account.compressed_bytes, account.meta_bytes, account.container_bytes,
        _plane_tally(account.hi), _plane_tally(account.lo), rows,
    )  # fmt: skip


def _plane_tally(account: PlaneAccount) -> PlaneTally:
    counts = np.array(account.counts, np.intp)
    return PlaneTally(account.raw_bytes, account.stream_bytes, Counter(account.modes), counts)


def _entry(account: EntryAccount) -> DumpEntry:
    return DumpEntry(**account.model_dump(), run_id="", k=NOT_HERE, v=NOT_HERE)
