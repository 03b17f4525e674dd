"""``summary.json``, the record of a session; its schema ships in ``report/schemas``.

``python -m pytest_h2o.report.models DIRECTORY`` writes the schema.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, StrictBool, ValidationError
from pydantic_core import PydanticSerializationError

from pytest_h2o.plan.user_files import problems
from pytest_h2o.report.text import escaped
from pytest_h2o.verdict import Verdict


class Document(BaseModel):
    """A JSON object without other keys than these."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class KnobInForce(Document):
    """A knob that is not at its default."""

    value: JsonValue
    source: str


@dataclass(frozen=True, kw_only=True)
class GateVerdict(Verdict):
    """One verdict with the test that gave it."""

    nodeid: str

    @classmethod
    def of(cls, nodeid: str, verdict: Verdict) -> GateVerdict:
        """The verdict of a test."""
        return cls(nodeid=nodeid, **vars(verdict))


class Summary(Document):
    """``summary.json``: the record of a session; ``overridden`` is what launches replaced in the
    model config.

    ``runtime`` is what made the launches, ``inputs`` are hashes of what results depend on
    (programs, config, model) by name; both are empty where a recording does not tell. ``version``
    is that of this package. ``hosts`` says how many launches each host made, and why it was taken
    out. ``suite`` is the one that was asked for; if it is empty,
    ``overall_pass`` is about all gates that were collected.
    """

    schema_version: Literal[2] = 2
    title: str
    runtime: str
    inputs: dict[str, str]
    kit: str
    version: str
    run_directory: str
    written_utc: str
    suite: str
    overall_pass: StrictBool
    not_judged: list[str]
    outcomes: dict[str, int]
    knobs: dict[str, KnobInForce]
    overridden: dict[str, JsonValue]
    hosts: dict[str, str] = {}
    gates: list[GateVerdict]

    def properties(self) -> dict[str, str]:
        """What was tested, as properties of a JUnit test suite; the gates have their own."""
        named = {
            "runtime": self.runtime,
            "kit": self.kit,
            "version": self.version,
            "run_directory": self.run_directory,
        }
        found = {"h2o.tested": self.title}
        for name, text in named.items():
            if text:
                found[f"h2o.{name}"] = text
        for name, digest in self.inputs.items():
            found[f"h2o.input.{name}"] = digest
        for name, knob in self.knobs.items():
            is_text = isinstance(knob.value, str)
            found[f"h2o.knob.{name}"] = str(knob.value) if is_text else json.dumps(knob.value)
        return found


def json_text(document: BaseModel, indent: int | None = None) -> str:
    """A document as one JSON text that UTF-8 can hold."""
    try:
        return document.model_dump_json(indent=indent)
    except PydanticSerializationError:
        return json.dumps(_escaped(document.model_dump(mode="python")), indent=indent, default=str)


def _escaped(value: Any) -> Any:
    """The same value with every text in it escaped."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


VERSION = 2
# What summaries of version 1 got only later, and what they hold without it.
ADDED: dict[str, object] = {
    "runtime": "",
    "inputs": {},
    "kit": "",
    "version": "",
    "run_directory": "",
    "written_utc": "",
    "suite": "",
    "not_judged": [],
    "outcomes": {},
    "knobs": {},
    "overridden": {},
}
SIZE_LIMIT = 64 * 2**20


def read_summary(path: Path) -> Summary:
    """The record of a session that this version or an earlier one wrote.

    Raises OSError, or ValueError saying what is wrong with the file.
    """
    with path.open("rb") as file:
        text = file.read(SIZE_LIMIT + 1)
    if len(text) > SIZE_LIMIT:
        raise ValueError(f"larger than {SIZE_LIMIT // 2**20} MiB")
    try:
        content = json.loads(text)
        version = content.get("schema_version", 1) if isinstance(content, dict) else VERSION
        if version == 1:
            content = _from_version_1(content)
        elif version != VERSION:
            raise ValueError(f"schema_version {version} is not known; a later pytest-h2o wrote it")
        if wrong := problems(content, Summary.model_json_schema()):
            raise ValueError("; ".join(map(str, wrong)))
        return Summary.model_validate(content)
    except ValidationError as error:  # which is a ValueError itself, of many lines
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """A document of version 1 as one of version 2: its rows were pairs of label and text."""
    gates = content.get("gates")
    if isinstance(gates, list):
        gates = [_gate_of_version_1(gate) for gate in gates]
    return ADDED | content | {"gates": gates, "schema_version": 2}


def _gate_of_version_1(gate: Any) -> Any:
    if not isinstance(gate, dict) or not isinstance(gate.get("rows"), list):
        return gate
    rows: list[object] = []
    for row in gate["rows"]:
        is_pair = isinstance(row, list) and len(row) == 2
        rows.append({"label": row[0], "text": row[1]} if is_pair else row)
    return gate | {"rows": rows}


SCHEMAS: dict[str, type[BaseModel]] = {"summary": Summary}


def schema_text(model: type[BaseModel]) -> str:
    """The JSON Schema of a document, as the file that ships holds it."""
    return json.dumps(model.model_json_schema(), indent=1) + "\n"


def write_schemas(models: dict[str, type[BaseModel]], directory: Path) -> None:
    """One file per document."""
    for name, model in models.items():
        (directory / f"{name}.json").write_text(schema_text(model), "utf-8")


if __name__ == "__main__":
    write_schemas(SCHEMAS, Path(sys.argv[1]))
