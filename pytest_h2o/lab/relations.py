"""Whether the launches of a relation wrote the same text, and what else may be the reason if they
did not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_h2o.evidence.relations import Written, difference, random_sampler, written
from pytest_h2o.lab.lab import Lab
from pytest_h2o.plan.relations import Arm, SameText, on_threads, repeated
from pytest_h2o.verdict import Evidence

CLAIMS = {
    "lossless": "lossless coding changes nothing of what is written",
    "unevicted": "where nothing is evicted the baseline's text is written",
    "greedy": "a launch writes the same text whenever it is repeated",
}


@dataclass
class TextRelation:
    """One relation over the real prompts that are chosen for it.

    ``problems`` say what could not be compared, ``evidence`` what the texts showed.
    """

    lab: Lab
    name: str
    problems: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)

    def judged(self) -> TextRelation:
        """This relation with all its arms launched and compared."""
        comparisons = self.lab.workload.comparisons(self.name)
        if not comparisons:
            self.problems.append(self.lab.workload.nothing_to_run())
        letters = 0
        for pair in comparisons:
            letters += self._compare(pair)
        if comparisons and not letters and not self.problems:
            self.problems.append("the launches wrote no text that can be compared")
        return self

    def _compare(self, pair: SameText) -> int:
        """Compare two arms; the number of characters that were."""
        expected, other = self._written(pair.expected), self._written(pair.other)
        broken = [each.problem for each in (expected, other) if each.problem]
        if broken:
            self.problems += [each for each in broken if each not in self.problems]
            return 0
        self.evidence.append(self._observed(pair, expected, other))
        return min(len(expected.text), len(other.text))

    def _observed(self, pair: SameText, expected: Written, other: Written) -> Evidence:
        claim = CLAIMS[self.name]
        where = f"{expected.record.label}: {pair.other.title} beside {pair.expected.title}"
        differs = difference(expected, other)
        if not differs:
            return Evidence.of(claim, True, f"{where}: the same text")
        culprits = self._culprits(pair, expected)
        text = f"{where}: {differs}{_named(culprits)}"
        if doubt := self._doubt(pair, culprits):
            return Evidence(claim=claim, standing="doubtful", text=f"{text}; {doubt}")
        return Evidence.of(claim, False, text)

    def _culprits(self, pair: SameText, expected: Written) -> list[Arm]:
        """Which of several changes make a difference each on its own."""
        found: list[Arm] = []
        for arm in pair.other.alone:
            alone = self._written(arm)
            if not alone.problem and difference(expected, alone):
                found.append(arm)
        return found

    def _doubt(self, pair: SameText, culprits: list[Arm]) -> str:
        """Why an honest program may write another text here; empty if it may not."""
        record = self._written(pair.expected).record
        if sampler := random_sampler(record):
            return f"the sampler {sampler} of the model config draws at random"
        if record.spec.backend != "cpu":
            return f"kernels of {record.spec.backend} may round otherwise in each launch"
        if self.name == "greedy":
            return self._only_in_parallel(pair)
        for arm in (pair.expected, pair.other):
            if self._unlike(arm, repeated(arm)):
                return f"{arm.title} does not even repeat its own text"
        if culprits and all(arm.layout_only for arm in culprits):
            return "kernels that add up block by block round otherwise in other blocks"
        return self._rounding(pair.expected)

    def _rounding(self, arm: Arm) -> str:
        """Whether the program rounds by the way work is split, so that equal text is luck."""
        threads = 1 if arm.spec.threads > 1 else 2
        if self._unlike(arm, on_threads(arm, threads)):
            return f"{arm.title} writes another text on {threads} threads too, so it rounds by how work is split"
        return ""

    def _only_in_parallel(self, pair: SameText) -> str:
        """Whether the launch repeats itself on one thread, as parallel sums need not."""
        if pair.expected.spec.threads == 1:
            return ""
        single = on_threads(pair.expected, 1)
        first, second = self._written(single), self._written(repeated(single))
        if first.problem or second.problem or difference(first, second):
            return ""
        return "on one thread it repeats its text, as sums that threads add up need not"

    def _unlike(self, arm: Arm, other: Arm) -> bool:
        """Whether a second launch wrote another text; one that failed says nothing."""
        first, second = self._written(arm), self._written(other)
        return not first.problem and not second.problem and bool(difference(first, second))

    def _written(self, arm: Arm) -> Written:
        return written(self.lab.get(arm.spec))


def _named(culprits: list[Arm]) -> str:
    if not culprits:
        return ""
    return f" (alone: {', '.join(arm.title for arm in culprits)})"


def text_relation(lab: Lab, name: str) -> TextRelation:
    """A relation by name, with all its arms launched and compared."""
    return TextRelation(lab, name).judged()
