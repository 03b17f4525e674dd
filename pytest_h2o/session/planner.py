"""What the collected gates need launched, worked out before the first launch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.launch_order import Asked, in_order
from pytest_h2o.lab.planned_tokens import for_relations_alone, planned_tokens
from pytest_h2o.plan.knobs import NEEDS_BASELINE
from pytest_h2o.plan.needs import demand_of, is_gate, parameters
from pytest_h2o.plan.specs import LaunchSpec, launch_names
from pytest_h2o.plan.suites import CASE_PARTS
from pytest_h2o.report.text import clean, plural
from pytest_h2o.runtimes import Runtime, RuntimeSetupError
from pytest_h2o.session.forecast import duration
from pytest_h2o.session.schedule import Schedule
from pytest_h2o.session.time_budget import best_first

SHOWN = 5


class Planner:
    """Tells the laboratory what is in demand, and the user what will be launched."""

    def __init__(
        self, config: pytest.Config, lab: Lab, runtime: Runtime, schedule: Schedule
    ) -> None:
        self.config = config
        self.lab = lab
        self.runtime = runtime
        self.schedule = schedule
        self.too_long: list[str] = []
        self.within = 0
        self.items: Sequence[pytest.Item] = ()
        self._planned: list[LaunchSpec] | None = None

    # No property: some versions of pytest read every attribute of a plugin that is registered.
    def planned(self) -> list[LaunchSpec]:
        """The launches that the collected gates need; asked for once they are collected."""
        if self._planned is None:
            self._planned = self.lab.plan.planned()
        return self._planned

    def plan(self, items: list[pytest.Item]) -> None:
        """Learn from the selected gates which cases and studies are needed, so that launches can be
        interleaved.

        Where time is limited, what can be judged within it comes first, and the launches of the
        rest are not put between.
        """
        self.lab.demand = demand_of(items, self.lab.cases)
        self.items = items
        if self.schedule.budget.limit_s is None or self.lab.replay:
            return
        needs = [self._needs(item) for item in items]
        order, fitting = self._order(needs, self.schedule.budget.limit_s)
        items[:] = [items[number] for number in order]
        within, others = items[:fitting], items[fitting:]
        self.within = len(gates_of(within))
        self.too_long = [item.name for item in gates_of(others)]
        self.lab.demand = demand_of(within, self.lab.cases)
        self.schedule.budget.promised = launch_names(self.lab.plan.planned())

    def _needs(self, item: pytest.Item) -> list[str]:
        """The names of the launches that a test needs at least."""
        demand = demand_of([item], self.lab.cases)
        plan = replace(self.lab.plan, demand=demand)
        return launch_names(plan.planned())

    def _order(self, needs: list[list[str]], limit_s: float) -> tuple[list[int], int]:
        """The gates that cost least for each verdict first, and how many can be had.

        Where a time is not known all may be. So it is for workers, which must agree on the order
        whatever else ends meanwhile: they count launches.
        """
        forecast = self.schedule.forecast
        if not self.schedule.is_worker:
            self.schedule.expect(launch_names(self.lab.plan.planned()))
        if forecast.left() is None:
            return best_first(needs, len, math.inf)
        known = forecast.known(forecast.names)

        def seconds(names: Collection[str]) -> float:
            return forecast.lanes.together({name: known.get(name, 0.0) for name in names})

        return best_first(needs, seconds, limit_s)

    def in_order(self) -> list[LaunchSpec]:
        """The planned launches as one process makes them, gate after gate."""
        gates = [
            Asked(demand_of([item], self.lab.cases), "bucket" in parameters(item))
            for item in self.items
        ]
        return in_order(self.lab.plan, gates)

    def check_baselines(self, studied: Iterable[str]) -> None:
        """Raise UsageError if the decode speed of a case is to be held against a number that is not
        given.
        """
        given = self.lab.replay or self.lab.knobs.is_given("DECODE_BASELINE")
        if given or not will_run(self.config):
            return
        for name in studied:
            if self.lab.baseline_mode(name) == "fixed":
                raise pytest.UsageError(
                    f"the decode gate of {name} {NEEDS_BASELINE}{_left_out(name)}"
                )

    def pytest_report_collectionfinish(self) -> list[str]:
        if self.lab.replay:
            return ["h2o: nothing is launched"]
        lines = []
        alone = for_relations_alone(self.lab.plan)
        if number := len(self.planned()):
            count = plural(number, "launch", "launches")
            lines.append(f"h2o: at least {count} planned{self._takes()}")
        if alone:
            lines.append(self._of_relations(alone))
        lines += [f"h2o: {clean(line)}" for line in self.budget_lines()]
        own = {spec.key for spec in alone}
        others = [spec for spec in self.planned() if spec.key not in own]
        keys = overridden_keys(self.runtime, others)
        if keys:
            replaced = clean(", ".join(keys))
            lines.append(f"h2o: the launches replace these keys of the model config: {replaced}")
        if more := set(overridden_keys(self.runtime, alone)).difference(keys):
            replaced = clean(", ".join(sorted(more)))
            lines.append(f"h2o: those for relations alone replace in the model config: {replaced}")
        return lines

    def _of_relations(self, specs: Sequence[LaunchSpec]) -> str:
        """How much of what is planned the launches for relations alone cost."""
        alone, whole = planned_tokens(specs), planned_tokens(self.planned())
        return (
            f"h2o: {alone.launches} of them for relations alone, which read about {alone.read} of "
            f"{whole.read} tokens and decode {alone.decoded} of {whole.decoded} at most"
        )

    def _takes(self) -> str:
        """The time of the planned launches, as far as earlier ones tell."""
        if not self.schedule.forecast.total:
            self.schedule.expect(launch_names(self.planned()))
        forecast = self.schedule.forecast
        names = set(launch_names(self.planned()))
        known = forecast.known(names)
        if len(known) < len(names):
            return ""
        return f", about {duration(forecast.lanes.together(known))}{forecast.lanes.described}"

    def budget_lines(self) -> list[str]:
        """What can be judged within the time that was given, and what cannot; nothing without."""
        budget = self.schedule.budget
        count = self.within + len(self.too_long)
        if budget.limit_s is None or self.lab.replay or not count:
            return []
        if self.schedule.forecast.left() is None and self.planned():
            return [f"how many of {count} gates {budget.text} are enough for is not known"]
        if not self.too_long:
            return [f"{budget.text} are enough for all {count} gates, if no study needs more pairs"]
        left_out = ", ".join(self.too_long[:SHOWN])
        if len(self.too_long) > SHOWN:
            left_out += f" and {len(self.too_long) - SHOWN} more"
        return [f"{budget.text} are enough for {self.within} of {count} gates, not for {left_out}"]


def check_builds(config: pytest.Config, lab: Lab) -> None:
    """Raise UsageError if two builds are to be compared and no second one is named."""
    if lab.knobs.suite != "release" or lab.knobs.on("RELATION_BUILD") or lab.replay:
        return
    if will_run(config):
        raise pytest.UsageError(
            "-m release compares two builds, and no second one is named; give "
            "--h2o-baseline-llm-bench or --h2o-baseline-llm-demo"
        )


def gates_of(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Those that are gates."""
    return [item for item in items if is_gate(item)]


def will_run(config: pytest.Config) -> bool:
    """Whether tests are to run, not only to be listed."""
    listings = ("collectonly", "showfixtures", "show_fixtures_per_test", "h2o_plan")
    return not any(config.getoption(name, False) for name in listings)


def overridden_keys(runtime: Runtime, specs: Sequence[LaunchSpec]) -> list[str]:
    """The keys of the user's base config that any of the launches gives another value."""
    keys: set[str] = set()
    with suppress(RuntimeSetupError):
        for spec in specs:
            keys.update(runtime.command(spec, Path()).overridden)
        return sorted(keys)
    return []


def _left_out(case: str) -> str:
    """How the part of an acceptance that a case makes up is left out."""
    knobs = [knob for knob, part in CASE_PARTS.items() if part == case]
    return "".join(f"; {knob}=0 leaves it out" for knob in knobs)
