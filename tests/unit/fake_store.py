"""A stand-in for the run store, whose launches have the speeds that a test gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

COLUMNS = "| llm_demo | speed(tok/s) | h2o_lossy |\n| --- | --- | --- |\n"
Speed = Callable[[LaunchSpec], float]


@dataclass
class FakeStore:
    """Writes a table with the speed that ``speed`` gives for each spec; remembers the order of
    distinct launches.
    """

    root: Path
    speed: Speed
    launched: list[str] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    seconds: float | None = None

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        directory = self.root / spec.key
        if not directory.exists():
            self.launched.append(spec.name)
            directory.mkdir()
            cells = (
                f"| prompt={spec.prompt_tokens}<br>decode={spec.gen_tokens} | 1.0 ± "
                f"0.0<br>{self.speed(spec)} ± 0.0"
            )
            (directory / "log.md").write_text(f"{COLUMNS}{cells} | 3.1 ± 0.0 |\n")
        failed = spec.arm in self.broken
        status, reason = ("failed", "ended by signal 11 (SIGSEGV)") if failed else ("ok", "")
        inputs = {"machine": "here", "llm_weight": "5-1769-abc"}
        return LaunchRecord(
            spec=spec,
            status=status,
            reason=reason,
            inputs=inputs,
            seconds=self.seconds,
            **standard_paths(directory),
        )  # type: ignore[arg-type]


def by_arm(**speeds: float) -> Speed:
    return lambda spec: speeds.get(spec.arm, 100.0)
