"""The runtime under acceptance: an MNN build's ``llm_bench`` and ``llm_demo``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from pytest_h2o.plan.specs import Program
from pytest_h2o.runtimes.base import RuntimeSetupError
from pytest_h2o.runtimes.programs import Programs, file_hash


class MnnRuntime(Programs):
    """Real binaries and a model config; either binary may be absent as long as no launch needs
    it.
    """

    name = "mnn"
    required = ("llm_model", "llm_weight", "tokenizer_file")

    def __init__(self, programs: Mapping[Program, Path], model_config: Path, reason: str) -> None:
        super().__init__(model_config, reason)
        self.programs = programs

    def describe(self) -> str:
        """One line: the binaries, the model and where they were named."""
        binaries = "".join(f"{name} {path}, " for name, path in self.programs.items())
        return f"mnn: {binaries}model config {self.model_config} ({self.reason})"

    def start(self, program: Program) -> tuple[str, ...]:
        """The binary's path."""
        if program not in self.programs:
            option, variable = "--" + program.replace("_", "-"), program.upper()
            raise RuntimeSetupError(
                f"{program} is needed but was not given; name it with {option} or {variable}"
            )
        return (str(self.programs[program]),)

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if a binary, the config or a model file is missing or
        unusable.
        """
        for program, path in self.programs.items():
            check_program(program, path)
        super().check()

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the binaries, the shared libraries of their build, the model config and the
        model files.
        """
        present: dict[str, str] = {
            name: file_hash(path) for name, path in self.programs.items() if path.is_file()
        }
        for folder in {path.parent for path in self.programs.values()}:
            present |= {
                str(path.relative_to(folder)): file_hash(path) for path in _libraries(folder)
            }
        return {**present, **super().fingerprint()}


def _libraries(folder: Path) -> list[Path]:
    """The shared libraries of a build: a rebuilt engine leaves the small programs beside it as they
    were.
    """
    patterns = (f"{below}*.{kind}" for below in ("", "*/") for kind in ("so", "so.*", "dylib"))
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def check_program(program: Program, path: Path) -> None:
    """Raise :class:`RuntimeSetupError` unless ``path`` is a file that can be executed."""
    if path.is_dir():
        raise RuntimeSetupError(f"{program} {path} is a directory; give the program in it")
    if not path.is_file():
        raise RuntimeSetupError(f"{program} {path} does not exist; build it or correct the path")
    if not os.access(path, os.X_OK):
        raise RuntimeSetupError(
            f"{program} {path} is not executable; run: chmod +x {shlex.quote(str(path))}"
        )
