"""What launches wrote, beside what they must have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import located, read_launches
from pytest_h2o.runtimes import find_program

EXCERPT = 30
# Samplers that choose the same token in every launch; the engines' default is the first.
DETERMINISTIC = ("greedy", "penalty")
CONFIG_LIMIT = 1 << 20


@dataclass(frozen=True)
class Written:
    """What one launch wrote, or why that is not known; ``tokens`` are those that it decoded."""

    record: LaunchRecord
    text: str = ""
    tokens: int = 0
    problem: str = ""

    @property
    def cut(self) -> bool:
        """Whether the launch wrote as much as it was let."""
        return self.tokens >= self.record.spec.gen_tokens


def written(record: LaunchRecord) -> Written:
    """The text of a launch over a real prompt."""
    run = read_launches(record.name, [record])
    if run.problems:
        return Written(record, problem=run.problems[0])
    try:
        text = find_program(record.program).text(record)
    except ParseError as error:
        return Written(record, problem=located(str(error), record.directory, record.name))
    if text is None:
        return Written(record, problem=f"{record.program} prints no text to compare")
    return Written(record, text, run.rows[0].decode_tokens or 0)


def difference(expected: Written, other: Written) -> str:
    """Where and how two texts differ; empty where they are the same.

    A launch that was let write less than the other must have written the beginning of its text.
    """
    if expected.text == other.text:
        return ""
    shorter, longer = sorted((expected, other), key=lambda each: each.record.spec.gen_tokens)
    begun = shorter.text.rstrip("\ufffd")  # a letter may be cut off
    fewer = shorter.record.spec.gen_tokens < longer.record.spec.gen_tokens
    if fewer and shorter.cut and longer.text.startswith(begun):
        return ""
    same = alike(expected.text, other.text)
    return (
        f"from character {same + 1} on {_excerpt(other.text, same)} instead of "
        f"{_excerpt(expected.text, same)}"
    )


def same_share(expected: Written, other: Written) -> float:
    """The share of the shorter text before the first character that differs."""
    shorter = min(len(expected.text), len(other.text))
    if not shorter:
        return float(expected.text == other.text)
    return alike(expected.text, other.text) / shorter


def alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many characters, or words, two texts begin with in common."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _excerpt(text: str, begin: int) -> str:
    part = printable(text[begin : begin + EXCERPT])
    return repr(part) if part else "nothing"


def random_sampler(record: LaunchRecord) -> str:
    """The sampler of a launch's config if it draws at random; empty if it does not."""
    try:
        with record.config_path.open("rb") as file:
            config = json.loads(file.read(CONFIG_LIMIT))
    except (OSError, ValueError):
        return ""
    sampler = config.get("sampler_type", "greedy") if isinstance(config, dict) else "greedy"
    return "" if sampler in DETERMINISTIC else str(sampler)
