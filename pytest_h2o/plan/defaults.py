"""Knob values that a runtime or a version of the kit prefers to the global defaults."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_h2o.plan.knobs import KnobValue
from pytest_h2o.plan.suites import Kit

# The embedded runtime prints every metric, so what is optional elsewhere is required of it. It is
# there to be tried on any machine, where single launches differ by more than a target, so it is
# compared in pairs in every suite. Its decode studies take the launches that the other gates look
# at, and decide at the first look or soon after; only a machine with many programs to a core needs
# the budget.
EMBEDDED: Mapping[str, KnobValue] = {
    "THREADS": 2,
    "REPEAT": 2,
    "DECODE_REPEAT": 0,
    "DECODE_TOKENS": 192,
    "DECODE_BASELINE_MODE": "paired",
    "DECODE_BUDGET_S": 900.0,
    "MAX_LOSSLESS_ASYNC_WAIT_US": 50_000.0,
    "REQUIRE_ASYNC_QUEUE_ACTIVITY": True,
    "REQUIRE_DECODE_CACHE_ACTIVITY": True,
    "REQUIRE_QUALITY": True,
}
# Binaries of v5 do not print the columns that these read.
V5: Mapping[str, KnobValue] = {
    "STRICT_RUNTIME_METRIC_COLUMNS": False,
    "MAX_LOSSLESS_BACKPRESSURE_SKIP": -1.0,
    "MAX_LOSSLESS_ASYNC_WAIT_US": -1.0,
    "REQUIRE_ASYNC_QUEUE_ACTIVITY": False,
    "REQUIRE_DECODE_CACHE_ACTIVITY": False,
    "REQUIRE_DECODE_CACHE_HIT": False,
}


def defaults_for(runtime: str, kit: Kit = "v6") -> dict[str, KnobValue]:
    """The preferred values for a runtime by name and a version of the kit, which has the last
    word.
    """
    return {**(EMBEDDED if runtime == "embedded" else {}), **(V5 if kit == "v5" else {})}
