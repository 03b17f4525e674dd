"""Is a decode comparison fair? Both sides of each pair against each other, token counts, clocks and
the H2O switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

from pytest_h2o.evidence.alike import unlike
from pytest_h2o.evidence.deviations import deviations
from pytest_h2o.evidence.eviction import evicted_per_layer, leftovers
from pytest_h2o.evidence.host import computed, computed_alike, ended_alone
from pytest_h2o.evidence.look import (
    EVERY_ROW,
    Look,
    lacking,
    looks_at,
    overlooked,
    said_by,
    said_of,
    settle,
)
from pytest_h2o.evidence.lossless import TIMED, decode_seconds
from pytest_h2o.evidence.plausible import possible_gain, possible_speeds
from pytest_h2o.evidence.settings_in_force import cells_echo, config_used, cores_used
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launch
from pytest_h2o.verdict import Evidence

BUILD = "both sides are the same program and model"
WORK = "both sides did the same work"
PLAIN = "H2O and lossless coding were off in the baseline"
ACTIVE = "H2O was active in the launches that were timed"
PRODUCED = "every token that a speed counts was produced"
ANEW = "every launch was measured anew"
REPEATS = "every repeat was measured"
PROMPT = "the prompt is read as it is written"
NEEDS = {
    BUILD: "the hashes in launch.json",
    WORK: "token counts of both sides",
    PLAIN: "h2o columns or log lines of the baseline",
    PRODUCED: "h2o_kv_tokens_end, or the text that llm_demo prints",
    ANEW: "prefill and decode speeds",
    TIMED: "the wall time of the launches",
}
CLOCK_SLACK = 1.02
# Time outside the reported times is start-up; candidates that have this much more of it, all of
# them, hide decoding.
HIDDEN_SHARE, HIDDEN_S, HIDDEN_PAIRS = 0.25, 0.1, 4
HIDDEN_IN_FEW = (1.0, 0.5)
FEWER, ENOUGH_PROMPTS = 0.5, 3
FASTER_PREFILL = 1.6  # honest ones come to 1.3
FEW_PAIRS, FAR_FASTER_PREFILL = 3, 3.0
# A step of the clock may be so much of what it times.
COARSE, LEAST_STEP_US, LEAST_TIMES, CHANCE_OF_STEP = 0.01, 1000, 6, 0.02
CHANCE = 0.01
FINE_TPS = 50.0  # from here on ± 0.00 means that repeats agree to 0.01 %
Pairs = Sequence[tuple[LaunchRecord, LaunchRecord]]
Side = tuple[Look, Look]


def decode_evidence(pairs: Pairs) -> list[Evidence]:
    """Whether the speeds of (baseline, candidate) pairs are what they are taken for; without pairs
    nobody can tell.
    """
    if not pairs:
        return settle([], NEEDS)
    sides: list[Side] = []
    found: list[Evidence] = []
    # Of launches of several rows, every row is a pair.
    launches = {(before.stdout, after.stdout): (before, after) for before, after in pairs}
    for baseline, candidate in launches.values():
        one, other = _looks_of(baseline), _looks_of(candidate)
        if not one or not other:
            return []
        matched = _side_by_side(one, other)
        sides += matched
        if not matched:
            text = f"{candidate.name} and {baseline.name} printed no row of the same work"
            found.append(Evidence(claim=EVERY_ROW, standing="not evidenced", text=text))
    if not sides:
        return settle(found, NEEDS)
    # What is true of all pairs is said before what any of them shows.
    found += _fewer_tokens(sides)
    found += _own_limit(sides)
    of_pairs: list[tuple[Look, list[Evidence]]] = []
    for before, after in sides:
        of_pairs.append((after, list(_each_pair(before, after))))
    looks = list(chain.from_iterable(sides))
    of_launches = said_of(looks, _each_launch)
    for _, own in of_pairs + of_launches:
        found += own
    found += lacking(of_pairs, _needs(BUILD, WORK, PLAIN))
    found += lacking(of_launches[::2], _needs(PRODUCED, TIMED))
    found += lacking(of_launches[1::2], _needs(PRODUCED, TIMED))
    found += possible_gain(sides)
    found += _anew(looks)
    found += computed_alike(looks)
    found += _hidden(sides)
    found += _elsewhere(sides)
    found += _prompts_alike(sides)
    found += _clock_is_fine(sides)
    return settle(found, NEEDS)


def _needs(*claims: str) -> dict[str, str]:
    return {claim: NEEDS[claim] for claim in claims}


def launches_evidence(runs: Iterable[Run]) -> list[Evidence]:
    """Whether repeated launches of one case were each measured, with all their repeats."""
    looks: list[Look] = []
    found: list[Evidence] = []
    for run in runs:
        seen = looks_at(run)
        found += overlooked(run, seen)
        looks += seen
    if not looks and not found:
        return []
    for look in looks:
        found += said_by((_repeats, _clock, _prompt_as_written), look)
        found += possible_speeds(look)
    found += _anew(looks)
    return settle(found, {ANEW: NEEDS[ANEW]})


def _prompt_as_written(look: Look) -> Evidence | None:
    """Needs a launch that was given its prompt in another form."""
    prompt = look.spec.prompt_file
    if prompt is None or not (look.record.directory / prompt.name).is_file():
        return None
    text = (
        "its lines were joined by spaces, a # at the beginning put behind one, for this llm_demo "
        "takes each line as a prompt or comment"
    )
    return look.doubts(PROMPT, f"{prompt.name}: {text}")


def _looks_of(record: LaunchRecord) -> list[Look]:
    """The rows of a launch, whichever it printed."""
    rows, problems = read_launch(record, ())
    return looks_at(Run(record.spec.name, (record,), tuple(rows), tuple(problems)))


def _side_by_side(baseline: Sequence[Look], candidate: Sequence[Look]) -> list[Side]:
    """The rows of two launches that are of the same length or prompt, the first with the first."""
    beside: dict[str, list[Look]] = {}
    for look in baseline:
        beside.setdefault(look.row.label, []).append(look)
    sides: list[Side] = []
    for look in candidate:
        if beside.get(look.row.label):
            sides.append((beside[look.row.label].pop(0), look))
    return sides


def _each_pair(baseline: Look, candidate: Look) -> Iterator[Evidence]:
    yield from _same_build(baseline, candidate)
    yield _same_work(baseline, candidate)
    yield from _same_bytes(baseline, candidate)
    yield from _plain(baseline)
    yield from _active(candidate)


def _each_launch(look: Look) -> Iterator[Evidence]:
    yield from said_by((config_used, cells_echo, cores_used, computed, ended_alone), look)
    yield from said_by((_clock, _repeats), look)
    yield from said_by((_kv_of_tokens, _text_of_tokens, _no_more_than_asked), look)
    yield from leftovers(look)
    yield from deviations(look)
    yield from possible_speeds(look)


def _same_build(baseline: Look, candidate: Look) -> Iterator[Evidence]:
    """Needs the hashes that a launch record holds."""
    one, other = baseline.record.inputs, candidate.record.inputs
    if not one and not other:
        return
    names = sorted(one.keys() | other.keys())
    changed = [name for name in names if one.get(name) != other.get(name)]
    text = "equal hashes on both sides"
    if changed:
        text = f"{', '.join(changed)} changed since {baseline.name}"
    yield candidate.says(BUILD, not changed, text)


def _same_work(baseline: Look, candidate: Look) -> Evidence:
    """Needs prompt tokens; cells, options and configs where there are any."""
    differ = unlike(baseline, candidate)
    same = f"{baseline.row.prompt_tokens} prompt tokens on both sides"
    return candidate.says(WORK, not differ, "; ".join(differ) or same)


def _same_bytes(baseline: Look, candidate: Look) -> Iterator[Evidence]:
    """Needs ``h2o_kv_peak_mb`` of both: a token has as many bytes of KV in the baseline as in the
    candidate before it evicts any, or one of them quantises.
    """
    before, after = baseline.value("h2o_kv_peak_mb"), candidate.value("h2o_kv_peak_mb")
    if not before or not after or not candidate.row.prompt_tokens or not baseline.tokens:
        return
    expected = before * candidate.row.prompt_tokens / baseline.tokens
    blocks = candidate.number("h2o_lossless_raw_mb") + candidate.number("h2o_lossless_comp_mb")
    most = before * candidate.tokens / baseline.tokens + blocks
    text = f"at most {after:.4g} MiB of KV, {before:.4g} in the baseline, which evicts nothing"
    yield candidate.says(WORK, 0.9 * expected <= after <= 1.1 * most + 0.01, text)


def _plain(baseline: Look) -> Iterator[Evidence]:
    """Needs the h2o columns of the baseline, or its log lines."""
    on: list[str] = []
    for name in ("h2o_lossy", "h2o_lossless"):
        value = baseline.number(name, 1.0)
        if value != 1:
            on.append(f"{name} {value:g}")
    if baseline.lines.plans:
        on.append(f"{baseline.lines.plans} eviction plans")
    if baseline.lines.updates:
        on.append(f"{baseline.lines.updates} encoded blocks")
    if on:
        yield baseline.says(PLAIN, False, f"the baseline shows {', '.join(on)}")
    elif baseline.value("h2o_lossy") is not None:
        yield baseline.says(PLAIN, True, "all its ratios are 1")


def _active(candidate: Look) -> Iterator[Evidence]:
    """Needs ``h2o_lossy`` of a bench launch that is long enough to trigger."""
    trigger = candidate.spec.config.get("kv_h2o_trigger_min_tokens")
    lossy = candidate.value("h2o_lossy")
    if candidate.spec.work == "lengths" and isinstance(trigger, int) and lossy is not None:
        prompt = candidate.row.prompt_tokens or 0
        if candidate.spec.config.get("kv_h2o_enable") and trigger <= prompt:
            yield candidate.says(ACTIVE, lossy > 1, f"lossy ratio {lossy:g} while it was timed")


def _repeats(look: Look) -> Evidence | None:
    """Needs ``± std`` of both speeds: measured repeats never agree in every digit."""
    prefill, decode = (look.row.samples.get(name) for name in ("prefill_tps", "decode_tps"))
    if (look.spec.repeat or 1) < 2 or not prefill or not decode:
        return None
    if prefill.std is None or decode.std is None:
        return None
    if prefill.std or decode.std:
        return look.says(REPEATS, True, "the repeats differ")
    text = f"± 0 in both speeds: {look.spec.repeat} repeats were asked for"
    if max(prefill.mean, decode.mean) < FINE_TPS:
        return look.doubts(REPEATS, f"{text}, but speeds this low are printed too coarsely to tell")
    return look.says(REPEATS, False, text)


def _clock(look: Look) -> Evidence | None:
    """Needs the launch's wall time: what a program says it measured cannot have taken longer."""
    wall, reported = look.record.seconds, _reported_of_all(look)
    if wall is None or reported is None:
        return None
    holds = reported <= CLOCK_SLACK * wall + 0.02
    return look.says(
        TIMED, holds, f"reported times add up to {reported:.3g} s, the launch took {wall:.3g} s"
    )


def _reported_of_all(look: Look) -> float | None:
    """Seconds that all rows of the launch report; None where one does not say."""
    seconds = 0.0
    for row in look.rows or (look.row,):
        reported = _reported(replace(look, row=row))
        if reported is None:
            return None
        seconds += reported
    return seconds


def _reported(look: Look) -> float | None:
    """Seconds of all measured responses, prefill and decode."""
    decode, prefill = decode_seconds(look), look.value("prefill_us")
    if decode is None:
        return None
    if prefill is not None:
        return decode + (prefill + look.number("sample_us")) / 1e6
    speed = look.value("prefill_tps")
    if not speed or speed <= 0:
        return None
    return (look.spec.repeat or 1) * (decode + (look.row.prompt_tokens or 0) / speed)


def _kv_of_tokens(look: Look) -> Evidence | None:
    """Needs ``h2o_kv_tokens_end``: with what was evicted, the cache holds all that was read and
    produced.
    """
    end = look.value("h2o_kv_tokens_end")
    gone = evicted_per_layer(look)
    if end is None or (look.claims_eviction and not gone):
        return None
    text = f"KV holds {end:g} tokens and lost {gone:g}, prompt and decoded tokens are {look.tokens}"
    # A shorter warm-up makes other plans than the measured responses, whose own tokens are then
    # known less exactly.
    share = 0.98 if look.responses == 1 or _alike(look) else 0.85
    return look.says(PRODUCED, end + gone >= share * look.tokens - 3, text)


def _alike(look: Look) -> bool:
    """Whether every response of the launch made as many plans as the measured ones."""
    return (
        abs(look.facts.plans - look.number("h2o_evictions_planned") * (look.responses or 0)) < 0.5
    )


def _text_of_tokens(look: Look) -> Evidence | None:
    """Needs the text that was written: a token is at least one byte, but for the last and a few
    that print nothing.
    """
    count = look.row.decode_tokens
    try:
        text = look.program.text(look.record) if count else None
    except ParseError:
        return None
    if not count or text is None:
        return None
    size = len(text.encode())
    return look.says(
        PRODUCED, size >= 0.9 * count - 4, f"{size} bytes of text for {count} decoded tokens"
    )


def _no_more_than_asked(look: Look) -> Evidence | None:
    """Needs the number of decoded tokens."""
    count, asked = look.row.decode_tokens or 0, look.spec.gen_tokens
    # A recording may not say how many were asked for; several rows have theirs in their labels.
    if not asked or count <= asked + 1 or not look.alone:
        return None
    return look.says(PRODUCED, False, f"{count} decoded tokens, asked for {asked}")


def _fewer_tokens(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs produced tokens of real prompts: what stops early is timed on a shorter context."""
    baseline = sum(before.row.decode_tokens or 0 for before, _ in sides)
    candidate = sum(after.row.decode_tokens or 0 for _, after in sides)
    look = sides[0][1]
    if look.spec.work == "prompts" and candidate != baseline:
        text = f"all candidates produced {candidate} tokens, all baselines {baseline}"
        if not FEWER * baseline <= candidate <= baseline / FEWER:
            yield look.says(WORK, False, f"{text}: stopped early, the speeds are not comparable")
        elif not 0.9 * baseline <= candidate <= baseline / 0.9:
            yield look.doubts(WORK, text)


def _own_limit(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs produced tokens of several real prompts: what ends an answer is what was said, so that
    answers do not all end alike.
    """
    prompts = {after.row.label for _, after in sides}
    counts = {after.row.decode_tokens or 0 for _, after in sides}
    look = sides[0][1]
    if look.spec.work != "prompts" or len(prompts) < 2 or len(counts) > 1:
        return
    count = counts.pop()
    longer = min(before.row.decode_tokens or 0 for before, _ in sides)
    if count < min(longer, look.spec.gen_tokens):
        text = (
            f"every candidate stops after {count} tokens, whatever the prompt, and every baseline "
            f"goes on"
        )
        if len(prompts) >= ENOUGH_PROMPTS:
            yield look.says(WORK, False, text)
        else:
            yield look.doubts(WORK, text)


def _anew(looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs prefill and decode speeds: two launches that agree in every digit are one launch,
    copied.

    Slow ones have few digits: where launches differ by 0.3 %, the hundredths of a speed agree by
    chance about once in as many launches as it is tokens/s.
    """
    distinct = {(look.spec.key, look.row.line): look for look in looks}
    others = len(distinct) * (len(distinct) - 1) / 2
    seen: dict[tuple[float, float], Look] = {}
    for look in distinct.values():
        prefill, decode = look.value("prefill_tps"), look.value("decode_tps")
        if prefill is None or decode is None:
            continue
        first = seen.setdefault((prefill, decode), look)
        text = f"prefill {prefill:.2f} and decode {decode:.2f} tok/s as {first.name}"
        if first is look:
            yield look.says(ANEW, True, "own speeds")
        elif others < CHANCE * prefill * decode:
            yield look.says(ANEW, False, text)
        else:
            yield look.doubts(ANEW, text)


def _hidden(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs wall times: decoding that the candidate does not report shows as time outside all
    reported times, beside that of its own baseline.
    """
    hidden: list[float] = []
    decodes: list[float] = []
    for before, after in sides:
        usual, seconds = _outside(before), decode_seconds(after)
        for outside in _outside(after):
            if usual and seconds and after.responses:
                hidden.append(outside - usual[0])
                decodes.append(seconds * after.responses)
    if not hidden:
        return
    share, least = HIDDEN_SHARE, HIDDEN_S
    if len(hidden) < HIDDEN_PAIRS:
        # A busy machine may hold up one launch.
        share, least = HIDDEN_IN_FEW
    # A quarter of the pairs may have been held up the other way.
    typical = sorted(hidden)[(len(hidden) - 1) // 4]
    decode = median(decodes)
    if typical > max(share * decode, least):
        text = (
            f"the candidate spends {typical:.2g} s more than its baseline outside the times it "
            f"reports"
        )
        yield sides[0][1].says(TIMED, False, f"{text}, which add up to {decode:.2g} s of decoding")


def _elsewhere(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs the times of ``llm_demo``: sampling costs the same with H2O."""
    if len(sides) < HIDDEN_PAIRS:
        return
    samplings, decodes = list[float](), list[float]()
    for before, after in sides:
        one, other = _shares(before), _shares(after)
        if one is None or other is None:
            return
        samplings.append(other[0] - one[0])
        decodes.append(other[1])
    look = sides[0][1]
    hidden = min(samplings)
    if hidden > HIDDEN_SHARE * median(decodes):
        yield look.says(
            TIMED,
            False,
            f"every candidate samples {hidden * 1e6:.3g} µs a token longer than its baseline",
        )


def _prompts_alike(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs prefill speeds: nothing is evicted before the first token, so a prompt is read as fast
    with H2O as without.
    """
    ratios: list[float] = []
    for before, after in sides:
        one, other = before.value("prefill_tps"), after.value("prefill_tps")
        if not one or not other or one <= 0 or other <= 0:
            return
        ratios.append(other / one)
    if len(ratios) >= FEW_PAIRS:
        faster, slower, limit = min(ratios), max(ratios), FASTER_PREFILL
    else:
        faster = slower = median(ratios) if ratios else 1.0
        limit = FAR_FASTER_PREFILL
    look = sides[0][1]
    if faster > limit:
        text = f"every candidate reads its prompt {faster:.2g} times as fast as its baseline"
        text = f"{text}, before any eviction"
        # KV of earlier requests is read as well, and the baseline has more of it.
        kept = any(any(leftovers(each)) for each in chain.from_iterable(sides))
        yield look.doubts(WORK, text) if kept else look.says(WORK, False, text)
    elif slower < 1 / limit:
        text = f"every candidate reads its prompt at {slower:.2g} times its baseline's speed"
        yield look.doubts(WORK, f"{text}, before any eviction")


def _clock_is_fine(sides: Sequence[Side]) -> Iterator[Evidence]:
    """Needs the times of several records: where all are multiples of one step, the clock goes on
    by so much.
    """
    times: list[float] = []
    decodes: list[float] = []
    for look in chain.from_iterable(sides):
        prefill, decode = look.value("prefill_us"), look.value("decode_us")
        if not prefill or not decode:
            return
        times += [prefill, decode]
        decodes.append(decode)
    step = common_step(times)
    if not step:
        return
    look = sides[0][1]
    text = f"all times are multiples of {step:.5g} µs, and decoding took {median(decodes):.5g}"
    if step > COARSE * median(decodes):
        yield look.says(TIMED, False, f"{text}: too coarse a clock for a speed")
    else:
        yield look.doubts(TIMED, text)


def common_step(times: Sequence[float]) -> float:
    """The step of at least a millisecond that all of several times in µs are multiples of; 0 if
    there is none, or too few to tell.
    """
    least = min(times, default=0.0)
    if len(times) < LEAST_TIMES:
        return 0.0
    for parts in range(1, int(least / LEAST_STEP_US) + 1):
        step = least / parts
        if all(_is_multiple(time, step, least) for time in times):
            return step
    return 0.0


def _is_multiple(time: float, step: float, least: float) -> bool:
    """Whether ``time`` is some steps; ``least``, from which the step is known, was cut to whole
    microseconds, and so was ``time``.
    """
    slack = 2 + 2 * time / least
    return slack < CHANCE_OF_STEP * step and abs(time - round(time / step) * step) <= slack


def _shares(look: Look) -> tuple[float, float] | None:
    """Seconds of sampling and of decoding per token."""
    sample, decode, tokens = (
        look.value("sample_us"),
        look.value("decode_us"),
        look.row.decode_tokens,
    )
    if sample is None or decode is None or not tokens:
        return None
    return sample / tokens / 1e6, decode / tokens / 1e6


def _outside(look: Look) -> list[float]:
    """Wall seconds that are in no reported time, if they are known; a warm-up takes as long as what
    is measured after it, at most.
    """
    wall, reported = look.record.seconds, _reported(look)
    if wall is None or reported is None or not look.alone:
        return []
    measured = look.spec.repeat or 1
    return [wall - reported * (look.responses or measured) / measured]
