"""Which runtimes and programs there are: ours, and those that installed packages register."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pytest_h2o.plan.knobs import KnobValue, meant
from pytest_h2o.plan.specs import Work
from pytest_h2o.runtimes.base import Program, Runtime, RuntimeKind, RuntimeSetupError
from pytest_h2o.runtimes.embedded import EmbeddedRuntime
from pytest_h2o.runtimes.mnn import MnnRuntime
from pytest_h2o.runtimes.pymnn import PymnnRuntime

GROUP = "pytest_h2o.runtimes"
# Ours are registered as well, but a checkout that is not installed has no entry points.
BUILT_IN: Mapping[str, type[RuntimeKind]] = {
    kind.name: kind for kind in (EmbeddedRuntime, MnnRuntime, PymnnRuntime)
}


class UnknownProgramError(RuntimeSetupError):
    """No runtime that is installed has a program of this name."""


def runtime_names() -> list[str]:
    """The names of all registered runtimes, ours first."""
    return list(BUILT_IN) + sorted(_registered().keys() - BUILT_IN.keys())


@cache
def runtime_kind(name: str) -> type[RuntimeKind]:
    """The runtime that is registered as ``name``; raises :class:`RuntimeSetupError` for an unknown
    name, and for a runtime that cannot be imported or is none.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = _registered().get(name)
    if found is None:
        raise RuntimeSetupError(
            f"there is no runtime {name}{meant(name, runtime_names())}; "
            f"there are {', '.join(runtime_names())} "
            f"(others register in the entry point group {GROUP})"
        )
    try:
        kind = found.load()
    except Exception as error:  # whatever somebody else's module raises when it is imported
        raise RuntimeSetupError(
            f"runtime {name}: {found.value} cannot be imported: {type(error).__name__}: {error}; "
            f"correct or uninstall the package that registers it"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, RuntimeKind)):
        raise RuntimeSetupError(
            f"runtime {name}: {found.value} is no class derived from {RuntimeKind.__module__}."
            f"{RuntimeKind.__qualname__}"
        )
    if kind.name != name:
        raise RuntimeSetupError(
            f"runtime {name}: {found.value} calls itself {kind.name}; give both the same name"
        )
    return kind


@cache
def find_program(name: str) -> Program:
    """The program that launches name ``name``; raises :class:`UnknownProgramError`.

    A runtime that cannot be imported is passed over, and named where nothing was found.
    """
    broken = []
    for runtime in runtime_names():
        try:
            programs = runtime_kind(runtime).programs
        except RuntimeSetupError as error:
            broken.append(str(error))
            continue
        if name in programs:
            return programs[name]
    reasons = "; ".join(broken) or "install the runtime that it belongs to"
    raise UnknownProgramError(f"there is no program {name or '(unnamed)'}: {reasons}")


def check_programs(runtime: Runtime) -> None:
    """Raise :class:`RuntimeSetupError` if a program of ``runtime`` cannot be found by its name."""
    for name, program in runtime.programs.items():
        if name != program.name:
            raise RuntimeSetupError(
                f"runtime {runtime.name}: its program {name} calls itself {program.name}"
            )
        if find_program(name) is not program:
            raise RuntimeSetupError(
                f"runtime {runtime.name}: its program {name} is another than the {name} of a "
                f"runtime registered before it; take that object, or another name"
            )


def programs_by_work(programs: Mapping[str, Program]) -> dict[Work, str]:
    """The name of the program that is launched for each kind of work, the first one that can."""
    found: dict[Work, str] = {}
    for name, program in programs.items():
        found.setdefault(program.work, name)
    return found


def defaults_for(runtime: str) -> dict[str, KnobValue]:
    """The preferred values for a runtime by name; one that is not installed has none."""
    if runtime not in runtime_names():
        return {}
    return dict(runtime_kind(runtime).defaults)


def _registered() -> Mapping[str, EntryPoint]:
    """The entry points by name; raises :class:`RuntimeSetupError` where two packages claim one
    name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        first = found.setdefault(entry.name, entry)
        if first.value != entry.value:
            raise RuntimeSetupError(
                f"runtime {entry.name} is registered as {first.value} and as {entry.value}; "
                f"uninstall one of the packages"
            )
    return found
