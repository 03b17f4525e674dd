"""The verdict of a paired decode study, and the words that say why it did not pass."""

from __future__ import annotations

from pytest_h2o.decode.study import ALPHA, LOOKS, Study
from pytest_h2o.verdict import Verdict, margin_of


def judge_study(
    study: Study, target: float, plain: Study | None = None, seed: int | None = None
) -> Verdict:
    """The verdict of a paired decode study; the drop is a share of the baseline's speed.

    ``plain`` is the study of the bare speeds where ``study`` is about speeds against a yardstick,
    ``seed`` that of the launch order.
    """
    pairs = f"{study.pairs} pairs" + ("" if seed is None else f", seed {seed}")
    shown = f"{_interval(study)} ({pairs})"
    if plain:
        shown = f"against the yardstick: {shown}; bare speeds: {_interval(plain)}"
    return Verdict(
        metric="decode_drop",
        outcome=study.decision,
        value=study.drop,
        target=target,
        operator="<=",
        margin=margin_of(study.drop, "<=", target),
        unit="share",
        reason="" if study.decision == "pass" else f"{shown}: {_why_no_pass(study, target, plain)}",
        evidence=shown,
    )


def _interval(study: Study) -> str:
    return (
        f"drop {study.drop:+.1%}, {1 - 2 * ALPHA:.0%} interval {study.drop_low:+.1%} to "
        f"{study.drop_high:+.1%}"
    )


def _why_no_pass(study: Study, target: float, plain: Study | None) -> str:
    at = f" at {study.slow_at}" if study.slow_at else ""
    if study.decision == "fail":
        return f"more than {target:.1%} slower than the baseline{at}"
    if at:
        return (
            f"probably more than {target:.1%} slower than the baseline{at}, which is not "
            f"decided; {_advice(study)}"
        )
    if plain and plain.decision == "fail":
        return "the two contradict each other; see what slows the whole process while H2O is on"
    return f"{target:.1%} lies inside, so nothing is decided; {_advice(study)}"


def _advice(study: Study) -> str:
    more = "raise DECODE_MAX_PAIRS or DECODE_BUDGET_S, or " if study.pairs < LOOKS[-1] else ""
    return f"{more}measure on a quieter machine, or longer (GENS, DECODE_REPEAT)"
