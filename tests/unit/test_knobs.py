"""Knobs: precedence, ranges, and messages that help."""

from __future__ import annotations

import re

import pytest

from pytest_h2o.knobs import KNOBS, KnobError, baseline_config, engine_config, resolve


def test_precedence() -> None:
    """Command line beats environment beats ini beats runtime default beats global default; a case may fix a value."""
    name = "LOSSY_TARGET"
    assert resolve()[name] == 3.0
    assert resolve(runtime_defaults={name: 2.0})[name] == 2.0
    assert resolve(ini=[f"{name}=2.1"], runtime_defaults={name: 2.0})[name] == 2.1
    assert resolve(environment={name: "2.2"}, ini=[f"{name}=2.1"])[name] == 2.2
    knobs = resolve([f"{name}=2.3"], {name: "2.2"}, [f"{name}=2.1"])
    assert knobs.with_source(name) == (2.3, "command line")
    assert knobs.for_case("m3", {name: 4.0}, {})[name] == 2.3
    assert knobs.for_case("m3", {}, {name: 4.0})[name] == 4.0


@pytest.mark.parametrize("name", [name for name, knob in KNOBS.items() if knob.default is not None])
def test_default_is_accepted_as_text(name: str) -> None:
    """Every default, written as text, parses to itself."""
    default = KNOBS[name].default
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    assert KNOBS[name].parse(text) == default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LOSSY_TARGET=abc", "LOSSY_TARGET='abc': expected a number at least 1"),
        ("LOSSY_TARGET=nan", "LOSSY_TARGET='nan': expected a number"),
        ("DECODE_DROP_TARGET=5", "DECODE_DROP_TARGET='5': expected a number at least 0 and at most 0.99 (share)"),
        ("REPEAT=0", "REPEAT='0': expected an integer at least 1"),
        ("REPEAT=2.5", "REPEAT='2.5'"),
        ("PROMPTS=512,", None),
        ("PROMPTS=,", "PROMPTS=',': expected integers, comma separated"),
        ("KV_LOSSLESS_RUNTIME_MODE=fast", "expected one of full, store, probe"),
        ("REQUIRE_DECODE_CACHE_HIT=-1", "expected 0 or 1"),
        ("H2O_TRIGER_MIN=4", "unknown knob H2O_TRIGER_MIN; did you mean H2O_TRIGGER_MIN?"),
        ("LOSSY_TARGET", "'LOSSY_TARGET': expected NAME=VALUE"),
    ],
)
def test_bad_values_name_the_knob_and_what_it_accepts(text: str, message: str | None) -> None:
    """A wrong assignment is an error in words; a trailing comma is not."""
    if message is None:
        assert resolve([text])["PROMPTS"] == (512,)
    else:
        with pytest.raises(KnobError, match=re.escape(message)):
            resolve([text])


def test_unknown_environment_name_with_our_prefix() -> None:
    """A misspelt name of ours in the environment is an error; other names are nobody's business."""
    with pytest.raises(KnobError, match="did you mean MAX_LOSSLESS_QUEUE_PEAK"):
        resolve(environment={"MAX_LOSSLESS_QUEUE_PEEK": "4"})
    resolve(environment={"HOME": "/", "LOSSY": "1"})


@pytest.mark.parametrize(
    ("mode", "front_interval", "disable_front", "bootstrap", "grouped"),
    [("full", 1, False, 128, 128), ("store", 2, True, 32, 256)],
)
def test_automatic_values(mode: str, front_interval: int, disable_front: bool, bootstrap: int, grouped: int) -> None:
    """Values of -1 are settled by the runtime mode, as the original runtime gate did."""
    config = engine_config(resolve([f"KV_LOSSLESS_RUNTIME_MODE={mode}"]))
    assert config["kv_lossless_front_sample_token_interval"] == front_interval
    assert config["kv_lossless_store_disable_front"] is disable_front
    assert config["kv_lossless_store_bootstrap_tokens"] == bootstrap
    assert config["kv_lossless_store_grouped_step_tokens"] == grouped


def test_baseline_turns_everything_off() -> None:
    """The baseline differs from a candidate in the three switches only."""
    assert baseline_config() == {
        "kv_h2o_enable": False,
        "kv_lossless_enable": False,
        "kv_lossless_runtime_enable": False,
    }
