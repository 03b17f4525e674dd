"""`pytest-h2o bench` and `pytest-h2o baseline`: values from the command line, and the history in a
table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.cli import main
from pytest_h2o.decode.history import Entry, append_history
from pytest_h2o.plan.presets import Preset, load_preset, preset_names, preset_of


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_given_as_options(name: str) -> None:
    """The options of `bench` say whatever a preset file can say."""
    preset = load_preset(name)
    texts = {
        key: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in preset.model_dump(exclude_unset=True).items()
    }
    assert preset_of(texts) == preset


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.booleans())
def test_texts_mean_their_values(prompts: list[int], log: bool) -> None:
    """Lists are comma separated with blanks allowed; what is not given has the preset's default."""
    text = " , ".join(map(str, prompts)) + ","
    assert preset_of({"prompts": text, "h2o_log_stats": str(int(log))}) == Preset(
        prompts=prompts, h2o_log_stats=log
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--h2o-keep-ratios", "", "--prompts", " , "],
            "Empty sweep dimension: prompts, h2o_keep_ratios",
        ),
        (["--h2o-block-tokens", "32,x"], "h2o_block_tokens.1: "),
        (["--h2o-target-mode", "adaptiv"], "h2o_target_mode: "),
        (
            ["--prompts", ",".join(["1"] * 100), "--gens", ",".join(["1"] * 100)],
            "10000 combinations",
        ),
    ],
)
def test_wrong_values(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value names its key, and nothing is written."""
    out = tmp_path / "out"
    assert main(["bench", *options, "--dry-run", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Every key of a preset is an option, whose help says what a preset without it has."""
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    shown = re.findall(r"--([\w-]+) VALUE\s+default: (\S+)", capsys.readouterr().out)
    defaults = Preset().model_dump(exclude={"h2o_target_lossy_ratio"}).items()
    assert {name.replace("-", "_"): text for name, text in shown} == {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in defaults
    }


def test_dry_run(tmp_path: Path) -> None:
    """Configs and manifest of every combination are written in the original's naming; nothing is
    launched.
    """
    out = tmp_path / "out"
    lossy = ["--h2o-target-lossy-ratios", "3.0,3.2"]
    assert main(["bench", "--prompts", "512,1024", *lossy, "--dry-run", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["run_id"] for entry in manifest] == [
        "run_0001_p512_g128_k0.5_b64_lr3.0",
        "run_0002_p512_g128_k0.5_b64_lr3.2",
        "run_0003_p1024_g128_k0.5_b64_lr3.0",
        "run_0004_p1024_g128_k0.5_b64_lr3.2",
    ]
    assert {path.stem for path in (out / "configs").iterdir()} == {
        entry["run_id"] for entry in manifest
    }
    assert not (out / "launches").exists()


def entry(speed: float, passed: bool = True, settings: str = "a") -> Entry:
    identity = {"machine": "box", "model": "m", "settings": settings}
    return Entry(
        ts_utc="2026-01-31T12:00:00Z", key="box_cpu", decode_best=speed, overall_pass=passed,
        summary="s.json", case="full_strict", identity=identity,
    )  # fmt: skip


def test_baseline_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries that may be compared share a line; the median is of the latest ones that passed."""
    path = tmp_path / "history.jsonl"
    append_history(
        path, [entry(10), entry(100), entry(200), entry(1, passed=False), entry(7, settings="b")]
    )
    with path.open("a") as file:
        file.write("{not json\n")
    assert main(["baseline", str(path), "--window", "2"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "key",
        "settings",
        "case",
        "entries",
        "passed",
        "latest",
        "median",
        "machine",
    ]
    assert first.split() == [
        "box_cpu",
        "a",
        "full_strict",
        "4",
        "3",
        "1",
        "tok/s",
        "150",
        "tok/s",
        "box",
    ]
    assert second.split() == [
        "box_cpu",
        "b",
        "full_strict",
        "1",
        "1",
        "7",
        "tok/s",
        "7",
        "tok/s",
        "box",
    ]
    assert main(["baseline", str(path), "--json"]) == 0
    assert [item["decode_best"] for item in json.loads(capsys.readouterr().out)] == [
        10,
        100,
        200,
        1,
        7,
    ]


def test_baseline_without_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No history is an error that names the file."""
    assert main(["baseline", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: no entries" in capsys.readouterr().err
