"""The runtime that ships with the package: the same programs in Python, on a small trained
model.
"""

from __future__ import annotations

import hashlib
import os
import sys
from itertools import chain
from pathlib import Path

from pytest_h2o.runtimes.base import CAPABILITIES, Setup
from pytest_h2o.runtimes.configured import ConfiguredRuntime

PACKAGE = Path(__file__).parent.parent
MODEL_CONFIG = PACKAGE / "engine" / "weights" / "h2o.json"


class EmbeddedRuntime(ConfiguredRuntime):
    """The engine of this package, started as a process of its own like any other binary."""

    name = "embedded"
    required = ("llm_config", "llm_model", "tokenizer_file")
    capabilities = frozenset(CAPABILITIES) - {"kv_quant"}
    # It prints every metric, so what is optional elsewhere is required of it. It is there to be
    # tried on any machine, where single launches differ by more than a target, so it is compared in
    # pairs in every suite. Its decode studies take the launches that the other gates look at, and
    # decide at the first look or soon after; only a machine with many programs to a core needs the
    # budget.
    defaults = {  # noqa: RUF012  declared as a class variable in the base
        "THREADS": 2,
        "REPEAT": 2,
        "DECODE_REPEAT": 0,
        "DECODE_TOKENS": 192,
        "DECODE_BASELINE_MODE": "paired",
        "DECODE_BUDGET_S": 900.0,
        "MAX_LOSSLESS_ASYNC_WAIT_US": 50_000.0,
        "REQUIRE_ASYNC_QUEUE_ACTIVITY": True,
        "REQUIRE_DECODE_CACHE_ACTIVITY": True,
        "REQUIRE_QUALITY": True,
    }

    def __init__(self, reason: str, model_config: Path = MODEL_CONFIG) -> None:
        super().__init__(model_config, reason)

    @classmethod
    def create(cls, setup: Setup) -> EmbeddedRuntime:
        """The model that ships, unless the command line names another: one named elsewhere is a
        build's.
        """
        found = setup.named.get("model_config")
        if found and found.source == "--model-config":
            return cls(setup.reason, found.path)
        return cls(setup.reason)

    def describe(self) -> str:
        """One line: the model and why nothing else is used."""
        return f"embedded: model config {self.model_config} ({self.reason})"

    def start(self, program: str) -> tuple[str, ...]:
        """This interpreter with the engine's command module."""
        return (sys.executable, "-m", f"pytest_h2o.engine.{program.removeprefix('llm_')}")

    def environment(self) -> dict[str, str]:
        """A checkout that is not installed must be importable from the launch's directory as
        well, and what is printed is UTF-8 whatever the locale.
        """
        utf8 = {"PYTHONUTF8": "1"}
        if PACKAGE.parent.name in ("site-packages", "dist-packages"):
            return utf8
        folders = [str(PACKAGE.parent)]
        if inherited := os.environ.get("PYTHONPATH"):
            folders.append(inherited)
        return utf8 | {"PYTHONPATH": os.pathsep.join(folders)}

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the engine's sources, the Python version, the model config and the model
        files.
        """
        digest = hashlib.sha256(sys.version.encode())
        sources = chain((PACKAGE / "engine").rglob("*.py"), (PACKAGE / "codec").rglob("*.py"))
        for path in sorted(sources):
            digest.update(path.name.encode() + path.read_bytes())
        return {"engine": digest.hexdigest()[:16]} | super().fingerprint()
