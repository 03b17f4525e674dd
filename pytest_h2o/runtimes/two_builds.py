"""Two builds side by side: the one under test, and another that it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import (
    AroundRuntime,
    Command,
    Found,
    Runtime,
    RuntimeSetupError,
    Setup,
)
from pytest_h2o.runtimes.configured import ConfiguredRuntime
from pytest_h2o.runtimes.mnn import MnnRuntime

# Of the settings that name the second build.
BASELINE_PREFIX = "h2o_baseline_"


@dataclass(frozen=True)
class TwoBuilds(AroundRuntime):
    """A runtime beside a ``second`` one, whose programs make the launches that ask for it."""

    second: Runtime

    def describe(self) -> str:
        """Both builds in one line."""
        return f"{self.runtime.describe()}; beside {self.second.describe()}"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if one of them cannot be used."""
        self.runtime.check()
        try:
            self.second.check()
        except RuntimeSetupError as error:
            raise RuntimeSetupError(f"the second build: {error}") from error

    @property
    def elsewhere(self) -> Mapping[str, Path]:
        """The files of both that only hosts have."""
        found = dict(self.runtime.elsewhere)
        for name, path in self.second.elsewhere.items():
            found[f"second {name}"] = path
        return found

    def fingerprint(self) -> dict[str, str]:
        """The hashes of both."""
        hashes = self.runtime.fingerprint()
        for name, digest in self.second.fingerprint().items():
            hashes[f"second {name}"] = digest
        return hashes

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """How the build that ``spec`` asks for is started."""
        runtime = self.second if spec.second_build else self.runtime
        return runtime.command(spec, directory)


def with_second_build(
    runtime: Runtime, named: Mapping[str, Found], directory: Path, kind: str = ""
) -> TwoBuilds:
    """``runtime`` beside a build that is ``named``, on the same model config, for a kind of host;
    raises :class:`RuntimeSetupError`.
    """
    if not isinstance(runtime, ConfiguredRuntime):
        raise RuntimeSetupError(
            f"the runtime {runtime.name} has no model config that a second build could be given; "
            f"leave out --h2o-baseline-llm-bench and --h2o-baseline-llm-demo"
        )
    config = Found(runtime.model_config, "the build under test")
    second = MnnRuntime.create(Setup(directory, {**named, "model_config": config}, kind=kind))
    return TwoBuilds(runtime, second)
