"""Launches on devices through the real client of adb; what answers it is a stand-in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_server import AdbServer
from sessions import run, start, wait_until
from stand_in import install

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


def hosts(folder: Path) -> set[str]:
    """The hosts of the latest session's launches."""
    paths = (folder / "runs" / "latest" / "launches").glob("*/launch.json")
    kept = [path for path in paths if ".interrupted" not in path.parent.name]
    return {json.loads(path.read_text())["host"] for path in kept}


def test_gates_on_a_device(tmp_path: Path, devices: AdbServer) -> None:
    """Arguments and exit codes survive the way."""
    install(tmp_path)
    found, output = run(tmp_path, *GATES, *LAUNCHER, "b,a")
    assert found == {"passed": 1}, output
    assert hosts(tmp_path) == {"b"}


def test_unplugged(tmp_path: Path, devices: AdbServer) -> None:
    """What ran on a device that is gone is launched on the other."""
    install(tmp_path, HANG)
    session = start(tmp_path, *GATES, *LAUNCHER, "a,b")
    wait_until((tmp_path / "hangs").exists)
    devices.unplug("a")
    output = session.communicate(timeout=60)[0]
    assert session.returncode == 0, output
    assert "host a was taken out: it does not answer: exit code 1, error: device 'a'" in output
    assert hosts(tmp_path) == {"b"}
