"""What a decode speed is held against without a paired study: a given number, earlier sessions, or
this session.

Pure. Speeds are in tokens/s, by row label where there are several; drops are shares of the
baseline's speed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pytest_h2o.decode.history import Entry
from pytest_h2o.verdict import BaselineSpeed, Measured, ShownRow

GIVE = "give DECODE_BASELINE, measured on this machine"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A speed to compare with, where it comes from, and from how many samples; ``missing`` says why
    there is none.

    ``note`` says what was left out of it.
    """

    value: float | None
    source: str
    samples: int
    missing: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """The baseline in words, or why there is none."""
        if self.value is None:
            return self.missing
        samples = "1 sample" if self.samples == 1 else f"{self.samples} samples"
        words = f"{self.value:g} tok/s ({self.source}, {samples})"
        return f"{words}; {self.note}" if self.note else words

    @property
    def speed(self) -> BaselineSpeed | None:
        """What a verdict keeps of it."""
        if self.value is None:
            return None
        return BaselineSpeed(value=self.value, source=self.source, samples=self.samples)


def fixed(given: float | None) -> Baseline:
    """The number that the user gave; a constant of another machine would be no baseline."""
    return Baseline(
        value=given,
        source="fixed",
        samples=1,
        missing="" if given else f"no fixed baseline: {GIVE}",
    )


def rolling(  # noqa: PLR0913  the settings of a history
    entries: Iterable[Entry],
    *,
    key: str,
    identity: Mapping[str, str],
    window: int,
    least: int,
    given: float | None,
    failed_too: bool = False,
) -> Baseline:
    """The median of the last ``window`` entries with this key; ``given`` if there are fewer than
    ``least``.

    Entries that differ in machine, model or settings are left out and counted, as are failed ones
    unless ``failed_too``, since each regression would lower the next baseline.
    """
    latest: deque[float] = deque(maxlen=max(1, window))
    left_out: Counter[str] = Counter()
    for entry in entries:
        if entry.key != key:
            continue
        others = [name for name, value in identity.items() if not _same(entry, name, value)]
        if others:
            left_out["of another or unknown " + " and ".join(others)] += 1
        elif not entry.overall_pass and not failed_too:
            left_out["that failed"] += 1
        else:
            latest.append(entry.decode_best)
    note = ", ".join(f"{_entries(count)} {why} left out" for why, count in left_out.items())
    least = max(1, least)
    if len(latest) >= least:
        speed = median(latest)
        return Baseline(value=speed, source="rolling_median", samples=len(latest), note=note)
    few = f"the history has {len(latest)} of {least} samples for {key}"
    if note:
        few += f" ({note})"
    missing = ""
    if not given:
        missing = f"{few}; sessions that pass in another DECODE_BASELINE_MODE add to it, or {GIVE}"
    return Baseline(
        value=given, source="fixed_fallback", samples=len(latest), missing=missing, note=few
    )


def _same(entry: Entry, name: str, value: str) -> bool:
    """Whether an entry is of the same machine, model or settings; what is unknown is not."""
    return bool(value) and entry.identity.get(name) == value


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def same_batch(speeds: Iterable[float], given: float | None) -> Baseline:
    """The fastest row of this session with H2O off; ``given`` if none has a speed above 0."""
    best = max(speeds, default=0.0)
    if best > 0:
        return Baseline(value=best, source="same_batch", samples=1)
    missing = "" if given else f"no baseline row has a decode speed; {GIVE}"
    return Baseline(value=given, source="same_batch_fallback_fixed", samples=0, missing=missing)


def drop(candidate: float, baseline: float) -> float:
    """The share of the baseline's speed that is lost; negative when the candidate is faster."""
    return (baseline - candidate) / baseline


def against(speeds: Mapping[str, float], baseline: Baseline, *, all_rows: bool = False) -> Measured:
    """The drop of the fastest row, or of the slowest one."""
    chosen = (min if all_rows else max)(speeds.values(), default=None)
    rows = [ShownRow(label, f"{speed:g} tok/s", speed) for label, speed in speeds.items()]
    if baseline.value is None or chosen is None:
        return _drop(None, rows, baseline.missing or "no row has a decode speed")
    return _drop(drop(chosen, baseline.value), rows)


def against_rows(speeds: Mapping[str, float], baselines: Mapping[str, float]) -> Measured:
    """The largest drop of any row against the baseline's row of the same label."""
    rows: list[ShownRow] = []
    drops: list[float] = []
    alone: list[str] = []
    for label, speed in speeds.items():
        before = baselines.get(label, 0.0)
        rows.append(ShownRow(label, f"{before:g} -> {speed:g} tok/s"))
        if before > 0:
            drops.append(drop(speed, before))
        else:
            alone.append(label)
    if alone:
        return _drop(None, rows, f"no baseline speed for {', '.join(alone)}")
    return _drop(max(drops, default=None), rows, "" if drops else "no row has a decode speed")


def throughput(tokens: Mapping[str, int], speeds: Mapping[str, float]) -> float:
    """All tokens over the time that all of them took, so that lengths count."""
    seconds = [tokens[label] / speed for label, speed in speeds.items()]
    return sum(tokens[label] for label in speeds) / sum(seconds)


def not_measured(reason: str, source: Path | None, cause: str = "") -> Measured:
    """A decode drop that could not be measured."""
    return replace(_drop(None, (), reason), source=source, cause=cause)


def _drop(value: float | None, rows: Sequence[ShownRow], missing: str = "") -> Measured:
    return Measured(
        metric="decode_drop", value=value, unit="share", rows=tuple(rows), missing=missing
    )
