"""Recorded output of real programs as launch records, as a session would have kept them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.records import LaunchRecord, standard_paths

FLAGS = {"prompt_tokens": "-p", "gen_tokens": "-n", "repeat": "-rep", "threads": "-t"}
RUNS = Path(__file__).parents[1] / "data" / "runs"


def bench_records(name: str, directory: Path) -> list[LaunchRecord]:
    """The launches of one recorded ``llm_bench`` run, copied below ``directory``."""
    return [
        _keep(_bench_spec(name, each), each, directory, {
            "log.md": RUNS / name / "logs" / f"{each['run_id']}.log",
            "stdout": RUNS / name / "logs" / f"{each['run_id']}.stdout",
            "config.json": RUNS / name / "configs" / f"{each['run_id']}.json",
        })
        for each in json.loads((RUNS / name / "launches.json").read_text())
    ]  # fmt: skip


def demo_records(name: str, directory: Path) -> list[LaunchRecord]:
    """The launches of one recorded ``llm_demo`` run, copied below ``directory``."""
    return [
        _keep(_demo_spec(name, each["argv"]), each, directory, {
            "metrics.jsonl": RUNS / name / f"{Path(each['argv'][2]).stem}.metrics.jsonl",
            "stdout": RUNS / name / f"{Path(each['argv'][2]).stem}.stdout",
            "config.json": RUNS / name / "config.json",
        })
        for each in json.loads((RUNS / name / "launches.json").read_text())
    ]  # fmt: skip


def _keep(
    spec: LaunchSpec, launch: dict[str, object], directory: Path, files: Mapping[str, Path]
) -> LaunchRecord:
    place = directory / spec.name
    place.mkdir(parents=True)
    for target, source in files.items():
        if source.is_file():
            shutil.copy(source, place / target)
    return LaunchRecord(
        spec=spec, status="ok", reason="exit code 0", argv=tuple(launch["argv"]), returncode=0,
        seconds=launch["seconds"], **standard_paths(place),
    )  # fmt: skip


def _bench_spec(name: str, launch: dict[str, object]) -> LaunchSpec:
    words = dict(zip(launch["argv"][1::2], launch["argv"][2::2], strict=True))
    numbers = {field: int(words[flag]) for field, flag in FLAGS.items()}
    config = _config(RUNS / name / "configs" / f"{launch['run_id']}.json")
    return LaunchSpec(program="llm_bench", arm=name, replicate=1, config=config, **numbers)


def _demo_spec(name: str, argv: list[str]) -> LaunchSpec:
    config = json.loads((RUNS / name / "config.json").read_text())
    return LaunchSpec(
        program="llm_demo", arm=name, replicate=1, config=_config(RUNS / name / "config.json"),
        prompt_file=Path(argv[2]), gen_tokens=int(argv[3]), threads=config["thread_num"],
    )  # fmt: skip


def _config(path: Path) -> dict[str, bool | int | float | str]:
    return {
        key: value for key, value in json.loads(path.read_text()).items() if key.startswith("kv_")
    }
