"""Profiles and placements: what a TOML file and three texts turn into, and the command lines that
come out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o import cli
from pytest_h2o.plan.knobs import Knobs, resolve
from pytest_h2o.runtimes.base import Command, RuntimeSetupError
from pytest_h2o.runtimes.placement import PlacedRuntime, Placement, parse_placement, placed
from pytest_h2o.runtimes.profile import find_profile, read_profile

WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
)


def command(*argv: str, cwd: Path | None = None, **env: str) -> Command:
    """A command before it is placed."""
    return Command(argv=argv, env=env, cwd=cwd, config_path=Path("config.json"), config={})


def test_the_example_of_the_help_is_a_profile(tmp_path: Path) -> None:
    """What `pytest-h2o doctor --help` shows can be used, and its knobs exist."""
    path = tmp_path / "server.toml"
    path.write_text(
        "\n".join(
            re.findall(r"(?m)^  ([a-zA-Z_\[].*)$", cli.DOCTOR_EXAMPLES.partition("left out:")[2])
        )
    )
    profile = read_profile(path)
    assert profile.source == "profile server"
    assert set(profile.paths) == {"llm_bench", "llm_demo", "model_config", "prompt_dir"}
    knobs = resolve(profile=profile.knobs)
    assert (knobs["THREADS"], knobs["H2O_LAUNCHER"], knobs["H2O_CPUS"]) == (
        8,
        "srun -N1 --exclusive",
        "0-7",
    )
    assert knobs["H2O_LAUNCH_ENV"] == "LD_LIBRARY_PATH=/opt/mnn/lib"


def test_the_nearest_profile_is_found(tmp_path: Path) -> None:
    """Names are looked up from the working directory upwards; paths are taken as they are."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "h2o-profiles").mkdir()
        (folder / "h2o-profiles" / "x.toml").touch()
    assert find_profile("x", tmp_path / "a" / "b") == tmp_path / "a" / "h2o-profiles" / "x.toml"
    assert find_profile("x", tmp_path) == tmp_path / "h2o-profiles" / "x.toml"
    assert find_profile("b/y.toml", tmp_path) == tmp_path / "b" / "y.toml"


def test_values_become_knob_texts(tmp_path: Path) -> None:
    """Lists, numbers and booleans of TOML are what the command line would give; later sources win
    over a profile.
    """
    path = tmp_path / "p.toml"
    path.write_text(
        "[knobs]\nPROMPTS = [64, 128]\nREQUIRE_DECODE_CACHE_HIT = true\nLOSSY_TARGET = "
        "2.5\nREPEAT = 4\n"
    )
    profile = read_profile(path)
    knobs = resolve(["REPEAT=1"], {"LOSSY_TARGET": "3.5"}, ["PROMPTS=1"], profile=profile.knobs)
    assert knobs.with_source("PROMPTS") == ((64, 128), "profile")
    assert knobs["REQUIRE_DECODE_CACHE_HIT"] is True
    assert (knobs["LOSSY_TARGET"], knobs["REPEAT"]) == (3.5, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llm_bench = 3", "llm_bench is 3; expected text"),
        ('llm_bench = ""', "llm_bench is ''; expected text"),
        ("knobs = 3", "knobs is 3; expected keys with values"),
        ("[knobs]\nTHREADS = 2026-01-01",
         r"knobs\.THREADS is .*; expected an integer at least 1 and at most 1024 or "),
        ("[knobs]\nPROMPTS = [8, 0.5]",
         r"knobs\.PROMPTS\[1\] is 0.5; expected an integer at least 1 and at most 1048576$"),
        ("[env]\nX = 3", r"env\.X is 3; expected text"),
        ("launcher = 'srun'", "launcher: unknown key; expected one of llm_bench, "),
        ("model_confg = 'm'", r"model_confg: unknown key; did you mean model_config\?"),
        ("[knobs]\nLLM_BENCH = 'x'", r"give LLM_BENCH as llm_bench before \[knobs\]"),
        ("[knobs]\nTHREADS = 'two'", "THREADS='two': expected an integer"),
        ("[knobs]\nTHREDS = 2", r"knobs\.THREDS: unknown key; did you mean THREADS\?"),
        ("a = [", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ('a = "\ud800"', "is not TOML"),
    ],
)  # fmt: skip
def test_bad_profiles_are_named(tmp_path: Path, text: str, words: str) -> None:
    """The file, the key and what is expected are in the message."""
    path = tmp_path / "p.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(RuntimeSetupError, match=f"p.toml:? ?.*{words}"):
        read_profile(path)


def test_missing_and_huge_profiles(tmp_path: Path) -> None:
    """A file that cannot be read is named, and so is one that is no profile by its size."""
    with pytest.raises(RuntimeSetupError, match="cannot be read: No such file"):
        read_profile(tmp_path / "p.toml")
    (tmp_path / "p.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(RuntimeSetupError, match="larger than 1 MiB"):
        read_profile(tmp_path / "p.toml")


@given(
    WORDS, st.sampled_from(["ssh -tt host", "/usr/bin/adb shell", "docker exec c sh -c {command}"])
)
def test_a_shell_elsewhere_sees_the_same_words(words: list[str], launcher: str) -> None:
    """Quoted for the other side's shell, every word comes out as it went in."""
    argv = parse_placement(launcher, "", "").apply(command(*words)).argv
    assert shlex.split(argv[-1])[6:] == words


@given(WORDS)
def test_other_launchers_get_words(words: list[str]) -> None:
    """Without a shell on the other side nothing is quoted."""
    assert parse_placement("srun -N1", "", "").apply(command(*words)).argv == (
        "srun",
        "-N1",
        *words,
    )


def test_a_remote_shell_runs_it_in_its_directory(tmp_path: Path) -> None:
    """Directory, CPUs and variables travel with the command, whether or not standard input is held
    open.
    """
    folder = tmp_path / "it's here"
    folder.mkdir()
    placement = parse_placement("ssh host", "0", "A='x y'")
    applied = placement.apply(command("sh", "-c", 'echo "$A $B"; pwd', cwd=folder, B="$HOME"))
    assert applied.argv[:2] == ("ssh", "host")
    assert applied.watched
    run = partial(subprocess.check_output, ["sh", "-c", applied.argv[2]], cwd="/", text=True)
    assert run(stdin=subprocess.DEVNULL).splitlines() == ["x y $HOME", str(folder)]
    read, write = os.pipe()
    os.write(write, b"\n")
    assert run(stdin=read).splitlines() == ["x y $HOME", str(folder)]
    os.close(write)
    os.close(read)


@pytest.mark.parametrize(
    ("end", "code"), [("exit 3", 3), ("kill -SEGV $$", 128 + 11), ("sleep 600 & wait", 128 + 15)]
)
def test_a_remote_shell_passes_exit_codes_on(end: str, code: int) -> None:
    """What the program ended with is known here, and when the connection ends, the program and its
    children do.
    """
    word = (
        parse_placement("ssh host", "", "").apply(command("sh", "-c", f"echo up; {end}")).argv[-1]
    )
    remote = subprocess.Popen(
        ["sh", "-c", word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert remote.stdin
    assert remote.stdout
    remote.stdin.write(b"\n")
    remote.stdin.flush()
    assert remote.stdout.readline() == b"up\n"
    if "wait" not in end:
        remote.wait(60)  # while the connection is still there
    remote.communicate(timeout=60)  # ends standard input, and waits for all that hold the output
    assert remote.returncode == code


def test_without_a_launcher(tmp_path: Path) -> None:
    """CPUs are a prefix, variables are the process's own."""
    applied = Placement(cpus="0-1", env={"A": "1"}).apply(command("llm_bench", B="2"))
    assert (applied.argv, applied.env) == (
        ("taskset", "-c", "0-1", "llm_bench"),
        {"A": "1", "B": "2"},
    )


class Plain:
    """A runtime with nothing to it."""

    name = "plain"

    def fingerprint(self) -> dict[str, str]:
        """One input."""
        return {"x": "1"}


def test_placement_is_an_input_of_the_results() -> None:
    """Launches made elsewhere are not reused here, and the values of variables are not kept in
    records.
    """
    prints = []
    for text in ("", "A=secret", "A=other"):
        runtime = placed(Plain(), resolve(profile={"H2O_LAUNCH_ENV": text}))  # type: ignore[arg-type]
        prints.append(runtime.fingerprint())
        assert "secret" not in str(prints)
    assert prints[0] == {"x": "1"}
    assert prints[1]["placement"] != prints[2]["placement"]
    assert isinstance(placed(Plain(), Knobs({})), Plain)  # type: ignore[arg-type]
    assert not isinstance(placed(Plain(), Knobs({})), PlacedRuntime)  # type: ignore[arg-type]
