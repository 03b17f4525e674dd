"""Did baseline and candidate do the same work? Every cell that describes the run, every option and
every key of the configs, known by name or not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from pytest_h2o.evidence.deviations import is_quant_column
from pytest_h2o.evidence.look import Look
from pytest_h2o.evidence.rows_asked import described
from pytest_h2o.evidence.settings_in_force import read_config
from pytest_h2o.parsers.argv_options import (
    LENGTHS,
    base_name,
    before_program,
    behind_program,
    options_of,
    without_files,
)
from pytest_h2o.parsers.lines import printable
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runtimes import RuntimeSetupError, find_program

# The keys that make a candidate of a baseline.
CANDIDATE_KEYS = ("kv_h2o_", "kv_lossless_")
_SHOWN = 40


def unlike(baseline: Look, candidate: Look) -> list[str]:
    """What tells the work of both sides apart, in words; empty where it is the same."""
    asked = {"prompt tokens": str(baseline.row.prompt_tokens)}
    seen = {"prompt tokens": str(candidate.row.prompt_tokens)}
    found = list(_differences(asked, seen))
    found += _differences(_cells(baseline, candidate), _cells(candidate, baseline))
    one, other = baseline.record, candidate.record
    aside = _made_to_differ(one, other)
    if _differ_in_quantisation(baseline, candidate):
        aside |= {"-qatten", "attention_mode"}
    if one.argv and other.argv and one.program == other.program:
        if not one.runtime and not other.runtime:  # here, the machines of a pool take turns
            found += _differences(_launcher(one), _launcher(other))
        found += _differences(_options(one, aside), _options(other, aside))
    before, after = read_config(one), read_config(other)
    if before is not None and after is not None:
        found += _differences(_settings(before, aside), _settings(after, aside))
    return found


def _made_to_differ(one: LaunchRecord, other: LaunchRecord) -> set[str]:
    """The config keys by which a program makes the two launches differ; those of recordings are as
    somebody else wrote them.
    """
    if not one.runtime or not other.runtime:
        return set()
    try:
        before = find_program(one.program).config(one.spec)
        after = find_program(other.program).config(other.spec)
    except RuntimeSetupError:
        return set()  # nobody here knows the program
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def _differ_in_quantisation(look: Look, other: Look) -> bool:
    """Whether quantised KV is what a comparison is about."""
    return look.spec.attention_option != other.spec.attention_option


def _cells(look: Look, other: Look) -> dict[str, str]:
    """The cells that must be those of the ``other`` side."""
    cells = described(look)
    if _differ_in_quantisation(look, other):
        return {name: cell for name, cell in cells.items() if not is_quant_column(name)}
    return cells


def _launcher(record: LaunchRecord) -> dict[str, str]:
    words = before_program(record.argv, record.program)
    return {"the launcher": " ".join(map(base_name, words))} if words else {"the launcher": "none"}


def _options(record: LaunchRecord, aside: Iterable[str]) -> dict[str, str]:
    options = without_files(options_of(behind_program(record.argv, record.program)))
    # The program takes a config by its file, and results are told apart by theirs.
    left_out = {*aside, *LENGTHS, "-m", "-fp", "-j", "--metrics-jsonl"}
    if record.spec.prompt_file:
        left_out |= {"argument 1", "argument 2"}
    return {name: value for name, value in options.items() if name not in left_out}


def _settings(config: Mapping[str, object], aside: Collection[str]) -> dict[str, str]:
    """The keys of a config but for those of the candidate, and for paths; of models the names."""
    own: dict[str, str] = {}
    for key, value in config.items():
        if not key.startswith(CANDIDATE_KEYS) and key not in aside:
            own[key] = str(value)
    named = without_files(own)
    kept = {key: value for key, value in named.items() if os.sep not in value}
    if model := own.get("base_dir", "").rstrip("/\\"):
        kept["base_dir"] = base_name(model)
    return kept


def _differences(asked: Mapping[str, str], seen: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*asked, *seen)):
        before, after = asked.get(name), seen.get(name)
        if before != after:
            yield f"{_shown(name)} is {_shown(after)}, {_shown(before)} in the baseline"


def _shown(text: str | None) -> str:
    return "not there" if text is None else printable(text[:_SHOWN]) or "empty"
