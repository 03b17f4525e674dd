"""One launch as evidence sees it, and how single observations become what is said about a claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_h2o.parsers.loglines import LogFacts
from pytest_h2o.parsers.rows import Row
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, facts_of_rows
from pytest_h2o.runtimes import Program, find_program
from pytest_h2o.verdict import Evidence

TUNING_TOKENS = 16  # single tokens that programs decode before the first request
SHOWN = 3
EVERY_ROW = "every row was looked at"


@dataclass(frozen=True)
class Look:
    """A launch, one of the ``rows`` that it printed, and what its log ``lines`` say: those of the
    launch, or with ``apart`` those of the row.
    """

    record: LaunchRecord
    row: Row
    lines: LogFacts
    rows: tuple[Row, ...] = ()
    apart: bool = False

    @property
    def alone(self) -> bool:
        """Whether the launch printed no other row, so that all its lines and its time are of this
        one.
        """
        return len(self.rows) <= 1

    @property
    def facts(self) -> LogFacts:
        """What the lines say of this row; nothing where they may be of others."""
        return self.lines if self.alone or self.apart else LogFacts()

    @property
    def plans_of_row(self) -> bool:
        """Whether plan lines may be of this row: of several that cannot be told apart, those at
        lengths that it reaches are.
        """
        if self.alone or self.apart or self.lines.repeats.cut:
            return self.lines.plans > 0
        first = self.row.prompt_tokens or 0
        last = self.tokens + TUNING_TOKENS
        return any(first <= plan.kv <= last for plan in self.lines.repeats.plans)

    @property
    def spec(self) -> LaunchSpec:
        """What was launched."""
        return self.record.spec

    @property
    def name(self) -> str:
        """The launch's name."""
        return self.spec.name

    @property
    def responses(self) -> int | None:
        """Responses of the launch, warm-up included; None if unknown."""
        return self.program.responses(self.spec)

    @property
    def program(self) -> Program:
        """The program that was launched."""
        return find_program(self.spec.program)

    @property
    def tokens(self) -> int:
        """Tokens of one response: prompt and decoded."""
        return tokens_of(self.row)

    @property
    def logs(self) -> bool:
        """Whether the launch printed engine lines, so that the absence of one says something."""
        return bool(self.lines.plans or self.lines.updates or self.lines.floor_dominated)

    @property
    def claims_eviction(self) -> bool:
        """Whether any number says that KV was evicted."""
        return self.number("h2o_lossy", 1.0) > 1 or self.number("h2o_total_evict_tokens") > 0

    @property
    def claims_blocks(self) -> bool:
        """Whether any number says that blocks were encoded."""
        return self.number("h2o_lossless", 1.0) > 1 or self.number("h2o_lossless_raw_mb") > 0

    def value(self, metric: str) -> float | None:
        """The mean of ``metric``, None if it was not printed."""
        sample = self.row.samples.get(metric)
        return None if sample is None else sample.mean

    def number(self, metric: str, absent: float = 0.0) -> float:
        """The mean of ``metric`` where its absence means that nothing is claimed."""
        value = self.value(metric)
        return absent if value is None else value

    def setting(self, key: str, absent: int = 0) -> int:
        """A whole number of the launch's config; ``absent`` where it has none: a recorded config
        may hold anything.
        """
        value = self.spec.config.get(key, absent)
        return int(value) if isinstance(value, int | float) and math.isfinite(value) else absent

    @property
    def h2o_layers(self) -> tuple[int, int]:
        """The first and the last layer that H2O may evict in; -1 where the config does not say."""
        return self.setting("kv_h2o_layer_start", -1), self.setting("kv_h2o_layer_end", -1)

    def spread(self, metric: str) -> float:
        """Standard deviation over mean, at most 1000; of values that are nearly equal programs may
        print nan.
        """
        sample = self.row.samples.get(metric)
        if not sample or not sample.std or not sample.mean or math.isnan(sample.std):
            return 0.0
        return min(sample.std / sample.mean, 1e3)

    def says(self, claim: str, holds: bool, text: str) -> Evidence:
        """An observation of this launch."""
        return Evidence.of(claim, holds, f"{text} ({self.name})")

    def doubts(self, claim: str, text: str) -> Evidence:
        """An observation that makes a claim worth less without refuting it."""
        return Evidence(claim=claim, standing="doubtful", text=f"{text} ({self.name})")


def tokens_of(row: Row) -> int:
    """Tokens of one response of a row: prompt and decoded."""
    return (row.prompt_tokens or 0) + (row.decode_tokens or 0)


def looks_at(run: Run) -> list[Look]:
    """The rows of a run whose launches are known; none if any is unusable, since no gate passes
    then.
    """
    if run.problems:
        return []
    facts = {id(record): facts for record, facts in zip(run.launches, run.facts, strict=True)}
    looks: list[Look] = []
    for row in run.rows:
        record = run.launch_of(row)
        if record:
            rows = tuple(each for each in run.rows if each.source in record.files)
            own = facts_of_rows(record, rows) if len(rows) > 1 else {}
            lines = own.get(row.line, facts[id(record)])
            looks.append(Look(record, row, lines, rows, apart=row.line in own))
    return looks


def overlooked(run: Run, looks: Sequence[Look]) -> Iterator[Evidence]:
    """The rows of a usable run that nothing can be said about."""
    seen = {id(look.row) for look in looks}
    missed = [row for row in run.rows if id(row) not in seen]
    if missed and not run.problems:
        labels = ", ".join(row.label for row in missed[:SHOWN])
        text = f"{labels}: which launch printed it is not known, see {missed[0].source}"
        yield Evidence(claim=EVERY_ROW, standing="not evidenced", text=text)


def said_of(
    looks: Iterable[Look], observe: Callable[[Look], Iterable[Evidence]]
) -> list[tuple[Look, list[Evidence]]]:
    """What is observed of each of several rows."""
    return [(look, list(observe(look))) for look in looks]


def said_by(checks: Iterable[Callable[[Look], Evidence | None]], look: Look) -> Iterator[Evidence]:
    """What the checks have to say about a launch."""
    for check in checks:
        if observed := check(look):
            yield observed


def lacking(
    said: Sequence[tuple[Look, Sequence[Evidence]]], needs: Mapping[str, str]
) -> Iterator[Evidence]:
    """The claims of which something is known for some rows and nothing for others, whose evidence
    is not theirs.
    """
    for claim, what in needs.items():
        without: list[str] = []
        for look, own in said:
            if all(item.claim != claim for item in own):
                without.append(f"{look.row.label} ({look.name})")
        if 0 < len(without) < len(said):
            shown = ", ".join(without[:SHOWN])
            if len(without) > SHOWN:
                shown += f" and {len(without) - SHOWN} more"
            text = f"needs {what}, which is not there for {shown}"
            yield Evidence(claim=claim, standing="not evidenced", text=text)


def settle(observations: Iterable[Evidence], needs: Mapping[str, str]) -> list[Evidence]:
    """What all observations together say about each claim; ``needs`` names the output that each
    claim needs.

    Contradictions are all that is said where there are any; a claim nobody could look at is not
    evidenced.
    """
    by_claim: dict[str, list[Evidence]] = {claim: [] for claim in needs}
    for item in observations:
        by_claim.setdefault(item.claim, []).append(item)
    settled: list[Evidence] = []
    for claim, own in by_claim.items():
        if own:
            settled += _settled(own)
        else:
            text = f"needs {needs[claim]}"
            settled.append(Evidence(claim=claim, standing="not evidenced", text=text))
    return settled


def _settled(own: Iterable[Evidence]) -> Iterator[Evidence]:
    """What the observations of one claim come to."""
    by_standing: dict[str, list[Evidence]] = {}
    for item in own:
        by_standing.setdefault(item.standing, []).append(item)
    if "contradicted" in by_standing:
        yield from _folded(by_standing["contradicted"])
        return
    if "not evidenced" in by_standing:
        yield _merged(by_standing["not evidenced"])
    for standing in ("doubtful", "supported"):
        if standing in by_standing:
            yield _merged(by_standing[standing], 1)


def _folded(items: Sequence[Evidence]) -> list[Evidence]:
    """Observations in which several launches show the same once, with the names of all."""
    names: dict[str, list[str]] = {}
    for item in items:
        text, opened, name = item.text.removesuffix(")").rpartition(" (")
        if opened and item.text.endswith(")"):
            names.setdefault(text, []).append(name)
        else:
            names.setdefault(item.text, [])
    found: list[Evidence] = []
    for text, launches in names.items():
        said = f"{text} ({', '.join(launches)})" if launches else text
        found.append(replace(items[0], text=said))
    if len(found) > SHOWN:
        last = found[SHOWN - 1]
        more = f"{last.text}; {len(found) - SHOWN} more like it"
        found[SHOWN - 1 :] = [replace(last, text=more)]
    return found


def _merged(items: list[Evidence], shown: int = SHOWN) -> Evidence:
    texts = [item.text for item in items[:shown]]
    if len(items) > shown:
        texts.append(f"{len(items) - shown} more like it")
    return Evidence(claim=items[0].claim, standing=items[0].standing, text="; ".join(texts))
