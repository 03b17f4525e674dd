"""The launches of a session: each spec is launched once, whoever asks for it and however often."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.hosts import HostPool
from pytest_h2o.runs.launch_folder import INTERRUPTED, LaunchFolder, file_name
from pytest_h2o.runs.launching import Launching, OnEvent
from pytest_h2o.runs.locks import hold
from pytest_h2o.runs.records import (
    RECORD_FILE,
    LaunchRecord,
    RecordError,
    load_record,
    save_record,
    standard_paths,
    write_atomically,
)
from pytest_h2o.runtimes.base import Runtime, RuntimeSetupError

__all__ = ["LaunchRecord", "RecordError", "ReplayStore", "RunStore"]

# Names the session whose launches a session takes over.
RESUMED_FROM = "resumed_from"


class RunStore:
    """Launches specs below ``root/launches`` and keeps their records, shared by all processes with
    the same root.

    ``on_event`` is told what happens and the seconds so far: ``start``, ``tick`` (every few
    seconds), ``end`` or ``fail``, ``wait`` while another process launches, and ``reuse`` of an
    earlier launch. ``previous`` is the root of an earlier session: its successful launches are
    copied where spec, programs, model, base config and prompt are unchanged. ``hosts`` are what
    launches are made on.
    """

    def __init__(
        self,
        root: Path,
        runtime: Runtime,
        *,
        on_event: OnEvent = lambda *_: None,
        previous: Path | None = None,
        hosts: HostPool | None = None,
    ) -> None:
        self.root = root.absolute()
        self.runtime = runtime
        self.hosts = hosts or HostPool(self.root, runtime)
        self.on_event = on_event
        self.previous = _earlier(previous)
        self._known: dict[str, LaunchRecord] = {}
        self._launching = Launching(runtime, self.hosts, on_event)
        self._folder = LaunchFolder(self.root)
        if previous:
            write_atomically(self.root / RESUMED_FROM, f"{previous.absolute()}\n")

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        """The record of ``spec``, launched now unless it was before; failures are records, launched
        once as well.
        """
        if record := self.peek(spec):
            return record
        try:
            waiting = partial(self._launching.wait, spec)
            with hold(self._folder.locks / f"{spec.key}.lock", waiting):
                return self.peek(spec) or self._reuse(spec) or self._launch(spec)
        except OSError as error:
            reason = (
                f"it cannot be kept in {self._folder.launches}: {error.strerror}; make room, or "
                f"give another --h2o-out"
            )
            directory = self._folder.launches / file_name(spec.name)
            return self._remember(
                self._launching.record(spec, directory, status="failed", reason=reason)
            )

    def peek(self, spec: LaunchSpec) -> LaunchRecord | None:
        """The record of ``spec`` if it was launched, and on the host that its seat is on now; never
        launches.
        """
        if spec.key not in self._known:
            directory = self._folder.find(spec)
            if directory and (record := _load(directory)):
                self._known[spec.key] = record
        known = self._known.get(spec.key)
        if known and not self.hosts.keeps(spec.seat, known.host):
            del self._known[spec.key]
            return None
        return known

    def costs_nothing(self, spec: LaunchSpec) -> bool:
        """Whether ``spec`` was launched, by this session or by the one that it goes on with."""
        if self.peek(spec):
            return True
        return any(earlier.peek(spec) for earlier in self.previous)

    def records(self) -> list[LaunchRecord]:
        """All records so far, in the order of their start."""
        return _records(self._folder.launches)

    def _launch(self, spec: LaunchSpec) -> LaunchRecord:
        """Launch on the first host that lives through it; once more where only what lies between
        failed.
        """
        repeated = False
        while True:
            directory = self._folder.reserve(spec)
            try:
                waiting = partial(self._launching.wait, spec)
                with self.hosts.take(spec.seat, waiting) as host:
                    attempt = self._launching.on_host(host, spec, directory)
                    record = attempt.record
                    lost = host.loss(ok=record.status == "ok", stderr=record.stderr)
                    if lost:
                        self.hosts.remove(host, lost)
                    elif attempt.lost and not repeated:
                        self.hosts.note_break(host, spec.name, attempt.lost)
            except RuntimeSetupError as error:
                return self._keep(
                    self._launching.record(spec, directory, status="not_started", reason=str(error))
                )
            if not lost and (repeated or not attempt.lost):
                return self._keep(record)
            repeated = repeated or not lost

    def interrupt(self) -> None:
        """End what other threads are launching, and let nothing be launched any more."""
        self._launching.interrupt()

    def _reuse(self, spec: LaunchSpec) -> LaunchRecord | None:
        old = self._reusable(spec)
        if old is None:
            return None
        directory = self._folder.reserve(spec)
        shutil.copytree(
            old.directory, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD_FILE)
        )
        self.on_event("reuse", spec, 0.0)
        return self._keep(
            replace(old, spec=spec, **standard_paths(directory), reused_from=str(old.directory))
        )

    def _reusable(self, spec: LaunchSpec) -> LaunchRecord | None:
        """The launch of an earlier session that stands for ``spec``, if there is one."""
        for store in self.previous:
            old = store.peek(spec)
            if old is None or old.status != "ok" or not self.hosts.keeps(spec.seat, old.host):
                continue
            if dict(old.inputs) == self._launching.inputs(spec):
                return old
        return None

    def _keep(self, record: LaunchRecord) -> LaunchRecord:
        save_record(record)
        return self._remember(record)

    def _remember(self, record: LaunchRecord) -> LaunchRecord:
        self._known[record.spec.key] = record
        return record


class ReplayStore:
    """The launches of an earlier session; nothing is ever launched."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        """The record of ``spec``, or one with the status ``not_recorded``; prompts may have moved
        with their names.
        """
        if record := self.peek(spec):
            return record
        reason = (
            f"no such launch in {self.root}, and a replay launches nothing; run the gates without "
            f"replay"
        )
        unread = self.unread()
        if unread:
            reason = f"{unread[0]}; {reason}"
        paths = standard_paths(self.root)
        return LaunchRecord(spec=spec, status="not_recorded", reason=reason, **paths)

    def peek(self, spec: LaunchSpec) -> LaunchRecord | None:
        """The record of ``spec`` if there is one."""
        return self._by_key.get(spec.key) or self._by_portable_key.get(_portable_key(spec))

    def records(self) -> list[LaunchRecord]:
        """All records, in the order of their start."""
        return list(self._by_key.values())

    def unread(self) -> list[str]:
        """Why each launch that is not among the records is not: its record cannot be read, was
        never written, or is that of another launch once more.
        """
        return self._unread

    @cached_property
    def _unread(self) -> list[str]:
        launches = self.root / "launches"
        directories = sorted(launches.iterdir()) if launches.is_dir() else []
        found = []
        for directory in directories:
            if directory.is_dir() and INTERRUPTED not in directory.name:
                found += self._why_unread(directory)
        return found

    def _why_unread(self, directory: Path) -> list[str]:
        path = directory / RECORD_FILE
        if not path.is_file():
            return [f"{directory} holds no {RECORD_FILE}: the launch was interrupted"]
        try:
            record = load_record(path)
        except RecordError as error:
            return [str(error)]
        kept = self._by_key[record.spec.key].directory
        if kept.resolve() == record.directory.resolve():
            return []
        return [f"{directory} holds the same launch as {kept}; take one of them out"]

    @cached_property
    def _by_key(self) -> dict[str, LaunchRecord]:
        return {record.spec.key: record for record in _records(self.root / "launches")}

    @cached_property
    def _by_portable_key(self) -> dict[str, LaunchRecord]:
        return {_portable_key(record.spec): record for record in self._by_key.values()}


def _earlier(root: Path | None) -> list[ReplayStore]:
    """The session in ``root``, the one that it resumed, and so on: one that was killed early may
    not have taken over all.
    """
    found: dict[Path, ReplayStore] = {}
    while root and root not in found:
        found[root] = ReplayStore(root)
        link = root / RESUMED_FROM
        root = Path(link.read_text("utf-8").strip()) if link.is_file() else None
    return list(found.values())


def _portable_key(spec: LaunchSpec) -> str:
    """The spec's key without the directory of its prompt and without its seat."""
    prompt = spec.prompt_file and Path(spec.prompt_file.name)
    return replace(spec, prompt_file=prompt, seat="").key


def _records(launches: Path) -> list[LaunchRecord]:
    records: list[LaunchRecord] = []
    directories: Iterable[Path] = sorted(launches.iterdir()) if launches.is_dir() else ()
    for directory in directories:
        record = None if INTERRUPTED in directory.name else _load(directory)
        if record:
            records.append(record)
    return sorted(records, key=lambda record: record.started_utc or "")


def _load(directory: Path) -> LaunchRecord | None:
    """The record of a launch that ended; None if it did not, or if its record cannot be read."""
    try:
        return load_record(directory / RECORD_FILE)
    except RecordError:
        return None
