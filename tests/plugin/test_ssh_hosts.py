"""Launches on several hosts: real ssh connections to three servers on this machine."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sessions import made, run, start, wait_until
from ssh_hosts import SSHD, SshHosts
from stand_in import install, launches

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
# The host of the study hangs in the middle of it, until it is gone.
HANG = (
    NOTE
    + """
if address == "127.0.0.1" and "-full-r2" in os.getcwd():
    (here / "hangs").touch()
    time.sleep(600)
"""
)
STUDY = ["-k", "full_strict and decode_drop", "-m", "runtime", "--h2o-set"]


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


def records(folder: Path) -> dict[str, dict[str, object]]:
    """The records of the latest session by the name of their directory."""
    found = (folder / "runs" / "latest" / "launches").glob("*/launch.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def addresses(folder: Path) -> dict[str, str]:
    """The address that the last launch in each directory was reached at."""
    lines = (folder / "addresses.txt").read_text().splitlines()
    return {Path(directory).name: address for directory, address in map(json.loads, lines)}


def verdicts(folder: Path) -> dict[str, dict[str, object]]:
    """The verdicts of the latest session by case."""
    summary = json.loads((folder / "runs" / "latest" / "summary.json").read_text())
    return {each["case"]: each for each in summary["gates"]}


def test_a_study_moves_as_a_whole(tmp_path: Path, hosts: SshHosts) -> None:
    """Its host dies in the middle: all of its pairs are of the other host in the end."""
    install(tmp_path, HANG)
    paired = ["DECODE_BASELINE_MODE=paired", "--h2o-set", "PROMPTS=512"]
    session = start(tmp_path, *STUDY, *paired, *options(hosts, "a,b"))
    wait_until((tmp_path / "hangs").exists)
    hosts.end("a")
    output = session.communicate(timeout=120)[0]
    assert "host a was taken out: it does not answer: exit code 255" in output
    kept = {name: each for name, each in records(tmp_path).items() if ".interrupted" not in name}
    at = addresses(tmp_path)
    assert len(kept) >= 12
    for name, each in kept.items():
        assert (each["host"], at[name], each["status"]) == ("b", "127.0.0.2", "ok")
    assert verdicts(tmp_path)["full_strict"]["host"] == "b"
    assert len(verdicts(tmp_path)["full_strict"]["pairs"]) >= 6  # type: ignore[arg-type]


def test_no_host_makes_two_launches_at_once(tmp_path: Path, hosts: SshHosts) -> None:
    """Three workers on two hosts: launches overlap between hosts, and never on one."""
    install(tmp_path, NOTE + "time.sleep(0.5)")
    gates = ["-m", "runtime", "-k", "queue_peak", "-n", "3"]
    found, output = run(tmp_path, *gates, *options(hosts, "a,b"))
    assert found == {"passed": 3}, output
    at = addresses(tmp_path)
    times = sorted((*launch[:2], at[Path(launch[2]).name]) for launch in launches(tmp_path))
    for address in set(at.values()):
        own = [each for each in times if each[2] == address]
        assert all(later[0] >= earlier[1] for earlier, later in pairwise(own))
    assert len(set(at.values())) == 2
    assert any(later[0] < earlier[1] for earlier, later in pairwise(times))


def test_kinds_of_hosts_are_judged_apart(tmp_path: Path, hosts: SshHosts) -> None:
    """Each case of prompt lengths has a gate for each kind, with launches of its own; a replay of
    the session knows them.
    """
    install(tmp_path, NOTE)
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak", "-v"]
    found, output = run(tmp_path, *gates, *options(hosts, "pixel=a server=b"))
    assert found == {"passed": 2}, output
    assert "test_queue_peak[full_strict@pixel]" in output
    assert {case: each["host"] for case, each in verdicts(tmp_path).items()} == {
        "full_strict@pixel": "pixel: a",
        "full_strict@server": "server: b",
    }
    assert len(made(tmp_path)) == 4
    again, output = run(tmp_path, *gates, "--h2o-replay", "runs/latest")
    assert again == {"passed": 2}, output
    assert len(made(tmp_path)) == 4


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


def test_interrupt_leaves_nothing_running(tmp_path: Path, hosts: SshHosts) -> None:
    """Ctrl-C ends what runs on a host."""
    install(tmp_path, '(here / "pid").write_text(str(os.getpid())); time.sleep(600)')
    gates = ["-m", "runtime", "-k", "full_strict and queue_peak"]
    session = start(tmp_path, *gates, *options(hosts, "a"))
    wait_until((tmp_path / "pid").exists)
    session.send_signal(signal.SIGINT)
    output = session.communicate(timeout=60)[0]
    assert "KeyboardInterrupt" in output
    pid = (tmp_path / "pid").read_text()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
