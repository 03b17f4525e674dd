"""The hosts that launches are spread over, and the seats that they have in the plan.

A seat says on which kind of host, and on which of them, a launch is planned: ``""`` is the first
host of those without a kind, ``/2`` the second, ``pixel`` and ``pixel/2`` those of a kind. Launches
of one seat are compared with each other, so they stay on one host; which one it is, and what takes
its place when it dies, is settled where launches are made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain

from pytest_h2o.plan.knobs import KnobError

# The names of the hosts by kind, in order; the kind of hosts without one is empty.
Hosts = Mapping[str, tuple[str, ...]]

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# A name is a word of a command line: it must not be taken for an option.
_HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:@%+\[\]-]{0,252}")


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """The hosts of ``a,b,c`` or ``pixel=a,b server=c``; raises :class:`KnobError`."""
    found: dict[str, tuple[str, ...]] = {}
    for group in re.split(r"[;\s]+", text.strip()):
        kind, equals, names = group.rpartition("=")
        if not group:
            continue
        if equals and not _KIND.fullmatch(kind):
            raise KnobError(f"H2O_HOSTS: {kind!r} is no kind of host; use letters and digits")
        if kind in found:
            raise KnobError(
                f"H2O_HOSTS={text}: {kind or 'hosts without a kind'} twice; give its hosts with "
                f"commas: {kind or 'kind'}=a,b"
            )
        found[kind] = tuple(names.split(","))
    _check(text, found)
    return found


def hosts_text(hosts: Hosts) -> str:
    """The text that :func:`parse_hosts` reads these hosts from."""
    groups = []
    for kind, names in hosts.items():
        listed = ",".join(names)
        groups.append(f"{kind}={listed}" if kind else listed)
    return " ".join(groups)


def _check(text: str, hosts: Hosts) -> None:
    every = list(chain.from_iterable(hosts.values()))
    for name in every:
        if not _HOST.fullmatch(name):
            raise KnobError(
                f"H2O_HOSTS={text}: {name!r} is no name of a host; expected a,b,c or "
                f"pixel=a,b server=c"
            )
        if every.count(name) > 1:
            raise KnobError(f"H2O_HOSTS={text}: {name} twice; each host makes one launch at a time")
    if "" in hosts and len(hosts) > 1:
        raise KnobError(f"H2O_HOSTS={text}: {hosts[''][0]} has no kind; give every host one")


def seats_of(hosts: Hosts, kind: str) -> tuple[str, ...]:
    """The seats of a kind of host, one for each; one where no hosts are named."""
    count = len(hosts.get(kind, ())) or 1
    more = [f"{kind}/{number}" for number in range(2, count + 1)]
    return (kind, *more)


def kind_of(seat: str) -> str:
    """The kind of host that a seat is on."""
    return seat.partition("/")[0]


def number_of(seat: str) -> int:
    """Which host of its kind a seat is on, from 0."""
    return int(seat.partition("/")[2] or 1) - 1
