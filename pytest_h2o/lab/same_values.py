"""Launches with the same lossless settings, with H2O on and off, encode the same values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pytest_h2o.evidence.block_sizes import BlockPlace, first_sizes, same_first_blocks
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.plan.relations import Arm, SameText
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.results import read_launches
from pytest_h2o.verdict import Evidence

Sizes = Mapping[BlockPlace, int]


def same_values(texts: Texts, comparisons: Iterable[SameText]) -> Iterator[Evidence]:
    """What the arms of a relation show that differ in H2O alone; a launch of each is there."""
    with_h2o: dict[str, Sizes] = {}
    without: list[tuple[str, str, Sizes]] = []
    for pair in comparisons:
        for arm in (pair.expected, pair.other):
            sizes, settings = _sizes(texts, arm), _lossless_of(arm.spec)
            if not sizes:
                continue
            if arm.spec.config.get("kv_h2o_enable"):
                with_h2o.setdefault(settings, sizes)
            else:
                without.append((settings, f"{arm.spec.label}: {arm.title}", sizes))
    for settings, where, sizes in without:
        if settings in with_h2o:
            found = same_first_blocks(with_h2o[settings], sizes, where)
            if found:
                yield found


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
