"""What planned launches come to in tokens, which is what counts where a program is slow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_h2o.lab.launch_plan import LaunchPlan
from pytest_h2o.plan.specs import LaunchSpec

BYTES_A_TOKEN = 4  # of English
BUCKET = re.compile(r"_(\d{2,7})_")


@dataclass(frozen=True)
class PlannedTokens:
    """Launches, and the tokens that they read and decode at most; those read of files are a
    guess.
    """

    launches: int = 0
    read: int = 0
    decoded: int = 0


def planned_tokens(specs: Iterable[LaunchSpec]) -> PlannedTokens:
    """What some launches come to, a warm-up before measured repeats included."""
    launches = read = decoded = 0
    for spec in specs:
        responses = 1 + (spec.repeat or 0)
        launches += 1
        read += responses * _prompt_tokens(spec)
        decoded += responses * spec.gen_tokens
    return PlannedTokens(launches, read, decoded)


def for_relations_alone(plan: LaunchPlan) -> list[LaunchSpec]:
    """The planned launches that no gate but those on relations asks for."""
    others = replace(plan, demand=replace(plan.demand, relations=()))
    keys = {spec.key for spec in others.planned()}
    return [spec for spec in plan.planned() if spec.key not in keys]


def _prompt_tokens(spec: LaunchSpec) -> int:
    """The length that was asked for, else that of the bucket that the file's name tells, or of the
    file.
    """
    if spec.prompt_tokens:
        return spec.prompt_tokens
    if spec.prompt_file and (bucket := BUCKET.search(spec.prompt_file.name)):
        return int(bucket[1])
    if spec.prompt_file and spec.prompt_file.is_file():
        return spec.prompt_file.stat().st_size // BYTES_A_TOKEN
    return 0
