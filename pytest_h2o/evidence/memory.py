"""What the operating system saw of the launches: memory of candidate and baseline, growth over
repeats, and whether the model was read.

No program has a say in it. What was recorded elsewhere, or ran on another host, was not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from pytest_h2o.evidence.eviction import leftovers
from pytest_h2o.evidence.host import kept_in_files, refuted
from pytest_h2o.evidence.look import Look, looks_at, settle
from pytest_h2o.evidence.lossless import decode_seconds
from pytest_h2o.evidence.settings_in_force import read_config
from pytest_h2o.metrics import MIB
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launches
from pytest_h2o.runtimes.launch_config import model_files
from pytest_h2o.verdict import Evidence, Measured, ShownRow

PEAK = "compression costs no memory"
GROWTH = "memory does not grow from request to request"
HANDLES = "threads and open files do not grow from request to request"
STORED = "store mode holds less than full mode"
LOADED = "the model was read"
BASELINE = "the baseline holds no more than a candidate with nothing to evict"
# What allocators and interpreters differ by from launch to launch.
NOISE_MB = 8.0
# Store mode must save so much of the process for its memory to show it.
VISIBLE = 0.05
# Each later request leaves so many threads and open files, and all of them so many.
LEFT_EACH, LEFT_ALL = 4, 8
# A baseline that is so much above one that does the same and has more to do holds it for nothing.
FOR_NOTHING = 0.1
# Of the weights, at least so much passes through read calls or is resident at some time.
READ_SHARE, LEAST_WEIGHTS_MB = 0.5, 64.0
UNSEEN = "the peak resident memory of the launches, which the system told for launches made here"
Pairs = Sequence[tuple[LaunchRecord, LaunchRecord]]


def memory_increase(pairs: Pairs) -> Measured:
    """By what share of the baseline's peak the candidate's is higher, for the work where it is
    highest.

    Differences below :data:`NOISE_MB` count as none. Without peaks ``value`` is None and nothing is
    ``missing``: the launches are as good as others.
    """
    seen: dict[str, tuple[list[float], list[float]]] = {}
    for baseline, candidate in pairs:
        if baseline.peak_mb and candidate.peak_mb:
            before, after = seen.setdefault(candidate.label, ([], []))
            before.append(baseline.peak_mb)
            after.append(candidate.peak_mb)
    rows: list[ShownRow] = []
    shares: list[float] = []
    for label, (before, after) in seen.items():
        low, high = median(before), median(after)
        share = _above(high, low)
        shares.append(share)
        text = f"peak of {high:.4g} MiB, {low:.4g} MiB in the baseline"
        rows.append(ShownRow(label, text, share))
    return _worst("memory_increase", shares, rows)


def peak_evidence(measured: Measured, pairs: Pairs) -> list[Evidence]:
    """What is known beside the measured increase."""
    found: list[Evidence] = []
    if measured.value is not None:
        found.append(Evidence.of(PEAK, True, f"{len(pairs)} pairs of peaks were seen"))
    for look in _looks(record for pair in pairs for record in pair):
        found += _loaded(look)
    found += kept_in_files(list(_sides(pairs)))
    return settle(found, {PEAK: UNSEEN})


def baseline_memory(pairs: Pairs) -> Iterator[Evidence]:
    """Needs peaks of baselines and of candidates with nothing to evict, which hold the same KV: one
    that is made to hold more makes any candidate look small.
    """
    seen: list[tuple[float, LaunchRecord, LaunchRecord]] = []
    for baseline, candidate in pairs:
        if baseline.peak_mb and candidate.peak_mb:
            share = _above(baseline.peak_mb, candidate.peak_mb)
            seen.append((share, baseline, candidate))
    if not seen:
        return
    share, baseline, candidate = min(seen, key=lambda each: each[0])
    text = (
        f"peak of {baseline.peak_mb:.4g} MiB in the baseline, {candidate.peak_mb:.4g} MiB where "
        f"H2O has nothing to evict ({candidate.name})"
    )
    if share > FOR_NOTHING:
        yield Evidence.of(BASELINE, False, f"{text}, and no less elsewhere")
    elif share > 0:
        yield Evidence(claim=BASELINE, standing="doubtful", text=text)
    else:
        yield Evidence.of(BASELINE, True, text)


def memory_growth(run: Run) -> Measured:
    """By what share the peak of a launch rises after its first measured repeat, in the launch where
    it rises most.
    """
    rows: list[ShownRow] = []
    shares: list[float] = []
    for look in looks_at(run):
        peaks = _peaks(look)
        if peaks is None or any(leftovers(look)):
            continue
        first, last = peaks
        share = _above(last, first)
        shares.append(share)
        text = f"peak of {first:.4g} MiB after the first repeat, {last:.4g} MiB after all"
        rows.append(ShownRow(look.row.label, text, share))
    measured = _worst("memory_growth", shares, rows)
    return replace(measured, source=run.source)


def growth_evidence(run: Run) -> list[Evidence]:
    """Growth that comes with KV of earlier requests, which is said of the speeds as well."""
    found: list[Evidence] = []
    needs = "at least two repeats, their speeds and the resident memory while they ran"
    for look in looks_at(run):
        found += _handles_left(look)
        peaks = _peaks(look)
        if peaks is None:
            continue
        first, last = peaks
        text = f"the peak goes from {first:.4g} to {last:.4g} MiB over the repeats"
        if any(leftovers(look)) and _above(last, first) > 0:
            found.append(look.doubts(GROWTH, f"{text}, as KV of earlier requests is kept"))
        else:
            found.append(look.says(GROWTH, True, text))
    return settle(found, {GROWTH: needs})


def store_evidence(full: Run, store: Run) -> list[Evidence]:
    """Whether store mode holds less than full mode, where what it drops is large enough to see."""
    by_label = {look.row.label: look for look in looks_at(full)}
    found: list[Evidence] = []
    for look in looks_at(store):
        other = by_label.get(look.row.label)
        if other and other.record.peak_mb and look.record.peak_mb:
            found += _stored(other, look)
    needs = (
        f"{UNSEEN}, and at least {NOISE_MB:g} MiB of blocks of which store mode drops the raw KV"
    )
    return settle(found, {STORED: needs})


def _stored(full: Look, store: Look) -> Iterator[Evidence]:
    held, less = full.record.peak_mb or 0.0, store.record.peak_mb or 0.0
    text = f"peak of {less:.4g} MiB, {held:.4g} MiB in full mode"
    if _above(less, held) > VISIBLE:
        yield store.says(STORED, False, text)
        return
    # A block is dropped and restored again and again: this is the most that is gone at a time.
    dropped = store.number("h2o_lossless_raw_mb") - store.number("h2o_lossless_comp_mb")
    if dropped < max(NOISE_MB, VISIBLE * held):
        return
    if less < held:
        yield store.says(STORED, True, text)
    else:
        yield store.doubts(STORED, f"{text}, though raw KV of {dropped:.4g} MiB was dropped")


def _loaded(look: Look) -> Iterator[Evidence]:
    """Needs the size of the weights, bytes read and the peak of a program started without a
    launcher in front of it.
    """
    weights, peak, read = _weights_mb(look), look.record.peak_mb, look.record.read_mb
    if weights < LEAST_WEIGHTS_MB or peak is None or read is None or look.spec.backend != "cpu":
        return
    text = f"{read:.4g} MiB were read and {peak:.4g} resident at most, of {weights:.4g} MiB weights"
    if peak + read >= READ_SHARE * weights:
        yield look.says(LOADED, True, text)
    else:
        yield refuted(look, LOADED, text)


def _weights_mb(look: Look) -> float:
    """The size of the weight file that the launch's config names; 0 if it is not there."""
    config = look.record.config_path
    path = model_files(read_config(look.record) or {}, config)["llm_weight"]
    return path.stat().st_size / MIB if path.is_file() else 0.0


def _handles_left(look: Look) -> Iterator[Evidence]:
    """Needs two repeats, their speeds and the threads and open files of a launch: what a request
    opens it closes.
    """
    step = _first_repeat(look, look.record.handles)
    if step is None:
        return
    handles, later = look.record.handles, (look.spec.repeat or 1) - 1
    # What is there all along: threads that come and go within a repeat are none that it leaves.
    steps = max(1, (len(handles) - step) // later)
    first, last = min(handles[max(0, step - steps) : step]), min(handles[-steps:])
    text = f"{first} threads and open files all through the first repeat, {last} through the last"
    left = last - first >= max(LEFT_ALL, LEFT_EACH * later)
    yield look.says(HANDLES, not left, text)


def _peaks(look: Look) -> tuple[float, float] | None:
    """The peak after the first measured repeat and after the last, in MiB."""
    peaks = look.record.peaks_mb
    step = _first_repeat(look, peaks)
    return None if step is None else (peaks[step - 1], peaks[-1])


def _first_repeat(look: Look, steps: Sequence[float]) -> int | None:
    """How many of equal steps of a launch its first measured repeat ends after.

    Needs two repeats and their speeds: counted from the end, all but one repeat have that long.
    """
    record, repeats = look.record, look.spec.repeat or 1
    decode, prefill = decode_seconds(look), look.value("prefill_tps")
    if not look.alone or repeats < 2 or not record.seconds or not decode or not prefill:
        return None
    response = decode + (look.row.prompt_tokens or 0) / prefill
    begin = record.seconds - (repeats - 1) * response
    step = int(begin / record.seconds * len(steps))
    return step if 0 < step < len(steps) else None


def _above(value: float, base: float) -> float:
    """By what share ``value`` is above ``base``, both in MiB; 0 within the noise."""
    return (value - base) / base if abs(value - base) > NOISE_MB else 0.0


def _worst(metric: str, shares: Sequence[float], rows: Sequence[ShownRow]) -> Measured:
    worst = max(shares) if shares else None
    return Measured(metric=metric, value=worst, unit="share", rows=tuple(rows))


def _sides(pairs: Pairs) -> Iterator[tuple[Look, Look]]:
    """A look at each of two launches; only at the first rows, as a process is that of all."""
    for baseline, candidate in pairs:
        one, other = list(_looks([baseline])), list(_looks([candidate]))
        if one and other:
            yield one[0], other[0]


def _looks(records: Iterable[LaunchRecord]) -> Iterator[Look]:
    distinct = {record.spec.key: record for record in records}
    for record in distinct.values():
        yield from looks_at(read_launches(record.spec.name, [record]))
