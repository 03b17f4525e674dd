"""What the collected gates need launched, worked out before the first launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.launch_order import Asked, in_order
from pytest_h2o.lab.planned_tokens import for_relations_alone, planned_tokens
from pytest_h2o.plan.knobs import NEEDS_BASELINE
from pytest_h2o.plan.needs import demand_of, parameters
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.suites import CASE_PARTS
from pytest_h2o.report.text import clean
from pytest_h2o.runtimes import Runtime, RuntimeSetupError


class Planner:
    """Tells the laboratory what is in demand, and the user what will be launched."""

    def __init__(self, config: pytest.Config, lab: Lab, runtime: Runtime) -> None:
        self.config = config
        self.lab = lab
        self.runtime = runtime
        self.items: Sequence[pytest.Item] = ()
        self._planned: list[LaunchSpec] | None = None

    # No property: some versions of pytest read every attribute of a plugin that is registered.
    def planned(self) -> list[LaunchSpec]:
        """The launches that the collected gates need; asked for once they are collected."""
        if self._planned is None:
            self._planned = self.lab.plan.planned()
        return self._planned

    def plan(self, items: Sequence[pytest.Item]) -> None:
        """Learn from the selected gates which cases and studies are needed, so that launches can be
        interleaved.
        """
        self.lab.demand = demand_of(items, self.lab.cases)
        self.items = items

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
        if number := len(self.planned()):
            plural = "" if number == 1 else "es"
            lines.append(f"h2o: at least {number} launch{plural} planned")
            lines += self._of_relations()
        if keys := overridden_keys(self.runtime, self.planned()):
            replaced = clean(", ".join(keys))
            lines.append(f"h2o: the launches replace these keys of the model config: {replaced}")
        return lines

    def _of_relations(self) -> list[str]:
        """How much of what is planned the relations between launches cost."""
        alone = planned_tokens(for_relations_alone(self.lab.plan))
        if not alone.launches:
            return []
        whole = planned_tokens(self.planned())
        return [
            f"h2o: {alone.launches} of them for relations alone, which read about {alone.read} of "
            f"{whole.read} tokens and decode {alone.decoded} of {whole.decoded} at most"
        ]


def check_builds(config: pytest.Config, lab: Lab) -> None:
    """Raise UsageError if two builds are to be compared and no second one is named."""
    if lab.knobs.suite != "release" or lab.knobs.on("RELATION_BUILD") or lab.replay:
        return
    if will_run(config):
        raise pytest.UsageError(
            "-m release compares two builds, and no second one is named; give "
            "--h2o-baseline-llm-bench or --h2o-baseline-llm-demo"
        )


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
