"""The launches of a session: each spec is launched once, whoever asks for it and however often."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.ending import explain
from pytest_h2o.runs.hosts import Host, HostPool
from pytest_h2o.runs.launcher import Ended, launch
from pytest_h2o.runs.locks import hold
from pytest_h2o.runs.records import (
    RECORD_FILE,
    LaunchRecord,
    RecordError,
    digest,
    load_record,
    save_record,
    standard_paths,
    write_atomically,
)
from pytest_h2o.runtimes.base import Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.copying import CopyError
from pytest_h2o.runtimes.launch_config import config_text

__all__ = ["LaunchRecord", "RecordError", "ReplayStore", "RunStore"]

Event = Literal["start", "tick", "end", "fail", "wait", "reuse"]
OnEvent = Callable[[Event, LaunchSpec, float], None]
# Stands in the name of a directory that was left when its launch was made again.
INTERRUPTED = ".interrupted-"
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
        self._interrupted = False
        for folder in (self._launches, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        if previous:
            write_atomically(self.root / RESUMED_FROM, f"{previous.absolute()}\n")

    @property
    def _launches(self) -> Path:
        return self.root / "launches"

    @property
    def _locks(self) -> Path:
        return self.root / ".locks"

    def get(self, spec: LaunchSpec) -> LaunchRecord:
        """The record of ``spec``, launched now unless it was before; failures are records, launched
        once as well.
        """
        if record := self.peek(spec):
            return record
        try:
            with hold(self._locks / f"{spec.key}.lock", lambda seconds: self._wait(spec, seconds)):
                return self.peek(spec) or self._reuse(spec) or self._launch(spec)
        except OSError as error:
            reason = (
                f"it cannot be kept in {self._launches}: {error.strerror}; make room, or "
                f"give another --h2o-out"
            )
            directory = self._launches / file_name(spec.name)
            return self._remember(self._record(spec, directory, status="failed", reason=reason))

    def peek(self, spec: LaunchSpec) -> LaunchRecord | None:
        """The record of ``spec`` if it was launched, and on the host that its seat is on now; never
        launches.
        """
        if spec.key not in self._known:
            name = self._index().get(spec.key)
            if name and (record := _load(self._launches / name)):
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
        return _records(self._launches)

    def _index(self) -> dict[str, str]:
        """Directory name by spec key; none where a program wrote over the file, so that all is
        launched again.
        """
        path = self._launches / "index.json"
        try:
            return dict(json.loads(path.read_bytes())) if path.is_file() else {}
        except (ValueError, TypeError):
            return {}

    def _reserve(self, spec: LaunchSpec) -> Path:
        """The empty directory of ``spec``; what an interrupted launch left there is put aside."""
        with hold(self._locks / "index.lock"):
            index = self._index()
            if spec.key not in index:
                name = file_name(spec.name)
                index[spec.key] = name if name not in index.values() else f"{name}-{spec.key}"
                write_atomically(self._launches / "index.json", json.dumps(index, indent=1) + "\n")
        directory = self._launches / index[spec.key]
        if directory.exists():
            directory.rename(_free_name(directory))
        directory.mkdir()
        return directory

    def _launch(self, spec: LaunchSpec) -> LaunchRecord:
        """Launch on the first host that lives through it."""
        while True:
            directory = self._reserve(spec)
            try:
                with self.hosts.take(spec.seat, lambda seconds: self._wait(spec, seconds)) as host:
                    record = self._launch_on(host, spec, directory)
                    lost = host.loss(ok=record.status == "ok", stderr=record.stderr)
                    if lost:
                        self.hosts.remove(host, lost)
            except RuntimeSetupError as error:
                return self._keep(
                    self._record(spec, directory, status="not_started", reason=str(error))
                )
            if not lost:
                return self._keep(record)

    def _launch_on(self, host: Host, spec: LaunchSpec, directory: Path) -> LaunchRecord:
        command = host.runtime.command(spec, directory)
        command.config_path.write_text(config_text(command.config), "utf-8")
        for path, text in command.texts.items():
            path.write_text(text, "utf-8")
        try:
            host.carry(command)
            ended = self._run(spec, command, directory)
            host.fetch(command)
        except CopyError as error:
            return self._record(
                spec, directory, status="failed", reason=str(error), argv=command.argv,
                host=host.name,
            )  # fmt: skip
        output = directory / "stdout", directory / "stderr"
        status, reason = explain(spec.program, ended.status, ended.reason, *output)
        self.on_event("end" if status == "ok" else "fail", spec, ended.seconds or 0.0)
        return self._record(
            spec, directory, status=status, reason=reason, argv=command.argv,
            started_utc=ended.started_utc, returncode=ended.returncode, seconds=ended.seconds,
            cpu_seconds=ended.cpu_seconds, overridden=command.overridden, host=host.name,
            **vars(ended.usage),
        ).sealed()  # fmt: skip

    def interrupt(self) -> None:
        """End what other threads are launching, and let nothing be launched any more."""
        self._interrupted = True

    def _wait(self, spec: LaunchSpec, seconds: float) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self.on_event("wait", spec, seconds)

    def _run(self, spec: LaunchSpec, command: Command, directory: Path) -> Ended:
        if self._interrupted:  # what lies between here and pytest may have made another error of it
            raise KeyboardInterrupt
        self.on_event("start", spec, 0.0)
        try:
            ended = launch(
                command,
                directory,
                spec.deadline_s,
                lambda seconds: self.on_event("tick", spec, seconds),
                stopped=lambda: self._interrupted,
            )
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        return ended

    def _reuse(self, spec: LaunchSpec) -> LaunchRecord | None:
        found = [record for store in self.previous if (record := store.peek(spec))]
        old = next((record for record in found if self._is_reusable(record, spec)), None)
        if old is None:
            return None
        directory = self._reserve(spec)
        shutil.copytree(
            old.directory, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD_FILE)
        )
        self.on_event("reuse", spec, 0.0)
        return self._keep(
            replace(old, spec=spec, **standard_paths(directory), reused_from=str(old.directory))
        )

    def _is_reusable(self, old: LaunchRecord, spec: LaunchSpec) -> bool:
        if old.status != "ok" or not self.hosts.keeps(spec.seat, old.host):
            return False
        return dict(old.inputs) == self._inputs(spec)

    def _record(self, spec: LaunchSpec, directory: Path, **fields: Any) -> LaunchRecord:
        paths = standard_paths(directory)
        return LaunchRecord(
            spec=spec, runtime=self.runtime.describe(), inputs=self._inputs(spec), **paths, **fields
        )

    def _inputs(self, spec: LaunchSpec) -> dict[str, str]:
        prompt = spec.prompt_file
        try:  # each time: somebody may build while a session runs
            inputs = {**self.runtime.fingerprint(), "machine": self.hosts.machine(spec.seat)}
        except RuntimeSetupError:
            inputs = {}
        if prompt and prompt.is_file():
            inputs["prompt"] = digest(prompt)[:16]
        return inputs

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
    directories: Iterable[Path] = sorted(launches.iterdir()) if launches.is_dir() else ()
    kept = [directory for directory in directories if INTERRUPTED not in directory.name]
    records = [record for directory in kept if (record := _load(directory))]
    return sorted(records, key=lambda record: record.started_utc or "")


def _load(directory: Path) -> LaunchRecord | None:
    """The record of a launch that ended; None if it did not, or if its record cannot be read."""
    try:
        return load_record(directory / RECORD_FILE)
    except RecordError:
        return None


def file_name(name: str) -> str:
    """``name`` as a directory name that every file system takes; not unique."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:150]


def _free_name(directory: Path) -> Path:
    names = (directory.with_name(f"{directory.name}{INTERRUPTED}{number}") for number in count(1))
    return next(name for name in names if not name.exists())
