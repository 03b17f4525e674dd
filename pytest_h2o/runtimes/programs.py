"""What the runtimes share: the arguments of both programs, the generated config and the checks of
model files.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec, Program
from pytest_h2o.runtimes.base import (
    CONFIG_FILE,
    METRICS_FILE,
    QUALITY_FILE,
    TABLE_FILE,
    Command,
    RuntimeSetupError,
)
from pytest_h2o.runtimes.config import launch_config, model_files, overridden_values, read_config

# Head and tail that are hashed of each large file.
HASHED_BYTES = 1 << 20


class Programs:
    """A runtime that starts both programs with the same arguments; a subclass says what they are
    started with.

    ``required`` names the path fields whose files must exist; ``reason`` says why this runtime was
    chosen.
    """

    name: str
    required: tuple[str, ...]

    def __init__(self, model_config: Path, reason: str) -> None:
        self.model_config = model_config
        self.reason = reason

    def start(self, program: Program) -> tuple[str, ...]:
        """The words that start ``program``; raises :class:`RuntimeSetupError` if the runtime has
        none.
        """
        raise NotImplementedError

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
            if not self.files[name].is_file():
                raise RuntimeSetupError(
                    f"model file {self.files[name]} is missing ({name} of {self.model_config}); "
                    f"put it there or correct {name} or base_dir"
                )

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the model config and of the model files that exist."""
        present = {name: file_hash(path) for name, path in self.files.items() if path.is_file()}
        return {"model_config": hashlib.sha256(repr(self.base).encode()).hexdigest()[:16]} | present

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """The launch of ``spec``, run in ``directory``; ``{directory}`` in its environment stands
        for that path.
        """
        arguments = bench_arguments if spec.program == "llm_bench" else demo_arguments
        values = launch_values(spec)
        table = directory / TABLE_FILE if spec.program == "llm_bench" else None
        metrics = directory / METRICS_FILE if spec.program == "llm_demo" else None
        # A build with the KV dump switch dumps every prompt below its directory, unless it is told
        # not to.
        env = {"MNN_KV_DUMP_DIR": "0", **spec.env}
        env = {name: text.replace("{directory}", str(directory)) for name, text in env.items()}
        if metrics:
            env["LLM_DEMO_METRICS_JSONL"] = str(metrics)
        return Command(
            argv=(*self.start(spec.program), *arguments(spec, directory)),
            env=self.environment() | env,
            cwd=directory,
            config_path=directory / CONFIG_FILE,
            config=launch_config(self.base, self.model_config, values),
            table=table,
            metrics=metrics,
            overridden=overridden_values(self.base, values),
        )


def launch_values(spec: LaunchSpec) -> dict[str, object]:
    """The config keys a launch sets: its own, and for ``llm_demo`` those that ``llm_bench`` takes
    as arguments.
    """
    values: dict[str, object] = dict(spec.config)
    if spec.program == "llm_demo":
        values |= {"thread_num": spec.threads, "backend_type": spec.backend}
        if spec.attention_option:
            values["attention_mode"] = spec.attention_option + 8
    return values


def bench_arguments(spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
    """The arguments of ``llm_bench``; precision and the rest keep the program's defaults."""
    if spec.prompt_tokens is None or spec.repeat is None:
        raise ValueError(f"{spec.name}: llm_bench needs prompt_tokens and repeat")
    return (
        "-m", list_word(directory, CONFIG_FILE), "-a", spec.backend, "-t", str(spec.threads),
        "-qatten", str(spec.attention_option), "-kv", "true", "-p", str(spec.prompt_tokens),
        "-n", str(spec.gen_tokens), "-rep", str(spec.repeat), "-fp", list_word(directory, TABLE_FILE),
        *(("--quality", "-j", list_word(directory, QUALITY_FILE)) if spec.quality else ()),
    )  # fmt: skip


def demo_arguments(spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
    """The arguments of ``llm_demo``: one prompt, the whole file."""
    if spec.prompt_file is None:
        raise ValueError(f"{spec.name}: llm_demo needs prompt_file")
    return (
        str(directory / CONFIG_FILE), str(spec.prompt_file.absolute()), str(spec.gen_tokens),
        "--metrics-jsonl", str(directory / METRICS_FILE), "--prompt-file-mode=whole",
    )  # fmt: skip


def list_word(directory: Path, name: str) -> str:
    """The path of a file as ``llm_bench`` reads it: it splits words at commas, so such paths start
    at its directory.
    """
    path = str(directory / name)
    return f"./{name}" if "," in path else path


def file_hash(path: Path) -> str:
    """Size, modification time and the hash of head and tail: changes with the file, and is cheap
    for large ones.
    """
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(HASHED_BYTES))
        file.seek(max(0, stat.st_size - HASHED_BYTES))
        digest.update(file.read(HASHED_BYTES))
    return f"{stat.st_size}-{stat.st_mtime_ns}-{digest.hexdigest()[:16]}"


def absolute(path: str | Path, directory: Path) -> Path:
    """``path`` from ``directory``, with ``~`` expanded and symlinks kept."""
    return directory.absolute() / os.path.expanduser(path)  # noqa: PTH111  Path.expanduser() raises without a home
