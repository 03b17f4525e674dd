"""Which faults change nothing that the engine has: ``python tests/sabotage/installed.py`` prints a
line for each.

What a fault replaces may be renamed; it is then no fault, or crashes, which any gate refuses.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import faults
from live import EVERY_FAULT, EVERY_HONEST

import pytest_h2o.engine

# What these do is not done in the engine, or not at the first launch.
ELSEWHERE = {
    "honest",
    "computes_elsewhere",
    "behaves_at_first",
    "behaves_below_pytest",
    "behaves_for_a_while",
    "behaves_with_metrics",
    "behaves_without_a_terminal",
    "evicts_in_the_demo_only",
}
Owner = type | ModuleType


def engine_parts() -> Iterator[Owner]:
    """Every module of the engine, and the classes that it defines."""
    package = pytest_h2o.engine
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.ispkg:
            continue
        module = importlib.import_module(found.name)
        yield module
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == found.name:
                yield kind


def main() -> None:
    """Install each fault in turn and take it out again."""
    before = {owner: dict(vars(owner)) for owner in engine_parts()}
    names = [fault.name for fault in (*EVERY_FAULT, *EVERY_HONEST)]
    for name in dict.fromkeys(names):
        try:
            faults.find(name)()
        except Exception as error:
            print(f"{name}: {error}")
        else:
            if problem := installed(name, before):
                print(f"{name}: {problem}")
        restore(before)


def installed(name: str, before: dict[Owner, dict[str, object]]) -> str:
    """What is wrong with a fault that is installed; empty if nothing is."""
    changed = 0
    for owner, attributes in before.items():
        for attribute, value in vars(owner).items():
            if attribute not in attributes:
                return f"{owner.__name__} has no {attribute} to replace"
            changed += attributes[attribute] is not value
    return "" if changed or name in ELSEWHERE else "replaces nothing"


def restore(before: dict[Owner, dict[str, object]]) -> None:
    """Give every part the attributes that it had."""
    for owner, attributes in before.items():
        for attribute, value in dict(vars(owner)).items():
            if attribute not in attributes:
                delattr(owner, attribute)
            elif attributes[attribute] is not value:
                setattr(owner, attribute, attributes[attribute])


if __name__ == "__main__":
    main()
