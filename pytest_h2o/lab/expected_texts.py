"""What launches wrote, and why an honest program may write another text where one is expected."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_h2o.evidence.written_texts import Written, difference, random_sampler, written
from pytest_h2o.lab.lab import Lab
from pytest_h2o.plan.relations import Arm, on_threads, repeated


@dataclass(frozen=True)
class Texts:
    """The texts of a laboratory's launches, each made on first use."""

    lab: Lab

    def of(self, arm: Arm) -> Written:
        """What an arm wrote."""
        return written(self.lab.get(arm.spec))

    def doubt(self, expected: Arm, other: Arm) -> str:
        """Why an honest program may write another text in the other arm; empty if it may not."""
        if drawn := self.drawn(expected):
            return drawn
        if self.unlike(expected, repeated(expected)):
            return f"{expected.title} does not even repeat its own text"
        if not self.unlike(other, repeated(other)):
            return self._by_threads(expected, other)
        if self._races(expected, other):
            return ""
        return f"{other.title} does not even repeat its own text"

    def _by_threads(self, expected: Arm, other: Arm) -> str:
        """Whether it may come from how threads share what they add up; empty if not."""
        threads = 1 if expected.spec.threads > 1 else 2
        if self.unlike(expected, on_threads(expected, threads)):
            return (
                f"{expected.title} writes another text on {threads} threads too, so it rounds by "
                f"how work is split"
            )
        if threads == 1 and self._alike_alone(expected, other):
            return f"on one thread {other.title} writes the same"
        return ""

    def _alike_alone(self, expected: Arm, other: Arm) -> bool:
        """Whether both arms write the same on one thread, where nothing races."""
        first, second = self.of(on_threads(expected, 1)), self.of(on_threads(other, 1))
        return not first.problem and not second.problem and not difference(first, second)

    def _races(self, expected: Arm, other: Arm) -> bool:
        """Whether one thread repeats the expected text, and not that of the other arm: threads add
        up no sums there, so what the other arm does besides depends on chance.
        """
        return not self._differs_alone(expected) and self._differs_alone(other)

    def _differs_alone(self, arm: Arm) -> bool:
        """Whether the launch writes another text when it is repeated on one thread."""
        single = on_threads(arm, 1)
        return self.unlike(single, repeated(single))

    def drawn(self, arm: Arm) -> str:
        """Why no text of this program need be repeated; empty if it must."""
        record = self.of(arm).record
        if sampler := random_sampler(record):
            return f"the sampler {sampler} of the model config draws at random"
        if record.spec.backend != "cpu":
            return f"kernels of {record.spec.backend} may round otherwise in each launch"
        return ""

    def only_in_parallel(self, arm: Arm) -> str:
        """Whether the launch repeats itself on one thread, unlike parallel sums; empty if not."""
        if arm.spec.threads == 1:
            return ""
        single = on_threads(arm, 1)
        first, second = self.of(single), self.of(repeated(single))
        if first.problem or second.problem or difference(first, second):
            return ""
        return "on one thread it repeats its text, as sums that threads add up need not"

    def unlike(self, arm: Arm, other: Arm) -> bool:
        """Whether a second launch wrote another text; one that failed says nothing."""
        first, second = self.of(arm), self.of(other)
        return not first.problem and not second.problem and bool(difference(first, second))
