"""Runtimes: which one is used and why, what it checks, and the exact arguments of a launch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes import EmbeddedRuntime, MnnRuntime, RuntimeSetupError, find_runtime
from pytest_h2o.runtimes.paths import file_hash

# Recorded from the original runner, with its paths as placeholders.
BENCH_ARGV = (
    "{bin}/llm_bench -m {dir}/config.json -a cpu -t 2 -qatten 0 -kv true -p 512 -n 128 "
    "-rep 3 -fp {dir}/log.md"
)
DEMO_ARGV = (
    "{bin}/llm_demo {dir}/config.json {prompt} 256 --metrics-jsonl {dir}/metrics.jsonl "
    "--prompt-file-mode=whole"
)

BENCH = LaunchSpec(
    program="llm_bench", arm="full", replicate=1, config={"kv_h2o_enable": True}, gen_tokens=128,
    prompt_tokens=512, repeat=3, threads=2,
)  # fmt: skip


def demo(prompt: Path) -> LaunchSpec:
    """A launch of llm_demo."""
    return LaunchSpec(
        program="llm_demo", arm="x", replicate=1, config={"kv_h2o_enable": True}, gen_tokens=256,
        prompt_file=prompt, threads=2,
    )  # fmt: skip


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A directory with both programs and a model, as a real build has them."""
    for name in (
        "bin/llm_bench",
        "bin/llm_demo",
        "model/llm.mnn",
        "model/llm.mnn.weight",
        "model/tokenizer.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        path.chmod(0o755)
    (tmp_path / "model" / "config.json").write_text(
        '{"llm_model": "llm.mnn", "thread_num": 4, "kv_h2o_enable": false}'
    )
    return tmp_path


@pytest.fixture
def mnn(build: Path) -> MnnRuntime:
    """The runtime of that build."""
    programs = {"llm_bench": build / "bin" / "llm_bench", "llm_demo": build / "bin" / "llm_demo"}
    return MnnRuntime(programs, build / "model" / "config.json", "a test")


def test_bench_arguments(mnn: MnnRuntime, build: Path, tmp_path: Path) -> None:
    """llm_bench gets what the original runner gave it, word by word."""
    command = mnn.command(BENCH, tmp_path)
    assert " ".join(command.argv) == BENCH_ARGV.format(bin=build / "bin", dir=tmp_path)
    assert (command.table, command.metrics, command.cwd) == (tmp_path / "log.md", None, tmp_path)
    assert command.env == {"MNN_KV_DUMP_DIR": "0"}


def test_demo_arguments(mnn: MnnRuntime, build: Path, tmp_path: Path) -> None:
    """llm_demo gets what the original runner gave it, and the metrics path in its environment as
    well.
    """
    command = mnn.command(demo(tmp_path / "p.txt"), tmp_path)
    assert " ".join(command.argv) == DEMO_ARGV.format(
        bin=build / "bin", dir=tmp_path, prompt=tmp_path / "p.txt"
    )
    assert (command.table, command.metrics) == (None, tmp_path / "metrics.jsonl")
    metrics = str(tmp_path / "metrics.jsonl")
    assert command.env == {"MNN_KV_DUMP_DIR": "0", "LLM_DEMO_METRICS_JSONL": metrics}


def test_embedded_gets_the_same_arguments(mnn: MnnRuntime, tmp_path: Path) -> None:
    """Both runtimes differ in how a program is started and in nothing else."""
    embedded = EmbeddedRuntime("a test", mnn.model_config)
    for spec in (BENCH, demo(tmp_path / "p.txt")):
        ours, theirs = embedded.command(spec, tmp_path), mnn.command(spec, tmp_path)
        assert ours.argv == (
            sys.executable,
            "-m",
            f"pytest_h2o.engine.{spec.program[4:]}",
            *theirs.argv[1:],
        )
        assert ours.config == theirs.config


def test_embedded_programs_are_importable_from_anywhere() -> None:
    """The launched interpreter finds the package of this checkout although it starts in another
    directory.
    """
    path = EmbeddedRuntime("a test").environment().get("PYTHONPATH", "").split(os.pathsep)[0]
    assert not path or (Path(path) / "pytest_h2o" / "runtimes").is_dir()


def test_threads_and_backend_hold_for_both_programs(mnn: MnnRuntime, tmp_path: Path) -> None:
    """llm_demo has no such arguments, so its config says them; llm_bench's config keeps the
    user's.
    """
    spec = replace(demo(tmp_path / "p.txt"), attention_option=1)
    command = mnn.command(spec, tmp_path)
    keys = ("thread_num", "backend_type", "attention_mode")
    assert {key: command.config[key] for key in keys} == {
        "thread_num": 2, "backend_type": "cpu", "attention_mode": 9,
    }  # fmt: skip
    assert command.overridden == {"thread_num": 4, "kv_h2o_enable": False}
    assert mnn.command(BENCH, tmp_path).config["thread_num"] == 4


@pytest.mark.parametrize(
    ("program", "one_line"),
    [
        (b"\x7fELF stock", True),
        (b"\xcf\xfa\xed\xfe stock", True),
        (b"\x7fELF ... --prompt-file-mode ...", False),
        (b"\x7fELF ... LLM_DEMO_METRICS_JSONL ...", False),
        (b"#!/bin/sh\nexec build/llm_demo", False),
    ],
)
def test_stock_prompts(
    mnn: MnnRuntime, build: Path, tmp_path: Path, program: bytes, one_line: bool
) -> None:
    """A compiled llm_demo that cannot take a whole file gets a prompt of several lines in one, and
    any other prompt as it is.
    """
    (build / "bin" / "llm_demo").write_bytes(program)
    path, launch = tmp_path / "prompt_128_1.txt", tmp_path / "launch"
    path.write_text("One line.\n")
    assert mnn.command(demo(path), launch).texts == {}
    path.write_text("# Title\r\n\r\nTwo  lines,\nor \u2028three.\n\n", "utf-8", newline="")
    command = mnn.command(demo(path), launch)
    if one_line:
        assert command.argv[2] == str(launch / path.name)
        assert command.texts == {launch / path.name: " # Title Two  lines, or \u2028three.\n"}
    else:
        assert (command.argv[2], command.texts) == (str(path), {})
    assert mnn.command(replace(demo(path), line_by_line=True), launch).texts == {}
    path.write_text("#include <stdio.h>\n")
    assert bool(mnn.command(demo(path), launch).texts) == one_line


def test_commas_in_paths(mnn: MnnRuntime, tmp_path: Path) -> None:
    """llm_bench splits its words at commas, so it gets such paths from its working directory."""
    directory = tmp_path / "a,b"
    command = mnn.command(BENCH, directory)
    assert [command.argv[2], command.argv[-1]] == ["./config.json", "./log.md"]
    assert command.cwd == directory


def test_environment_names_the_launch_directory(mnn: MnnRuntime, tmp_path: Path) -> None:
    """``{directory}`` stands for the directory of the launch."""
    command = mnn.command(replace(BENCH, env={"DUMP": "{directory}/kv", "A": "{b}"}), tmp_path)
    assert command.env == {"MNN_KV_DUMP_DIR": "0", "DUMP": f"{tmp_path}/kv", "A": "{b}"}


def test_base_config_is_untouched(mnn: MnnRuntime, tmp_path: Path) -> None:
    """Making a command changes neither the user's file nor the config that other launches start
    from.
    """
    before = mnn.model_config.read_bytes()
    first = mnn.command(BENCH, tmp_path).config
    assert mnn.command(replace(BENCH, config={}), tmp_path).config["kv_h2o_enable"] is False
    assert first["kv_h2o_enable"] is True
    assert mnn.model_config.read_bytes() == before


def test_program_that_was_not_given(mnn: MnnRuntime, tmp_path: Path) -> None:
    """A setup without llm_demo works until a launch needs it."""
    runtime = MnnRuntime({"llm_bench": mnn.binaries["llm_bench"]}, mnn.model_config, "a test")
    runtime.check()
    runtime.command(BENCH, tmp_path)
    with pytest.raises(
        RuntimeSetupError,
        match="llm_demo is needed but was not given; name it with --llm-demo or LLM_DEMO",
    ):
        runtime.command(demo(tmp_path / "p.txt"), tmp_path)


def test_check_accepts_a_complete_build(mnn: MnnRuntime) -> None:
    """A build with programs, config and model files has nothing to complain about."""
    mnn.check()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda build: (build / "bin" / "llm_demo").unlink(),
            "llm_demo .*bin/llm_demo does not exist; build it",
        ),
        (
            lambda build: (build / "bin" / "llm_bench").chmod(0o644),
            "llm_bench .* is not executable; run: chmod [+]x ",
        ),
        (lambda build: (build / "model" / "config.json").unlink(), "config.json does not exist"),
        (
            lambda build: (build / "model" / "config.json").write_text("{,"),
            "config.json is not JSON",
        ),
        (
            lambda build: (build / "model" / "llm.mnn.weight").unlink(),
            "llm.mnn.weight is missing [(]llm_weight of ",
        ),
        (
            lambda build: (build / "model" / "tokenizer.txt").unlink(),
            "tokenizer.txt is missing [(]tokenizer_file of ",
        ),
    ],
    ids=["no program", "not executable", "no config", "no JSON", "no weights", "no tokenizer"],
)
def test_check_names_what_is_wrong(
    mnn: MnnRuntime, build: Path, damage: Callable[[Path], object], words: str
) -> None:
    """Every broken setup is found before a launch, with file, cause and what to do."""
    damage(build)
    with pytest.raises(RuntimeSetupError, match=words):
        mnn.check()


def test_program_that_is_a_directory(mnn: MnnRuntime, build: Path) -> None:
    """A build directory given in place of the program is named as such."""
    runtime = MnnRuntime({"llm_bench": build / "bin"}, mnn.model_config, "a test")
    with pytest.raises(RuntimeSetupError, match="is a directory; give the program in it"):
        runtime.check()


@pytest.mark.parametrize(
    "changed", ["bin/llm_bench", "model/llm.mnn", "model/llm.mnn.weight", "model/config.json"]
)
def test_fingerprint_changes_with_every_input(mnn: MnnRuntime, build: Path, changed: str) -> None:
    """A program, model file or config that changes is seen, and nothing else is."""
    before = mnn.fingerprint()
    path = build / changed
    path.write_text(json.dumps({"kv_h2o_enable": True}) if path.suffix == ".json" else "changed")
    after = MnnRuntime(mnn.binaries, mnn.model_config, "a test").fingerprint()
    different = {name for name in before if before[name] != after[name]}
    names = {
        "bin/llm_bench": "llm_bench",
        "model/llm.mnn": "llm_model",
        "model/llm.mnn.weight": "llm_weight",
    }
    assert different == {names.get(changed, "model_config")}


@pytest.mark.parametrize(
    "library", ["libMNN.so", "express/libMNN_Express.so.3", "libllm.dylib", "ppl_eval"]
)
def test_fingerprint_covers_what_is_beside(mnn: MnnRuntime, build: Path, library: str) -> None:
    """The engine is in libraries beside the programs, which stay the same when it is rebuilt, and
    ppl_eval is found there, too.
    """
    path = build / "bin" / library
    path.parent.mkdir(exist_ok=True)
    path.write_text("one")
    before = mnn.fingerprint()
    path.write_text("two!")
    assert {name for name, digest in mnn.fingerprint().items() if digest != before[name]} == {
        library
    }


@pytest.mark.parametrize("offset", [0, 2_500_000, 4_999_999])
def test_file_hash_sees_rewritten_files(tmp_path: Path, offset: int) -> None:
    """Head and tail are hashed, and size and time catch a change in between."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(5_000_000))
    os.utime(path, ns=(0, 0))
    before = file_hash(path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"x")
    if offset != 2_500_000:
        os.utime(path, ns=(0, 0))
    assert file_hash(path) != before


def test_embedded_fingerprint_covers_engine_and_model(mnn: MnnRuntime) -> None:
    """The embedded engine's sources count like a binary."""
    names = EmbeddedRuntime("a test", mnn.model_config).fingerprint()
    assert set(names) == {"engine", "model_config", "llm_model", "llm_weight", "tokenizer_file"}


def test_embedded_runtime_when_nothing_is_named(tmp_path: Path) -> None:
    """Without any setup the embedded runtime is used, and the header says why."""
    runtime = find_runtime(environ={}, directory=tmp_path)
    assert isinstance(runtime, EmbeddedRuntime)
    assert runtime.describe().startswith("embedded: model config ")
    assert "neither --llm-bench, --llm-demo, LLM_BENCH, LLM_DEMO" in runtime.describe()


def test_order_of_sources(build: Path) -> None:
    """Each name comes from its first source: option, environment, ini file."""
    runtime = find_runtime(
        "bin/llm_bench",
        environ={"LLM_BENCH": "/other", "LLM_DEMO": "bin/llm_demo", "MODEL_CONFIG": ""},
        ini={"llm_demo": "/other", "model_config": "model/config.json"},
        directory=build,
    )
    assert isinstance(runtime, MnnRuntime)
    assert runtime.binaries == {
        "llm_bench": build / "bin" / "llm_bench",
        "llm_demo": build / "bin" / "llm_demo",
    }
    assert runtime.model_config == build / "model" / "config.json"
    assert (
        runtime.reason
        == "llm_bench from --llm-bench, llm_demo from LLM_DEMO, model config from model_config "
        "in the ini file"
    )
    assert str(build / "bin" / "llm_bench") in runtime.describe()
    runtime.check()


@pytest.mark.parametrize(
    ("folders", "used"), [(["build"], "build"), (["build", "build_h2o_v6"], "build_h2o_v6")]
)
def test_build_directories(build: Path, folders: list[str], used: str) -> None:
    """Programs of a build directory are found if none is named, the H2O build's first."""
    for folder in folders:
        (build / folder).mkdir()
        (build / folder / "llm_bench").touch()
    runtime = find_runtime(model_config="model/config.json", environ={}, directory=build)
    assert isinstance(runtime, MnnRuntime)
    assert runtime.binaries == {"llm_bench": build / used / "llm_bench"}
    assert runtime.reason == f"llm_bench from ./{used}/, model config from --model-config"


def test_build_directories_do_not_complete_a_named_setup(build: Path) -> None:
    """Programs of two builds are never mixed silently."""
    (build / "build").mkdir()
    (build / "build" / "llm_demo").touch()
    runtime = find_runtime(
        "bin/llm_bench", model_config="model/config.json", environ={}, directory=build
    )
    assert isinstance(runtime, MnnRuntime)
    assert runtime.binaries == {
        "llm_bench": build / "bin" / "llm_bench",
        "llm_demo": build / "bin" / "llm_demo",
    }
    (build / "bin" / "llm_demo").unlink()
    runtime = find_runtime(
        "bin/llm_bench", model_config="model/config.json", environ={}, directory=build
    )
    assert isinstance(runtime, MnnRuntime)
    assert set(runtime.binaries) == {"llm_bench"}


@pytest.mark.parametrize(("name", "other"), [("llm_bench", "llm_demo"), ("llm_demo", "llm_bench")])
def test_other_program_is_looked_for_beside_the_named_one(
    build: Path, name: str, other: str
) -> None:
    """One name is enough for a build directory, and the header says where the other program was
    found.
    """
    runtime = find_runtime(
        environ={name.upper(): f"bin/{name}"},
        ini={"model_config": "model/config.json"},
        directory=build,
    )
    assert isinstance(runtime, MnnRuntime)
    assert set(runtime.binaries) == {name, other}
    assert f"{name} from {name.upper()}, {other} beside {name}, model config from" in runtime.reason


def test_program_without_model_config(build: Path) -> None:
    """A named or built program is never replaced by the embedded runtime because its model is
    missing.
    """
    with pytest.raises(
        RuntimeSetupError, match=r"bin/llm_bench was found \(LLM_BENCH\), but no model config"
    ):
        find_runtime(environ={"LLM_BENCH": "bin/llm_bench"}, directory=build)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such", "does not exist"),
        ("bin", "is a directory"),
        ("model/tokenizer.txt", "is not executable"),
    ],
)
def test_program_that_is_none_without_model_config(build: Path, path: str, message: str) -> None:
    """What is no program is not said to have been found."""
    (build / "model" / "tokenizer.txt").chmod(0o644)
    with pytest.raises(RuntimeSetupError, match=f"llm_bench .*{path} {message}"):
        find_runtime(path, environ={}, directory=build)


def test_model_config_without_program(tmp_path: Path) -> None:
    """A model config without programs asks for the programs."""
    with pytest.raises(RuntimeSetupError, match="named by MODEL_CONFIG, but there is no program"):
        find_runtime(environ={"MODEL_CONFIG": "m.json"}, directory=tmp_path)


def test_explicit_choice(build: Path) -> None:
    """A choice wins over what is found, and insisting on binaries that are not there is an
    error.
    """
    named = {"LLM_BENCH": "bin/llm_bench", "MODEL_CONFIG": "model/config.json"}
    assert (
        find_runtime(choice="embedded", environ=named, directory=build)
        .describe()
        .endswith("(chosen explicitly)")
    )
    with pytest.raises(
        RuntimeSetupError, match="the mnn runtime was chosen, but there is no program"
    ):
        find_runtime(choice="mnn", environ={}, directory=build)


def test_home_directory_is_expanded(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` works in options and in the environment, where no shell expands it."""
    monkeypatch.setenv("HOME", str(build))
    runtime = find_runtime("~/bin/llm_bench", environ={"MODEL_CONFIG": "~/model/config.json"})
    assert isinstance(runtime, MnnRuntime)
    assert runtime.binaries["llm_bench"] == build / "bin" / "llm_bench"
