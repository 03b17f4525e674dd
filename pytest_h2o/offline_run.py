"""The offline evaluation of the session's KV dump, made once and kept in the run directory."""

from __future__ import annotations

from pytest_h2o.gating import Measured
from pytest_h2o.lab import Lab
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions, online_sim_options, upper_bound_options


def offline_measure(lab: Lab, kind: str, metric: str = "lossless_ratio") -> Measured:
    """A number of the ``online_sim`` or ``upper_bound`` evaluation, or the reason why there is none."""
    dump, reason = lab.kv_dump()
    if dump is None:
        return Measured(metric=metric, value=None, missing=reason)
    name = f"offline_lossless_{kind}.json"
    result = lab.once(name, lambda: evaluate(dump, _options(lab, kind)).to_json())
    value = result[metric]
    rows = tuple(
        (key, str(result[key]))
        for key in ("selected_entries", "skipped_entries", "raw_bytes", "compressed_bytes", "skip_reasons")
    )
    missing = (
        ""
        if result["raw_bytes"]
        else f"nothing in {dump} could be evaluated: {result['skip_reasons'] or 'no entries selected'}"
    )
    number = float(value) if isinstance(value, int | float) else None
    return Measured(metric=metric, value=number, unit="ratio", source=lab.root / name, rows=rows, missing=missing)


def _options(lab: Lab, kind: str) -> OfflineOptions:
    front_n = lab.knobs.integer("KV_LOSSLESS_FRONT_N")
    if kind == "upper_bound":
        return upper_bound_options(front_n)
    return online_sim_options(
        front_n,
        chunk_seq=lab.knobs.integer("ONLINE_CHUNK_SEQ"),
        framing_bytes=lab.knobs.integer("ONLINE_FRAMING_BYTES"),
        block_seq=lab.knobs.integer("ADAPTIVE_BLOCK_SEQ"),
    )
