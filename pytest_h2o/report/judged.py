"""What was judged: the one list of verdicts that every report is made from, and the launches behind
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pytest_h2o.lab.lab import Lab
from pytest_h2o.runs.results import Run
from pytest_h2o.verdict import Verdict

_STORED = re.compile(r"([0-9.e+-]+) tok/s \((\w+), ([0-9]+) sample")
_PAIR = re.compile(r"([0-9.e+-]+) -> [0-9.e+-]+ tok/s")


@dataclass(frozen=True)
class Gates:
    """The verdicts of one case, or of one suite, by gate; ``tolerated`` if an undecided one does
    not count.
    """

    verdicts: Sequence[Verdict]
    tolerated: bool

    def passed(self, *gates: str) -> bool | None:
        """Whether all of ``gates`` passed or are turned off; None if none was judged."""
        outcomes = [verdict.outcome for verdict in self.verdicts if verdict.gate in gates]
        good = {"pass", "skipped", *(["inconclusive"] if self.tolerated else [])}
        return all(outcome in good for outcome in outcomes) if outcomes else None

    @property
    def all_passed(self) -> bool:
        """Whether every gate passed, and there was one."""
        return self.passed(*{verdict.gate for verdict in self.verdicts}) is True

    def verdict(self, gate: str) -> Verdict | None:
        """The verdict of a gate if it was judged."""
        return next((verdict for verdict in self.verdicts if verdict.gate == gate), None)

    def value(self, gate: str) -> float | None:
        """What a gate measured."""
        verdict = self.verdict(gate)
        return verdict.value if verdict else None


@dataclass(frozen=True)
class Judged:
    """A session's verdicts by node id, what was collected, and a laboratory that launches nothing.

    ``collected`` holds case and suites of every gate, by node id, before any was deselected.
    ``complete`` is false if the session was interrupted, or a selected gate broke without a
    verdict; ``whole`` if gates may not have been collected.
    """

    verdicts: Mapping[str, Verdict]
    collected: Mapping[str, tuple[str, str]]
    lab: Lab
    tolerated: bool
    complete: bool = True
    whole: bool = True

    def case(self, *names: str) -> Gates:
        """The verdicts of some cases."""
        return self._gates(verdict for verdict in self.verdicts.values() if verdict.case in names)

    def suite(self, name: str) -> Gates:
        """The verdicts of a suite."""
        return self._gates(
            verdict for verdict in self.verdicts.values() if name in verdict.suites.split(",")
        )

    def not_judged(self, suite: str = "") -> list[str]:
        """The gates that were collected and have no verdict: those of a suite, or all."""
        wanted = (
            nodeid
            for nodeid, (_, suites) in self.collected.items()
            if suite in ("", *suites.split(","))
        )
        return [nodeid for nodeid in wanted if nodeid not in self.verdicts]

    def not_judged_of(self, case: str, suite: str) -> list[str]:
        """The gates of a case that have no verdict: its own, and the offline ones of its suite."""
        found = ((nodeid, *self.collected[nodeid]) for nodeid in self.not_judged(suite))
        return [
            nodeid for nodeid, of, suites in found if of == case or "offline" in suites.split(",")
        ]

    @property
    def unfinished(self) -> set[str]:
        """The cases of which not every gate of a suite was judged."""
        return {
            case
            for nodeid, (case, suites) in self.collected.items()
            if suites and nodeid not in self.verdicts
        }

    def accepted(self, suite: str) -> bool:
        """Whether every gate of a suite was judged and passed."""
        return (
            self.suite(suite).all_passed
            and self.complete
            and self.whole
            and not self.not_judged(suite)
        )

    def cases_of(self, suite: str) -> list[str]:
        """The cases of prompt lengths in a suite of which some gate was judged."""
        return [name for name in self.bench_cases() if self.lab.cases[name].suite == suite]

    def bench_cases(self) -> list[str]:
        """The cases of prompt lengths of which some gate was judged."""
        judged = {verdict.case for verdict in self.verdicts.values()}
        return [
            name
            for name, case in self.lab.cases.items()
            if case.work == "lengths" and name in judged
        ]

    def run(self, case: str) -> Run:
        """The launches of a case."""
        return self.lab.run(case)

    def _gates(self, verdicts: Iterable[Verdict]) -> Gates:
        return Gates(list(verdicts), self.tolerated)


def baseline_of(verdict: Verdict | None) -> tuple[float | None, str, int]:
    """The decode baseline that a verdict was held against, in tokens/s, its source, and from how
    many samples.
    """
    if verdict is None:
        return None, "", 0
    if stored := _STORED.search(verdict.evidence):
        return float(stored[1]), stored[2], int(stored[3])
    speeds = [float(pair[1]) for _, text in verdict.rows if (pair := _PAIR.search(text))]
    source = "same_batch" if verdict.evidence.startswith("same_batch") else "paired"
    return (median(speeds), source, len(speeds)) if speeds else (None, "", 0)
