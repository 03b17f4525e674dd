"""What can be launched: one :class:`LaunchSpec` is one process, named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# What a launch is: one prompt length, one prompt file, or a held-out text that is predicted.
Work = Literal["lengths", "prompts", "text"]
ConfigValue = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """One process to start.

    ``arm`` names the settings: ``baseline``, ``full``, ``store`` ... Equal launches are one,
    whatever theirs is. ``replicate`` (from 1) tells repeated launches of the same settings apart.

    Attributes:
        program: the name of what is launched; what a name stands for is the runtimes' to say.
        config: ``kv_*`` keys written over the base config, in order.
        prompt_tokens: prompt length of a launch that is given one.
        gen_tokens: tokens to decode, at most.
        repeat: measured repeats of a launch that is given a prompt length.
        prompt_file: the prompt of a launch that is given a file.
        timeout_s: seconds after which the launch is ended; 0 for :attr:`deadline_s` by its work.
        quality: the launch measures how well a held-out text is predicted, instead of speed.
        second_build: it is the second build's program that is launched.
        line_by_line: each line of the prompt file is a prompt, all answered by one process.
        paired_with: the arm that a baseline launch is compared with, if it is not shared by all
            arms.
        tag: tells launches over prompts of one name apart.
        env: extra environment of the process; ``{directory}`` in a value stands for the directory
            of the launch.
        seat: on which of several hosts it is planned, see :mod:`pytest_h2o.plan.seats`.
        by_hand: it is started as a person would: from a shell, at a terminal, without a record.
    """

    program: str
    arm: str
    replicate: int
    config: Mapping[str, ConfigValue]
    gen_tokens: int
    prompt_tokens: int | None = None
    repeat: int | None = None
    prompt_file: Path | None = None
    threads: int = 4
    backend: str = "cpu"
    attention_option: int = 0
    timeout_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    paired_with: str = ""
    quality: bool = False
    tag: str = ""
    line_by_line: bool = False
    second_build: bool = False
    seat: str = ""
    by_hand: bool = False

    @property
    def work(self) -> Work:
        """Whether the launch is given a prompt length or a prompt file; where no program is for
        texts, that for lengths predicts one.
        """
        return "prompts" if self.prompt_file else "lengths"

    @property
    def label(self) -> str:
        """``p512_g128`` or ``quality`` where a length is given, else the stem of the prompt."""
        if self.quality:
            return "quality"
        if self.prompt_file:
            stem = self.prompt_file.stem
            return f"{stem}~{self.tag}" if self.tag else stem
        return f"p{self.prompt_tokens}_g{self.gen_tokens}"

    @property
    def name(self) -> str:
        """Readable and unique in a session: ``bench-p512_g128x3-full-r1`` has 3 measured
        repeats.
        """
        arm = f"{self.arm}-for-{self.paired_with}" if self.paired_with else self.arm
        repeat = f"x{self.repeat}" if self.repeat else ""
        seat = f"@{seat_mark(self.seat)}" if self.seat else ""
        program = self.program.removeprefix("llm_")
        return f"{program}-{self.label}{repeat}-{arm}-r{self.replicate}{seat}"

    @property
    def deadline_s(self) -> float:
        """Seconds after which the launch is ended: unless given, so many that only one that hangs
        will need them.

        300 s, and for each response (the warm-up is one) 1 s per token decoded and per 10 tokens of
        its prompt.
        """
        if self.timeout_s:
            return self.timeout_s
        prompt = self.prompt_tokens or 0
        if self.prompt_file and self.prompt_file.is_file():
            # Bytes per token: 4 in English, 3 in Chinese.
            prompt = self.prompt_file.stat().st_size // 3
        responses = 1 + (self.repeat or 0)
        return 300.0 + responses * (self.gen_tokens + prompt / 10)

    @property
    def key(self) -> str:
        """Content hash: equal launches are one launch whatever their arm is called; the deadline is
        not content.
        """
        content = [
            self.program,
            self.replicate,
            dict(self.config),
            self.gen_tokens,
            self.prompt_tokens,
            self.repeat,
            str(self.prompt_file),
            self.threads,
            self.backend,
            self.attention_option,
            dict(self.env),
            self.paired_with,
        ]
        if self.quality:
            content.append("quality")
        if self.tag:
            content.append(f"tag {self.tag}")
        if self.line_by_line:
            content.append("line by line")
        if self.second_build:
            content.append("second build")
        if self.by_hand:
            content.append("by hand")
        if self.seat:
            content.append(f"seat {self.seat}")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def launch_names(specs: Iterable[LaunchSpec]) -> list[str]:
    """The names of several launches."""
    return [spec.name for spec in specs]


def seat_mark(seat: str) -> str:
    """A seat as it stands in the names of launches, behind an ``@``."""
    return seat.strip("/").replace("/", ".")
