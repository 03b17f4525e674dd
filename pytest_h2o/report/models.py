"""``summary.json``, the record of a session; its schema ships in ``report/schemas``.

``python -m pytest_h2o.report.models DIRECTORY`` writes the schema.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from pytest_h2o.plan.presets import Preset
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


class Summary(Document):
    """``summary.json``: the record of a session; ``overridden`` is what launches replaced in the
    model config.

    ``runtime`` is what made the launches, ``inputs`` are hashes of what results depend on
    (programs, config, model) by name; both are empty where a recording does not tell. ``version``
    is that of this package. ``suite`` is the one that was asked for; if it is empty,
    ``overall_pass`` is about all gates that were collected.
    """

    schema_version: Literal[1] = 1
    title: str
    runtime: str
    inputs: dict[str, str]
    kit: str
    version: str
    run_directory: str
    written_utc: str
    suite: str
    overall_pass: bool
    not_judged: list[str]
    outcomes: dict[str, int]
    knobs: dict[str, KnobInForce]
    overridden: dict[str, JsonValue]
    gates: list[GateVerdict]

    def properties(self) -> dict[str, str]:
        """What was tested, as properties of a JUnit test suite; the gates have their own."""
        names = ("runtime", "kit", "version", "run_directory")
        knobs = {f"h2o.knob.{name}": knob.value for name, knob in self.knobs.items()}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in knobs.items()
        }
        return {
            "h2o.tested": self.title,
            **{f"h2o.{name}": text for name in names if (text := getattr(self, name))},
            **{f"h2o.input.{name}": digest for name, digest in self.inputs.items()},
            **texts,
        }


SCHEMAS: dict[str, type[BaseModel]] = {"preset": Preset, "summary": Summary}


def schema_text(model: type[BaseModel]) -> str:
    """The JSON Schema of a document, as the file that ships holds it."""
    return json.dumps(model.model_json_schema(), indent=1) + "\n"


def write_schemas(models: dict[str, type[BaseModel]], directory: Path) -> None:
    """One file per document."""
    for name, model in models.items():
        (directory / f"{name}.json").write_text(schema_text(model), "utf-8")


if __name__ == "__main__":
    write_schemas(SCHEMAS, Path(sys.argv[1]))
