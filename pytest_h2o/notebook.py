"""What a person with a notebook asks of a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_h2o.kit.archives import read_recording
from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.report.frames import (
    column_frame,
    gate_frame,
    launch_frame,
    metric_frame,
    pair_frame,
)
from pytest_h2o.report.models import read_summary
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch
from pytest_h2o.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class RecordedRun:
    """What a directory holds of a run, as pandas frames that are made when they are asked for.

    ``records`` are the launches in the order of their start, ``verdicts`` those of its summary by
    the node id of their test; either may be empty. ``unread`` are directories of launches that did
    not end, or whose record cannot be read. :attr:`columns` says what the columns of all frames
    mean.
    """

    directory: Path
    records: Sequence[LaunchRecord] = field(repr=False)
    verdicts: Mapping[str, Verdict] = field(repr=False)
    unread: Sequence[Path] = ()
    baseline_records: Sequence[LaunchRecord] = field(default=(), repr=False)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One line per launch and row that it printed; mean, ``_std`` and ``_n`` of every
        metric.
        """
        return metric_frame(self.records)

    @cached_property
    def gates(self) -> pd.DataFrame:
        """One line per verdict; none where nothing was judged."""
        return gate_frame(self.verdicts)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One line per launch that has one with H2O off beside it on the same work."""
        return pair_frame(self.records, self.baseline_records)

    @cached_property
    def launches(self) -> pd.DataFrame:
        """One line per launch: what was asked for, the command line, how it ended, hashes."""
        return launch_frame(self.records)

    @property
    def columns(self) -> pd.DataFrame:
        """What every column of every frame means, with its unit."""
        return column_frame(
            metrics=self.metrics, gates=self.gates, pairs=self.pairs, launches=self.launches
        )


def read_run(directory: str | Path, *, baseline: str | Path | None = None) -> RecordedRun:
    """Read a run directory, or any directory that ``--h2o-replay`` judges; nothing is launched.

    A session that replayed has verdicts and no launches, an archive launches and no verdicts.
    ``baseline`` is the directory of an archive with H2O off, whose rows make pairs with those of
    ``directory``. Raises :class:`RecordingError` for a directory that is no run.
    """
    path = _directory(directory)
    summary = path / SUMMARY_FILE
    verdicts = _read_verdicts(summary) if summary.is_file() else {}
    # A session that replayed another directory has no launches of its own.
    replayed = bool(verdicts) and not (path / "launches").exists()
    records = [] if replayed else _read_records(path)
    beside = _read_baseline(_directory(baseline)) if baseline else []
    return RecordedRun(path, records, verdicts, _unread(path, records), beside)


def _directory(given: str | Path) -> Path:
    path = Path(given)
    if not path.is_dir():
        kind = "a file" if path.exists() else "not there"
        raise RecordingError(f"{path} is {kind}; give the directory of an earlier run")
    return path.resolve()


def _read_records(path: Path) -> list[LaunchRecord]:
    records = read_recording(path).records
    if not any(map(_is_launch, records)):
        raise RecordingError(
            f"{path} holds *.log files, and none has a table; give the directory of an earlier run"
        )
    return records


def _is_launch(record: LaunchRecord) -> bool:
    """Whether a file is known to be of a launch; any program writes files called ``*.log``."""
    described = record.argv or record.returncode is not None or record.status != "ok"
    return bool(described or read_launch(record, ())[0])


def _read_baseline(path: Path) -> list[LaunchRecord]:
    recording = read_recording(path)
    if recording.has_h2o:
        raise RecordingError(f"{path} was run with H2O on; give a baseline with H2O off")
    return recording.records


def _unread(path: Path, records: Sequence[LaunchRecord]) -> list[Path]:
    known = {record.directory for record in records}
    return [each for each in sorted((path / "launches").glob("*/")) if each not in known]


def _read_verdicts(path: Path) -> dict[str, Verdict]:
    try:
        return {gate.nodeid: gate for gate in read_summary(path).gates}
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"{path} is no summary of a run ({type(error).__name__}: {error}); leave it out, or "
            f"judge the run again with --h2o-replay"
        ) from error
