"""The offline evaluation of the session's KV dump, made once and kept in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pytest_h2o.gating import Measured
from pytest_h2o.lab import Lab
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions, online_sim_options, upper_bound_options


@dataclass(frozen=True)
class Evaluation:
    """An offline result, its file, and why there is none; ``values`` has the keys of the result JSON."""

    values: Mapping[str, Any]
    source: Path | None = None
    missing: str = ""

    def measure(self, metric: str, unit: str = "ratio") -> Measured:
        """One number of the result."""
        value = self.values.get(metric)
        shown = ("evaluated_entries", "skipped_entries", "raw_bytes", "compressed_bytes", "container_bytes")
        return Measured(
            metric=metric,
            value=None if value is None else float(value),
            unit=unit,
            source=self.source,
            rows=tuple((key, str(self.values[key])) for key in shown if key in self.values),
            missing=self.missing,
        )

    def share(self) -> Measured:
        """The evaluated share of the dump, by entries or by bytes, whichever is less; skipped entries by reason."""
        by = min(("evaluated_share", "evaluated_byte_share"), key=lambda name: self.values.get(name, 0.0))
        reasons = tuple((f"skipped, {reason}", str(n)) for reason, n in self.values.get("skip_reasons", {}).items())
        return replace(self.measure(by, "share"), rows=reasons)


def evaluate_dump(lab: Lab, kind: Literal["online_sim", "full_eval", "upper_bound"]) -> Evaluation:
    """The evaluation of the session's KV dump as a runtime would code it (in v5's chunks for full_eval), or a bound."""
    dump, reason = lab.kv_dump()
    if dump is None:
        return Evaluation({}, missing=reason)
    name = f"offline_lossless_{kind}.json"
    try:
        values = lab.once(name, lambda: evaluate(dump, _options(lab, kind)).to_json())
    except OfflineError as error:
        return Evaluation({}, dump, str(error))
    return Evaluation(values, lab.root / name, "" if values["raw_bytes"] else f"nothing in {dump} could be evaluated")


def _options(lab: Lab, kind: str) -> OfflineOptions:
    knobs = lab.cases["full_eval"].knobs(lab.knobs) if kind == "full_eval" else lab.knobs
    front_n = knobs.integer("KV_LOSSLESS_FRONT_N")
    if kind == "upper_bound":
        return upper_bound_options(front_n)
    return online_sim_options(
        front_n,
        chunk_seq=knobs.integer("ONLINE_CHUNK_SEQ"),
        framing_bytes=knobs.integer("ONLINE_FRAMING_BYTES"),
        block_seq=knobs.integer("ADAPTIVE_BLOCK_SEQ"),
    )
