"""What the lossless codec achieves on the KV cache itself, evaluated offline from a dump."""

from __future__ import annotations

import pytest

from pytest_h2o.gate import Gate
from pytest_h2o.offline_run import Evaluation

pytestmark = [pytest.mark.offline, pytest.mark.runtime]


def test_online_sim_lossless(online_sim: Evaluation, gate: Gate) -> None:
    """The front layers' KV, cut into chunks as a runtime would see it, must shrink at least LOSSLESS_TARGET times.

    The original fell back to the upper bound and then to the runtime's own estimate when this number was missing.
    """
    gate.at_least(online_sim.measure("lossless_ratio"), "LOSSLESS_TARGET")


def test_offline_complete(online_sim: Evaluation, gate: Gate) -> None:
    """The ratio must stand for the whole dump, decoded and compared: the original counted failed groups as perfect."""
    gate.holds("evaluated_share", online_sim.incomplete, source=online_sim.source)
