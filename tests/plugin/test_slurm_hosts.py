"""Launches on the nodes of a real Slurm on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sessions import run
from slurm_cluster import MISSING, SlurmCluster
from stand_in import install

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm; {', '.join(MISSING)} missing"),
    pytest.mark.skipif(os.getuid() != 0, reason="a node with a name of its own needs root"),
]
NOTE = """
with (here / "nodes.txt").open("a") as file:
    file.write(json.dumps([os.getcwd(), os.environ["SLURMD_NODENAME"]]) + chr(10))
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SlurmCluster]:
    """Two nodes."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    found = SlurmCluster(["n1", "n2"])
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    found.close()


def test_gates_over_nodes(tmp_path: Path, cluster: SlurmCluster) -> None:
    """Each case is launched on the node of its seat."""
    install(tmp_path, NOTE)
    launcher = "srun -w {host} -N1 --exclusive --immediate=30"
    found, output = run(
        tmp_path, "-m", "runtime", "-k", "queue_peak", "-n", "2", "--h2o-out", "runs",
        "--h2o-launcher", launcher, "--h2o-hosts", "n1,n2",
    )  # fmt: skip
    assert found == {"passed": 3}, output
    lines = (tmp_path / "nodes.txt").read_text().splitlines()
    nodes = {Path(directory).name: node for directory, node in map(json.loads, lines)}
    paths = (tmp_path / "runs" / "latest" / "launches").glob("*/launch.json")
    records = {path.parent.name: json.loads(path.read_text()) for path in paths}
    assert {name: record["host"] for name, record in records.items()} == nodes
    assert {record["spec"]["arm"]: record["host"] for record in records.values()} == {
        "full": "n1", "store": "n2", "coverage": "n1",
    }  # fmt: skip
