"""``metrics.csv`` is what pandas makes of the frame of the same launches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_h2o.report.files import write_metrics
from pytest_h2o.report.frames import METRIC_COLUMNS, metric_frame
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.store import ReplayStore

SESSION = Path(__file__).parents[1] / "data" / "session"


def by_pandas(records: list[LaunchRecord]) -> str:
    """The file by way of a frame."""
    frame = metric_frame(records)
    means = [name.removesuffix("_n") for name in map(str, frame) if name.endswith("_n")]
    identity = [name for name in METRIC_COLUMNS if name not in ("prompt_tokens", "decode_tokens")]
    rounded = frame[means].map(lambda mean: float(f"{mean:.6g}"))
    return frame[identity].join(rounded).to_csv(index=False)


def test_the_file_is_that_of_the_frame(tmp_path: Path) -> None:
    """Launches with all kinds of rows, one without any and without a time, and odd names."""
    records = ReplayStore(SESSION).records()
    odd = replace(records[0].spec, arm='a, "b"')
    records += [
        replace(records[0], status="failed", seconds=None, returncode=-11, directory=tmp_path,
                table=tmp_path / "none", stdout=tmp_path / "none", metrics=tmp_path / "none"),
        replace(records[1], spec=odd, seconds=2),
    ]  # fmt: skip
    write_metrics(tmp_path / "metrics.csv", records)
    assert (tmp_path / "metrics.csv").read_bytes().decode() == by_pandas(records)
