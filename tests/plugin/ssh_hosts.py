"""Several ssh servers on the loopback addresses of this machine, each a host of its own: real
``sshd``, real ``ssh``, keys and settings of their own in a temporary directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from sessions import wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
SERVER = """ListenAddress {address}:{port}
HostKey {folder}/host_key
PidFile {folder}/{name}.pid
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp
"""
CLIENT = """Host {name}
  HostName {address}
  Port {port}
"""
EVERY_HOST = """Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
  BatchMode yes
"""


class SshHosts:
    """The hosts ``names``, at 127.0.0.1, 127.0.0.2 and so on."""

    def __init__(self, folder: Path, names: str) -> None:
        self.folder = folder
        self.addresses = {name: f"127.0.0.{number}" for number, name in enumerate(names, 1)}
        for key in ("key", "host_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd started by root insists on it
        clients = ""
        for name, address in self.addresses.items():
            values = {"name": name, "address": address, "port": free_port(address)}
            (folder / f"sshd_{name}").write_text(SERVER.format(folder=folder, **values))
            clients += CLIENT.format(**values)
            self.start(name)
        (folder / "config").write_text(clients + EVERY_HOST.format(folder=folder))

    @property
    def launcher(self) -> str:
        """The launcher that reaches them."""
        return f"ssh -F {self.folder / 'config'} {{host}}"

    def start(self, name: str) -> None:
        """Let a host answer."""
        subprocess.run([str(SSHD), "-f", str(self.folder / f"sshd_{name}")], check=True)
        wait_until((self.folder / f"{name}.pid").is_file)

    def drop(self, name: str) -> None:
        """Let the connections of a host end, while it goes on to answer."""
        for process in children(int((self.folder / f"{name}.pid").read_text())):
            with suppress(ProcessLookupError):
                if Path(f"/proc/{process}/comm").read_text().startswith("sshd"):
                    os.kill(process, signal.SIGKILL)

    def end(self, name: str) -> None:
        """Let a host be gone, with its connections."""
        path = self.folder / f"{name}.pid"
        if not path.is_file():
            return
        pid = int(path.read_text())
        for process in [*children(pid), pid]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        path.unlink()

    def close(self) -> None:
        """End all of them."""
        for name in self.addresses:
            self.end(name)


def children(pid: int) -> list[int]:
    """The children of a process, each after its own children."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [*children(child), child]
    return found


def free_port(address: str) -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port
