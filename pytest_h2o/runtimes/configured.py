"""What runtimes share whose programs read a generated engine config."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import (
    CONFIG_FILE,
    METRICS_FILE,
    TABLE_FILE,
    Command,
    Program,
    RuntimeKind,
    RuntimeSetupError,
)
from pytest_h2o.runtimes.launch_config import (
    launch_config,
    model_files,
    overridden_values,
    read_config,
)
from pytest_h2o.runtimes.paths import file_hash
from pytest_h2o.runtimes.programs import BOTH


class ConfiguredRuntime(RuntimeKind):
    """A runtime whose launches run on the user's model config with the launch's values in it; a
    subclass says what its programs are started with.

    ``required`` names the path fields whose files must exist; ``reason`` says why this runtime was
    chosen.
    """

    programs = BOTH
    required: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model_config: Path, reason: str) -> None:
        self.model_config = model_config
        self.reason = reason

    @abstractmethod
    def start(self, program: str) -> tuple[str, ...]:
        """The words that start ``program``; raises :class:`RuntimeSetupError` if the runtime has
        none.
        """

    def environment(self) -> dict[str, str]:
        """Variables that every launch needs."""
        return {}

    @cached_property
    def base(self) -> dict[str, object]:
        """The user's config, read once so that all launches of a session start from the same
        one.
        """
        return read_config(self.model_config)

    @cached_property
    def files(self) -> dict[str, Path]:
        """The model files by path field."""
        return model_files(self.base, self.model_config)

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if the config or a model file is missing or unusable."""
        for name in self.required:
            if name not in self.elsewhere and not self.files[name].is_file():
                raise RuntimeSetupError(
                    f"model file {self.files[name]} is missing ({name} of {self.model_config}); "
                    f"put it there or correct {name} or base_dir"
                )

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the model config and of the model files that exist."""
        hashes = {"model_config": hashlib.sha256(repr(self.base).encode()).hexdigest()[:16]}
        for name, path in self.files.items():
            if path.is_file():
                hashes[name] = file_hash(path)
        return hashes

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """The launch of ``spec``, run in ``directory``; ``{directory}`` in its environment stands
        for that path.
        """
        program = self.program(spec)
        values = program.config(spec)
        left = {name: directory / name for name in program.files}
        return Command(
            argv=(*self.start(spec.program), *program.arguments(spec, directory)),
            env=self.environment() | launch_environment(program, spec, directory),
            cwd=directory,
            config_path=directory / CONFIG_FILE,
            config=launch_config(self.base, self.model_config, values),
            table=left.pop(TABLE_FILE, None),
            metrics=left.pop(METRICS_FILE, None),
            files=tuple(left.values()),
            folders=folders_of(spec, directory),
            texts={directory / name: text for name, text in program.texts(spec).items()},
            overridden=overridden_values(self.base, values),
            by_hand=spec.by_hand,
        )


def folders_of(spec: LaunchSpec, directory: Path) -> tuple[Path, ...]:
    """The directories below that of a launch that its variables name: that of a KV dump."""
    below = "{directory}/"
    found = [text for text in spec.env.values() if text.startswith(below)]
    return tuple(directory / text.removeprefix(below) for text in found)


def launch_environment(program: Program, spec: LaunchSpec, directory: Path) -> dict[str, str]:
    """The variables of one launch."""
    # A build with the KV dump switch dumps every prompt below its directory, unless it is told not
    # to.
    env = {"MNN_KV_DUMP_DIR": "0"}
    for name, text in spec.env.items():
        env[name] = text.replace("{directory}", str(directory))
    return env | program.environment(spec, directory)
