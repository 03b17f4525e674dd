"""Made-up reports of a held-out text with plain and with quantised KV."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_h2o.evidence.kv_quant_cost import Compared
from pytest_h2o.lab.workload import Workload
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.records import LaunchRecord, standard_paths

KNOBS = resolve(suite="kv_quant")


def texts_of(
    tmp_path: Path, case: str, *, perplexity: float, divergence: float, kv_bytes: float | None
) -> Compared:
    """Reports of plain KV at perplexity 15 and 8192 bytes a token, and of a case."""
    work = Workload(KNOBS, tmp_path)
    found: list[LaunchRecord] = []
    for spec in work.text_launches(work.cases[case]):
        plain = spec.attention_option == 0
        rows = [{"policy": "full", "perplexity": 15.0, "divergence": 0.0}]
        if not plain:
            row = {"policy": "quantised", "perplexity": perplexity, "divergence": divergence}
            rows.append(row)
        paths = standard_paths(tmp_path / spec.arm)
        paths["directory"].mkdir(exist_ok=True, parents=True)
        size = 8192.0 if plain else kv_bytes
        report = {"kv_bytes_per_token": size, "kv_quality": rows}
        (paths["directory"] / "quality.json").write_text(json.dumps(report))
        found.append(LaunchRecord(spec=spec, status="ok", reason="", **paths))
    return Compared(*found)
