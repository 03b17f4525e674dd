"""The ``gate`` fixture: compares, records the verdict on the test item, and fails with one
table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_h2o.decode.baselines import not_measured
from pytest_h2o.decode.judge import judge_study
from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.lab.decode import Comparison
from pytest_h2o.plan.hints import hint_for, hint_of_cause
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.suites import SUITES
from pytest_h2o.report.text import failure_table
from pytest_h2o.verdict import (
    Evidence,
    Measured,
    Operator,
    ShownRow,
    Verdict,
    compare,
    root_of,
    weigh,
)


@dataclass(frozen=True)
class Gate:
    """What a gate function calls once: every method ends the test with a recorded verdict.

    ``name`` is the test function without ``test_``; ``knobs`` are the session's as the case under
    test sees them; ``rerun`` is the command that repeats this gate, and ``where``
    says on which hosts its launches were made.
    """

    name: str
    case: str
    knobs: Knobs
    node: pytest.Item
    rerun: str
    require_evidence: bool = False
    where: Callable[[], str] = str

    @property
    def every_row(self) -> bool:
        """Whether every row must do, not the best one alone."""
        return self.knobs.on("REQUIRE_ALL_ROWS")

    def at_least(
        self, measured: Measured, knob: str, *, evidence: Sequence[Evidence] = (), root: str = ""
    ) -> None:
        """Pass when the value is not below the knob's limit and no evidence contradicts it.

        ``root`` is why a value may fall short together with those of other gates.
        """
        self._limit(_rooted(measured, root), ">=", knob, evidence)

    def at_most(self, measured: Measured, knob: str, *, evidence: Sequence[Evidence] = ()) -> None:
        """Pass when the value is not above the knob's limit; a negative limit turns the gate
        off.
        """
        self.needs(knob)
        self._limit(measured, "<=", knob, evidence)

    def positive(
        self,
        measured: Measured,
        *,
        above: float = 0.0,
        evidence: Sequence[Evidence] = (),
        root: str = "",
    ) -> None:
        """Pass when the value is above ``above``: the activity was there. ``root`` as above."""
        self._end(self._weigh(compare(_rooted(measured, root), ">", above), evidence))

    def passes_study(
        self, paired: PairedStudy | Comparison, knob: str, *, evidence: Sequence[Evidence] = ()
    ) -> None:
        """Pass when a paired study, or the comparison with a baseline, shows a decode drop within
        the knob's limit.
        """
        target = self.knobs.number(knob)
        if isinstance(paired, Comparison):
            verdict = replace(
                compare(paired.measured, "<=", target),
                evidence=paired.detail,
                baseline=paired.baseline,
                pairs=paired.pairs,
            )
        elif paired.study is None:
            why = "; ".join(paired.problems) or "no study was made"
            cause = paired.cause or root_of(paired.problems)
            verdict = compare(not_measured(why, paired.source, cause), "<=", target)
            evidence = ()
        else:
            verdict = replace(
                judge_study(paired.study, target, paired.plain, paired.seed, paired.ended),
                rows=tuple(ShownRow(pair.label, str(pair)) for pair in paired.pairs),
                baseline=paired.baseline,
                pairs=tuple(pair.shown for pair in paired.pairs),
                source=str(paired.source or ""),
            )
        self._end(self._weigh(replace(verdict, knob=knob), evidence))

    def holds(
        self,
        metric: str,
        reasons_against: Sequence[str],
        *,
        source: Path | None = None,
        cause: str = "",
        evidence: Sequence[Evidence] = (),
    ) -> None:
        """Pass when there is no reason against it, and no evidence either.

        ``cause`` is the root of the reasons, in words that other gates share; by default the first.
        """
        verdict = Verdict(metric=metric, outcome="pass", source=str(source or ""))
        if reasons_against:
            verdict = replace(
                verdict,
                outcome="fail",
                reason="; ".join(reasons_against),
                cause=cause or root_of(reasons_against),
            )
        self._end(self._weigh(verdict, evidence))

    def needs(self, knob: str) -> None:
        """Skip the gate, saying so, when its knob turns it off."""
        if not self.knobs.on(knob):
            self._off(f"turned off by {knob}={self.knobs.number(knob):g}", knob)

    def repeats(self, launched: Sequence[object], knob: str) -> None:
        """Skip the gate, saying so, where a case is launched once and nothing can be compared."""
        if len(launched) == 1:
            self._off(f"one launch has nothing to agree with; {knob}=2 makes another", knob)

    def tells_something(self, nothing: str, knob: str) -> None:
        """Skip the gate where ``nothing`` says why its launches tell nothing; where evidence is
        required that is a failure.
        """
        if nothing and self.require_evidence:
            self.holds("evidence", [nothing])
        if nothing:
            self._off(nothing, knob)

    def _off(self, reason: str, knob: str) -> None:
        self._record(Verdict(metric="", outcome="skipped", knob=knob, reason=reason))
        pytest.skip(reason)

    def _limit(
        self, measured: Measured, operator: Operator, knob: str, evidence: Sequence[Evidence] = ()
    ) -> None:
        verdict = compare(measured, operator, self.knobs.number(knob))
        self._end(self._weigh(replace(verdict, knob=knob), evidence))

    def _weigh(self, verdict: Verdict, evidence: Sequence[Evidence]) -> Verdict:
        return weigh(verdict, evidence, require=self.require_evidence)

    def _end(self, verdict: Verdict) -> None:
        verdict = self._record(verdict)
        policy = self.knobs.text("DECODE_INCONCLUSIVE")
        if verdict.outcome == "inconclusive" and tolerated(policy, verdict.reason):
            return
        if verdict.outcome != "pass":
            pytest.fail(failure_table(verdict), pytrace=False)

    def _record(self, verdict: Verdict) -> Verdict:
        rerun = self.rerun if verdict.outcome in ("fail", "inconclusive") else ""
        verdict = replace(
            verdict, gate=self.name, case=self.case, suites=suites_of(self.node), rerun=rerun,
            host=self.where(), hint=verdict.hint or _hint(verdict, self),
        )  # fmt: skip
        self.node.user_properties += verdict.properties()
        return verdict


def tolerated(policy: str, reason: str) -> bool:
    """End the test of a study that decides nothing as the policy of DECODE_INCONCLUSIVE says; false
    if it is to fail.
    """
    if policy == "xfail":
        pytest.xfail(reason)
    if policy == "skip":
        pytest.skip(f"undecided: {reason}")
    if policy == "warn":
        warnings.warn(pytest.PytestWarning(f"undecided: {reason}"), stacklevel=1)
    return policy == "warn"


def _hint(verdict: Verdict, gate: Gate) -> str:
    """What to try; nothing where nothing failed."""
    if verdict.outcome != "fail":
        return ""
    if verdict.cause:
        return hint_of_cause(verdict.cause, gate.knobs)
    return hint_for(gate.name, verdict.knob, gate.knobs, suites_of(gate.node))


def _rooted(measured: Measured, root: str) -> Measured:
    return replace(measured, cause=measured.cause or root)


def suites_of(item: pytest.Item) -> str:
    """The suites that a gate is in, comma separated."""
    return ",".join(sorted({mark.name for mark in item.iter_markers()} & set(SUITES)))
