"""What gates need launched: declared on fixtures and tests, known before the first launch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_h2o.plan.suites import on_kind
from pytest_h2o.pytest_private import fixture_functions

if TYPE_CHECKING:
    import pytest

Function = TypeVar("Function", bound=Callable[..., Any])
ATTRIBUTE = "__h2o_need__"
FIXTURES = "pytest_h2o.fixtures"
# The parameter that names the kind of host that a test is judged on.
HOST_KIND = "host_kind"


@dataclass(frozen=True)
class Need:
    """What a fixture, or a test, has launched.

    Attributes:
        cases: names of cases whose launches are looked at.
        parameter: the parameter of the test that names one more case, or a group of repeated cases
            (``joint_full`` for ``joint_full-1``, ``joint_full-2`` ...).
        study: the decode speed of these cases is held against a baseline.
        baseline: the launches of the same work with H2O off are looked at.
        dump: a KV dump is evaluated.
        quality: a held-out text is predicted; with a parameter, by the case and by its baseline.
        relation: a relation between launches that are made for it.
    """

    cases: tuple[str, ...] = ()
    parameter: str = ""
    study: bool = False
    baseline: bool = False
    dump: bool = False
    quality: bool = False
    relation: str = ""


@dataclass(frozen=True)
class Demand:
    """What all selected gates need together.

    ``cases``, ``studies`` and ``baselines`` name the cases whose launches, decode speed and
    baseline are asked for, ``texts`` those that predict a held-out text beside their baseline,
    ``relations`` those between launches, on a kind of host where the name has one. ``dumps`` and
    ``qualities`` are the kinds of host on which a KV dump is made and a held-out text is predicted,
    an empty one where they are not judged apart.
    """

    cases: Collection[str] = ()
    studies: Collection[str] = ()
    baselines: Collection[str] = ()
    texts: Collection[str] = ()
    dumps: Collection[str] = ()
    qualities: Collection[str] = ()
    relations: Collection[str] = ()


def needs(  # noqa: PLR0913  one argument for each kind of need
    *cases: str,
    parameter: str = "",
    study: bool = False,
    baseline: bool = False,
    dump: bool = False,
    quality: bool = False,
    relation: str = "",
) -> Callable[[Function], Function]:
    """Declare what a fixture function, or a test, needs launched; see :class:`Need`.

    It stands below ``@pytest.fixture``. A fixture or a test that asks for fixtures which declare
    their needs has those as well, and needs to declare only what it asks ``lab`` for itself.
    """
    need = Need(cases, parameter, study, baseline, dump, quality, relation)

    def declare(function: Function) -> Function:
        if not isfunction(function):
            raise TypeError(f"@needs belongs on a function, below @pytest.fixture: {function!r}")
        setattr(function, ATTRIBUTE, need)
        return function

    return declare


def declared(item: pytest.Item) -> list[Need]:
    """The needs of a test and of all fixtures that it uses."""
    functions = [getattr(item, "function", None)]
    functions += fixture_functions(item).values()
    found: list[Need] = []
    for function in functions:
        need = getattr(function, ATTRIBUTE, None)
        if isinstance(need, Need):
            found.append(need)
    return found


def asks_for_ours(item: pytest.Item) -> bool:
    """Whether a test uses a fixture of this plugin: one of somebody else may have the same name."""
    functions = fixture_functions(item).values()
    return any(function.__module__ == FIXTURES for function in functions)


def is_gate(item: pytest.Item) -> bool:
    """Whether a test asks for this plugin's ``gate``: a parameter or a fixture of somebody else may
    have that name.
    """
    function = fixture_functions(item).get("gate")
    return function is not None and function.__module__ == FIXTURES


def module_label(path: Path) -> str:
    """What verdicts of gates without a parameter are about: the name of their module."""
    return path.stem.removeprefix("test_")


def parameters(item: pytest.Item) -> dict[str, Any]:
    """The values that a test is parametrized with, by name."""
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec else {}


def names_of(item: pytest.Item) -> Iterator[str]:
    """The cases, or groups of cases, that a test looks at."""
    values = parameters(item)
    for need in declared(item):
        yield from _names(need, values)


def _names(need: Need, values: Mapping[str, Any]) -> list[str]:
    names = [on_kind(name, values.get(HOST_KIND, "")) for name in need.cases]
    if need.parameter in values:
        names.append(str(values[need.parameter]))
    return names


def repeats_of(name: str, cases: Iterable[str]) -> list[str]:
    """The repeated cases of a group, on the kind of host that its name has."""
    group, _, kind = name.partition("@")
    found = []
    for case in cases:
        own, _, place = case.partition("@")
        if own.rpartition("-")[0] == group and place == kind:
            found.append(case)
    return found


def demand_of(items: Collection[pytest.Item], cases: Collection[str]) -> Demand:
    """What some tests need together; names of no case are left to the gate that asks for them."""
    looked_at: set[str] = set()
    studied: set[str] = set()
    compared: set[str] = set()
    relations: set[str] = set()
    predicted: set[str] = set()
    dumps: set[str] = set()
    qualities: set[str] = set()
    for item in items:
        found = declared(item)
        kind = parameters(item).get(HOST_KIND, "")
        for need in found:
            names: list[str] = []
            for name in _names(need, parameters(item)):
                names += [name] if name in cases else repeats_of(name, cases)
            if need.quality and need.parameter:
                predicted.update(names)
                continue
            looked_at.update(names)
            if any(need.study for need in found):
                studied.update(names)
            if any(need.baseline for need in found):
                compared.update(names)
        if any(need.dump for need in found):
            dumps.add(kind)
        if any(need.quality and not need.parameter for need in found):
            qualities.add(kind)
        relations.update(on_kind(need.relation, kind) for need in found if need.relation)
    return Demand(
        frozenset(looked_at),
        frozenset(studied),
        frozenset(compared),
        frozenset(predicted),
        dumps=frozenset(dumps),
        qualities=frozenset(qualities),
        relations=frozenset(relations),
    )
