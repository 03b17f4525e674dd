"""What quantised KV costs and saves: a held-out text predicted, and bytes a token, with plain KV
and without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from pytest_h2o.evidence.look import settle
from pytest_h2o.metrics import number
from pytest_h2o.parsers.held_out import HeldOut
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.plan.kv_quant import OPTIONS, PLAIN_BITS
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, launch_cause, located
from pytest_h2o.runtimes import find_program
from pytest_h2o.verdict import Evidence, Measured, ShownRow

IN_FORCE = "KV is quantised as asked for"
SAVED = "K and V take the bits that the option names"
NEEDS = "a column quantKv, or predictions of a held-out text"
# Scales, and buffers that are larger than what they hold.
LEAST_OF_NOMINAL = 0.8
SAME_SAVING = 0.1
NO_BYTES = (
    "nothing tells KV bytes a token: the program does not report them, and no memory of its "
    "launches at two prompt lengths is known; give PROMPTS two lengths"
)
COLUMNS = ("quantKv", "attentionOption")


@dataclass(frozen=True)
class Compared:
    """The launches of one text: with plain KV, and quantised."""

    baseline: LaunchRecord
    candidate: LaunchRecord

    @cached_property
    def missing(self) -> tuple[str, str]:
        """Why nothing can be compared, and the cause of that in words that others share."""
        for record in (self.baseline, self.candidate):
            if record.status != "ok":
                return located(record.reason, record.directory, record.name), launch_cause(record)
        try:
            _ = self.both
        except ParseError as error:
            cause = f"{self.candidate.program} cannot report what quantised KV costs"
            return f"{cause}: {error}", cause
        return "", ""

    @cached_property
    def both(self) -> tuple[HeldOut, HeldOut]:
        """What both showed; raises ParseError."""
        return _held_out(self.baseline), _held_out(self.candidate)

    def rows(self, metric: str) -> tuple[ShownRow, ...]:
        """Both sides of a number, as far as they were reported."""
        if self.missing[0]:
            return ()
        shown: list[ShownRow] = []
        for name, side in zip(("baseline", "candidate"), self.both, strict=True):
            value = getattr(side, metric)
            shown.append(ShownRow(name, number(value), value))
        return tuple(shown)

    def measured(
        self, metric: str, value: float | None, unit: str, rows: tuple[ShownRow, ...]
    ) -> Measured:
        """A number that was made of both."""
        missing, cause = self.missing
        if not missing and value is None:
            missing = cause = f"{self.candidate.program} does not report {metric}"
        return Measured(
            metric=metric,
            value=value,
            unit=unit,
            source=self.candidate.directory,
            rows=rows,
            missing=missing,
            cause=cause,
        )


def _held_out(record: LaunchRecord) -> HeldOut:
    found = find_program(record.program).held_out(record)
    if found is None:
        raise ParseError(f"{record.program} has no such report")
    return found


def perplexity_rise(compared: Compared) -> Measured:
    """The rise of perplexity from plain to quantised KV."""
    value = None
    if not compared.missing[0]:
        before, after = compared.both
        value = after.perplexity / max(before.perplexity, 1e-9) - 1
    return compared.measured("perplexity_increase", value, "share", compared.rows("perplexity"))


def divergence(compared: Compared) -> Measured:
    """How far what is predicted with quantised KV is from what plain KV predicts."""
    value = None if compared.missing[0] else compared.both[1].divergence
    return compared.measured("divergence", value, "nats/token", compared.rows("divergence"))


def bytes_ratio(compared: Compared, plain: Run, quantised: Run) -> Measured:
    """Plain over quantised KV bytes a token: as reported, else from the memory of the launches at
    two prompt lengths.
    """
    rows = compared.rows("kv_bytes")
    if not rows or any(not row.value for row in rows):
        rows = _from_peaks(plain, quantised)
    values = [row.value for row in rows if row.value]
    measured = compared.measured("kv_bytes_ratio", None, "ratio", rows)
    if len(values) != 2:
        problems = "; ".join([*plain.problems, *quantised.problems]) or NO_BYTES
        return Measured(metric="kv_bytes_ratio", value=None, missing=problems, cause=problems)
    return Measured(
        metric="kv_bytes_ratio",
        value=values[0] / values[1],
        unit="ratio",
        source=measured.source,
        rows=rows,
    )


def bytes_evidence(measured: Measured, option: int) -> list[Evidence]:
    """The ratio that the option's name promises is a claim."""
    if measured.value is None:
        return []
    asked = OPTIONS[option]
    text = (
        f"a token takes 1/{measured.value:.3g} of the bytes; {asked.name} is 1/"
        f"{asked.ratio:.3g} of half precision"
    )
    holds = measured.value >= LEAST_OF_NOMINAL * asked.ratio
    keys_alone = replace(asked, value_bits=PLAIN_BITS)
    if not holds and abs(measured.value / keys_alone.ratio - 1) < SAME_SAVING:
        text += f", and 1/{keys_alone.ratio:.3g} where V is left as it is"
    return [Evidence.of(SAVED, holds, text)]


def in_force(compared: Compared, run: Run) -> list[Evidence]:
    """Whether each launch quantised KV in the way that it was asked to."""
    return settle([*_columns(run), *_predictions(compared)], {IN_FORCE: NEEDS})


def _columns(run: Run) -> Iterator[Evidence]:
    """Stock builds print the option where it is not 0, but not in every table."""
    asked = {str(launch.spec.attention_option) for launch in run.launches}
    for row in run.rows:
        seen = [row.cells[name] for name in COLUMNS if name in row.cells]
        if seen and len(asked) == 1:
            (option,) = asked
            text = f"{row.label}: {seen[0]}, asked for {option}"
            yield Evidence.of(IN_FORCE, seen[0] == option or not seen[0].isdigit(), text)


def _predictions(compared: Compared) -> Iterator[Evidence]:
    """The same perplexity to the last digit is of the same KV."""
    if compared.missing[0]:
        return
    before, after = compared.both
    other = before.perplexity != after.perplexity
    text = f"perplexity {after.perplexity:.6g}, {before.perplexity:.6g} with plain KV"
    yield Evidence.of(IN_FORCE, other, text)


def _from_peaks(plain: Run, quantised: Run) -> tuple[ShownRow, ...]:
    rows: list[ShownRow] = []
    for name, run in (("baseline", plain), ("candidate", quantised)):
        grown = _grown(run)
        if grown is not None:
            rows.append(ShownRow(name, f"{number(grown)} (peak memory)", grown))
    return tuple(rows)


def _grown(run: Run) -> float | None:
    """Bytes of peak memory a token, from the shortest to the longest response."""
    peaks: dict[int, float] = {}
    for row in run.rows:
        launch = run.launch_of(row)
        peak = launch.peak_mb if launch else None
        if "peak_memory_mb" in row.samples:
            peak = row.samples["peak_memory_mb"].mean
        if peak and row.prompt_tokens:
            peaks[row.prompt_tokens] = peak * 2**20
    if len(peaks) < 2:
        return None
    first, last = min(peaks), max(peaks)
    grown = (peaks[last] - peaks[first]) / (last - first)
    return grown if grown > 0 else None
