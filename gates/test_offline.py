"""What the lossless codec achieves on the KV cache itself, evaluated offline from a dump."""

from __future__ import annotations

import pytest

from pytest_h2o.gate import Gate
from pytest_h2o.lab import Lab
from pytest_h2o.offline_run import offline_measure

pytestmark = [pytest.mark.final, pytest.mark.offline, pytest.mark.runtime]


def test_online_sim_lossless(lab: Lab, gate: Gate) -> None:
    """The front layers' KV, cut into chunks as a runtime would see it, must shrink at least LOSSLESS_TARGET times.

    The original fell back to the upper bound and then to the runtime's own estimate when this number was missing.
    """
    gate.at_least(offline_measure(lab, "online_sim"), "LOSSLESS_TARGET")


def test_offline_complete(lab: Lab, gate: Gate) -> None:
    """Every selected entry of the dump must have been evaluated; the original counted failed groups as perfect."""
    skipped = offline_measure(lab, "online_sim", metric="skipped_entries")
    reasons = [f"{skipped.value:g} entries could not be evaluated"] if skipped.value else []
    gate.holds(skipped.metric, [skipped.missing] if skipped.missing else reasons, source=skipped.source)
