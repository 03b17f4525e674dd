"""Can speeds be what they are said to be? Against prefill, memory and the baseline, with the
arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_h2o.evidence.look import Look
from pytest_h2o.verdict import Evidence

POSSIBLE = "the speeds are possible"
# From so many tokens on a prompt is read in bulk, which no decode of single tokens outruns.
BULK_TOKENS = 64
FASTER_THAN_PREFILL, FAR_FASTER_THAN_PREFILL = 1.5, 4.0
# A processor multiplies at most some hundred times as fast as its memory delivers weights. What
# reads prompts faster than that beside its decode has not read them.
READS_FASTER, READS_FAR_FASTER = 300.0, 1000.0
# Bytes a second that weights can be read with; more than any memory of its kind has.
BANDWIDTH = {"cpu": 1e12}
BANDWIDTH_OF_OTHERS = 2e13
# Mixtures of experts read a part of their weights for each token, at least this one.
LEAST_READ = 1 / 32
# How often faster than the baseline, over what the smaller cache explains.
FASTER, FAR_FASTER, FAR_FASTER_ALONE = 1.5, 2.0, 2.5
ENOUGH_PAIRS = 3
_SIZE = re.compile(r"([0-9.]+) *([KMGT]?)i?B")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def possible_speeds(look: Look) -> Iterator[Evidence]:
    """Needs both speeds, or a decode speed and ``modelSize``."""
    prefill, decode = look.value("prefill_tps"), look.value("decode_tps")
    if decode is None or not math.isfinite(decode):
        return
    if prefill and prefill > 0 and (look.row.prompt_tokens or 0) >= BULK_TOKENS:
        yield _against_prefill(look, prefill, decode)
    size = _bytes(look.row.cells.get("modelSize", ""))
    if size:
        limit = BANDWIDTH.get(look.spec.backend, BANDWIDTH_OF_OTHERS)
        text = (
            f"{decode:.4g} tok/s that each read weights of {size:.3g} bytes are "
            f"{decode * size:.2g} bytes/s"
        )
        beyond = f"{text}, more than the {limit:.0e} of any memory"
        if decode * size * LEAST_READ > limit:
            yield look.says(POSSIBLE, False, beyond)
        elif decode * size > limit:
            yield look.doubts(POSSIBLE, f"{beyond}, unless few of them are read")
        else:
            yield look.says(POSSIBLE, True, text)


def _against_prefill(look: Look, prefill: float, decode: float) -> Evidence:
    text = (
        f"decode of {decode:.4g} tok/s is {decode / prefill:.2g} times the prefill of "
        f"{prefill:.4g} tok/s, which reads {look.row.prompt_tokens} tokens at once"
    )
    if look.spec.backend == "cpu" and prefill > READS_FASTER * decode:
        text = f"prefill of {prefill:.4g} tok/s is {prefill / decode:.3g} times the decode speed"
        if prefill > READS_FAR_FASTER * decode:
            return look.says(POSSIBLE, False, f"{text}: the prompt was not read")
        return look.doubts(POSSIBLE, text)
    if decode > FAR_FASTER_THAN_PREFILL * prefill:
        return look.says(POSSIBLE, False, text)
    if decode > FASTER_THAN_PREFILL * prefill:
        return look.doubts(POSSIBLE, text)
    return look.says(POSSIBLE, True, text)


def possible_gain(sides: Sequence[tuple[Look, Look]]) -> Iterator[Evidence]:
    """Needs both decode speeds: a token costs its weights as well as its cache, so it cannot be
    faster by more than the cache got smaller.

    A machine that is busy now and then makes single pairs differ: the one in the middle counts.
    """
    gains = sorted(filter(None, (_gain(*side) for side in sides)), key=lambda gain: gain.excess)
    if not gains:
        return
    middle = gains[len(gains) // 2]
    far = FAR_FASTER if len(gains) >= ENOUGH_PAIRS else FAR_FASTER_ALONE
    if middle.excess > far:
        yield middle.candidate.says(POSSIBLE, False, middle.text)
    elif middle.excess > FASTER:
        yield middle.candidate.doubts(POSSIBLE, middle.text)


@dataclass(frozen=True)
class _Gain:
    """How often faster a candidate is, over what its smaller cache explains."""

    candidate: Look
    excess: float
    text: str


def _gain(baseline: Look, candidate: Look) -> _Gain | None:
    before, after = baseline.value("decode_tps"), candidate.value("decode_tps")
    if not before or before <= 0 or after is None or not math.isfinite(after):
        return None
    ratio = max(1.0, candidate.number("h2o_lossy", 1.0))
    if candidate.value("h2o_lossy") is None:
        ratio = max(ratio, float(candidate.setting("kv_h2o_target_lossy_ratio", 1)))
    gain = after / before
    text = (
        f"decode of {after:.4g} tok/s is {gain:.2g} times the baseline's {before:.4g}, and the "
        f"cache is 1/{ratio:.3g}"
    )
    # Measured in yardsticks, a busy machine weighs on both sides alike.
    cost, cheaper = baseline.value("decode_cost"), candidate.value("decode_cost")
    if cost and cheaper and cheaper > 0:
        gain = min(gain, cost / cheaper)
    return _Gain(candidate, gain / ratio, text)


def _bytes(cell: str) -> float | None:
    """Bytes of a size such as ``6.94 MiB``."""
    found = _SIZE.fullmatch(cell.strip())
    if not found or found[1].count(".") > 1 or found[1] == ".":
        return None
    return float(found[1]) * float(1024 ** _POWERS[found[2]])
