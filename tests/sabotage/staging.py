"""Sessions with stand-in programs: how they are started, and the score of the suite."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TEMPLATES = ROOT / "tests" / "data" / "honest"
SETTINGS = (
    "PROMPTS=512,1024",
    "GENS=48",
    "REPEAT=2",
    "THREADS=2",
    "DECODE_TOKENS=64",
    "FULL_RUNS=2",
)
ACCEPTANCE = "full_strict or store_tuned or joint_full or llm_demo"
WITHOUT = (
    "not offline and not store_smoke and not tensor and not upper and not online and not sweep"
)
OPTIONS = ("--rootdir", str(ROOT), "-p", "no:cacheprovider", "-p", "no:xdist")
SHIPPED = ROOT / "pytest_h2o" / "engine" / "weights"
FILES = ("llm.mnn", "llm.mnn.weight", "llm_config.json", "tokenizer.txt", "embeddings_bf16.bin")
PROGRAM = """#!{python} -SE
import pathlib, sys
sys.path.insert(0, {here!r})
import imitator
imitator.main(pathlib.Path({templates!r}), {defect!r})
"""
SPOILED = """#!{python}
import sys
sys.path.insert(0, {here!r})
import spoiled
spoiled.main({defect!r})
"""
FAULTY = """#!{python}
import sys
sys.path.insert(0, {here!r})
if {defect!r} == "computes_elsewhere":
    import courier
    courier.hand_over()
import faults
faults.main({program!r}, {defect!r}, plain={plain})
"""


@dataclass(frozen=True)
class Judged:
    """Outcome and reason of each gate by name and case, and the directory of the session."""

    gates: dict[str, tuple[str, str]]
    directory: Path

    @property
    def failed(self) -> dict[str, str]:
        """The gates that neither passed nor were turned off, with their reasons."""
        return {
            gate: why
            for gate, (outcome, why) in self.gates.items()
            if outcome not in ("pass", "skipped")
        }


class Judge(Protocol):
    """Runs the selected gates of a module, or of all, with these arguments."""

    def __call__(self, arguments: list[str], select: str, module: str = "") -> Judged: ...


@dataclass
class Score:
    """Saboteurs by name: whether a gate caught them as expected, and whether the original's rules
    would have.
    """

    gates: dict[str, bool] = field(default_factory=dict)
    original: dict[str, bool] = field(default_factory=dict)


@dataclass
class Stage:
    """Where stand-in programs live: ``programs`` writes them with a defect, ``arguments`` makes the
    gates use them. ``model`` is the config of the embedded engine.
    """

    directory: Path
    model: Path = SHIPPED / "h2o.json"

    def arguments(self, defect: str = "") -> list[str]:
        """The options of a session with programs that have ``defect``."""
        programs = [
            self._program(f"{name}_{defect or 'honest'}", PROGRAM, defect)
            for name in ("llm_bench", "llm_demo")
        ]
        return [
            *OPTIONS, *_set(SETTINGS), "--llm-bench", programs[0], "--llm-demo", programs[1],
            "--model-config", str(self.directory / "config.json"),
            "--prompt-dir", str(self.directory / "prompts"),
        ]  # fmt: skip

    def spoiled(self, defect: str) -> list[str]:
        """The options of a session with the embedded engine that has ``defect``."""
        program = self._program(f"engine_{defect}", SPOILED, defect)
        settings = _set(("PROMPTS=512", "GENS=48", "REPEAT=1", "THREADS=1", "REQUIRE_QUALITY=1"))
        return [
            *OPTIONS,
            *settings,
            "--llm-bench",
            program,
            "--model-config",
            str(SHIPPED / "h2o.json"),
        ]

    def faulty(
        self, fault: str, settings: tuple[str, ...], prompts: int, *, plain: bool
    ) -> list[str]:
        """The options of a session with the embedded engine that has ``fault``, on so many real
        prompts; a ``plain`` one prints what a real build does and no more.
        """
        words = [*OPTIONS, *_set(settings), "--model-config", str(self.model)]
        words += ["--prompt-dir", str(self._prompts(prompts))]
        return words + self._both_programs("--", fault, plain=plain)

    def second_build(self, *, plain: bool) -> list[str]:
        """The options that name an embedded engine without a fault as the second build."""
        return self._both_programs("--h2o-baseline-", "honest", plain=plain)

    def _both_programs(self, option: str, fault: str, *, plain: bool) -> list[str]:
        words: list[str] = []
        for program in ("llm_bench", "llm_demo"):
            name = f"{program}_{fault}_plain" if plain else f"{program}_{fault}"
            path = self._program(name, FAULTY, fault, program, plain=plain)
            words += [f"{option}{program.replace('_', '-')}", path]
        return words

    def _prompts(self, count: int) -> Path:
        """A directory of so many real prompts of a length that triggers evictions."""
        folder = self.directory / f"prompts_{count}"
        folder.mkdir(exist_ok=True)
        shipped = ROOT / "prompts"
        long = [*sorted(shipped.glob("prompt_512_*.txt")), *sorted(shipped.glob("prompt_2048_*"))]
        for path in long[:count]:
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    def spoiled_writer(self, defect: str) -> list[str]:
        """The same over real prompts; ``demo_`` tells the program which of the two it is."""
        options = self.spoiled(defect)
        program = self._program(f"demo_{defect}", SPOILED, defect)
        settings = ("PROMPT_PATTERN=prompt_512_[1-4].txt", "DECODE_TOKENS=24", "RELATION_TOKENS=24")
        return [
            *options,
            *_set(settings),
            "--llm-demo",
            program,
            "--prompt-dir",
            str(ROOT / "prompts"),
        ]

    def _program(
        self, name: str, text: str, defect: str, program: str = "", *, plain: bool = False
    ) -> str:
        path = self.directory / name
        path.write_text(
            text.format(
                python=sys.executable,
                here=str(HERE),
                templates=str(TEMPLATES),
                defect=defect,
                program=program,
                plain=plain,
            )
        )
        path.chmod(0o755)
        return str(path)


def _set(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--h2o-set", setting)]
