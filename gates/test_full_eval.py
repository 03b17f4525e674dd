"""The offline half of ``full_eval``: the same KV dump in chunks of 128 tokens with 16 bytes of
framing.
"""

from __future__ import annotations

import pytest

from pytest_h2o.lab.offline import Evaluation
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.full_eval


def test_online_sim_lossless(full_eval_sim: Evaluation, gate: Gate) -> None:
    """The front layers' KV must shrink at least LOSSLESS_TARGET times in these chunks too.

    Shorter chunks with more framing are the harder case: a codec that only just reaches the target
    in long ones is found here.
    """
    gate.at_least(
        full_eval_sim.measure("lossless_ratio"), "LOSSLESS_TARGET", evidence=full_eval_sim.evidence
    )


def test_offline_complete(full_eval_sim: Evaluation, gate: Gate) -> None:
    """The ratio must stand for the dump."""
    gate.at_least(full_eval_sim.share(), "EVALUATED_SHARE_TARGET")
