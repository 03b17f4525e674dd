"""Files that users write, held against JSON schemas: a problem names the place, what is wrong there
and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Schema = Mapping[str, Any]
_TYPES = {
    "array": "a list",
    "boolean": "a boolean",
    "integer": "an integer",
    "null": "nothing",
    "number": "a number",
    "object": "keys with values",
    "string": "text",
}
MAX_PROBLEMS = 20
MAX_NAMED = 20


@dataclass(frozen=True)
class FileProblem:
    """What is wrong at one place of a file; ``rule`` is the schema's keyword that is broken."""

    place: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.place or 'file'}{self.text}"


def problems(content: object, schema: Schema) -> list[FileProblem]:
    """What ``schema`` (draft 2020-12) finds wrong with the content of a file, in its order; at most
    :data:`MAX_PROBLEMS`.
    """
    from jsonschema import Draft202012Validator  # noqa: PLC0415  slow to import

    found: list[FileProblem] = []
    for error in Draft202012Validator(schema).iter_errors(content):
        found += _described(error)
        if len(found) >= MAX_PROBLEMS:
            break
    return found[:MAX_PROBLEMS]


def allowed(schema: Schema) -> str:
    """What a schema of one value takes, in words."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(map(allowed, schema["anyOf"]))
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_of_kind(kind, schema) for kind in kinds)


def _of_kind(kind: str, schema: Schema) -> str:
    """One type of value with the limits that it has."""
    words = _TYPES[kind]
    if kind == "array" and "items" in schema:
        words += f", each {allowed(schema['items'])}"
    if kind not in {"integer", "number"}:
        return words
    limits = []
    if "minimum" in schema:
        limits.append(f"at least {schema['minimum']:.9g}")
    if "maximum" in schema:
        limits.append(f"at most {schema['maximum']:.9g}")
    return f"{words} {' and '.join(limits)}".strip()


def _described(error: ValidationError) -> list[FileProblem]:
    """One problem, or one for each key that is unknown or missing."""
    place = error.json_path.removeprefix("$").removeprefix(".")
    rule = str(error.validator)
    content: Any = error.instance
    schema = cast(Schema, error.schema)
    if rule == "additionalProperties":
        known = schema.get("properties", {})
        unknown = [name for name in content if name not in known]
        return [FileProblem(_below(place, name), rule, _unknown(name, known)) for name in unknown]
    if rule == "required":
        missing = [name for name in schema["required"] if name not in content]
        return [FileProblem(_below(place, name), rule, " is missing") for name in missing]
    return [FileProblem(place, rule, f" is {content!r:.40}; expected {allowed(schema)}")]


def _below(place: str, name: str) -> str:
    """The place of a key; names are cut, as a file may hold any."""
    return f"{place}.{name:.80}" if place else f"{name:.80}"


def _unknown(name: str, known: Mapping[str, object]) -> str:
    """Why a key cannot be used, with the nearest that can, or all if they are few."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f": unknown key; did you mean {near[0]}?"
    if len(known) <= MAX_NAMED:
        return f": unknown key; expected one of {', '.join(known)}"
    return ": unknown key"
