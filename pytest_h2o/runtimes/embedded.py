"""The runtime that ships with the package: the same programs in Python, on a small trained
model.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from pytest_h2o.plan.specs import Program
from pytest_h2o.runtimes.programs import Programs

PACKAGE = Path(__file__).parent.parent
MODEL_CONFIG = PACKAGE / "engine" / "weights" / "h2o.json"


class EmbeddedRuntime(Programs):
    """The engine of this package, started as a process of its own like any other binary."""

    name = "embedded"
    required = ("llm_config", "llm_model", "tokenizer_file")

    def __init__(self, reason: str, model_config: Path = MODEL_CONFIG) -> None:
        super().__init__(model_config, reason)

    def describe(self) -> str:
        """One line: the model and why nothing else is used."""
        return f"embedded: model config {self.model_config} ({self.reason})"

    def start(self, program: Program) -> tuple[str, ...]:
        """This interpreter with the engine's command module."""
        return (sys.executable, "-m", f"pytest_h2o.engine.{program.removeprefix('llm_')}")

    def environment(self) -> dict[str, str]:
        """A checkout that is not installed must be importable from the launch's directory as
        well.
        """
        if PACKAGE.parent.name in ("site-packages", "dist-packages"):
            return {}
        return {
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH")))
            )
        }

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the engine's sources, the Python version, the model config and the model
        files.
        """
        digest = hashlib.sha256(sys.version.encode())
        for path in sorted(
            path for part in ("engine", "codec") for path in (PACKAGE / part).rglob("*.py")
        ):
            digest.update(path.name.encode() + path.read_bytes())
        return {"engine": digest.hexdigest()[:16], **super().fingerprint()}
