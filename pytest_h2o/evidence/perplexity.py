"""What eviction costs in quality: the ``quality.json`` that ``llm_bench --quality`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause, located
from pytest_h2o.runtimes.base import QUALITY_FILE
from pytest_h2o.verdict import Evidence, Measured, ShownRow

WORTH = "what H2O keeps is worth more than what is recent"
EVICTED = "H2O held as little as it was asked to, and no more than the window"
UNCHANGED = "lossless coding changes nothing of what is predicted"
CODED = ("lossless", "store")
WHOLE = ("full", *CODED)
# At the end of a response the tokens decoded since the last eviction are held as well; honest
# ratios come to 0.74.
LEAST, HALF = 0.95, 0.5
NOTHING_EVICTED = (
    "neither policy evicted anything of the text, which is read in windows of 912 tokens: there "
    "is nothing to compare; "
    "lower H2O_TRIGGER_MIN, H2O_RECENT_TOKENS or H2O_SINK_TOKENS, or leave this gate out with "
    "REQUIRE_QUALITY=0"
)
SIZE_LIMIT = 1 << 20
Finite = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class QualityRow(BaseModel):
    """One policy at a target lossy ratio.

    ``divergence`` is from the full cache, in nats per token; ``recall_perplexity`` is that of
    passages that return.
    """

    policy: str
    target: Finite
    perplexity: Finite
    divergence: Finite
    recall_perplexity: Finite
    effective_ratio: Finite

    def equals(self, other: QualityRow) -> bool:
        """Whether another row has the same numbers."""
        return self.model_dump(exclude={"policy"}) == other.model_dump(exclude={"policy"})

    @property
    def shown(self) -> str:
        """The row in words."""
        return (
            f"perplexity {self.perplexity:.3f}, divergence {self.divergence:.5f}, "
            f"recall perplexity {self.recall_perplexity:.3f}, ratio {self.effective_ratio:.3f}"
        )


class Report(BaseModel):
    """All policies of one text."""

    quality: Annotated[list[QualityRow], Field(max_length=100)]


def read_quality(record: LaunchRecord) -> tuple[Mapping[str, QualityRow], str]:
    """The rows ``full``, ``h2o`` and ``window`` at the tested lossy ratio, or why there are
    none.
    """
    path = record.directory / QUALITY_FILE
    if record.status != "ok":
        return {}, located(record.reason, record.directory, record.name)
    try:
        rows = Report.model_validate_json(_text(path)).quality
    except (OSError, ValueError, ValidationError) as error:
        return {}, f"{path} holds no quality report: {str(error).splitlines()[0]}"
    asked = _asked(record)
    found: dict[str, QualityRow] = {}
    for row in rows:
        if row.policy in WHOLE or abs(row.target - asked) < 0.01:
            found[row.policy] = row
    absent = [policy for policy in ("full", "h2o", "window") if policy not in found]
    if absent:
        return found, f"{path} has no row {', '.join(absent)} at the lossy ratio {asked:g}"
    evicted = any(found[policy].effective_ratio > 1 for policy in ("h2o", "window"))
    return found, "" if evicted else f"{path}: {NOTHING_EVICTED}"


def _asked(record: LaunchRecord) -> float:
    config = record.spec.config
    if config.get("kv_h2o_target_mode") == "static":
        return 1 / max(float(config["kv_h2o_target_keep_ratio"]), 1e-3)
    return float(config["kv_h2o_target_lossy_ratio"])


def _text(path: Path) -> str:
    if path.stat().st_size > SIZE_LIMIT:
        raise ValueError("larger than 1 MiB")
    return path.read_text("utf-8")


def perplexity_increase(record: LaunchRecord) -> Measured:
    """The rise of perplexity from the full cache to H2O at the tested lossy ratio."""
    rows, missing = read_quality(record)
    return Measured(
        metric="perplexity_increase",
        value=None if missing else rows["h2o"].perplexity / max(rows["full"].perplexity, 1e-9) - 1,
        unit="share",
        source=record.directory / QUALITY_FILE,
        rows=tuple(ShownRow(policy, row.shown, row.perplexity) for policy, row in rows.items()),
        missing=missing,
        cause=launch_cause(record) if record.status != "ok" else "",
    )


def quality_evidence(record: LaunchRecord) -> list[Evidence]:
    """Whether H2O evicted, and loses less than a sliding window of the same size.

    It is to stay nearer to the full cache, and to predict better what the beginning of the prompt
    said. The perplexity
    of plain text is not compared: a small model may predict that as well without its distant part.
    """
    rows, missing = read_quality(record)
    if missing:
        return []
    h2o, window = rows["h2o"], rows["window"]
    less = h2o.divergence < window.divergence and h2o.recall_perplexity < window.recall_perplexity
    text = (
        f"divergence from the full cache {h2o.divergence:.5f}, of a sliding window "
        f"{window.divergence:.5f}; "
        f"perplexity of passages that return {h2o.recall_perplexity:.3f}, "
        f"{window.recall_perplexity:.3f}"
    )
    as_little = h2o.effective_ratio >= LEAST * max(
        window.effective_ratio, 1 + HALF * (h2o.target - 1)
    )
    sizes = (
        f"H2O held 1/{h2o.effective_ratio:.3g} of the tokens, the sliding window "
        f"1/{window.effective_ratio:.3g}"
    )
    found = [Evidence.of(WORTH, less, text), Evidence.of(EVICTED, as_little, sizes)]
    found += _coded(rows)
    return found


def _coded(rows: Mapping[str, QualityRow]) -> Iterator[Evidence]:
    """Needs rows with lossless coding, of programs that have it: to the last digit they are those
    of the full cache.
    """
    coded = [policy for policy in CODED if policy in rows]
    if not coded:
        return
    differ = [policy for policy in coded if not rows[policy].equals(rows["full"])]
    text = f"{', '.join(coded)} as the full cache"
    if differ:
        text = f"{differ[0]} has {rows[differ[0]].shown}; the full cache {rows['full'].shown}"
    yield Evidence.of(UNCHANGED, not differ, text)
