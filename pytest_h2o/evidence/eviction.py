"""Is a lossy ratio true? Plans, dropped-plan lines, KV lengths and bytes against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from pytest_h2o.evidence.log_consistency import plans_evidence
from pytest_h2o.evidence.look import (
    TUNING_TOKENS,
    Look,
    lacking,
    looks_at,
    overlooked,
    said_by,
    said_of,
    settle,
    tokens_of,
)
from pytest_h2o.parsers.loglines import INTEGRITY_KINDS, STALE_PLAN, LogFacts
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

APPLIED = "evictions were applied"
RATIO = "the lossy ratio is what the plans kept"
FRESH = "every response starts with an empty cache"
TRIGGERED = "H2O was active"
NEVER = "H2O never triggered in any launch"
PROTECTED = "sink and recent tokens are kept"
NEEDS = {
    APPLIED: "[H2O] lines (kv_h2o_log_stats) of several plans per layer, h2o_evictions_applied "
    "or h2o_kv_tokens_end",
    RATIO: "h2o_keep or [H2O] lines",
}
COUNTS = ("h2o_lossy", "h2o_total_evict_tokens")
# Plans that the runtime cancels and makes again are counted twice; more than this is no longer
# that.
COUNTED_AGAIN = 1.25
BROKEN = [kind for kind in INTEGRITY_KINDS if kind not in (STALE_PLAN, "Clamp invalid meta remove")]


def eviction_evidence(run: Run) -> list[Evidence]:
    """Whether the KV that a lossy ratio says is gone is gone."""
    if run.problems or (run.rows and not run.has_h2o):
        return []
    looks = looks_at(run)
    found = list(chain(overlooked(run, looks), _unattributed(run, looks)))
    claiming = [look for look in looks if look.claims_eviction]
    if not claiming and run.no_h2o:
        return []
    if not claiming and any(map(_counts_evictions, looks)):
        logged = [look for look in looks if look.lines.plans]
        return [_uncounted(logged)] if logged else [_never_triggered(looks)]
    said = said_of(claiming, _of_launch)
    for _, own in said:
        found += own
    found += _conserved(claiming)
    found += lacking(said, NEEDS)
    return settle(found, NEEDS)


def idle(run: Run) -> str:
    """Why nothing at all was evicted, as the evidence says it; empty where something was, or it is
    not known.
    """
    for item in eviction_evidence(run):
        if item.claim == TRIGGERED and item.text.startswith(NEVER):
            return item.text
    return ""


def _counts_evictions(look: Look) -> bool:
    """Whether the program prints what it evicted, so that nothing means none."""
    return any(look.value(name) is not None for name in COUNTS)


def _unattributed(run: Run, looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs the lines of a launch whose rows are not known to be its own: most plans were
    dropped.
    """
    seen = {look.record.stdout for look in looks}
    for record, facts in zip(run.launches, run.facts, strict=True):
        if record.stdout not in seen and _mostly_stale(facts):
            yield Evidence.of(APPLIED, False, f"{_dropped_plans(facts)} ({record.name})")


def _never_triggered(looks: Sequence[Look]) -> Evidence:
    config = looks[0].spec.config
    interval = looks[0].setting("kv_h2o_update_interval")
    decoded = max(look.row.decode_tokens or 0 for look in looks)
    trigger = looks[0].setting("kv_h2o_trigger_min_tokens")
    longest = max(look.tokens for look in looks)
    adaptive = config.get("kv_h2o_target_mode") == "adaptive"
    ratio = config.get("kv_h2o_target_lossy_ratio")
    if trigger > longest:
        cause = f"H2O_TRIGGER_MIN is {trigger}, the longest response has {longest} tokens"
    elif any(look.lines.floor_dominated for look in looks):
        cause = (
            "sink and recent tokens leave nothing to evict (floor-keep dominates target); "
            "lower H2O_RECENT_TOKENS"
        )
    elif looks[0].spec.attention_option:
        cause = (
            f"ATTENTION_OPTION={looks[0].spec.attention_option} quantises KV, which switches "
            f"H2O off"
        )
    elif adaptive and isinstance(ratio, int | float) and ratio <= 1:
        cause = "H2O_TARGET_LOSSY_RATIO of 1 keeps everything"
    elif interval > decoded:
        cause = (
            f"H2O_UPDATE_INTERVAL is {interval} executions of layers, and {decoded} tokens "
            f"were decoded; lower it"
        )
    else:
        cause = "does the program read the kv_h2o_* keys of the config it was given?"
    return Evidence(claim=TRIGGERED, standing="contradicted", text=f"{NEVER}; {cause}")


def _uncounted(looks: Sequence[Look]) -> Evidence:
    """Lines of evictions beside columns that count none, or are absent."""
    plans = sum(look.lines.plans for look in looks)
    absent = [name for name in COUNTS if looks[0].value(name) is None]
    columns = f"{', '.join(absent)} is absent" if absent else f"{' and '.join(COUNTS)} count none"
    return Evidence(
        claim=TRIGGERED,
        standing="contradicted",
        text=f"the log has {plans} eviction plans, but {columns}: the table and the log are not of "
        "the same build, or of the same launch",
    )


def _of_launch(look: Look) -> Iterator[Evidence]:
    yield from said_by(CHECKS, look)
    yield from plans_evidence(look)
    yield from leftovers(look)


def _counters(look: Look) -> Evidence | None:
    planned, applied = look.value("h2o_evictions_planned"), look.value("h2o_evictions_applied")
    if planned is None or applied is None:
        return None
    return look.says(
        APPLIED,
        applied >= planned > 0,
        f"{applied:g} of {planned:g} planned evictions were applied",
    )


def _counted(look: Look) -> Evidence | None:
    """Needs ``[H2O]`` lines beside evicted tokens of one response, or planned evictions of each."""
    total, planned = look.value("h2o_total_evict_tokens"), look.value("h2o_evictions_planned")
    facts = look.lines
    if total is not None and facts.plans and total > 1.1 * facts.evicted:
        return look.says(
            APPLIED,
            False,
            f"{total:g} evicted tokens are counted, the plan lines drop {facts.evicted}",
        )
    if planned and facts.plans and planned * (look.spec.repeat or 1) > facts.plans + 0.5:
        text = f"{planned:g} plans are counted in each of {look.spec.repeat or 1} responses"
        return look.says(APPLIED, False, f"{text}, the lines of all have {facts.plans}")
    return None


def _stale(look: Look) -> Evidence | None:
    """Needs the ``Drop stale per-layer pending plan`` lines."""
    lines = look.lines
    text = f"{_dropped_plans(lines)}, and KV grew to {lines.max_kv} tokens"
    if _mostly_stale(lines):
        return look.says(APPLIED, False, text)
    return look.doubts(APPLIED, text) if lines.stale_plans else None


def _mostly_stale(facts: LogFacts) -> bool:
    return facts.stale_plans * 2 > facts.plans


def _dropped_plans(facts: LogFacts) -> str:
    return f"{facts.stale_plans} of {facts.plans} eviction plans were dropped as stale"


def _shrank(look: Look) -> Evidence | None:
    """Needs ``[H2O]`` lines: a plan was applied if the layer's next plan met a shorter cache."""
    facts = look.lines
    if look.logs and not facts.plans:
        return look.says(
            APPLIED,
            False,
            "an eviction is claimed, and no [H2O] plan line was printed though others were",
        )
    if not facts.plans_followed_by_smaller_kv or not look.plans_of_row:
        return None
    return look.says(
        APPLIED,
        True,
        f"KV shrank after {facts.plans_followed_by_smaller_kv} of {facts.plans} plans",
    )


def _kv_at_end(look: Look) -> Evidence | None:
    """Needs ``h2o_kv_tokens_end``: the mean KV length of all layers after the response."""
    end = look.value("h2o_kv_tokens_end")
    if end is None:
        return None
    gone, expected = look.tokens - end, evicted_per_layer(look)
    holds = gone > 0.01 * look.tokens and gone >= 0.5 * expected
    text = f"KV holds {end:g} tokens per layer after {look.tokens}"
    if expected:
        text += f", by plans {look.tokens - expected:.0f}"
    return look.says(APPLIED, holds, text)


def evicted_per_layer(look: Look) -> float:
    """Tokens that the plans of one response drop, per layer of the model; 0 if that cannot be
    told.
    """
    if look.spec.config.get("kv_h2o_layer_end") != -1 or not look.facts.plans:
        return 0.0
    dropped = look.value("h2o_total_evict_tokens")
    if dropped is None:
        of_lines = look.facts.plans / look.responses if look.responses else 0.0
        planned = look.number("h2o_evictions_planned", of_lines)
        dropped = look.facts.evicted / look.facts.plans * planned
    return dropped / (max(look.facts.layers) + 1)


def _resident(look: Look) -> Evidence | None:
    """Needs ``h2o_kv_resident_mb``, its peak and ``h2o_kv_tokens_end``: the bytes go with the
    tokens.
    """
    resident, peak = look.value("h2o_kv_resident_mb"), look.value("h2o_kv_peak_mb")
    end = look.value("h2o_kv_tokens_end")
    if resident is None or peak is None or end is None or not look.row.prompt_tokens:
        return None
    blocks = look.number("h2o_lossless_raw_mb") + look.number("h2o_lossless_comp_mb")
    most = 1.02 * (end * peak / look.row.prompt_tokens + blocks) + 0.01
    return look.says(
        APPLIED, resident <= most, f"{resident:g} MiB are held for {end:g} tokens per layer"
    )


def _effective(look: Look) -> Evidence | None:
    """Needs ``h2o_effective_ratio`` and ``h2o_keep``: since the last eviction at most every decoded
    token was added.
    """
    ratio, keep = look.value("h2o_effective_ratio"), look.value("h2o_keep")
    if ratio is None or keep is None or not look.tokens:
        return None
    least = 0.95 * look.tokens / (keep * look.tokens + (look.row.decode_tokens or 0))
    text = (
        f"the H2O layers hold 1/{ratio:.3g} of their tokens at the end, kept were {keep:.1%} "
        f"at the last eviction"
    )
    return look.says(APPLIED, ratio >= least, text)


def _from_the_beginning(look: Look) -> Evidence | None:
    """Needs ``h2o_effective_ratio_mean`` beside the final one, and ``[H2O]`` lines: what is evicted
    in the first half of a response is gone for the rest of it.
    """
    mean, final = look.value("h2o_effective_ratio_mean"), look.value("h2o_effective_ratio")
    decoded, prompt = look.row.decode_tokens or 0, look.row.prompt_tokens or 0
    plans = look.facts.repeats.plans
    if mean is None or final is None or not plans or final <= 1:
        return None
    text = f"the H2O layers hold 1/{mean:.3g} of their tokens on average, 1/{final:.3g} at the end"
    first = min(plan.kv for plan in plans if plan.kv >= prompt) if plans[0].kv >= prompt else 0
    early = 0 < first - prompt <= decoded / 2
    holds = not early or mean - 1 >= 0.25 * (final - 1)
    return look.says(APPLIED, holds and mean <= 2 * final + 0.5, text)


def _ratio_of_keep(look: Look) -> Evidence | None:
    """Needs ``h2o_keep``: bytes before over after cannot exceed tokens before over after."""
    keep, lossy = look.value("h2o_keep"), look.value("h2o_lossy")
    if keep is None or lossy is None:
        return None
    # The mean of ratios exceeds the ratio of means by about the squared relative deviation.
    slack = 1.01 + 2 * look.spread("h2o_keep") ** 2
    return look.says(
        RATIO, lossy * keep <= slack, f"lossy ratio {lossy:g} with {keep:.1%} of the tokens kept"
    )


def _ratio_of_plans(look: Look) -> Evidence | None:
    """Needs ``[H2O]`` lines: no row can exceed the best plan of its launch."""
    lossy = look.value("h2o_lossy")
    if lossy is None or not look.plans_of_row:
        return None
    best = max(layer.best_ratio for layer in look.lines.layers.values())
    return look.says(
        RATIO,
        lossy <= 1.01 * best,
        f"lossy ratio {lossy:g}, the plan that kept least kept 1/{best:.4g}",
    )


def _intact(look: Look) -> Evidence | None:
    """Needs the KV integrity lines; the clamped removals that baselines print as well say
    nothing.
    """
    found = look.lines.findings
    seen = [f"{found[kind].count} lines {kind!r}" for kind in BROKEN if kind in found]
    if not seen:
        return None
    return look.doubts(APPLIED, f"the program prints {', '.join(seen)}")


def _protected(look: Look) -> Evidence | None:
    """Needs ``floor=``, ``sink=`` and ``recent=`` of ``[H2O]`` lines."""
    plans, bare = look.lines.plans, look.lines.unprotected
    if not bare:
        return None
    text = f"{bare} of {plans} plans protect fewer tokens than sink and recent (floor=)"
    return look.says(PROTECTED, False, text)


CHECKS = (
    _counters,
    _counted,
    _stale,
    _shrank,
    _kv_at_end,
    _resident,
    _effective,
    _from_the_beginning,
    _ratio_of_keep,
    _ratio_of_plans,
    _protected,
    _intact,
)


def leftovers(look: Look) -> Iterator[Evidence]:
    """Needs ``kv=`` of any line: a cache longer than the request holds tokens of earlier ones."""
    longest = look.lines.max_kv or 0
    tokens = max(look.tokens, max(map(tokens_of, look.rows), default=0))
    if longest > tokens + TUNING_TOKENS:
        text = (
            f"kv= reaches {longest} in a request of {tokens} tokens: KV of earlier "
            f"requests was kept"
        )
        yield look.doubts(FRESH, f"{text}, so speeds over repeats favour whoever evicts")


def _conserved(looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs ``[H2O]`` lines and the number of responses: a layer cannot drop and hold more tokens
    than it was given.
    """
    given = dropped = cancelled = 0
    for look in looks:
        if look.responses is None:
            continue
        most = look.responses * look.tokens + TUNING_TOKENS
        for layer in look.facts.layers.values():
            if layer.plans:
                given += most
                dropped += layer.evicted + (layer.last_kv or 0) - (layer.last_evict or 0)
                cancelled += layer.cancelled
    if not given or dropped <= given:
        return
    text = f"the plans drop or keep {dropped} tokens of layers that were given {given}"
    if dropped - cancelled > COUNTED_AGAIN * given:
        yield Evidence(
            claim=APPLIED, standing="contradicted", text=f"{text}: plans were made and not applied"
        )
    else:
        yield Evidence(
            claim=APPLIED, standing="doubtful", text=f"{text}: some were cancelled and made again"
        )
