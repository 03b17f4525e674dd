"""Verdicts put together for people: the cases of a gate, and failures of one cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pytest_h2o.verdict import Verdict

V = TypeVar("V", bound=Verdict)
ORDER = ("fail", "inconclusive", "pass", "skipped")
BAD = ("fail", "inconclusive")


def spare_share(verdict: Verdict) -> float | None:
    """The margin in % of the limit; None where the limit is 0 or either is not known."""
    if verdict.margin is None or not verdict.target:
        return None
    return round(100 * verdict.margin / abs(verdict.target), 1)


def tightest(verdicts: Sequence[V]) -> V:
    """The worst: what failed before what did not, then the least to spare."""

    def rank(verdict: V) -> tuple[int, float]:
        spare = spare_share(verdict)
        if spare is None:
            spare = float("inf") if verdict.margin is None else verdict.margin
        return ORDER.index(verdict.outcome), spare

    return min(verdicts, key=rank)


def conclusion(verdict: Verdict) -> str:
    """What a verdict comes to, in one line."""
    return verdict.cause or verdict.reason.partition("\n")[0] or verdict.gate


def hints(verdicts: Sequence[Verdict]) -> list[str]:
    """What to try, each hint once."""
    found = dict.fromkeys(each.hint for each in verdicts)
    found.pop("", None)
    return list(found)


def not_off(verdicts: Iterable[V]) -> list[V]:
    """The verdicts of gates that no knob turns off."""
    return [each for each in verdicts if each.outcome != "skipped"]


def by_gate(verdicts: Sequence[V]) -> list[list[V]]:
    """The verdicts of each gate, gates in the order in which they were judged."""
    groups: dict[str, list[V]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.gate, []).append(verdict)
    return list(groups.values())


def by_cause(verdicts: Sequence[V]) -> list[list[V]]:
    """What failed or is undecided, by cause: what failed first, then what most gates share.

    A value that missed its target is a cause of its own, per gate.
    """
    groups: dict[tuple[str, ...], list[V]] = {}
    for verdict in sorted(verdicts, key=lambda each: ORDER.index(each.outcome)):
        if verdict.outcome in BAD:
            missed = (verdict.outcome, verdict.gate)
            groups.setdefault((verdict.cause,) if verdict.cause else missed, []).append(verdict)
    return sorted(groups.values(), key=lambda each: (ORDER.index(each[0].outcome), -len(each)))
