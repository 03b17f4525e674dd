"""The runtime under acceptance: an MNN build's ``llm_bench`` and ``llm_demo``."""

from __future__ import annotations

import mmap
import os
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import Found, Program, RuntimeSetupError, Setup
from pytest_h2o.runtimes.configured import ConfiguredRuntime
from pytest_h2o.runtimes.paths import file_hash
from pytest_h2o.runtimes.programs import BOTH, LINE_DEMO, LLM_DEMO, PPL_EVAL

BUILD_DIRS = ("build_h2o_v6", "build")
# How compiled programs begin: ELF, Mach-O and PE.
COMPILED = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ")
# What a program holds that can take a whole file as one prompt; stock MNN's knows none of them.
WHOLE_FILES = (b"prompt-file-mode", b"metrics-jsonl", b"LLM_DEMO_METRICS_JSONL")
LIBRARIES = ("*.so", "*.so.*", "*.dylib", "*/*.so", "*/*.so.*", "*/*.dylib")


class MnnRuntime(ConfiguredRuntime):
    """Real binaries and a model config; either binary may be absent as long as no launch needs
    it.
    """

    name = "mnn"
    programs = {**BOTH, PPL_EVAL.name: PPL_EVAL}  # noqa: RUF012  as in the base
    # ppl_eval reports perplexity alone.
    defaults = {"MAX_KV_DIVERGENCE": -1.0}  # noqa: RUF012
    required = ("llm_model", "llm_weight", "tokenizer_file")

    def __init__(
        self, binaries: Mapping[str, Path], model_config: Path, reason: str, kind: str = ""
    ) -> None:
        super().__init__(model_config, reason)
        self.binaries = binaries
        self.kind = kind

    @classmethod
    def create(cls, setup: Setup) -> MnnRuntime:
        """The binaries that are named, or found in a build directory; raises
        :class:`RuntimeSetupError` for binaries without a model config, and the other way round.
        """
        found = find_binaries(setup)
        config = setup.named.get("model_config")
        if not found:
            named = "the mnn runtime was chosen"
            if config:
                named = f"model config {config.path} is named by {config.source}"
            options = " or ".join(map(_option, BOTH))
            raise RuntimeSetupError(
                f"{named}, but there is no program to run it; name one with {options}"
            )
        if config is None:
            for name, binary in found.items():
                if not setup.kind:
                    check_program(name, binary.path)
            first = next(iter(found.values()))
            raise RuntimeSetupError(
                f"{first.path} was found ({first.source}), but no model config; name one with "
                f"--model-config or MODEL_CONFIG"
            )
        reasons = [_from(name, place) for name, place in {**found, "model config": config}.items()]
        binaries = {name: binary.path for name, binary in found.items()}
        return cls(binaries, config.path, ", ".join(reasons), setup.kind)

    def describe(self) -> str:
        """One line: the binaries, the model and where they were named."""
        binaries = "".join(f"{name} {path}, " for name, path in self.binaries.items())
        return f"mnn: {binaries}model config {self.model_config} ({self.reason})"

    def start(self, program: str) -> tuple[str, ...]:
        """The binary's path."""
        if program == PPL_EVAL.name:
            return (str(self._beside(program)),)
        if program not in self.binaries:
            raise RuntimeSetupError(
                f"{program} is needed but was not given; name it with {_option(program)} or "
                f"{program.upper()}"
            )
        return (str(self.binaries[program]),)

    def _beside(self, program: str) -> Path:
        folders = dict.fromkeys(path.parent for path in self.binaries.values())
        for folder in folders:
            if (folder / program).is_file() or (self.kind and not folder.is_dir()):
                return folder / program
        looked = " or ".join(map(str, folders))
        raise RuntimeSetupError(f"{program} is needed and is not in {looked}; build it there")

    def program(self, spec: LaunchSpec) -> Program:
        """The program of a launch; stock MNN's ``llm_demo`` takes prompts of one line."""
        program = super().program(spec)
        if program is LLM_DEMO and reads_lines(self.binaries.get(spec.program)):
            return LINE_DEMO
        return program

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if a binary, the config or a model file is missing or
        unusable.
        """
        for program, path in self.binaries.items():
            if program not in self.elsewhere:
                check_program(program, path)
        super().check()

    @property
    def elsewhere(self) -> Mapping[str, Path]:
        """The programs and model files that are named for a kind of host, and are not here."""
        files = dict(self.binaries)
        for name in self.required:
            files[name] = self.files[name]
        absent = {name: path for name, path in files.items() if not path.exists()}
        return absent if self.kind else {}

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the binaries, of ``ppl_eval`` beside them, the shared libraries of their build,
        the model config and the model files.
        """
        hashes = {name: file_hash(path) for name, path in self.binaries.items() if path.is_file()}
        for folder in {path.parent for path in self.binaries.values()}:
            if (folder / PPL_EVAL.name).is_file():
                hashes[PPL_EVAL.name] = file_hash(folder / PPL_EVAL.name)
            for path in _libraries(folder):
                hashes[str(path.relative_to(folder))] = file_hash(path)
        return hashes | super().fingerprint()


def reads_lines(program: Path | None) -> bool:
    """Whether an ``llm_demo`` is a compiled one to which each line is a prompt; a script may start
    anything.
    """
    if program is None or not program.is_file():
        return False
    return _reads_lines(program, program.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _reads_lines(program: Path, written: int) -> bool:
    with program.open("rb") as file:
        if not file.read(4).startswith(COMPILED):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return not any(content.find(word) >= 0 for word in WHOLE_FILES)


def find_binaries(setup: Setup) -> dict[str, Found]:
    """The binaries that are named, and beside a single one the other; else those of the first build
    directory that holds any.
    """
    found = {name: setup.named[name] for name in BOTH if name in setup.named}
    for name, place in list(found.items()):
        for other in BOTH:
            beside = place.path.with_name(other)
            if other not in found and beside.is_file():
                found[other] = Found(beside, f"beside {name}")
    return found or _built(setup.directory)


def _built(directory: Path) -> dict[str, Found]:
    for folder in BUILD_DIRS:
        found: dict[str, Found] = {}
        for name in BOTH:
            path = directory / folder / name
            if path.is_file():
                found[name] = Found(path, f"./{folder}/")
        if found:
            return found
    return {}


def _from(name: str, place: Found) -> str:
    """Where something was named, in words."""
    beside = place.source.startswith("beside ")
    return f"{name} {place.source}" if beside else f"{name} from {place.source}"


def _option(program: str) -> str:
    return "--" + program.replace("_", "-")


def _libraries(folder: Path) -> list[Path]:
    """The shared libraries of a build: a rebuilt engine leaves the small programs beside it as they
    were.
    """
    found: set[Path] = set()
    for pattern in LIBRARIES:
        found.update(folder.glob(pattern))
    return sorted(path for path in found if path.is_file())


def check_program(program: str, path: Path) -> None:
    """Raise :class:`RuntimeSetupError` unless ``path`` is a file that can be executed."""
    if path.is_dir():
        raise RuntimeSetupError(f"{program} {path} is a directory; give the program in it")
    if not path.is_file():
        raise RuntimeSetupError(f"{program} {path} does not exist; build it or correct the path")
    if not os.access(path, os.X_OK):
        raise RuntimeSetupError(
            f"{program} {path} is not executable; run: chmod +x {shlex.quote(str(path))}"
        )
