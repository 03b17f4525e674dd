"""Did baseline and candidate do the same work? Every cell that describes the run, every option and
every key of the configs, known by name or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from pytest_h2o.evidence.look import Look
from pytest_h2o.evidence.settings import read_config
from pytest_h2o.metrics import BY_BENCH
from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.options import behind_program, options_of, without_files
from pytest_h2o.runs.records import LaunchRecord

# Cells that name the row, and those that hold speeds.
LABELS = {"llm_demo", "test", "speed(tok/s)", "t/s"}
# Lengths are compared by row, since a launch may have several.
LENGTHS = {"-p", "-n", "-pg"}
# The keys that make a candidate of a baseline.
CANDIDATE_KEYS = ("kv_h2o_", "kv_lossless_")
_UNIT = re.compile(r"\([^)]*\)$")
_SHOWN = 40


def unlike(baseline: Look, candidate: Look) -> list[str]:
    """What tells the work of both sides apart, in words; empty where it is the same."""
    asked = {"prompt tokens": str(baseline.row.prompt_tokens)}
    seen = {"prompt tokens": str(candidate.row.prompt_tokens)}
    found = list(_differences(asked, seen))
    found += _differences(described(baseline), described(candidate))
    one, other = baseline.record, candidate.record
    if one.argv and other.argv and one.program == other.program:
        found += _differences(_options(one), _options(other))
    before, after = read_config(one), read_config(other)
    if before is not None and after is not None:
        found += _differences(_settings(before), _settings(after))
    return found


def described(look: Look) -> dict[str, str]:
    """The cells of a table that are neither measurements nor labels."""
    if look.row.kind != "bench":
        return {}
    return {name: cell for name, cell in look.row.cells.items() if not is_measured(name, cell)}


def is_measured(name: str, cell: str) -> bool:
    """Whether a cell holds what was measured: known by name, with a spread, or with a unit in its
    header.
    """
    known = name in LABELS or name in BY_BENCH
    return known or "±" in cell or _UNIT.search(name) is not None


def _options(record: LaunchRecord) -> dict[str, str]:
    options = without_files(options_of(behind_program(record.argv, record.program)))
    # The program takes a config by its file, and results are told apart by theirs.
    aside = LENGTHS | {"-m", "-fp", "-j", "--metrics-jsonl"}
    if record.spec.prompt_file:
        aside |= {"argument 1", "argument 2"}
    return {name: value for name, value in options.items() if name not in aside}


def _settings(config: Mapping[str, object]) -> dict[str, str]:
    """The keys of a config but for those of the candidate, and for paths."""
    return {
        key: str(value)
        for key, value in config.items()
        if not key.startswith(CANDIDATE_KEYS) and os.sep not in str(value)
    }


def _differences(asked: Mapping[str, str], seen: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*asked, *seen)):
        before, after = asked.get(name), seen.get(name)
        if before != after:
            yield f"{_shown(name)} is {_shown(after)}, {_shown(before)} in the baseline"


def _shown(text: str | None) -> str:
    return "not there" if text is None else printable(text[:_SHOWN]) or "empty"
