"""Is a lossless ratio true, were the blocks decoded, and did decoding give back what was
encoded?
"""

from __future__ import annotations

from pytest_h2o.evidence.block_sizes import counted_sizes, repeated_sizes
from pytest_h2o.evidence.log_consistency import blocks_evidence, waited
from pytest_h2o.evidence.look import Look, lacking, looks_at, overlooked, said_by, settle
from pytest_h2o.metrics import MIB
from pytest_h2o.parsers.loglines import LOSSLESS_ERRORS
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Evidence

RATIO = "the lossless ratio is raw over encoded bytes"
DECODED = "encoded blocks were decoded"
EQUAL = "decoding gave back what was encoded"
TIMED = "decode time covers restoring"
COUNTED = "failed and skipped blocks are counted"
FASTEST = 1e12  # bytes a second
NEEDS = {
    RATIO: "h2o_lossless_raw_mb and _comp_mb above 0.00, or [H2O-LOSSLESS] lines",
    DECODED: "h2o_lossless_decompressed_bytes, h2o_lossless_decomp_us or decode cache counts",
    EQUAL: "h2o_lossless_roundtrips, or KV_LOSSLESS_STRICT_ROUNDTRIP_CHECK=1",
}


def lossless_evidence(run: Run) -> list[Evidence]:
    """Whether a lossless ratio stands for bytes that were encoded and decoded again."""
    if run.problems:
        return []
    looks = looks_at(run)
    found = list(overlooked(run, looks))
    claiming = [look for look in looks if look.claims_blocks]
    if not claiming and not found and not any(map(_restored, looks)):
        return []
    said: list[tuple[Look, list[Evidence]]] = []
    for look in claiming:
        own = list(said_by((_bytes, _logged, _recorded, _decoded, _equal), look))
        own += said_by((_counted, _timed, _clocked, _possible, waited), look)
        own += said_by((repeated_sizes, counted_sizes), look)
        own += blocks_evidence(look)
        said.append((look, own))
        found += own
    found += lacking(said, NEEDS)
    return settle(found, NEEDS)


def _restored(look: Look) -> bool:
    """Whether any number says that something was decoded."""
    names = ("h2o_lossless_decomp_us", "h2o_lossless_decode_cache_hit")
    return any(look.number(name) > 0 for name in names)


def _bytes(look: Look) -> Evidence | None:
    """Needs raw and encoded bytes; a table rounds them to 0.01 MiB."""
    ratio = look.value("h2o_lossless")
    raw, comp = look.value("h2o_lossless_raw_mb"), look.value("h2o_lossless_comp_mb")
    if ratio is None or raw is None or comp is None or not raw or not comp:
        return None
    rounding = look.program.mib_rounding
    raw_spread, comp_spread = (
        look.spread("h2o_lossless_raw_mb"),
        look.spread("h2o_lossless_comp_mb"),
    )
    slack = 1.03 + raw_spread**2 + comp_spread**2
    least = (raw - rounding) / (comp + rounding)
    most = (raw + rounding) / max(comp - rounding, 1e-9)
    holds = least / slack <= ratio <= most * slack
    text = f"ratio {ratio:g} of {raw:.3g} MiB raw and {comp:.3g} MiB encoded"
    return look.says(RATIO, holds, text)


def _logged(look: Look) -> Evidence | None:
    """Needs ``[H2O-LOSSLESS]`` lines: their bytes over all responses make about the same ratio, and
    no fewer bytes.
    """
    facts, ratio = look.facts, look.number("h2o_lossless", 1.0)
    if look.logs and not look.lines.updates:
        return look.says(
            RATIO,
            False,
            f"ratio {ratio:g}, and no [H2O-LOSSLESS] line was printed though others were",
        )
    if not facts.comp_bytes:
        return None
    logged, mib = facts.raw_bytes / facts.comp_bytes, facts.raw_bytes / MIB
    measured = look.number("h2o_lossless_raw_mb") * (look.spec.repeat or 1)
    holds = 0.75 <= ratio / logged <= 1.33 and measured <= 1.05 * mib + 0.01 * (look.responses or 1)
    return look.says(
        RATIO,
        holds,
        f"ratio {ratio:g}; the log's {facts.updates} blocks: {mib:.3g} MiB, {logged:.4g}",
    )


def _recorded(look: Look) -> Evidence | None:
    """Needs ``[H2O-LOSSLESS]`` lines of a launch with one response, which both they and its record
    are about.
    """
    if look.responses != 1 or not look.facts.updates:
        return None
    raw, comp = look.number("h2o_lossless_raw_mb"), look.number("h2o_lossless_comp_mb")
    logged_raw, logged_comp = look.facts.raw_bytes / MIB, look.facts.comp_bytes / MIB
    alike = abs(raw - logged_raw) <= 0.1 * logged_raw
    holds = alike and abs(comp - logged_comp) <= 0.1 * logged_comp
    text = f"{raw:.3g} MiB raw and {comp:.3g} encoded are recorded"
    return look.says(RATIO, holds, f"{text}, the lines have {logged_raw:.3g} and {logged_comp:.3g}")


def _decoded(look: Look) -> Evidence | None:
    """Needs decoded bytes (``llm_demo``), or decode time and cache hits."""
    if (decompressed := look.value("h2o_lossless_decompressed_mb")) is not None:
        raw = look.number("h2o_lossless_raw_mb")
        text = f"{decompressed:.3g} MiB were decoded of {raw:.3g}"
        if 0 < decompressed < 0.5 * raw:
            return look.doubts(DECODED, text)
        return look.says(DECODED, decompressed > 0, text)
    us, hits = look.value("h2o_lossless_decomp_us"), look.value("h2o_lossless_decode_cache_hit")
    if us is None or hits is None:
        return None
    text = f"decoding took {us:g} µs, {hits:g} blocks came from the cache"
    trigger = look.setting("kv_h2o_trigger_min_tokens")
    store = look.spec.config.get("kv_lossless_runtime_mode") == "store"
    if store and not us and not hits and look.tokens <= trigger:
        # What the last token encodes would be restored at the next one, and there is none.
        return look.doubts(
            DECODED,
            f"{text}: responses of {look.tokens} tokens end where encoding begins, {trigger}",
        )
    return look.says(DECODED, us > 0 or hits > 0, text)


def _equal(look: Look) -> Evidence | None:
    """Needs blocks and round trips; blocks that did not shrink are not decoded."""
    blocks, trips = look.value("h2o_lossless_blocks"), look.value("h2o_lossless_roundtrips")
    if blocks is not None and trips is not None:
        shrunk = look.facts.gains / look.facts.updates if look.facts.updates else 1.0
        failed = look.number("h2o_lossless_fallback")
        holds = trips + failed >= 0.98 * shrunk * blocks - 0.01
        return look.says(
            EQUAL, holds, f"{trips:g} of {blocks:g} blocks were decoded and compared equal"
        )
    if (
        look.spec.config.get("kv_lossless_strict_roundtrip_check")
        and look.value("h2o_lossless_fallback") is not None
    ):
        return look.says(
            EQUAL, True, "the runtime compared hashes, and failures are counted as fallback"
        )
    return None


def _counted(look: Look) -> Evidence | None:
    """Needs ``[H2O-LOSSLESS]`` lines: what they call a fallback, a failed restore or a full queue
    is counted.
    """
    facts, wrong = look.lines, list[str]()
    failures = facts.fallbacks
    for kind in LOSSLESS_ERRORS:
        if kind in facts.findings:
            failures += facts.findings[kind].count
    told = {
        "h2o_lossless_fallback": failures,
        "h2o_lossless_backpressure_skip": facts.backpressure,
    }
    for column, seen in told.items():
        if seen and look.value(column) == 0 and not _counted_elsewhere(look, column):
            wrong.append(f"{column} is 0, and {seen} lines say otherwise")
    if not wrong:
        return None
    return look.says(COUNTED, False, "; ".join(wrong))


def _counted_elsewhere(look: Look, column: str) -> bool:
    """Whether another row of the launch counts something in a column."""
    samples = [row.samples[column] for row in look.rows if column in row.samples]
    return any(sample.mean > 0 for sample in samples)


def _clocked(look: Look) -> Evidence | None:
    """Needs ``decomp_us=`` of lines; blocks of an earlier response, from the cache, cost
    nothing.
    """
    column, logged = look.value("h2o_lossless_decomp_us"), look.facts.restore_us
    if column is None or not logged or not look.responses:
        return None
    if look.number("h2o_lossless_decode_cache_hit"):
        return None
    # On a busy machine one response may take a hundred times as long as the others.
    share = 0.5 if look.responses == 1 else 0.01
    text = (
        f"h2o_lossless_decomp_us is {column:g}, by the lines decoding took "
        f"{logged / look.responses:g} in a response"
    )
    return look.says(TIMED, column >= share * logged / look.responses, text)


def _possible(look: Look) -> Evidence | None:
    """Needs decoded bytes and their time: no memory moves that many in a second."""
    decoded, us = look.value("h2o_lossless_decompressed_mb"), look.value("h2o_lossless_decomp_us")
    if not decoded or us is None or look.number("h2o_lossless_decode_cache_hit"):
        return None
    if decoded * MIB <= FASTEST * us / 1e6:
        return None
    return look.says(TIMED, False, f"{decoded:.3g} MiB were decoded in {us:g} µs")


def _timed(look: Look) -> Evidence | None:
    """Needs decode and waiting times, and in store mode decompression times: the decoding thread
    waits for encode workers, and there for restored values as well.
    """
    decode, wait = decode_seconds(look), look.value("h2o_lossless_async_wait_us")
    if not decode or wait is None:
        return None
    what, waited = "waiting for encode workers", wait / 1e6
    if look.spec.config.get("kv_lossless_runtime_mode") == "store":
        what = "restoring and waiting"
        waited += look.number("h2o_lossless_decomp_us") / 1e6
    text = f"{what} took {waited:.3g} s, all decoding {decode:.3g} s"
    return look.says(TIMED, waited <= 1.05 * decode, text)


def decode_seconds(look: Look) -> float | None:
    """Seconds of decoding in one response; over repeats at least what the mean speed says."""
    if us := look.value("decode_us"):
        return us / 1e6
    speed = look.value("decode_tps")
    if not speed or speed <= 0:
        return None
    return (look.row.decode_tokens or 0) / speed
