"""What copies files to hosts, made from the launcher, and where they go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.runtimes.base import Command, RuntimeSetupError
from pytest_h2o.runtimes.copying import CopyError, Courier, carrier_of, far, moved, sha256
from pytest_h2o.runtimes.placement import Placement


@pytest.mark.parametrize(
    ("launcher", "push"),
    [
        ("ssh a", "scp -p"),
        ("ssh -p 2222 -i key a", "scp -p -P 2222 -i key"),
        ("ssh -p2222 -l me -T -4 a", "scp -p -P 2222 -o User=me -4"),
        ("/usr/bin/ssh -F conf -o BatchMode=yes -L 80:b:80 a", "scp -p -F conf -o BatchMode=yes"),
    ],
)
def test_options_of_ssh_are_those_of_scp(launcher: str, push: str) -> None:
    """The same port, key and settings; what scp does not know is left out."""
    carrier = carrier_of(launcher.split())
    assert carrier.push == carrier.pull == tuple(push.split())
    assert carrier.prefix == "a:"


def test_adb_and_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """adb copies both ways; sbcast needs an allocation, where launches share their directory."""
    assert carrier_of(["adb", "-s", "x", "shell"]).push == ("adb", "-s", "x", "push")
    assert carrier_of(["adb", "-s", "x", "shell"]).pull == ("adb", "-s", "x", "pull")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(RuntimeSetupError, match="start pytest in salloc"):
        carrier_of(["srun", "-w", "n1"])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert carrier_of(["srun", "-w", "n1"]).push[0] == "sbcast"
    assert carrier_of(["srun", "-w", "n1"]).pull == ()
    with pytest.raises(RuntimeSetupError, match="how docker copies is not known"):
        carrier_of(["docker", "exec", "-i", "c", "sh"])


@given(st.lists(st.sampled_from(["..", ".", "a", "b c", "é", "\\"]), min_size=1, max_size=6))
def test_copies_stay_below_their_directory(parts: list[str]) -> None:
    """No path leads out of it."""
    path = far("/" + "/".join(parts), "/copies")
    assert Path(path).is_relative_to("/copies")
    assert ".." not in Path(path).parts


def launched(folder: Path) -> Command:
    """A program with a library, a model and a config."""
    (folder / "build" / "express").mkdir(parents=True)
    (folder / "launch").mkdir()
    for name in ("build/llm_bench", "build/libMNN.so", "build/express/libX.so", "llm.mnn", "p.txt"):
        (folder / name).write_text(name)
    directory = folder / "launch"
    words = ("llm_bench", "-m", "config.json", "-fp", "log.md")
    argv = (
        str(folder / "build" / words[0]),
        "-m",
        str(directory / "config.json"),
        str(folder / "p.txt"),
    )
    (directory / "config.json").write_text("{}")
    return Command(
        argv=argv, env={"RECORD": f"{directory}/record"}, cwd=directory,
        config_path=directory / "config.json", table=directory / "log.md",
        config={"base_dir": f"{folder}/", "llm_model": "llm.mnn"},
    )  # fmt: skip


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_launch_reads_is_carried(tmp_path: Path, shared: bool) -> None:
    """Program, libraries, prompt and model; the directory of the launch only where it is not
    shared.
    """
    command = launched(tmp_path)
    there = moved(command, "/far", shares_launches=shared)
    directory = str(tmp_path / "launch")
    far_directory = directory if shared else f"/far{directory}"
    assert there.argv == (
        f"/far{tmp_path}/build/llm_bench", "-m", f"{far_directory}/config.json",
        f"/far{tmp_path}/p.txt",
    )  # fmt: skip
    assert there.env["RECORD"] == f"{far_directory}/record"
    libraries = set(there.env["LD_LIBRARY_PATH"].split(":"))
    assert libraries == {f"/far{tmp_path}/build", f"/far{tmp_path}/build/express"}
    assert there.config["base_dir"] == f"/far{tmp_path}/"
    carried = {str(path.relative_to(tmp_path)) for path in there.carried}
    always = {"build/llm_bench", "build/libMNN.so", "build/express/libX.so", "llm.mnn", "p.txt"}
    assert carried == (always if shared else always | {"launch/config.json"})
    assert (there.table, there.config_path) == (command.table, command.config_path)


def test_a_copy_that_differs_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives is compared with what was sent; the second time nothing is sent."""
    sent = tmp_path / "sent"
    scp = "#!/bin/sh\nfor target; do :; done\necho sent >> {sent}\nprintf {what} > ${{target#*:}}\n"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    for name in ("ssh", "scp"):
        (tools / name).touch()
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    program = tmp_path / "program"
    program.write_text("right")
    command = Command(
        argv=(), env={}, cwd=tmp_path / "far", config_path=program, config={}, carried=(program,)
    )
    courier = Courier(Placement(("ssh", "a")), str(tmp_path / "far"), tmp_path / "ledger.json")
    (tools / "scp").write_text(scp.format(sent=sent, what="wrong"))
    with pytest.raises(CopyError, match="is not the file"):
        courier.carry(command)
    (tools / "scp").write_text(scp.format(sent=sent, what="right"))
    courier.carry(command)
    courier.carry(command)
    assert sent.read_text().count("sent") == 2
    assert sha256(Path(far(program, courier.root))) == sha256(program)


def by_words(folder: Path) -> Courier:
    """Copies with words that the user gives, on a launcher of which nothing is known."""
    placement = Placement(
        ("sh", "-c", "{command}"), copy_to=("cp", "-p", "{source}", "{target}"),
        copy_from=("cp", "-rp", "{source}", "{target}"),
    )  # fmt: skip
    return Courier(placement, str(folder / "far"), folder / "ledger.json")


def test_what_a_launch_leaves_is_fetched(tmp_path: Path) -> None:
    """Files that are named, and all that lie in its directories, whatever they are called; what is
    not there is not missed.
    """
    courier = by_words(tmp_path)
    command = replace(
        launched(tmp_path), folders=(tmp_path / "launch" / "kv_dump", tmp_path / "launch" / "none")
    )
    there = moved(command, courier.root, shares_launches=False)
    courier.carry(there)
    assert Path(there.argv[0]).read_text() == "build/llm_bench"
    left = Path(far(tmp_path / "launch", courier.root))
    (left / "log.md").write_text("table")
    for name in ("kv_dump/run/k l0.bin", "kv_dump/meta.json", "kv_dump/run/é.bin"):
        (left / name).parent.mkdir(parents=True, exist_ok=True)
        (left / name).write_bytes(name.encode() * 1000)
    courier.fetch(there)
    here = tmp_path / "launch"
    assert (here / "log.md").read_text() == "table"
    names = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert names == {
        "config.json", "log.md", "kv_dump/run/k l0.bin", "kv_dump/meta.json", "kv_dump/run/é.bin",
    }  # fmt: skip
    assert (here / "kv_dump/meta.json").read_bytes() == (left / "kv_dump/meta.json").read_bytes()


def test_a_dump_that_changes_on_the_way_is_no_dump(tmp_path: Path) -> None:
    """Each file of a directory is compared with what is on the host."""
    courier = by_words(tmp_path)
    spoils = ("sh", "-c", 'cp -rp "$0" "$1"; echo >> "$1/kv_dump/a"', "{source}", "{target}")
    courier = replace(courier, placement=replace(courier.placement, copy_from=spoils))
    command = replace(launched(tmp_path), table=None, folders=(tmp_path / "launch" / "kv_dump",))
    dump = Path(far(tmp_path / "launch" / "kv_dump", courier.root))
    dump.mkdir(parents=True)
    (dump / "a").write_text("KV")
    with pytest.raises(CopyError, match="kv_dump/a changed on the way from"):
        courier.fetch(command)
