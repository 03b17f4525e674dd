"""Whether the launches of a relation wrote what they must."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_h2o.evidence.written_texts import Written, difference
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.same_values import same_values
from pytest_h2o.lab.unevicted_memory import unevicted_memory
from pytest_h2o.plan.relations import Arm, SameText
from pytest_h2o.runs.results import launch_cause
from pytest_h2o.verdict import Evidence

NO_TEXT = "the launches wrote no text that can be compared"
CLAIMS = {
    "lossless": "lossless coding changes nothing of what is written",
    "unevicted": "where nothing is evicted the baseline's text is written",
    "greedy": "a launch writes the same text whenever it is repeated",
    "heavy": "what is evicted is missing",
    "strangers": "a prompt is answered as if no other had come before it",
}


@dataclass
class TextRelation:
    """One relation over the real prompts that are chosen for it.

    ``problems`` say what could not be compared, ``cause`` why in words that others share,
    ``evidence`` what the texts showed.
    """

    lab: Lab
    name: str
    problems: list[str] = field(default_factory=list)
    cause: str = ""
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def texts(self) -> Texts:
        """What the launches wrote."""
        return Texts(self.lab)

    def judged(self) -> TextRelation:
        """This relation with all its arms launched and compared."""
        comparisons = self.lab.workload.relations.comparisons(self.name)
        if not comparisons:
            self.problems.append(self.lab.workload.nothing_to_run())
            self.cause = self.lab.workload.without_prompts
        letters = 0
        for pair in comparisons:
            letters += self._compare(pair)
            if self.problems:  # a program that does not run is not launched on and on
                break
        if self.name == "lossless" and not self.problems:
            self.evidence += same_values(self.texts, comparisons)
        if self.name == "unevicted" and not self.problems:
            self.evidence += unevicted_memory(self.texts, comparisons)
        if comparisons and not letters and not self.problems:
            self.problems.append(NO_TEXT)
        return self

    def usable(self, found: Iterable[Written]) -> bool:
        """Whether all of some texts are there; the others become problems, each once."""
        broken = [each for each in found if each.problem]
        for each in broken:
            self.cause = self.cause or launch_cause(each.record)
            if each.problem not in self.problems:
                self.problems.append(each.problem)
        return not broken

    def observe(self, holds: bool, text: str, doubt: str = "") -> None:
        """Add what was seen; a ``doubt`` says why it refutes nothing."""
        claim = CLAIMS[self.name]
        if not holds and doubt:
            text = f"{text}; {doubt}"
            self.evidence.append(Evidence(claim=claim, standing="doubtful", text=text))
        else:
            self.evidence.append(Evidence.of(claim, holds, text))

    def _compare(self, pair: SameText) -> int:
        """Compare two arms; the number of characters that were."""
        expected, other = self.texts.of(pair.expected), self.texts.of(pair.other)
        if not self.usable((expected, other)):
            return 0
        where = f"{expected.record.label}: {pair.other.title} beside {pair.expected.title}"
        if differs := difference(expected, other):
            culprits = self._culprits(pair, expected)
            text = f"{where}: {differs}{_named(culprits)}"
            self.observe(False, text, self._doubt(pair, culprits))
        else:
            self.observe(True, f"{where}: the same text")
        return min(len(expected.text), len(other.text))

    def _culprits(self, pair: SameText, expected: Written) -> list[Arm]:
        """Which of several changes make a difference each on its own; looked for once."""
        found: list[Arm] = []
        if any(each.standing == "contradicted" for each in self.evidence):
            return found
        for arm in pair.other.alone:
            alone = self.texts.of(arm)
            if not alone.problem and difference(expected, alone):
                found.append(arm)
        return found

    def _doubt(self, pair: SameText, culprits: list[Arm]) -> str:
        """Why an honest program may write another text here; empty if it may not."""
        if self.name == "greedy":
            drawn = self.texts.drawn(pair.expected)
            return drawn or self.texts.only_in_parallel(pair.expected)
        if culprits and all(arm.layout_only for arm in culprits):
            return "kernels that add up block by block round otherwise in other blocks"
        return self.texts.doubt(pair.expected, pair.other)


def _named(culprits: list[Arm]) -> str:
    if not culprits:
        return ""
    titles = [arm.title for arm in culprits]
    return f" (alone: {', '.join(titles)})"


def text_relation(lab: Lab, name: str) -> TextRelation:
    """A relation by name, with all its arms launched and compared."""
    return TextRelation(lab, name).judged()
