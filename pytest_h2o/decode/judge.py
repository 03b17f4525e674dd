"""The verdict of a paired decode study, and the words that say why it did not pass."""

from __future__ import annotations

from pytest_h2o.decode.study import ERROR, Study
from pytest_h2o.verdict import Interval, Verdict, margin_of

LEVEL = 1 - 2 * ERROR


def judge_study(
    study: Study,
    target: float,
    plain: Study | None = None,
    seed: int | None = None,
    ended: str = "",
) -> Verdict:
    """The verdict of a paired decode study; the drop is a share of the baseline's speed.

    ``plain`` is the study of the bare speeds where ``study`` is about speeds against a yardstick,
    ``seed`` that of the launch order, ``ended`` why there are no more pairs.
    """
    pairs = f"{study.pairs} pairs"
    if seed is not None:
        pairs += f", seed {seed}"
    shown = f"{in_words(study)} ({pairs})"
    if plain:
        shown = f"against the yardstick: {shown}; bare speeds: {in_words(plain)}"
    reason = hint = ""
    if study.decision == "inconclusive":
        hint = _advice(study)
    if study.decision != "pass":
        reason = f"{_why_no_pass(study, target, plain, ended)}; {shown}"
    return Verdict(
        metric="decode_drop",
        outcome=study.decision,
        value=study.drop,
        target=target,
        operator="<=",
        margin=margin_of(study.drop, "<=", target),
        unit="share",
        reason=reason,
        hint=hint,
        evidence=shown,
        interval=interval_of(study),
    )


def interval_of(study: Study) -> Interval:
    """Where the drop lies."""
    return Interval(low=study.drop_low, high=study.drop_high, level=LEVEL)


def in_words(study: Study) -> str:
    """The drop and where it lies."""
    bounds = f"{study.drop_low:+.1%} to {study.drop_high:+.1%}"
    return f"drop {study.drop:+.1%}, {LEVEL:.0%} interval {bounds}"


def _why_no_pass(study: Study, target: float, plain: Study | None, ended: str) -> str:
    """The conclusion, which the numbers follow."""
    at = f" at {study.slow_at}" if study.slow_at else ""
    if study.decision == "fail":
        return f"more than {target:.1%} slower than the baseline{at}"
    after = f"undecided after {study.pairs} pairs"
    if ended:
        after += f" ({ended})"
    if at or study.drop_low > target:
        return f"probably more than {target:.1%} slower than the baseline{at}: {after}"
    if plain and plain.decision == "fail":
        return (
            "speeds against the yardstick and bare speeds contradict each other; see what slows "
            "the whole process while H2O is on"
        )
    bounds = f"{study.drop_low:+.1%} to {study.drop_high:+.1%}"
    return f"{target:.1%} lies inside {bounds}: {after}"


def _advice(study: Study) -> str:
    more = "raise DECODE_MAX_PAIRS or DECODE_BUDGET_S, or measure"
    return f"{more} on a quieter machine, or longer (GENS, DECODE_REPEAT)"
