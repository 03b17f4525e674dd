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
        for arm in (expected, other):
            if self.unlike(arm, repeated(arm)):
                return f"{arm.title} does not even repeat its own text"
        threads = 1 if expected.spec.threads > 1 else 2
        if self.unlike(expected, on_threads(expected, threads)):
            return (
                f"{expected.title} writes another text on {threads} threads too, so it rounds by "
                f"how work is split"
            )
        return ""

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
