"""Launches with the same lossless settings, with H2O on and off, encode the same values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pytest_h2o.evidence.block_sizes import BlockPlace, first_sizes, same_first_blocks
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.plan.relations import Arm, SameText, on_threads
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.results import read_launches
from pytest_h2o.verdict import Evidence

Sizes = Mapping[BlockPlace, int]


def same_values(texts: Texts, comparisons: Iterable[SameText]) -> Iterator[Evidence]:
    """What the arms of a relation show that differ in H2O alone; a launch of each is there."""
    with_h2o: dict[str, Arm] = {}
    without: list[tuple[str, Arm]] = []
    for pair in comparisons:
        for arm in (pair.expected, pair.other):
            settings = _lossless_of(arm.spec)
            if not _sizes(texts, arm):
                continue
            if arm.spec.config.get("kv_h2o_enable"):
                with_h2o.setdefault(settings, arm)
            else:
                without.append((settings, arm))
    for settings, arm in without:
        if settings in with_h2o:
            yield from _beside(texts, with_h2o[settings], arm)


def _beside(texts: Texts, expected: Arm, other: Arm) -> Iterator[Evidence]:
    """What two arms show; what shows on several threads alone may come from how they add up."""
    found = _compared(texts, expected, other)
    if found and found.standing == "contradicted" and other.spec.threads > 1:
        alone = _compared(texts, on_threads(expected, 1), on_threads(other, 1))
        if alone and alone.standing == "supported":
            text = f"{found.text}; on one thread they have the same sizes"
            found = replace(found, standing="doubtful", text=text)
    if found:
        yield found


def _compared(texts: Texts, expected: Arm, other: Arm) -> Evidence | None:
    where = f"{other.spec.label}: {other.title}"
    return same_first_blocks(_sizes(texts, expected), _sizes(texts, other), where)


def _lossless_of(spec: LaunchSpec) -> str:
    """The prompt and all that decides what is encoded."""
    own = {key: value for key, value in spec.config.items() if key.startswith("kv_lossless_")}
    return f"{spec.label} {sorted(own.items())}"


def _sizes(texts: Texts, arm: Arm) -> Sizes:
    """The first blocks of an arm's front layers."""
    start = arm.spec.config.get("kv_h2o_layer_start", 0)
    record = texts.of(arm).record
    run = read_launches(record.name, [record])
    if run.problems or not isinstance(start, int):
        return {}
    return first_sizes(run.facts[0], start)
