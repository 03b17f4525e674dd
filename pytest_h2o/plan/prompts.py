"""Which real prompts are run: found or listed, checked, grouped into buckets, sampled. Nothing is
dropped silently.
"""

from __future__ import annotations

import json
import os.path
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, zip_longest
from pathlib import Path

from pytest_h2o.parsers.argv_options import plain_path
from pytest_h2o.parsers.lines import is_endless
from pytest_h2o.parsers.text_files import text_stream, why_not_utf8
from pytest_h2o.plan.knobs import Knobs
from pytest_h2o.plan.user_files import Schema
from pytest_h2o.plan.user_files import problems as schema_problems

MANIFEST_KEYS = ("prompt_file", "prompt_path", "file", "path", "filename", "name")
# One line of a manifest, if it is not a plain path: an object with at least one of the keys.
RECORD_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "PromptRecord",
    "type": "object",
    "properties": {key: {"type": "string", "pattern": r"\S"} for key in MANIFEST_KEYS},
    "anyOf": [{"required": [key]} for key in MANIFEST_KEYS],
}
OTHER = "other"
MAX_LINE = 16_384
_NAME = re.compile(r"prompt_([0-9]+)_[0-9]+\.txt$", re.IGNORECASE)
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file; ``bucket`` is its nominal token count or ``other``, ``stem`` its name, unique
    in a selection.
    """

    path: Path
    bucket: str
    stem: str


@dataclass(frozen=True, slots=True)
class PromptProblem:
    """A prompt, or a whole source of prompts, that is not run, and why."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class PromptSelection:
    """The prompts to run, in order, and everything that was left out because it cannot be run."""

    prompts: tuple[Prompt, ...]
    problems: tuple[PromptProblem, ...]

    def describe_problems(self) -> str:
        """The problems in one line."""
        return "; ".join(f"{problem.entry}: {problem.reason}" for problem in self.problems)


def select_prompts(prompt_dir: Path, knobs: Knobs) -> PromptSelection:
    """The prompts that the PROMPT knobs select: the manifest's in its order, else the directory's
    in natural order.

    A manifest's entries are held against PROMPT_PATTERN only if the user set it.
    """
    pattern, source = knobs.with_source("PROMPT_PATTERN")
    problems: list[PromptProblem] = []
    if manifest := knobs.text("PROMPT_MANIFEST"):
        paths = listed(
            Path(manifest), prompt_dir, None if source == "default" else str(pattern), problems
        )
    else:
        paths = discovered(prompt_dir, str(pattern), problems)
    sampled = sample(
        usable(paths, problems),
        bucket_list=_listed_buckets(knobs),
        per_bucket=knobs.integer("MAX_PROMPTS_PER_BUCKET"),
        total=knobs.integer("MAX_PROMPTS"),
        stratified=knobs.text("PROMPT_SAMPLE_MODE") == "stratified",
    )
    problems += missing_buckets([prompt.bucket for prompt in sampled], knobs)
    return PromptSelection(tuple(sampled), tuple(problems))


def missing_buckets(present: Sequence[str], knobs: Knobs) -> list[PromptProblem]:
    """The buckets of PROMPT_BUCKET_LIST that no prompt is in; none is missed where the user chose
    prompts otherwise.
    """
    if any(
        knobs.with_source(name)[1] != "default"
        for name in ("PROMPT_PATTERN", "PROMPT_MANIFEST", "MAX_PROMPTS")
    ):
        return []
    there = ",".join(dict.fromkeys(present))
    reason = (
        f"PROMPT_BUCKET_LIST names it, and no prompt is in it; add some, or set "
        f"PROMPT_BUCKET_LIST={there}"
    )
    missing: list[PromptProblem] = []
    for name in _listed_buckets(knobs) if present else ():
        if name and name not in present:
            missing.append(PromptProblem(f"bucket {name}", reason))
    return missing


def _listed_buckets(knobs: Knobs) -> list[str]:
    return list(map(str.strip, knobs.text("PROMPT_BUCKET_LIST").split(",")))


def bucket_of(name: str) -> str:
    """The bucket of a file name: N of ``prompt_N_<index>.txt`` at its end, else ``other``."""
    found = _NAME.search(name)
    return found[1] if found else OTHER


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that compares runs of digits as numbers: ``prompt_128_2`` before
    ``prompt_128_10``.
    """
    parts = enumerate(_DIGITS.split(text))  # every second part is digits
    return tuple((1, int(part)) if index % 2 else (0, part) for index, part in parts if part)


def bucket_order(buckets: Iterable[str], bucket_list: Sequence[str]) -> list[str]:
    """The buckets that occur: listed ones as listed, then numbers ascending, then names."""
    rank = {name: place for place, name in reversed(list(enumerate(bucket_list)))}
    return sorted(
        set(buckets),
        key=lambda name: (rank.get(name, len(rank)), not name.isdigit(), natural_key(name)),
    )


def sample(
    prompts: Iterable[Prompt],
    *,
    bucket_list: Sequence[str] = (),
    per_bucket: int = 0,
    total: int = 0,
    stratified: bool = True,
) -> list[Prompt]:
    """At most ``per_bucket`` prompts of each bucket and ``total`` in all (0: no limit), keeping
    order within a bucket.

    Stratified takes one of each bucket in turn, otherwise bucket follows bucket.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.bucket, []).append(prompt)
    order = bucket_order(groups, bucket_list)
    chosen = [groups[bucket][: per_bucket or None] for bucket in order]
    if stratified:
        turns = zip_longest(*chosen)
        return list(filter(None, chain.from_iterable(turns)))[: total or None]
    return list(chain.from_iterable(chosen))[: total or None]


def discovered(prompt_dir: Path, pattern: str, problems: list[PromptProblem]) -> list[Path]:
    """The files of ``prompt_dir`` (not below it) whose name matches ``pattern``, in natural
    order.
    """
    try:
        paths = [path for path in prompt_dir.iterdir() if fnmatchcase(path.name, pattern)]
    except OSError as error:
        problems.append(
            PromptProblem(
                str(prompt_dir), f"cannot be read: {error.strerror}; set the prompt directory"
            )
        )
        return []
    if not paths:
        problems.append(PromptProblem(str(prompt_dir), f"holds no file that matches {pattern}"))
    return sorted(paths, key=lambda path: natural_key(path.name))


def listed(
    manifest: Path, prompt_dir: Path, pattern: str | None, problems: list[PromptProblem]
) -> list[Path]:
    """The files that a manifest names, in its order; relative paths are looked up beside it, then
    in ``prompt_dir``.
    """
    paths = []
    for entry in _entries(manifest, problems):
        # The separators of another system are tried where no file is called so.
        tried: list[Path] = []
        for name in dict.fromkeys((entry, plain_path(entry))):
            tried += (manifest.parent / name, prompt_dir / name)
        found = next(filter(_is_file, tried), None)
        if found is None:
            problems.append(
                PromptProblem(entry, f"no such file in {manifest.parent} or {prompt_dir}")
            )
        elif pattern and not fnmatchcase(found.name, pattern):
            problems.append(PromptProblem(entry, f"does not match PROMPT_PATTERN={pattern}"))
        else:
            paths.append(found)
    return paths


def usable(paths: Iterable[Path], problems: list[PromptProblem]) -> Iterator[Prompt]:
    """The files that can be run as prompts; the others become problems."""
    seen: dict[str, Path] = {}
    stems: dict[str, Path] = {}
    for path in paths:
        real = os.path.realpath(path)
        if first := seen.get(real):
            reason = f"listed twice, first as {first}"
        elif first := stems.get(path.stem):
            reason = (
                f"has the same name as {first}, by which its results are told apart; rename one"
            )
        else:
            reason = _unusable(path)
        seen.setdefault(real, path)
        if reason:
            problems.append(PromptProblem(str(path), reason))
        else:
            stems[path.stem] = path
            yield Prompt(path, bucket_of(path.name), path.stem)


def _unusable(path: Path) -> str:
    """Why a file cannot be run as a prompt, or nothing."""
    try:
        if is_endless(path):
            return "is no regular file"
        if encoding := why_not_utf8(path):
            return encoding
        with path.open(encoding="utf-8") as stream:
            start = text = stream.read(MAX_LINE)
            while text and not any(map(_is_visible, text)):
                text = stream.read(MAX_LINE)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not text:
        return "is empty"
    return "begins with '#', the program ignores such a prompt" if start[0] == "#" else ""


def _is_visible(character: str) -> bool:
    """Whether a character is more than a blank, a mark of byte order or a joint of zero width."""
    return unicodedata.category(character)[0] not in "ZC"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for the system, or with a NUL
        return False


def _entries(manifest: Path, problems: list[PromptProblem]) -> Iterator[str]:
    """The paths in a manifest: one per line, plain or as a JSON object."""
    try:
        with manifest.open("rb") as file, text_stream(file) as stream:
            number = 0
            while line := stream.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    problems.append(
                        PromptProblem(
                            f"{manifest}:{number}",
                            f"longer than {MAX_LINE} characters; not read on",
                        )
                    )
                    return
                if line.strip():
                    yield from _line_entries(line.strip(), f"{manifest}:{number}", problems)
    except OSError as error:
        problems.append(PromptProblem(str(manifest), f"cannot be read: {error.strerror}"))


def _line_entries(line: str, where: str, problems: list[PromptProblem]) -> Iterator[str]:
    if not line.startswith("{"):
        yield line
        return
    decoder = json.JSONDecoder()
    while line:
        try:
            record, end = decoder.raw_decode(line)
        except (ValueError, RecursionError):
            problems.append(PromptProblem(where, "begins with '{' but is not a JSON object"))
            return
        if name := _name_in(record):
            yield name
        else:
            problems.append(PromptProblem(where, _no_name(record)))
        # Some writers end records with a backslash and an n instead of a newline.
        line = line[end:].strip().removeprefix("\\n").strip()


def _name_in(record: Mapping[str, object]) -> str:
    """The file that a record names; empty if it names none."""
    for key in MANIFEST_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _no_name(record: object) -> str:
    """What is wrong with a record that names no file, by its schema."""
    wrong = [problem for problem in schema_problems(record, RECORD_SCHEMA) if problem.place]
    if wrong:
        return "; ".join(map(str, wrong))
    return f"has none of the keys {', '.join(MANIFEST_KEYS)}"
