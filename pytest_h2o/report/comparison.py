"""Recorded sessions beside each other: what was tested, which outcomes changed, which values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from pytest_h2o.metrics import quantity
from pytest_h2o.report.groups import spare_share
from pytest_h2o.report.models import GateVerdict, Summary
from pytest_h2o.report.page import outcome
from pytest_h2o.report.text import WORDS, clean

# Numbers of these units are of one machine.
OF_A_MACHINE = ("tok/s", "s", "ms", "µs", "us", "MB")
T = TypeVar("T")
Key = tuple[str, str]
Table = list[tuple[str, ...]]


@dataclass(frozen=True)
class RunsCompared:
    """Tables, each a header and its rows; one with the header alone has nothing to tell.

    ``drawn`` holds what a chart shows: gate with its tightest case, run, margin in % of the limit.
    """

    sessions: Table
    identity: Table
    outcomes: Table
    values: Table
    drawn: Sequence[tuple[str, str, float]]


def compare_runs(names: Sequence[str], runs: Sequence[Summary]) -> RunsCompared:
    """The sessions in the order given; deltas are of the last against the first."""
    by_key = [_by_key(run) for run in runs]
    keys = _names_of(by_key)
    machines = {run.inputs.get("machine", "") for run in runs}
    elsewhere = "" if len(machines) == 1 else "other machine"
    if "" in machines:
        elsewhere = "machine not known"
    return RunsCompared(
        list(_sessions(names, runs)),
        list(_identity(names, runs)),
        list(_outcomes(names, keys, by_key)),
        list(_values(names, keys, by_key, elsewhere)),
        list(_drawn(names, keys, by_key)),
    )


def _by_key(run: Summary) -> dict[Key, GateVerdict]:
    return {(gate.gate, gate.case): gate for gate in run.gates}


def _names_of(runs: Iterable[Mapping[T, object]]) -> list[T]:
    """The keys that any run has, each once, in order."""
    return list(dict.fromkeys(chain.from_iterable(runs)))


def _sessions(names: Sequence[str], runs: Sequence[Summary]) -> Iterator[tuple[str, ...]]:
    """How each session ended, of what, and when its record was written."""
    yield ("", *names)
    yield ("outcome", *map(outcome, runs))
    runtimes = [clean(run.runtime, 200) for run in runs]
    if any(runtimes):
        yield ("runtime", *runtimes)
    written = [run.written_utc for run in runs]
    yield ("written", *written)


def _identity(names: Sequence[str], runs: Sequence[Summary]) -> Iterator[tuple[str, ...]]:
    """What differs between the sessions, one row each."""
    yield ("setting", *names)
    found = [_identity_of(run) for run in runs]
    for name in _names_of(found):
        cells = [clean(each.get(name, "-"), 200) for each in found]
        if len(set(cells)) > 1:
            yield (name, *cells)


def _identity_of(run: Summary) -> dict[str, str]:
    parts = {"suite": run.suite, "runtime": run.runtime, "kit": run.kit, "version": run.version}
    for name, digest in run.inputs.items():
        parts[f"input {name}"] = digest
    for name, knob in run.knobs.items():
        parts[name] = str(knob.value)
    return parts


def _rows(
    keys: Sequence[Key],
    by_key: Sequence[Mapping[Key, GateVerdict]],
    cell: Callable[[GateVerdict | None], str],
) -> Iterator[tuple[Key, list[str]]]:
    for key in keys:
        yield key, [cell(gates.get(key)) for gates in by_key]


def _outcomes(
    names: Sequence[str], keys: Sequence[Key], by_key: Sequence[Mapping[Key, GateVerdict]]
) -> Iterator[tuple[str, ...]]:
    """The gates that did not end alike everywhere."""
    yield ("gate", "case", *names)
    for (gate, case), cells in _rows(keys, by_key, _outcome):
        if len(set(cells)) > 1:
            yield (clean(gate, 60), clean(case, 60), *cells)


def _outcome(verdict: GateVerdict | None) -> str:
    return WORDS[verdict.outcome] if verdict else "not judged"


def _values(
    names: Sequence[str],
    keys: Sequence[Key],
    by_key: Sequence[Mapping[Key, GateVerdict]],
    elsewhere: str,
) -> Iterator[tuple[str, ...]]:
    """What each gate measured, and how far the last is from the first."""
    yield ("gate", "case", *names, "delta")
    for (gate, case), cells in _rows(keys, by_key, _value):
        first, last = by_key[0].get((gate, case)), by_key[-1].get((gate, case))
        if set(cells) != {"-"}:
            yield (clean(gate, 60), clean(case, 60), *cells, _delta(first, last, elsewhere))


def _value(verdict: GateVerdict | None) -> str:
    return quantity(verdict.value, verdict.unit) if verdict else "-"


def _delta(first: GateVerdict | None, last: GateVerdict | None, elsewhere: str) -> str:
    if first is None or last is None or first.value is None or last.value is None:
        return "-"
    if first.unit != last.unit:
        return "other unit"
    if first.unit in OF_A_MACHINE and elsewhere:
        return elsewhere
    change = last.value - first.value
    sign = "+" if change > 0 else ""
    return f"{sign}{quantity(change, first.unit)}"


def _drawn(
    names: Sequence[str], keys: Sequence[Key], by_key: Sequence[Mapping[Key, GateVerdict]]
) -> Iterator[tuple[str, str, float]]:
    """The margins of the case of each gate that comes closest to its limit in any run."""
    tightest: dict[str, tuple[float, list[tuple[str, str, float]]]] = {}
    for gate, case in keys:
        points: list[tuple[str, str, float]] = []
        for name, gates in zip(names, by_key, strict=True):
            verdict = gates.get((gate, case))
            spare = spare_share(verdict) if verdict else None
            if spare is not None:
                points.append((clean(f"{gate} [{case}]", 80), name, spare))
        least = min((spare for _, _, spare in points), default=math.inf)
        if points and (gate not in tightest or least < tightest[gate][0]):
            tightest[gate] = least, points
    for _, points in tightest.values():
        yield from points
