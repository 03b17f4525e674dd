"""The scope of an acceptance and the defaults by version of the kit, as ``--h2o-kit`` names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Literal

from pytest_h2o.plan.knobs import KnobValue
from pytest_h2o.plan.suites import SUITE_PARTS

Kit = Literal["v5", "v6"]
ACCEPTANCE: Mapping[Kit, Set[str]] = {
    "v5": frozenset({"runtime", "m3"}),
    "v6": frozenset({"runtime", "m3", "llm_demo", "relations"}),
}
# Binaries of v5 do not print the columns that these read.
DEFAULTS: Mapping[Kit, dict[str, KnobValue]] = {
    "v5": {
        "STRICT_RUNTIME_METRIC_COLUMNS": False,
        "MAX_LOSSLESS_BACKPRESSURE_SKIP": -1.0,
        "MAX_LOSSLESS_ASYNC_WAIT_US": -1.0,
        "REQUIRE_ASYNC_QUEUE_ACTIVITY": False,
        "REQUIRE_DECODE_CACHE_ACTIVITY": False,
        "REQUIRE_DECODE_CACHE_HIT": False,
    },
    "v6": {},
}


def composed(marks: Set[str], kit: Kit, on: Callable[[str], bool]) -> set[str]:
    """The suites, put together from others, that a gate with these marks is in; ``on`` tells
    whether a knob is on.
    """
    suites = {"final"} if marks & ACCEPTANCE[kit] else set()
    if kit == "v5":  # which has no all_in_one
        return suites
    parts = {part for knob, part in SUITE_PARTS.items() if on(knob)}
    if parts & (marks | suites):
        suites.add("all_in_one")
    return suites
