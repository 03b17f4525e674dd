"""What was judged: the one list of verdicts that every report is made from, and the launches behind
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.recordings import Recording
from pytest_h2o.plan.cases import CANDIDATE
from pytest_h2o.plan.needs import repeats_of
from pytest_h2o.report.groups import not_off
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run
from pytest_h2o.runs.store import ReplayStore
from pytest_h2o.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Gates:
    """The verdicts of one case, or of one suite, by gate; ``tolerated`` if an undecided one does
    not count.
    """

    verdicts: Sequence[Verdict]
    tolerated: bool

    def passed(self, *gates: str) -> bool | None:
        """Whether all of ``gates`` passed or are turned off; None if none was judged."""
        outcomes = {verdict.outcome for verdict in self.verdicts if verdict.gate in gates}
        return self._are_good(outcomes) if outcomes else None

    @property
    def all_passed(self) -> bool:
        """Whether every gate passed, and there was one."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        return bool(outcomes) and self._are_good(outcomes)

    def _are_good(self, outcomes: set[Outcome]) -> bool:
        good: set[Outcome] = {"pass", "skipped"}
        if self.tolerated:
            good.add("inconclusive")
        return outcomes <= good

    def verdict(self, gate: str) -> Verdict | None:
        """The verdict of a gate if it was judged."""
        for verdict in self.verdicts:
            if verdict.gate == gate:
                return verdict
        return None

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
        found = [verdict for verdict in self.verdicts.values() if verdict.case in names]
        return Gates(found, self.tolerated)

    def suite(self, name: str) -> Gates:
        """The verdicts of a suite."""
        found = [verdict for verdict in self.verdicts.values() if name in verdict.suite_names]
        return Gates(found, self.tolerated)

    def not_judged(self, suite: str = "") -> list[str]:
        """The gates that were collected and have no verdict: those of a suite, or all."""
        left: list[str] = []
        for nodeid in self.collected:
            is_asked = not suite or suite in self._suites_of(nodeid)
            if is_asked and nodeid not in self.verdicts:
                left.append(nodeid)
        return left

    @cached_property
    def launches_left(self) -> list[str]:
        """The recorded launches that no gate judged, and what could not be read beside them."""
        if self.lab.recording:
            return self._recorded_left(self.lab.recording)
        return self._own_left(ReplayStore(self.lab.replay)) if self.lab.replay else []

    def _recorded_left(self, recording: Recording) -> list[str]:
        looked_at = self._looked_at()
        left = list(recording.unread)
        for part in recording.parts:
            if part.name not in looked_at:
                for each in part.launches:
                    left.append(_launch_left(each.record, part.name))
        return left

    def _own_left(self, store: ReplayStore) -> list[str]:
        """What a session of this project launched and no case looks at: other lengths, prompts or
        settings. Of work that no selected gate asks for, nothing is expected.
        """
        cases = self.lab.cases
        works = {cases[name].work for name in self._looked_at() if name in cases}
        left = list(store.unread())
        for record in store.records():
            if record.spec.work in works and not self.lab.workload.has(record.spec):
                left.append(_launch_left(record, record.spec.arm))
        return left

    def _looked_at(self) -> set[str]:
        """The cases that gates with a verdict looked at; one that is off looked at nothing."""
        judged = not_off(self.verdicts.values())
        found = {verdict.case for verdict in judged}
        for name in list(found):
            found.update(repeats_of(name, self.lab.cases))
        if judged:
            found.update(self.lab.demand.cases)
        if any("llm_demo" in verdict.suite_names for verdict in judged):
            found.add(CANDIDATE)
        return found

    def not_judged_of(self, case: str, suite: str) -> list[str]:
        """The gates of a case that have no verdict: its own, and the offline ones of its suite."""
        found: list[str] = []
        for nodeid in self.not_judged(suite):
            if self.collected[nodeid][0] == case or "offline" in self._suites_of(nodeid):
                found.append(nodeid)
        return found

    @property
    def unfinished(self) -> set[str]:
        """The cases of which not every gate of a suite was judged."""
        found: set[str] = set()
        for nodeid, (case, suites) in self.collected.items():
            if suites and nodeid not in self.verdicts:
                found.add(case)
        return found

    def accepted(self, suite: str) -> bool:
        """Whether every gate of a suite was judged and passed, and no launch was left."""
        return (
            self.suite(suite).all_passed
            and self.complete
            and self.whole
            and not self.not_judged(suite)
            and not self.launches_left
        )

    def cases_of(self, suite: str) -> list[str]:
        """The cases of prompt lengths in a suite of which some gate was judged."""
        return [name for name in self.bench_cases() if self.lab.cases[name].suite == suite]

    def bench_cases(self) -> list[str]:
        """The cases of prompt lengths of which some gate was judged."""
        judged = {verdict.case for verdict in self.verdicts.values()}
        found: list[str] = []
        for name, case in self.lab.cases.items():
            if case.work == "lengths" and name in judged:
                found.append(name)
        return found

    def run(self, case: str) -> Run:
        """The launches of a case."""
        return self.lab.run(case)

    def _suites_of(self, nodeid: str) -> list[str]:
        return self.collected[nodeid][1].split(",")


def _launch_left(record: LaunchRecord, case: str) -> str:
    return f"launch {record.label} of {case} in {record.directory}"
