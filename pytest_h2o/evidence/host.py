"""What the operating system saw of one launch, held against what the program says: processes that
it left, files that it kept, and whether anybody computed.

Nothing is known of what something else launched, or of programs on another host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from statistics import median

from pytest_h2o.evidence.log_consistency import WELL
from pytest_h2o.evidence.look import Look
from pytest_h2o.evidence.lossless import decode_seconds
from pytest_h2o.verdict import Evidence

COMPUTED = "the program computed what it reports"
SAME_PRIORITY = "both sides give way to others alike"
IN_MEMORY = "what is evicted is gone, not in a file"
# Of the seconds that a program reports, it computes or waits for a core at least so many; the rest
# it may wait for weights that come from a disk.
LEAST_CPU, USUAL_CPU = 0.1, 0.3
ELSEWHERE = "where it runs on another machine, name what starts it there with H2O_LAUNCHER"
# Of what an equal launch computed, and of its wall time and what it reports: a launch that computes
# so little, and waits so long, takes its time without doing the work.
LESS_CPU, WAITS, WAITS_OF_REPORTED = 0.6, 0.3, 0.5
# What programs write beside their results: logs, caches, tables.
LEAST_FILE_MB = 8.0


def ended_alone(look: Look) -> Evidence | None:
    """Needs the launcher's look at the processes of the launch, at the end and while it ran."""
    left, uncollected, unknown = look.record.left, look.record.uncollected, look.record.unknown
    wrong: list[str] = []
    if left:
        wrong.append(f"{left} of its processes still ran when it had ended, and were stopped")
    if uncollected:
        wrong.append(f"{uncollected} helper processes ended and nobody asked how")
    if unknown:
        wrong.append(f"{unknown} processes wrote to its output and hid that they are its own")
    if not wrong:
        return None
    return refuted(look, WELL, "; ".join(wrong))


def same_priority(baseline: Look, candidate: Look) -> Iterator[Evidence]:
    """Needs how far both programs gave way to others, which the launcher lets them do alike."""
    before, after = baseline.record.nice, candidate.record.nice
    if before is None or after is None or before == after:
        return
    text = f"the baseline lowered its priority (nice) by {before}, the candidate by {after}"
    yield refuted(candidate, SAME_PRIORITY, text)


def computed(look: Look) -> Evidence | None:
    """Needs CPU seconds of a program that decodes on this machine's processor: one that waits for
    words of somebody else spends none.
    """
    cpu, decode = look.record.cpu_seconds, decode_seconds(look)
    if cpu is None or not decode or look.spec.backend != "cpu" or not look.alone:
        return None
    reported = decode * (look.spec.repeat or 1)
    spent = cpu + (look.record.delayed_s or 0.0)
    text = f"{spent:.3g} s of computing, and decoding is said to have taken {reported:.3g} s"
    if spent >= USUAL_CPU * reported:
        return look.says(COMPUTED, True, text)
    if spent < LEAST_CPU * reported and started_directly(look):
        return look.says(COMPUTED, False, f"{text}; {ELSEWHERE}")
    return look.doubts(COMPUTED, text)


def computed_alike(looks: Sequence[Look]) -> Iterator[Evidence]:
    """Needs wall and CPU seconds of equal launches: one that answers with what another computed
    waits for as long as that took.
    """
    equal: dict[str, list[Look]] = {}
    for look in looks:
        if look.record.cpu_seconds and look.alone and started_directly(look):
            equal.setdefault(replace(look.spec, replicate=0).key, []).append(look)
    for group in equal.values():
        most = max(look.record.cpu_seconds or 0.0 for look in group)
        for look in group:
            cpu = look.record.cpu_seconds or 0.0
            idle = (look.record.seconds or 0.0) - cpu - (look.record.delayed_s or 0.0)
            if cpu < LESS_CPU * most and _waits(look, idle):
                text = f"{cpu:.3g} s of computing and {idle:.3g} s of waiting"
                text = f"{text}, where an equal launch computed for {most:.3g} s"
                yield look.says(COMPUTED, False, text)


def _waits(look: Look, idle: float) -> bool:
    """Whether so many idle seconds are a good part of a launch on the processor."""
    decode = decode_seconds(look)
    if not decode or look.spec.backend != "cpu":
        return False
    reported = decode * (look.spec.repeat or 1)
    return idle > max(WAITS * (look.record.seconds or 0.0), WAITS_OF_REPORTED * reported)


def kept_in_files(sides: Sequence[tuple[Look, Look]]) -> Iterator[Evidence]:
    """Needs open files and written bytes of (baseline, candidate) launches: what the baseline
    writes as well is no evicted KV.
    """
    if not sides:
        return
    candidate = sides[0][1]
    for what, more in (("writes", _more_written(sides)), ("holds files of", _more_held(sides))):
        if more > LEAST_FILE_MB:
            opened: dict[str, None] = {}
            for _, side in sides:
                opened |= dict.fromkeys(side.record.opened)
            text = f"the candidate {what} {more:.4g} MiB more than the baseline"
            if opened:
                text = f"{text} ({', '.join(opened)[:200]})"
            yield candidate.says(IN_MEMORY, False, text)


def _more_written(sides: Sequence[tuple[Look, Look]]) -> float:
    """MiB that candidates write beyond baselines, each without its own results; the middle pair."""
    more: list[float] = []
    for before, after in sides:
        if before.record.written_mb is not None and after.record.written_mb is not None:
            results = _results_mb(after) - _results_mb(before)
            more.append(after.record.written_mb - before.record.written_mb - results)
    return median(more) if more else 0.0


def _more_held(sides: Sequence[tuple[Look, Look]]) -> float:
    more: list[float] = []
    for before, after in sides:
        if before.record.opened_mb is not None and after.record.opened_mb is not None:
            more.append(after.record.opened_mb - before.record.opened_mb)
    return median(more) if more else 0.0


def _results_mb(look: Look) -> float:
    """The size of what a launch was to write."""
    files = (*look.record.files, look.record.stderr)
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def refuted(look: Look, claim: str, text: str) -> Evidence:
    """What is seen of processes against a claim: a launcher in front of the program has processes
    of its own, so that it is a doubt there.
    """
    return look.says(claim, False, text) if started_directly(look) else look.doubts(claim, text)


def started_directly(look: Look) -> bool:
    """Whether nothing that the settings name stood between the launcher and the program."""
    inputs = look.record.inputs
    first = PurePath(look.record.argv[0]).name if look.record.argv else ""
    if look.spec.program in first or first == "taskset":
        return True
    return bool(inputs) and "placement" not in inputs
