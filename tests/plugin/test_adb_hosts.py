"""Launches on devices through the real client of adb; what answers it is a stand-in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_server import AdbServer
from sessions import made, run, start, wait_until
from ssh_hosts import SSHD, SshHosts
from stand_in import DUMPS, install

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(shutil.which("adb") is None, reason="no adb; install adb"),
]
# The first device is unplugged in its first launch.
HANG = """
if os.environ["DEVICE"] == "a":
    (here / "hangs").touch()
    time.sleep(600)
"""
# Notes how it was reached.
REACHED = """
by = "ssh" if "SSH_CONNECTION" in os.environ else "adb" if "DEVICE" in os.environ else "neither"
with (here / "reached").open("a") as file:
    print(by, file=file)
"""
# Later, in the middle of its study.
HANG_LATER = """
if os.environ["DEVICE"] == "a" and "-full-r2" in os.getcwd():
    (here / "hangs").touch()
    time.sleep(600)
"""
STUDY = [
    "-k", "full_strict and decode_drop", "-m", "runtime", "--h2o-out", "runs",
    "--h2o-set", "DECODE_BASELINE_MODE=paired", "--h2o-set", "PROMPTS=512",
]  # fmt: skip
GATES = ["-m", "runtime", "-k", "full_strict and queue_peak", "--h2o-out", "runs"]
LAUNCHER = ["--h2o-launcher", "adb -s {host} shell", "--h2o-hosts"]


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    """Two devices."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    found = AdbServer("ab")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(found.port))
    yield found
    found.close()


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of the latest session."""
    paths = (folder / "runs" / "latest" / "launches").glob("*/launch.json")
    kept = [path for path in paths if ".interrupted" not in path.parent.name]
    return [json.loads(path.read_text()) for path in kept]


def verdicts(folder: Path) -> list[dict[str, Any]]:
    """The verdicts of the latest session."""
    summary = json.loads((folder / "runs" / "latest" / "summary.json").read_text())
    gates: list[dict[str, Any]] = summary["gates"]
    return gates


def test_copies(tmp_path: Path, devices: AdbServer) -> None:
    """A device gets what its launches read once over adb itself, and results are pulled, those in
    directories as well.
    """
    install(tmp_path, DUMPS)
    far = tmp_path / "far"
    gates = ["-m", "runtime or offline", "--h2o-out", "runs"]
    gates += ["-k", "(full_strict and queue_peak) or online_sim_lossless"]
    more = ["--h2o-set", f"H2O_COPY={far}", "--h2o-set", "KV_DUMP_PROMPTS=1"]
    found, output = run(tmp_path, *gates, *LAUNCHER, "a", *more)
    assert found == {"passed": 2}, output
    assert (Path(f"{far}{tmp_path}") / "launches.txt").is_file()
    for name in ("llm.mnn", "llm_bench"):  # several launches, one copy
        assert devices.sent.count(f"{far}{tmp_path}/{name}") == 1


def test_unplugged(tmp_path: Path, devices: AdbServer) -> None:
    """What ran on a device that is gone is launched on the other."""
    install(tmp_path, HANG)
    session = start(tmp_path, *GATES, *LAUNCHER, "a,b")
    wait_until((tmp_path / "hangs").exists)
    devices.unplug("a")
    output = session.communicate(timeout=60)[0]
    assert session.returncode == 0, output
    assert "host a was taken out: it does not answer: exit code 1, error: device 'a'" in output
    assert {each["host"] for each in records(tmp_path)} == {"b"}


def test_a_study_moves_as_a_whole(tmp_path: Path, devices: AdbServer) -> None:
    """Its host dies in the middle: all of its pairs are of the other host in the end."""
    install(tmp_path, HANG_LATER)
    session = start(tmp_path, *STUDY, *LAUNCHER, "a,b")
    wait_until((tmp_path / "hangs").exists)
    devices.unplug("a")
    output = session.communicate(timeout=120)[0]
    assert "host a was taken out: it does not answer: exit code 1, error: device 'a'" in output
    kept = records(tmp_path)
    assert len(kept) >= 8
    assert {(each["host"], each["status"]) for each in kept} == {("b", "ok")}
    [verdict] = verdicts(tmp_path)
    assert verdict["host"] == "b"
    assert len(verdict["pairs"]) >= 4


def test_kinds_of_hosts_are_judged_apart(tmp_path: Path, devices: AdbServer) -> None:
    """Each case of prompt lengths has a gate for each kind, with launches of its own; a replay of
    the session knows them.
    """
    install(tmp_path)
    found, output = run(tmp_path, *GATES, "-v", *LAUNCHER, "pixel=a server=b")
    assert found == {"passed": 2}, output
    assert "test_queue_peak[full_strict@pixel]" in output
    assert {each["case"]: each["host"] for each in verdicts(tmp_path)} == {
        "full_strict@pixel": "pixel: a",
        "full_strict@server": "server: b",
    }
    assert len(made(tmp_path)) == 4
    again, output = run(tmp_path, *GATES, "--h2o-replay", "runs/latest")
    assert again == {"passed": 2}, output
    assert len(made(tmp_path)) == 4


@pytest.mark.skipif(SSHD is None, reason="no sshd; install openssh-server")
def test_a_device_beside_a_server(tmp_path: Path, devices: AdbServer) -> None:
    """Each kind has a launcher, programs and a model of its own in one session, and only the device
    gets copies.
    """
    own: dict[str, list[str]] = {}
    for kind in ("pixel", "server"):
        options = install(tmp_path / kind, REACHED)
        for option, path in zip(options[::2], options[1::2], strict=True):
            own.setdefault(option, []).append(f"{kind}={path}")
    (tmp_path / "ssh").mkdir()
    servers = SshHosts(tmp_path / "ssh", "s")
    far = tmp_path / "far"
    try:
        launchers = f"pixel=adb -s {{host}} shell; server={servers.launcher}"
        words = ["--h2o-launcher", launchers, "--h2o-hosts", "pixel=a server=s"]
        words += ["--h2o-set", f"H2O_COPY=pixel={far}"]
        for option, places in own.items():
            words += [option, "; ".join(places)]
        found, output = run(tmp_path, *GATES, *words)
    finally:
        servers.close()
    assert found == {"passed": 2}, output
    assert {each["case"]: each["host"] for each in verdicts(tmp_path)} == {
        "full_strict@pixel": "pixel: a",
        "full_strict@server": "server: s",
    }
    copies = Path(f"{far}{tmp_path}")
    assert set((copies / "pixel" / "reached").read_text().split()) == {"adb"}
    assert set((tmp_path / "server" / "reached").read_text().split()) == {"ssh"}
    assert not (tmp_path / "pixel" / "reached").exists()
    assert not (copies / "server").exists()


def test_all_hosts_gone_ends_a_session_of_workers(tmp_path: Path, devices: AdbServer) -> None:
    """Workers stop as well, none is taken for crashed, and the screen says how to go on."""
    for name in "ab":
        devices.unplug(name)
    install(tmp_path)
    gates = ["-m", "runtime", "-k", "queue_peak or lossy", "-n", "2", "--h2o-out", "runs"]
    found, output = run(tmp_path, *gates, *LAUNCHER, "a,b")
    assert set(found) == {"errors"}, output
    assert "no host is left: a: it does not answer" in output
    assert "crashed" not in output
    assert "to go on, add --h2o-resume" in output
