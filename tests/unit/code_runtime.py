"""A runtime that runs Python code in place of both programs, and a launch of it."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import Command, RuntimeKind, Setup
from pytest_h2o.runtimes.programs import BOTH

SPEC = LaunchSpec(
    program="llm_bench", arm="full", replicate=1, config={"kv_h2o_enable": True}, gen_tokens=8,
    prompt_tokens=64, repeat=1, timeout_s=60.0,
)  # fmt: skip


class Code(RuntimeKind):
    """Runs Python code in place of both programs."""

    name = "code"
    programs = BOTH

    def __init__(self, code: str) -> None:
        self.code = code

    @classmethod
    def create(cls, setup: Setup) -> Code:
        """Nothing is set up."""
        return cls("")

    def fingerprint(self) -> dict[str, str]:
        """What is run."""
        return {"code": self.code}

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """Run the code in the launch's directory."""
        return Command(
            argv=(sys.executable, "-I", "-S", "-c", self.code), env={}, cwd=directory,
            config_path=directory / "config.json", config=spec.config,
        )  # fmt: skip
