"""Record what the embedded runtime prints, as templates for stand-in programs: ``python
tests/sabotage/record.py``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pytest_h2o.plan.cases import all_cases, baseline_of, launches
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes import EmbeddedRuntime, programs_by_work
from pytest_h2o.runtimes.programs import BOTH

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tests" / "data" / "honest"
SETTINGS = ("PROMPTS=512,1024", "GENS=48", "REPEAT=2", "THREADS=2", "DECODE_TOKENS=64")
PROMPTS = [
    ROOT / "prompts" / f"prompt_{bucket}_{number}.txt"
    for bucket in (128, 512, 2048)
    for number in (1, 2)
]


def main() -> None:
    """Launch each arm once on every prompt and keep what it printed, without machine paths."""
    knobs, os.environ["H2O_LOCK_DIR"] = resolve(SETTINGS), tempfile.mkdtemp()
    cases = all_cases(knobs, programs=programs_by_work(BOTH))
    wanted = [
        spec
        for name in ("full_strict", "store_tuned", "full_coverage")
        for spec in launches(cases[name], knobs, ())
    ]
    wanted += launches(cases["candidate"], knobs, PROMPTS)
    specs = {spec.key: spec for one in wanted for spec in (one, baseline_of(one))}
    store = RunStore(Path(tempfile.mkdtemp()), EmbeddedRuntime("recorded"))
    for spec in specs.values():
        record = store.get(spec)
        target = TEMPLATES / f"{spec.label}-{spec.arm}"
        target.mkdir(parents=True, exist_ok=True)
        for path in (record.table, record.metrics):
            if path.is_file():
                shutil.copy(path, target / path.name)
        printed = record.stdout.read_bytes()
        printed = printed.replace(str(record.directory).encode(), b"launch").replace(
            str(ROOT).encode() + b"/", b""
        )
        (target / "stdout").write_bytes(printed)
        print(target.name, record.status)


if __name__ == "__main__":
    main()
