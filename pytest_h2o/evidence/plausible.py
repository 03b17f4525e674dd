"""Can speeds be what they are said to be? Against prefill, memory and the baseline, with the
arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_h2o.evidence.look import Look
from pytest_h2o.parsers.rows import Row
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
_SIZE = re.compile(r"([0-9]+(?:[.,][0-9]+)?) *([KMGT]?)i?(?:B|bytes)?", re.IGNORECASE)
SPEEDS = ("prefill_tps", "decode_tps")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def possible_speeds(look: Look) -> Iterator[Evidence]:
    """Needs both speeds, or a decode speed and ``modelSize``."""
    yield from _impossible_samples(look)
    decode = look.value("decode_tps")
    if decode is None or not 0 < decode < math.inf:
        return
    reading = _reading(look)
    if reading:
        yield _against_prefill(look, reading, decode)
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


def _impossible_samples(look: Look) -> Iterator[Evidence]:
    """What no measurement of speeds comes to, whatever was measured."""
    samples = [look.row.samples.get(name) for name in SPEEDS]
    for name, sample in zip(SPEEDS, samples, strict=True):
        if sample is None or not math.isfinite(sample.mean):
            continue
        if sample.mean <= 0:
            text = f"{name} is {sample.mean:g} tok/s, which is none"
            yield look.says(POSSIBLE, False, text)
        elif sample.std and sample.n and sample.std > math.sqrt(sample.n) * sample.mean:
            text = (
                f"{name} is {sample.mean:g} ± {sample.std:g}: {sample.n} speeds above 0 deviate by "
                f"{math.sqrt(sample.n):.2g} times their mean at most"
            )
            yield look.says(POSSIBLE, False, text)
    prefill, decode = samples
    if (
        prefill
        and decode
        and prefill.std
        and (prefill.mean, prefill.std) == (decode.mean, decode.std)
    ):
        text = f"prefill and decode are both {prefill.mean:g} ± {prefill.std:g} tok/s"
        yield look.doubts(POSSIBLE, f"{text}, to the last digit")


def _reading(look: Look) -> Row | None:
    """The row that says how fast the launch reads prompts in bulk: this one, else the fastest
    other.
    """
    found: list[Row] = []
    for row in (look.row, *look.rows):
        prefill = row.samples.get("prefill_tps")
        bulk = (row.prompt_tokens or 0) >= BULK_TOKENS
        if prefill and bulk and 0 < prefill.mean < math.inf:
            found.append(row)
    if found and found[0] is look.row:
        return look.row
    return max(found, key=lambda row: row.samples["prefill_tps"].mean, default=None)


def _against_prefill(look: Look, reading: Row, decode: float) -> Evidence:
    prefill = reading.samples["prefill_tps"].mean
    text = (
        f"decode of {decode:.4g} tok/s is {decode / prefill:.2g} times the prefill of "
        f"{prefill:.4g} tok/s, which reads {reading.prompt_tokens} tokens at once"
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
    """Bytes of a size such as ``6.94 MiB``, or a plain number of them."""
    found = _SIZE.fullmatch(cell.strip())
    if not found:
        return None
    return float(found[1].replace(",", ".")) * float(1024 ** _POWERS[found[2].upper()])
