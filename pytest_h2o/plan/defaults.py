"""Knob values that a version of the kit prefers to the global defaults."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_h2o.plan.knobs import KnobValue
from pytest_h2o.plan.suites import Kit

# Binaries of v5 do not print the columns that these read.
V5: Mapping[str, KnobValue] = {
    "STRICT_RUNTIME_METRIC_COLUMNS": False,
    "MAX_LOSSLESS_BACKPRESSURE_SKIP": -1.0,
    "MAX_LOSSLESS_ASYNC_WAIT_US": -1.0,
    "REQUIRE_ASYNC_QUEUE_ACTIVITY": False,
    "REQUIRE_DECODE_CACHE_ACTIVITY": False,
    "REQUIRE_DECODE_CACHE_HIT": False,
}


def kit_defaults(kit: Kit) -> Mapping[str, KnobValue]:
    """The preferred values of a version of the kit."""
    return V5 if kit == "v5" else {}
