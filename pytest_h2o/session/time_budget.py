"""``--h2o-budget``: which gates can be had within a time, and what is still launched in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pytest_h2o.plan.durations import seconds_of
from pytest_h2o.session.forecast import Forecast


@dataclass
class TimeBudget:
    """The time for the launches of a session, ``text`` as it was given; empty: no limit.

    ``promised`` are the names of the launches that the gates need which can be had. They come
    before further pairs of a decode study.
    """

    text: str
    begun: float = field(default_factory=time.monotonic)
    promised: Collection[str] = ()

    @property
    def limit_s(self) -> float | None:
        """The seconds, or None without a limit."""
        return seconds_of(self.text) if self.text else None

    @property
    def used_up(self) -> str:
        """Why something is not launched any more."""
        return f"the time of H2O_BUDGET={self.text} was used up"

    def allows(self, name: str, forecast: Forecast) -> bool:
        """Whether a launch is expected to end in time, and those that were promised after it."""
        if self.limit_s is None:
            return True
        ahead = [other for other in self.promised if other not in forecast.now]
        names = ahead if name not in self.promised else []
        needed = forecast.together([name, *names])
        return time.monotonic() - self.begun + needed <= self.limit_s


def best_first(
    needs: Sequence[Collection[str]], seconds: Callable[[Collection[str]], float], limit_s: float
) -> tuple[list[int], int]:
    """The numbers of gates in the order that has most of them judged soon, and how many of these
    can be had in ``limit_s``.

    ``needs`` are the names of the launches that each gate needs, ``seconds`` what some launches
    take together. Gates of the same launches stay
    together; next come those that cost least for each verdict (the greedy rule for budgeted
    coverage: Khuller, Moss and Naor 1999).
    """
    groups: dict[frozenset[str], list[int]] = {}
    for number, names in enumerate(needs):
        groups.setdefault(frozenset(names), []).append(number)
    made: set[str] = set()
    order: list[int] = []
    while groups:
        costs = {names: seconds(sorted(made | names)) for names in groups}
        within = [names for names in groups if costs[names] <= limit_s]
        if not within:
            break
        spent = seconds(sorted(made))
        cheapest = min(within, key=lambda names: (costs[names] - spent) / len(groups[names]))
        order += groups.pop(cheapest)
        made |= cheapest
    fitting = len(order)
    for numbers in groups.values():
        order += numbers
    return order, fitting
