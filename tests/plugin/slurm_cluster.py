"""A Slurm of this machine's own: munged, slurmctld, and a slurmd for each node, which all are this
machine under names of their own. Its settings, keys and state are in a temporary directory.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from sessions import running, wait_until
from ssh_hosts import children, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo", "unshare", "hostname")
# Where servers are, which are not on everybody's PATH.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
SETTINGS = """ClusterName=tests
SlurmctldHost={machine}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1
SlurmdTimeout=10
MpiDefault=none
SwitchType=switch/none
"""
NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"
)
PARTITION = "PartitionName=all Nodes={names} Default=YES State=UP MaxTime=INFINITE\n"


class SlurmCluster:
    """The nodes ``names``."""

    def __init__(self, names: list[str]) -> None:
        # The path of a socket is short.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.names = names
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._write_settings()
        self._start_munge()
        self._run("slurmctld", "-c")
        for name in names:
            (self.folder / "spool" / name).mkdir(parents=True)
            self._run("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec slurmd', name)
        wait_until(lambda: self._idle() == set(names))

    def _write_settings(self) -> None:
        (self.folder / "state").mkdir()
        values = {"machine": platform.node(), "folder": self.folder}
        text = SETTINGS.format(port=free_port("127.0.0.1"), **values)
        for name in self.names:
            text += NODE.format(name=name, port=free_port("127.0.0.1"), cpus=os.cpu_count())
        text += PARTITION.format(names=",".join(self.names))
        (self.folder / "slurm.conf").write_text(text)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        self._run(
            "munged", "--force", f"--socket={self.folder}/munge.sock", f"--key-file={key}",
            f"--log-file={self.folder}/munged.log", f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip

    def _run(self, *words: str) -> str:
        environment = {**os.environ, **self.environment, "PATH": PATH}
        return subprocess.run(
            words, env=environment, check=True, text=True, stdout=subprocess.PIPE, timeout=60
        ).stdout

    def _idle(self) -> set[str]:
        listed = self._run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N %t").splitlines()
        return {name for name, state in map(str.split, listed) if state == "idle"}

    def close(self) -> None:
        """End all of it."""
        for path in sorted(self.folder.glob("*.pid"), reverse=True):
            pid = int(path.read_text())
            for process in [*children(pid), pid]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            wait_until(lambda pid=pid: not running(str(pid)))  # type: ignore[misc]
        shutil.rmtree(self.folder)
