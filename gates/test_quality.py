"""What eviction may cost in quality: a held-out text, predicted with the full cache and with what
H2O keeps.
"""

from __future__ import annotations

import pytest

from pytest_h2o.evidence.perplexity import perplexity_increase, quality_evidence
from pytest_h2o.lab.lab import Lab
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.runtime


def test_quality_under_eviction(quality: LaunchRecord | None, lab: Lab, gate: Gate) -> None:
    """At the tested lossy ratio perplexity may rise only so much, and H2O must lose less than a
    window of its size.

    Programs that cannot report it leave REQUIRE_QUALITY off; their answers to real prompts are
    compared instead.
    """
    gate.needs("REQUIRE_QUALITY")
    if quality is None:
        gate.holds(
            "perplexity_increase", [lab.lacks("quality") or "a recording holds no quality launch"]
        )
        return
    gate.at_most(
        perplexity_increase(quality), "MAX_PERPLEXITY_INCREASE", evidence=quality_evidence(quality)
    )
