"""How a launch of a session is made and recorded, on whatever host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.ending import explain
from pytest_h2o.runs.hosts import Host, HostPool
from pytest_h2o.runs.launcher import Ended, launch
from pytest_h2o.runs.records import LaunchRecord, digest, standard_paths
from pytest_h2o.runtimes.base import Command, Runtime, RuntimeSetupError
from pytest_h2o.runtimes.copying import CopyError
from pytest_h2o.runtimes.launch_config import config_text

Event = Literal["start", "tick", "end", "fail", "wait", "reuse"]
OnEvent = Callable[[Event, LaunchSpec, float], None]


@dataclass(frozen=True)
class Attempt:
    """A launch that was made; ``lost`` says what went wrong on the way to the host or back, which
    says nothing of the program.
    """

    record: LaunchRecord
    lost: str = ""


class Launching:
    """Makes launches and their records, until it is interrupted."""

    def __init__(self, runtime: Runtime, hosts: HostPool, on_event: OnEvent) -> None:
        self._runtime, self._hosts, self._on_event = runtime, hosts, on_event
        self._interrupted = False

    def interrupt(self) -> None:
        """End what other threads are launching, and let nothing be launched any more."""
        self._interrupted = True

    def wait(self, spec: LaunchSpec, seconds: float) -> None:
        """Say that another process launches; KeyboardInterrupt once nothing is to be launched."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._on_event("wait", spec, seconds)

    def record(self, spec: LaunchSpec, directory: Path, **fields: Any) -> LaunchRecord:
        """The record of a launch, with what it depends on."""
        paths = standard_paths(directory)
        return LaunchRecord(
            spec=spec, runtime=self._runtime.describe(), inputs=self.inputs(spec), **paths, **fields
        )

    def inputs(self, spec: LaunchSpec) -> dict[str, str]:
        """Hashes of what the result depends on, by name."""
        prompt = spec.prompt_file
        try:  # each time: somebody may build while a session runs
            inputs = {**self._runtime.fingerprint(), "machine": self._hosts.machine(spec.seat)}
        except RuntimeSetupError:
            inputs = {}
        if prompt and prompt.is_file():
            inputs["prompt"] = digest(prompt)[:16]
        return inputs

    def on_host(self, host: Host, spec: LaunchSpec, directory: Path) -> Attempt:
        """Launch ``spec`` in its empty directory; RuntimeSetupError if it cannot be."""
        command = host.runtime.command(spec, directory)
        command.config_path.write_text(config_text(command.config), "utf-8")
        for path, text in command.texts.items():
            path.write_text(text, "utf-8")
        try:
            host.carry(command)
        except CopyError as error:
            reason = str(error)
            record = self.record(
                spec, directory, status="failed", reason=reason, argv=command.argv, host=host.name
            )
            return Attempt(record, reason)
        ended = self._run(spec, command, directory)
        lost = host.break_of(ended, directory / "stderr")
        if not lost and ended.status == "ok":
            lost = _fetched(host, command)
        output = directory / "stdout", directory / "stderr"
        status, reason = explain(spec.program, ended.status, ended.reason, *output)
        if lost:
            status, reason = "failed", lost
        self._on_event("end" if status == "ok" else "fail", spec, ended.seconds or 0.0)
        record = self.record(
            spec, directory, status=status, reason=reason, argv=command.argv,
            started_utc=ended.started_utc, returncode=ended.returncode, seconds=ended.seconds,
            cpu_seconds=ended.cpu_seconds, overridden=command.overridden, host=host.name,
            **vars(ended.usage),
        ).sealed()  # fmt: skip
        return Attempt(record, lost)

    def _run(self, spec: LaunchSpec, command: Command, directory: Path) -> Ended:
        if self._interrupted:  # what lies between here and pytest may have made another error of it
            raise KeyboardInterrupt
        self._on_event("start", spec, 0.0)
        try:
            ended = launch(
                command,
                directory,
                spec.deadline_s,
                lambda seconds: self._on_event("tick", spec, seconds),
                stopped=lambda: self._interrupted,
            )
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        return ended


def _fetched(host: Host, command: Command) -> str:
    """Get what a launch left; why that could not be had, in words."""
    try:
        host.fetch(command)
    except CopyError as error:
        return str(error)
    return ""
