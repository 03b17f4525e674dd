"""Knobs: precedence, ranges, and messages that help."""

from __future__ import annotations

import re

import pytest

from pytest_h2o.plan.cases import all_cases
from pytest_h2o.plan.knobs import (
    KNOBS,
    KnobError,
    baseline_config,
    check_together,
    engine_config,
    misspelt,
    resolve,
)

BUDGET = "MAX_LOSSLESS_DECOMP_US"


def test_precedence() -> None:
    """Command line beats environment beats ini beats runtime default beats global default; a case
    may fix a value.
    """
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
        (
            "DECODE_DROP_TARGET=5",
            "DECODE_DROP_TARGET='5': expected a number at least 0 and at most 0.99 (share)",
        ),
        ("DECODE_DROP_TARGET=300", "at most 0.99 (share)"),
        (
            "LOSSY_TARGET=300",
            "LOSSY_TARGET='300': expected a number at least 1 and at most 100 (ratio)",
        ),
        ("LOSSLESS_TARGET=130", "at most 20 (ratio)"),
        ("H2O_KEEP_RATIO=30", "at most 1 (share)"),
        ("H2O_TARGET_LOSSY_RATIO=0.3", "at least 1"),
        ("MAX_LOSSLESS_DECOMP_US=0.03", "expected a number at least 1 (µs), or -1 for no limit"),
        ("FULL_DECOMP_BUDGET_US=0.03", "at least 1 (µs)"),
        ("LAUNCH_TIMEOUT_S=900000", "at most 604800 (s)"),
        ("DECODE_BASELINE=0", "DECODE_BASELINE='0': expected a number at least 0.001"),
        ("REPEAT=0", "REPEAT='0': expected an integer at least 1"),
        ("REPEAT=2.5", "REPEAT='2.5'"),
        ("PROMPTS=512,", None),
        ("PROMPTS=,", "PROMPTS=',': expected integers, comma separated, each at least 1"),
        ("PROMPTS=512,0", "PROMPTS='512,0'"),
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


def test_nearly_a_knob() -> None:
    """A variable that differs from a knob in a letter is named with that knob; knobs and strangers
    are not.
    """
    found = misspelt(
        {
            "LOSSY_TARGT": "4",
            "LOSSY_TARGET": "4",
            "HOME": "/",
            "TARGET": "x",
            "H2O_LOCK_DIR": "/tmp",
        }
    )
    assert found == ["environment: LOSSY_TARGT is no knob; did you mean LOSSY_TARGET?"]


@pytest.mark.parametrize(
    ("mode", "front_interval", "disable_front", "bootstrap", "grouped"),
    [("full", 1, False, 128, 128), ("store", 2, True, 32, 256)],
)
def test_automatic_values(
    mode: str, front_interval: int, disable_front: bool, bootstrap: int, grouped: int
) -> None:
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


def test_empty_environment_variable_is_not_set() -> None:
    """``NAME=`` in the environment means the default, as in the original's scripts."""
    assert resolve(environment={"LOSSY_TARGET": "", "PROMPTS": ""}).with_source("LOSSY_TARGET") == (
        3.0,
        "default",
    )


@pytest.mark.parametrize("limit", [name for name, knob in KNOBS.items() if knob.limit])
def test_any_negative_limit_is_off(limit: str) -> None:
    """The original turned a limit off with any negative value."""
    assert resolve([f"{limit}=-1"]).on(limit) is False
    assert resolve([f"{limit}=-7.5"]).on(limit) is False
    assert resolve([f"{limit}=9"]).on(limit) is True


def test_suite_defaults() -> None:
    """A suite has defaults of its own, below the user's values and above the runtime's."""
    name = "DECODE_BASELINE_MODE"
    assert [resolve(suite=suite)[name] for suite in ("runtime", "final")] == [
        "same_batch",
        "paired",
    ]
    assert resolve([f"{name}=rolling"], suite="final")[name] == "rolling"
    assert resolve(runtime_defaults={name: "fixed"}, suite="final").with_source(name) == (
        "paired",
        "final default",
    )


@pytest.mark.parametrize(
    ("settings", "suite", "case", "name", "value"),
    [
        ([], "final", "full_strict", BUDGET, 30000.0),
        ([f"{BUDGET}=5"], "final", "full_strict", BUDGET, 5.0),
        ([f"{BUDGET}=5", "FULL_DECOMP_BUDGET_US=9"], "final", "full_strict", BUDGET, 9.0),
        ([f"{BUDGET}=5", "M3_DECOMP_BUDGET_US=9"], "final", "joint_full-1", BUDGET, 9.0),
        ([f"{BUDGET}=5", "M3_DECOMP_BUDGET_US=9"], "final", "store_tuned", BUDGET, 5.0),
        ([], "runtime", "runtime_fixed", BUDGET, -1.0),
        ([], "final", "candidate", "DECODE_DROP_TARGET", 0.08),
        (["DECODE_DROP_TARGET=0.02"], "final", "candidate", "DECODE_DROP_TARGET", 0.08),
        (["DECODE_DROP_TARGET=0.02"], "llm_demo", "candidate", "DECODE_DROP_TARGET", 0.02),
        (["DECODE_DROP_TARGET=0.02"], "final", "full_strict", "DECODE_DROP_TARGET", 0.02),
        (["LLM_DEMO_DECODE_DROP_TARGET=0.1"], "final", "candidate", "DECODE_DROP_TARGET", 0.1),
        (["REQUIRE_DECODE_CACHE_HIT=1"], "final", "candidate", "REQUIRE_DECODE_CACHE_HIT", False),
        (["REQUIRE_DECODE_CACHE_HIT=1"], "llm_demo", "candidate", "REQUIRE_DECODE_CACHE_HIT", True),
        (
            ["REQUIRE_BUCKET_DECODE_PASS=0"],
            "final",
            "candidate",
            "REQUIRE_BUCKET_DECODE_PASS",
            False,
        ),
        ([], "final", "candidate", "KV_LOSSLESS_FRONT_SAMPLE_TOKEN_INTERVAL", 1),
        (
            ["KV_LOSSLESS_STORE_DISABLE_FRONT=1"],
            "final",
            "candidate",
            "KV_LOSSLESS_STORE_DISABLE_FRONT",
            1,
        ),
        ([], "final", "store_tuned", "KV_LOSSLESS_STORE_BOOTSTRAP_TOKENS", 16),
        ([], "final", "full_strict", "KV_LOSSLESS_STORE_BOOTSTRAP_TOKENS", -1),
    ],
)  # fmt: skip
def test_values_of_a_case(
    settings: list[str], suite: str, case: str, name: str, value: object
) -> None:
    """What each case makes of the user's values: a knob for one part of an acceptance beats the one
    for all.
    """
    knobs = resolve(settings, suite=suite)
    assert all_cases(knobs)[case].knobs(knobs)[name] == value


@pytest.mark.parametrize(
    ("name", "other"),
    [("M3_FULL_RUNS", "FULL_RUNS"), ("M3_STORE_RUNS", "STORE_RUNS"), ("BASE_OUT", "OUT")],
)
def test_second_names(name: str, other: str) -> None:
    """A name that only the outer suites of the original use sets the inner one, unless that is
    given too.
    """
    assert str(resolve([f"{name}=7"])[other]) == "7"
    assert str(resolve([f"{name}=7", f"{other}=9"])[other]) == "9"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["DECODE_BASELINE_MODE=fixed"],
            "needs DECODE_BASELINE=TOKENS_PER_SECOND, measured on this machine",
        ),
        (
            ["RUN_ORDER=baseline_first"],
            "RUN_ORDER=baseline_first needs DECODE_BASELINE_MODE=same_batch",
        ),
    ],
)
def test_contradictions(settings: list[str], message: str) -> None:
    """Values that cannot have an effect together are refused; those that can are not."""
    with pytest.raises(KnobError, match=message):
        check_together(resolve(settings, suite="final"))
    check_together(
        resolve(
            [*settings, "DECODE_BASELINE=6.6", "DECODE_BASELINE_MODE=same_batch"], suite="final"
        )
    )
