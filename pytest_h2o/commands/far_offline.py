"""Dumps evaluated on the hosts that hold them, several at once; what comes back are accounts."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

from pytest_h2o.commands import note
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.account import read_account
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.offline.result import DumpEvaluation
from pytest_h2o.plan.seats import parse_hosts
from pytest_h2o.runs.hosts import Host, HostPool
from pytest_h2o.runs.launcher import Ended, launch
from pytest_h2o.runtimes.base import Command
from pytest_h2o.runtimes.embedded import EmbeddedRuntime
from pytest_h2o.runtimes.placement import PlacedRuntime, parse_placement

DEADLINE_S = 7 * 24 * 3600.0


class FarDumps:
    """Evaluates dumps on hosts: one at a time on each.

    A dump ``HOST:/DIRECTORY`` is read on that host, any other directory on whichever is free, as
    all of them see it. ``program`` starts pytest-h2o there.
    """

    def __init__(self, launcher: str, hosts: str, program: str, folder: Path) -> None:
        placement = parse_placement(launcher, "", "")
        runtime = PlacedRuntime(EmbeddedRuntime("evaluates dumps"), placement, parse_hosts(hosts))
        runtime.check()
        self.pool = HostPool(folder, runtime, roaming=True)
        self.program = shlex.split(program)
        self.folder = folder
        self.stopped = False

    def evaluate(self, dumps: Sequence[str], options: OfflineOptions) -> list[DumpEvaluation]:
        """The results in the order of the dumps; raises OfflineError for one that there is none
        of, and :class:`HostsGoneError`.
        """
        with ThreadPoolExecutor(self.pool.size) as threads:
            waiting: list[Future[DumpEvaluation]] = []
            for number, dump in enumerate(dumps):
                directory = self.folder / str(number)
                directory.mkdir()
                waiting.append(threads.submit(self._evaluate, dump, options, directory))
            try:
                return [each.result() for each in waiting]
            except BaseException:
                self.stopped = True
                threads.shutdown(cancel_futures=True)
                raise

    def _evaluate(self, dump: str, options: OfflineOptions, directory: Path) -> DumpEvaluation:
        name, path = self._place(dump)
        pool = self.pool.only(name) if name else self.pool
        repeated = False
        while True:
            with pool.take("", lambda seconds: note(f"{dump}: waiting for a host")) as host:
                note(f"{dump}: evaluated on {host.name}")
                ended = self._launched(host, path, options, directory)
                why = _trouble(ended, directory / "stderr")
                broken = host.break_of(ended, directory / "stderr")
                lost = host.loss(ok=not why, stderr=directory / "stderr")
                if lost:
                    note(f"host {host.name} was taken out: {lost}")
                    pool.remove(host, lost)
            if lost:
                continue
            if broken and not repeated:
                note(f"{dump}: evaluated again: {broken}")
                repeated = True
                continue
            if why or broken:
                raise OfflineError(f"{dump}: {why or broken}")
            return read_account(directory / "stdout", dump, options)

    def _launched(self, host: Host, path: str, options: OfflineOptions, directory: Path) -> Ended:
        """Evaluate on a host."""
        words = (*self.program, "offline", path, "--account", "-", *flags(options))
        plain = Command(argv=words, env={}, cwd=Path("/"), config_path=Path(), config={})
        placement = host.runtime.placement if isinstance(host.runtime, PlacedRuntime) else None
        command = placement.apply(plain) if placement else plain
        return launch(command, directory, DEADLINE_S, stopped=lambda: self.stopped)

    def _place(self, dump: str) -> tuple[str, str]:
        """The host of a dump, empty for any, and its directory there."""
        for names in self.pool.hosts.values():
            for name in names:
                if dump.startswith(f"{name}:/"):
                    return name, dump.removeprefix(f"{name}:")
        return "", os.path.abspath(dump)  # noqa: PTH100  as the hosts see it, links and all


def _trouble(ended: Ended, stderr: Path) -> str:
    """Why an evaluation failed, in words; empty if it did not."""
    if ended.status == "ok":
        return ""
    said = stderr.read_text("utf-8", errors="replace").strip().splitlines()
    return f"{ended.reason}: {said[-1][:500]}" if said else ended.reason


def flags(options: OfflineOptions) -> list[str]:
    """The options of the command line that give these options."""
    from pytest_h2o.offline.command import option_flag  # noqa: PLC0415

    found: list[str] = []
    for field in fields(OfflineOptions):
        value = getattr(options, field.name)
        flag = option_flag(field.name)
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            found.append(f"{flag}={','.join(map(str, value))}")
        else:
            found.append(f"{flag}={value}")
    return found


def evaluate_on_hosts(
    args: argparse.Namespace, dumps: Sequence[str], options: OfflineOptions
) -> list[DumpEvaluation]:
    """The results of dumps on the hosts that the command line names."""
    with tempfile.TemporaryDirectory(prefix="pytest-h2o-") as folder:
        far = FarDumps(args.launcher, args.hosts, args.far_command, Path(folder))
        return far.evaluate(dumps, options)
