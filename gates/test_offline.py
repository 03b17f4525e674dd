"""What the lossless codec achieves on the KV cache itself, evaluated offline from a dump."""

from __future__ import annotations

import pytest

from pytest_h2o.lab.offline import Evaluation
from pytest_h2o.session.gate import Gate

pytestmark = [pytest.mark.offline, pytest.mark.runtime]


def test_online_sim_lossless(online_sim: Evaluation, gate: Gate) -> None:
    """The front layers' KV, cut into chunks as a runtime would see it, must shrink at least
    LOSSLESS_TARGET times.

    Only this number stands for what a runtime can save. Where it is missing the gate fails: neither
    the upper bound nor the runtime's own estimate takes its place. The compatible codec is judged
    unless LOSSLESS_CODEC names another one; what the others reach stands beside it.
    """
    codec = gate.knobs.text("LOSSLESS_CODEC")
    gate.at_least(online_sim.ratio(codec), "LOSSLESS_TARGET", evidence=online_sim.evidence)


@pytest.mark.parametrize("tensor", ["k", "v"])
def test_tensor_lossless(online_sim: Evaluation, tensor: str, gate: Gate) -> None:
    """Neither K nor V may hide behind the other: coding it must not make it larger."""
    gate.at_least(online_sim.measure(f"{tensor}_lossless_ratio"), "LOSSLESS_TENSOR_TARGET")


def test_upper_bound_lossless(upper_bound: Evaluation, online_sim: Evaluation, gate: Gate) -> None:
    """Whole sequences coded at once must reach what chunks are asked to, or this codec leaves the
    target out of reach.

    It tells a weak codec from a bad cut: where this gate fails too, no choice of chunks helps.
    Where short stages make chunks the better cut, what they reach counts.
    """
    bound, chunks = upper_bound.measure("lossless_ratio"), online_sim.measure("lossless_ratio")
    better = not bound.missing and (chunks.value or 0.0) > (bound.value or 0.0)
    gate.at_least(chunks if better else bound, "LOSSLESS_UPPER_BOUND_TARGET")


def test_offline_complete(online_sim: Evaluation, gate: Gate) -> None:
    """The ratio must stand for the dump: what could not be read or coded is not counted as
    compressed.
    """
    gate.at_least(online_sim.share(), "EVALUATED_SHARE_TARGET")


def test_offline_verified(online_sim: Evaluation, gate: Gate) -> None:
    """Every container was decoded and compared with its source, and no value was altered before it
    was coded.

    A ratio without a way back is no compression, and neither is one of values that were rounded
    first. Of an evaluator that decodes nothing, and does not say that it did, this is not
    evidenced.
    """
    gate.holds(
        "verified",
        online_sim.unverified(),
        source=online_sim.source,
        cause=online_sim.cause,
        evidence=online_sim.evidence,
    )
