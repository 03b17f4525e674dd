"""Programs, models and prompts that each kind of host has in a place of its own."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.plan.cases import all_cases, launches
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes import RuntimeSetupError, find_runtime
from pytest_h2o.runtimes.placement import PlacedRuntime, placed
from pytest_h2o.runtimes.profile import read_profile
from pytest_h2o.runtimes.runtime_by_kind import RuntimeByKind, answers, kinds_in

PROGRAM = """#!/bin/sh
echo "$0 $*"
"""
# A host on which this machine's directory is /nowhere.
ELSEWHERE = """#!/bin/sh
exec sh -c "$(printf %s "$2" | sed "s#/nowhere#$FOLDER#g")"
"""
PROMPT = "Once upon a time."


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a host, on which it has another name."""
    folder = tmp_path / "phone"
    folder.mkdir()
    program(folder / "llm_bench")
    program(folder / "llm_demo")
    (folder / "prompt_128_1.txt").write_text(PROMPT)
    for name in ("llm.mnn", "llm.mnn.weight", "tokenizer.txt"):
        (folder / name).touch()
    (tmp_path / "elsewhere.sh").write_text(ELSEWHERE)
    monkeypatch.setenv("FOLDER", str(folder))
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    return folder


def program(path: Path) -> Path:
    """A program that prints how it was started."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def by_kind(tmp_path: Path, bench: str = "/nowhere/llm_bench") -> PlacedRuntime:
    """A phone with everything of its own, beside a server that sees this machine's files."""
    here = tmp_path / "here"
    for name in ("llm_bench", "llm_demo"):
        program(here / name)
    for name in ("llm.mnn", "llm.mnn.weight", "tokenizer.txt"):
        (here / name).touch()
    (here / "prompt_128_1.txt").write_text(PROMPT)
    (here / "config.json").write_text("{}")
    (here / "phone.json").write_text(json.dumps({"base_dir": "/nowhere"}))
    runtimes = {}
    for kind in ("pixel", "server"):
        runtimes[kind] = find_runtime(
            f"pixel={bench}; server={here / 'llm_bench'}",
            f"pixel=/nowhere/llm_demo; server={here / 'llm_demo'}",
            f"pixel={here / 'phone.json'}; server={here / 'config.json'}",
            environ={}, directory=tmp_path, kind=kind,
        )  # fmt: skip
    prompts = {"pixel": Path("/nowhere"), "server": here}
    runtime = RuntimeByKind(runtimes["pixel"], runtimes, prompts, here)
    launcher = f"pixel=sh {tmp_path / 'elsewhere.sh'} {{host}} {{command}}; server=env H={{host}}"
    words = [f"H2O_LAUNCHER={launcher}", "H2O_HOSTS=pixel=a server=b"]
    found = placed(runtime, resolve(words))
    assert isinstance(found, PlacedRuntime)
    return found


def demo(tmp_path: Path, kind: str) -> LaunchSpec:
    """The candidate's launch over the prompt on a kind of host."""
    knobs = resolve(["H2O_HOSTS=pixel=a server=b"])
    case = all_cases(knobs)[f"candidate@{kind}"]
    spec = launches(case, knobs, [tmp_path / "here" / "prompt_128_1.txt"])[0]
    return replace(spec, program="llm_demo")


def test_each_kind_launches_its_own(tmp_path: Path, phone: Path) -> None:
    """Program, model and prompt are those of the host that a launch is made on."""
    runtime = by_kind(tmp_path)
    runtime.check()
    assert runtime.describe().startswith("mnn: pixel llm_bench /nowhere/llm_bench, ")
    store = RunStore(tmp_path / "run", runtime)
    for kind, folder in (("pixel", phone), ("server", tmp_path / "here")):
        record = store.get(demo(tmp_path, kind))
        printed = shlex.split(record.stdout.read_text())
        assert record.returncode == 0, record.reason
        assert printed[0] == str(folder / "llm_demo")
        assert str(folder / "prompt_128_1.txt") in printed
        config = json.loads((record.directory / "config.json").read_text())
        assert config["base_dir"] == ("/nowhere/" if kind == "pixel" else f"{folder}/")


def test_another_program_there(tmp_path: Path, phone: Path) -> None:
    """Launches of a program that only hosts have are of another build where it is another file."""
    runtime = by_kind(tmp_path)
    before = runtime.fingerprint()
    assert before["pixel llm_bench"].startswith(str(len(PROGRAM)))
    (phone / "llm_bench").write_text(PROGRAM + "# rebuilt")
    answers.cache_clear()  # it is asked once a process
    after = runtime.fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"pixel llm_bench"}


def test_what_is_nowhere(tmp_path: Path, phone: Path) -> None:
    """A program that is neither here nor on its host is named with the host; so is a prompt that
    is another one there.
    """
    with pytest.raises(RuntimeSetupError, match=r"host a \(pixel\): llm_bench /nowhere/bin/x is"):
        by_kind(tmp_path, "/nowhere/bin/x").check()
    answers.cache_clear()
    (phone / "prompt_128_1.txt").write_text("Twice upon a time.")
    with pytest.raises(RuntimeSetupError, match=r"the prompt /nowhere/prompt_128_1.txt is not"):
        by_kind(tmp_path).check()


def test_a_kind_without_programs(tmp_path: Path, phone: Path) -> None:
    """It is named, with the source that leaves it out; and so are hosts of a kind that nothing is
    named for.
    """
    with pytest.raises(RuntimeSetupError, match=r"--llm-bench gives llm_bench for pixel, and not"):
        find_runtime("pixel=/a", model_config="c.json", environ={}, kind="server")
    runtime = by_kind(tmp_path)
    other = replace(
        runtime, hosts={"pixel": ("a",)}, placement=replace(runtime.placement, by_kind={})
    )
    with pytest.raises(RuntimeSetupError, match=r"kinds pixel, server, and H2O_HOSTS has pixel"):
        other.check()


def test_a_profile_names_each(tmp_path: Path) -> None:
    """Relative paths start at the file, whichever kind they are for."""
    profile = tmp_path / "lab.toml"
    profile.write_text('llm_bench = "pixel=/data/llm_bench; server=bin/llm_bench"\n')
    paths = read_profile(profile).paths
    assert paths["llm_bench"] == f"pixel=/data/llm_bench; server={tmp_path}/bin/llm_bench"
    assert kinds_in(paths) == ["pixel", "server"]
