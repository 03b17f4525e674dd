"""Files that users write: their schemas, and what is said where one is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_h2o.cli import main
from pytest_h2o.commands.schema import schemas
from pytest_h2o.keys import SHARED, SWEPT
from pytest_h2o.plan.knobs import KNOBS
from pytest_h2o.plan.presets import Preset, PresetError, load_preset
from pytest_h2o.plan.user_files import MAX_PROBLEMS, problems

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("name", schemas())
def test_each_schema_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is a JSON Schema, by the metaschema's word."""
    assert main(["schema", name]) == 0
    Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_schemas_follow_the_tables() -> None:
    """A profile's knows every knob that is no path of its own, a preset's every key of presets."""
    found = schemas()
    knobs = set(found["profile"]["properties"]["knobs"]["properties"])
    named = {"LLM_BENCH", "LLM_DEMO", "MODEL_CONFIG", "PROMPT_DIR"}
    named |= {"H2O_BASELINE_LLM_BENCH", "H2O_BASELINE_LLM_DEMO"}
    assert KNOBS.keys() - knobs == named
    assert {key.preset for key in SWEPT + SHARED} < found["preset"]["properties"].keys()


def test_an_unknown_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that there is not is answered with those that there are."""
    assert main(["schema", "presets"]) == 2
    assert (
        "presets: no such schema; did you mean preset?; there are preset, profile"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gens": [8, 0]}, "gens[1] is 0; expected an integer at least 1"),
        ({"gens": 8}, "gens is 8; expected a list, each an integer at least 1"),
        ({"h2o_target_mode": "x"}, "h2o_target_mode is 'x'; expected one of adaptive, static"),
        ({"h2o_keep_ratios": [2]}, "[0] is 2; expected a number at least 0 and at most 1"),
        ([], "file is []; expected keys with values"),
    ],
)
def test_a_problem_names_the_place(tmp_path: Path, content: object, message: str) -> None:
    """The file, the path in it, the value, and what is allowed there."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PresetError) as raised:
        load_preset(str(path))
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


def test_required_keys_and_many_problems() -> None:
    """Each missing key is said; a file that is wrong all over is not said in full."""
    schema = {"required": ["a", "b"], "properties": {"a": {"items": {"type": "string"}}}}
    assert [str(each) for each in problems({"b": 1}, schema)] == ["a is missing"]
    assert len(problems({"a": [0] * 1000, "b": 1}, schema)) == MAX_PROBLEMS


@given(JSON)
def test_problems_are_those_of_the_validator(content: object) -> None:
    """Any content is refused exactly where the validator refuses it, in lines of bounded length."""
    schema = Preset.model_json_schema()
    found = problems(content, schema)
    assert bool(found) != Draft202012Validator(schema).is_valid(content)
    assert all(len(str(each)) < 1000 for each in found)
