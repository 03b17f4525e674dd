"""Directories of the original's ``llm_demo`` runner: real prompts, baseline and candidate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ValidationError

from pytest_h2o.kit.layouts import LaunchEntry, demo_record, settings_in
from pytest_h2o.lab.recordings import Recorded, RecordingError
from pytest_h2o.parsers.argv_options import plain_path
from pytest_h2o.parsers.text_files import decoded, lines_of
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes import LLM_DEMO

SIZE_LIMIT = 64 * 2**20
SIDES = ("baseline", "candidate")


# Of whatever system the launches were made on.
WrittenPath = Annotated[str, AfterValidator(plain_path)]


class RunLine(BaseModel):
    """What a line of ``<side>_runs.jsonl`` says of one launch, as far as it is read."""

    prompt_file: WrittenPath
    returncode: int | None = None
    stdout_log: WrittenPath = ""
    stderr_log: WrittenPath = ""
    metrics_jsonl: WrittenPath = ""


@dataclass(frozen=True)
class Sides:
    """The launches over real prompts with H2O off and on; ``trouble`` says what is missing."""

    baseline: tuple[Recorded, ...]
    candidate: tuple[Recorded, ...]
    trouble: str


def is_demo_pack(directory: Path) -> bool:
    """Whether both sides of the runner, or what it began with, lie there."""
    for side in SIDES:
        folder = directory / side
        if (folder / f"{side}_runs.jsonl").is_file() or any(folder.glob("logs/*.stdout.log")):
            return True
    return False


def demo_sides_in(directory: Path) -> Sides:
    """Baseline and candidate; a prompt that only one side has is a launch of the other that is
    missing.
    """
    found = {side: list(_side(directory, side)) for side in SIDES}
    baseline, candidate = found.values()
    missing = [side for side, launches in found.items() if not launches]
    ran = [each.record.label for each in candidate]
    for each in baseline:
        if each.record.label in ran:
            ran.remove(each.record.label)
        else:
            candidate.append(_not_run(directory, each))
    trouble = f"{directory} has no launches of {' and '.join(missing)}" if missing else ""
    return Sides(tuple(baseline), tuple(candidate), trouble)


def _side(directory: Path, side: str) -> Iterator[Recorded]:
    folder = directory / side
    config = directory / "configs" / f"{side}_config.json"
    named: set[str] = set()
    for line in _lines(folder / f"{side}_runs.jsonl"):
        stem = Path(line.prompt_file).stem
        entry = LaunchEntry(returncode=line.returncode)
        run_id = f"{side}_{stem}"
        stdout = folder / "logs" / (Path(line.stdout_log).name or f"{run_id}.stdout.log")
        stderr = folder / "logs" / (Path(line.stderr_log).name or f"{run_id}.stderr.log")
        metrics = folder / "metrics" / (Path(line.metrics_jsonl).name or f"{run_id}.jsonl")
        named.add(stdout.name)
        spec = _spec(side, Path(line.prompt_file), config)
        yield demo_record(spec, folder, entry, (stdout, stderr, metrics, config))
    # The list of launches may have been cut short, or what one of them printed been lost.
    told = [path.name.removesuffix(".stdout.log") for path in folder.glob("logs/*.stdout.log")]
    told += [path.stem for path in folder.glob("metrics/*.jsonl")]
    for run_id in sorted(set(told)):
        stdout = folder / "logs" / f"{run_id}.stdout.log"
        if stdout.name not in named:
            stem = run_id.removeprefix(f"{side}_")
            spec = _spec(side, Path(f"{stem}.txt"), config)
            stderr = folder / "logs" / f"{run_id}.stderr.log"
            metrics = folder / "metrics" / f"{run_id}.jsonl"
            yield demo_record(spec, folder, LaunchEntry(), (stdout, stderr, metrics, config))


def _spec(side: str, prompt: Path, config: Path) -> LaunchSpec:
    return LaunchSpec(
        program=LLM_DEMO.name,
        arm=side,
        replicate=1,
        config=settings_in(config),
        gen_tokens=0,
        prompt_file=prompt,
    )


def _not_run(directory: Path, baseline: Recorded) -> Recorded:
    """The launch of the candidate that a prompt of the baseline has none of."""
    prompt = baseline.record.spec.prompt_file or Path()
    config = directory / "configs" / "candidate_config.json"
    folder = directory / "candidate"
    nothing = folder / "logs" / f"candidate_{prompt.stem}.stdout.log"
    files = (nothing, nothing, nothing, config)
    reason = f"{directory} has no launch of the candidate over {prompt.name}"
    return demo_record(_spec("candidate", prompt, config), folder, LaunchEntry(), files, reason)


def _lines(path: Path) -> Iterator[RunLine]:
    """The launches that a list names, without a last one that was cut off, which its files still
    tell of; raises :class:`RecordingError`.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        lines = list(lines_of(decoded(file.read(SIZE_LIMIT))))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield RunLine.model_validate(json.loads(line))
        except (ValueError, RecursionError, ValidationError) as error:
            if number == len(lines) > 1:
                return
            said = str(error).splitlines()[0]
            raise RecordingError(f"{path}, line {number}: {said}; mend it or take it out") from None
