"""Stock MNN from its PyPI wheel: the engine that most people run, installed by pip."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from pytest_h2o.runtimes.base import Capability, RuntimeSetupError, Setup
from pytest_h2o.runtimes.configured import ConfiguredRuntime

SOURCES = Path(__file__).parent
PACKAGE = SOURCES.parents[1]
# The weights that ship, as an MNN model; a checkout has it.
EXPORT = PACKAGE.parent / "tests" / "data" / "mnn" / "config.json"


class PymnnRuntime(ConfiguredRuntime):
    """The wheel's engine on any MNN model directory, one process a launch."""

    name = "pymnn"
    required = ("llm_model", "llm_weight", "tokenizer_file")
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"kv_quant"})
    defaults = {  # noqa: RUF012  declared as a class variable in the base
        "THREADS": 1,
        "DECODE_BASELINE_MODE": "paired",
        "DECODE_BUDGET_S": 600.0,
    }

    @classmethod
    def create(cls, setup: Setup) -> PymnnRuntime:
        """The model that is named, or the export of a checkout; raises :class:`RuntimeSetupError`
        where there is neither.
        """
        found = setup.named.get("model_config")
        if found is None and EXPORT.is_file():
            return cls(EXPORT, "the project's weights, since no --model-config is given")
        if found is None:
            raise RuntimeSetupError(
                "the pymnn runtime has no model of its own; name the config.json of an MNN model "
                "with --model-config or MODEL_CONFIG"
            )
        return cls(found.path, f"model config from {found.source}")

    def describe(self) -> str:
        """One line: the engine's version, the model and where it was named."""
        return f"pymnn: MNN {_version()}, model config {self.model_config} ({self.reason})"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if the wheel, the config or a model file is missing."""
        if find_spec("MNN") is None:
            raise RuntimeSetupError(
                "the Python package MNN is not installed; run: pip install 'pytest-h2o[mnn]' "
                "(there are wheels for Linux on x86_64 and aarch64, macOS and Windows)"
            )
        super().check()

    def start(self, program: str) -> tuple[str, ...]:
        """This interpreter with the module that drives the wheel."""
        return (sys.executable, "-m", f"{__name__}.wheel_{program.removeprefix('llm_')}")

    def environment(self) -> dict[str, str]:
        """A checkout that is not installed must be importable from the launch's directory as
        well.
        """
        if PACKAGE.parent.name in ("site-packages", "dist-packages"):
            return {}
        folders = [str(PACKAGE.parent)]
        if inherited := os.environ.get("PYTHONPATH"):
            folders.append(inherited)
        return {"PYTHONPATH": os.pathsep.join(folders)}

    def fingerprint(self) -> dict[str, str]:
        """The wheel's version, and hashes of what drives it, the model config and the model."""
        digest = hashlib.sha256(sys.version.encode())
        for path in sorted(SOURCES.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
        own = {"MNN": _version(), "driver": digest.hexdigest()[:16]}
        return own | super().fingerprint()


def _version() -> str:
    try:
        return version("MNN")
    except PackageNotFoundError:
        return "not installed"
