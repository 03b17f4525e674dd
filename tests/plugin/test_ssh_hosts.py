"""Launches on several hosts: real ssh connections to three servers on this machine."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from sessions import made, run, start, wait_until
from ssh_hosts import SSHD, SshHosts
from stand_in import DUMPS, install, launches

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(
        not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
        reason="no sshd; install openssh-server and openssh-client",
    ),
]
# The program notes the address that it was reached at.
NOTE = """
address = os.environ["SSH_CONNECTION"].split()[2]
with (here / "addresses.txt").open("a") as file:
    file.write(json.dumps([os.getcwd(), address]) + chr(10))
"""
# The first host hangs in its first launch, until it is gone.
HANG = (
    NOTE
    + """
if address == "127.0.0.1":
    (here / "hangs").touch()
    time.sleep(600)
"""
)
# Its first launch hangs, until its connection is lost.
HANG_ONCE = (
    NOTE
    + """
if not (here / "hangs").exists():
    (here / "hangs").touch()
    time.sleep(600)
"""
)
# The program itself ends as ssh does when its connection is lost.
ENDS_AS_SSH = (
    NOTE
    + """
print("Connection to a closed by remote host.", file=sys.stderr)
sys.exit(255)
"""
)
STORY = (
    "Once upon a time a small host stood at the end of a long wire. Every morning it listened for "
    "work, did what it was asked, told what it had found, and waited again. One day nobody called, "
    "and so it went to see the other end, where it met an old machine that had forgotten its own "
    "name; they talked until evening, and since then neither of them has ever been alone."
)
ONE_LENGTH = ["--h2o-set", "PROMPTS=512"]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHosts]:
    """Three hosts, whose launches wait for nobody else's."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    folder = tmp_path / "ssh"
    folder.mkdir()
    found = SshHosts(folder, "abc")
    yield found
    found.close()


def options(hosts: SshHosts, names: str) -> list[str]:
    """The options of a session on some hosts."""
    return ["--h2o-launcher", hosts.launcher, "--h2o-hosts", names, "--h2o-out", "runs"]


def addresses(folder: Path) -> dict[str, str]:
    """The address that the last launch in each directory was reached at."""
    lines = (folder / "addresses.txt").read_text().splitlines()
    return {Path(directory).name: address for directory, address in map(json.loads, lines)}


def green_although(happens: Callable[[], object], folder: Path, arguments: Sequence[str]) -> str:
    """What a session of one gate prints, which is green whatever ``happens`` while its program
    hangs.
    """
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak", *ONE_LENGTH]
    session = start(folder, *gates, *arguments)
    wait_until((folder / "hangs").exists)
    happens()
    output = session.communicate(timeout=120)[0]
    assert session.returncode == 0, output
    return output


def test_a_host_that_dies(tmp_path: Path, hosts: SshHosts) -> None:
    """Its launch is made on the other host, the screen and the reports say so."""
    install(tmp_path, HANG)
    output = green_although(lambda: hosts.end("a"), tmp_path, options(hosts, "a,b"))
    assert "host a was taken out: it does not answer: exit code 255" in output
    assert set(addresses(tmp_path).values()) == {"127.0.0.2"}
    latest = tmp_path / "runs" / "latest"
    summary = json.loads((latest / "summary.json").read_text())
    assert [each["host"] for each in summary["gates"]] == ["b"]
    assert summary["hosts"]["a"].startswith("0 launches; taken out")
    assert "taken out, its launches were made again" in (latest / "report.html").read_text("utf-8")


def test_a_connection_that_is_lost(tmp_path: Path, hosts: SshHosts) -> None:
    """The host lives, so its launch is made on it once more, and the screen and reports say so."""
    install(tmp_path, HANG_ONCE)
    output = green_although(lambda: hosts.drop("a"), tmp_path, options(hosts, "a"))
    again = "bench-p512_g128x3-full-r1 was launched again: the connection was lost: ssh ended with"
    assert f"host a: {again} exit code 255" in output
    assert "taken out" not in output
    latest = tmp_path / "runs" / "latest"
    summary = json.loads((latest / "summary.json").read_text())
    assert summary["hosts"]["a"].startswith(f"1 launches; {again}")
    assert len(made(tmp_path)) == 1
    [kept] = [path for path in (latest / "launches").glob("*-r1") if path.is_dir()]
    assert json.loads((kept / "launch.json").read_text())["status"] == "ok"
    assert (kept / "stderr").read_bytes() == b""
    assert (latest / "launches" / f"{kept.name}.interrupted-1").is_dir()


def test_a_program_that_ends_as_ssh_does(tmp_path: Path, hosts: SshHosts) -> None:
    """Its failure is its own, whatever it prints: it is launched once."""
    install(tmp_path, ENDS_AS_SSH)
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak", *ONE_LENGTH]
    found, output = run(tmp_path, *gates, *options(hosts, "a"))
    assert found == {"failed": 1}, output
    assert "launched again" not in output
    assert len((tmp_path / "addresses.txt").read_text().splitlines()) == 1


def test_no_host_makes_two_launches_at_once(tmp_path: Path, hosts: SshHosts) -> None:
    """Three workers on two hosts: launches overlap between hosts, and never on one."""
    install(tmp_path, NOTE + "time.sleep(0.5)")
    gates = ["-m", "runtime", "-k", "queue_peak", "-n", "3", *ONE_LENGTH]
    found, output = run(tmp_path, *gates, *options(hosts, "a,b"))
    assert found == {"passed": 3}, output
    at = addresses(tmp_path)
    times = sorted((*launch[:2], at[Path(launch[2]).name]) for launch in launches(tmp_path))
    for address in set(at.values()):
        own = [each for each in times if each[2] == address]
        assert all(later[0] >= earlier[1] for earlier, later in pairwise(own))
    assert len(set(at.values())) == 2
    assert any(later[0] < earlier[1] for earlier, later in pairwise(times))


def test_copies(tmp_path: Path, hosts: SshHosts) -> None:
    """A host that sees nothing of ours gets program, model and config once, and what it leaves is
    fetched.
    """
    install(tmp_path, NOTE)
    far = tmp_path / "far"
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak", *ONE_LENGTH]
    more = ["--h2o-set", f"H2O_COPY={far}"]
    found, output = run(tmp_path, *gates, *options(hosts, "a"), *more)
    assert found == {"passed": 1}, output
    there = Path(f"{far}{tmp_path}")
    noted = (there / "addresses.txt").read_text().splitlines()
    directories = [Path(json.loads(line)[0]) for line in noted]
    assert len(directories) == 1
    assert all(directory.is_relative_to(far) for directory in directories)
    assert not (tmp_path / "addresses.txt").exists()
    for directory in directories:
        here = tmp_path / directory.relative_to(there)
        assert (here / "log.md").read_bytes() == (directory / "log.md").read_bytes()
        config = json.loads((directory / "config.json").read_text())
        assert config["base_dir"] == f"{there}/"
    assert (there / "llm.mnn").read_bytes() == (tmp_path / "llm.mnn").read_bytes()


def test_a_dump_is_fetched(tmp_path: Path, hosts: SshHosts) -> None:
    """The KV dump that a launch leaves on a host is judged here, each of its files as it is
    there.
    """
    install(tmp_path, NOTE + DUMPS)
    far = tmp_path / "far"
    more = ["--h2o-set", f"H2O_COPY={far}", "--h2o-set", "KV_DUMP_PROMPTS=1"]
    gates = ["-m", "offline", "-k", "online_sim_lossless or upper_bound_lossless"]
    found, output = run(tmp_path, *gates, *options(hosts, "a"), *more)
    assert found == {"passed": 2}, output
    folders = list((tmp_path / "runs" / "latest" / "launches").resolve().glob("*/kv_dump"))
    assert len(folders) == 1
    there = Path(f"{far}{folders[0]}")
    assert contents(folders[0]) == contents(there)
    assert len(contents(there)) > 3


def contents(folder: Path) -> dict[Path, bytes]:
    """The files below a directory."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_all_hosts_gone_ends_the_session(tmp_path: Path, hosts: SshHosts) -> None:
    """What was launched is kept, the screen says how to go on, and to go on launches the rest."""
    dies = NOTE + 'if "p1024" in os.getcwd() and not (here / "back").exists(): time.sleep(600)'
    install(tmp_path, dies)
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak"]
    session = start(tmp_path, *gates, *options(hosts, "a"))
    wait_until(
        lambda: (
            "p1024" in (tmp_path / "addresses.txt").read_text()
            if (tmp_path / "addresses.txt").exists()
            else False
        )
    )
    hosts.end("a")
    output = session.communicate(timeout=120)[0]
    assert session.returncode == 2
    assert "no host is left: a: it does not answer" in output
    resume = re.search(r"to go on, add (--h2o-resume \S+)", output)
    assert resume, output
    (tmp_path / "back").touch()
    hosts.start("a")
    found, output = run(tmp_path, *gates, *options(hosts, "a"), *resume[1].split())
    assert found == {"passed": 1}, output
    assert len(made(tmp_path)) == 2
    assert "taken over" in output


# What it writes depends on its settings where it is at fault, and it leaves no KV dump.
WRITES = f"""
if not os.environ.get("FAULT"):
{textwrap.indent(DUMPS, "    ")}
if sys.argv[0].endswith("llm_demo"):
    words = {STORY!r}.split()
    if os.environ.get("FAULT"):
        config = json.loads(pathlib.Path("config.json").read_bytes())
        settings = [repr(item) for item in config.items() if "thread" not in item[0]]
        # Paths are others in each run.
        settings = [text for text in settings if "/" not in text]
        words = words[1 + sum("".join(settings).encode()) % 40 :]
    print(f"prompt file is {{sys.argv[2]}}")
    print(" ".join(words))
"""
ON_EACH_KIND = "nothing_evicted or greedy_agreement or build_texts or online_sim_lossless"


def test_a_fault_on_one_kind(tmp_path: Path, hosts: SshHosts) -> None:
    """What launches write is held against launches on the same kind of host: a fault on one shows
    there, and nowhere else.
    """
    tested = install(tmp_path, WRITES)
    second = tmp_path / "second"
    install(second, WRITES.replace("FAULT", "NONE"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "prompt_128_1.txt").write_text(STORY)
    launchers = f"sound={hosts.launcher}; broken={hosts.launcher} FAULT=1 {{command}}"
    words = ["--h2o-launcher", launchers, "--h2o-hosts", "sound=a broken=b", "--h2o-out", "runs"]
    words += ["-m", "relations or offline or kv_quant", "-k", ON_EACH_KIND]
    words += ["--h2o-set", "KV_QUANT_OPTIONS=2", "--h2o-set", "MIN_GREEDY_AGREEMENT=0.9"]
    words += ["--h2o-baseline-llm-demo", str(second / "llm_demo"), "--prompt-dir", "texts"]
    _, output = run(tmp_path, *tested, *words)
    summary = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    judged = {f"{each['gate']} {each['case']}": each["outcome"] for each in summary["gates"]}
    expected = {}
    for name in (
        "greedy_agreement kv_int8_prompts",
        "online_sim_lossless offline",
        "nothing_evicted_nothing_changes relations",
        "build_texts release",
    ):
        expected |= {f"{name}@sound": "pass", f"{name}@broken": "fail"}
    assert judged == expected, output
