"""What a session keeps of its hosts, for all of its processes and for its reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pytest_h2o.plan.seats import Hosts
from pytest_h2o.runs.locks import hold
from pytest_h2o.runs.records import write_atomically

HOSTS_FILE = "hosts.json"


@dataclass(frozen=True)
class Break:
    """A launch that was made again: on which host it was lost, and why."""

    host: str
    launch: str
    why: str

    @property
    def told(self) -> str:
        """All of it in a line."""
        return f"host {self.host}: {self.launch} was launched again: {self.why}"


@dataclass(frozen=True)
class HostsFile:
    """The hosts of a session by kind, why those that were taken out were, and the connections that
    broke.
    """

    hosts: Hosts = field(default_factory=dict)
    gone: Mapping[str, str] = field(default_factory=dict)
    breaks: tuple[Break, ...] = ()

    @property
    def trouble(self) -> list[str]:
        """What went wrong with hosts, a line for each."""
        lines = [each.told for each in self.breaks]
        lines += [f"host {name} was taken out: {why}" for name, why in self.gone.items()]
        return lines

    def without(self, name: str, why: str) -> HostsFile:
        """With one host taken out."""
        return replace(self, gone={**self.gone, name: why})

    def with_break(self, found: Break) -> HostsFile:
        """With one more connection that broke."""
        return replace(self, breaks=(*self.breaks, found))


def read_hosts(path: Path) -> HostsFile:
    """What is kept of the hosts; nothing where there is no such file, or a program wrote over
    it.
    """
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else {}
        hosts = {str(kind): tuple(names) for kind, names in content.get("hosts", {}).items()}
        gone = {str(name): str(why) for name, why in content.get("gone", {}).items()}
        breaks = tuple(Break(**each) for each in content.get("breaks", ()))
    except (OSError, ValueError, TypeError, AttributeError):
        return HostsFile()
    return HostsFile(hosts, gone, breaks)


def change_hosts(path: Path, hosts: Hosts, change: Callable[[HostsFile], HostsFile]) -> None:
    """Keep something else of these hosts, whoever else does at the same time."""
    with hold(path.with_suffix(".lock")):
        kept = change(read_hosts(path))
        content: dict[str, object] = {"hosts": dict(hosts), "gone": dict(kept.gone)}
        if kept.breaks:
            content["breaks"] = [asdict(each) for each in kept.breaks]
        write_atomically(path, json.dumps(content, indent=1) + "\n")
