"""A stand-in for ``llm_bench`` and ``llm_demo``: prints what the embedded runtime printed once, at
speeds of its own.

Standard library only, so that it starts in a few hundredths of a second. All times are a hundredth
of real ones, which keeps what is reported within the wall time of the process. A :class:`Launch` is
also what a defect changes, in the running program or in a launch directory that is replayed.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path

FASTER = 100
PREFILL_TPS = 3000 * FASTER
DECODE_TPS = {"baseline": 200 * FASTER}
CANDIDATE_TPS = 240 * FASTER
NOISE = 0.004


class Launch:
    """What one launch prints: ``cells`` of the table row, ``metrics`` of the record, ``stdout``."""

    def __init__(
        self, directory: Path, config: dict, program: str, label: str, repeat: int
    ) -> None:
        self.directory, self.config, self.program, self.label = directory, config, program, label
        self.repeat, self.threads = repeat, 2
        self.cells: dict[str, str] = {}
        self.metrics: dict[str, object] = {}
        self.stdout = ""
        self.record: dict[str, object] = {}
        self.returncode = 0
        self.after, self.cut = "", 0

    @property
    def name(self) -> str:
        """The launch's name, as its directory has it."""
        return self.directory.name

    @property
    def arm(self) -> str:
        """Which recording fits the configuration."""
        if not self.config.get("kv_h2o_enable"):
            return "baseline"
        if self.program == "llm_demo":
            return "candidate"
        if self.config["kv_lossless_runtime_mode"] == "store":
            return "store"
        return "full" if self.config["kv_lossless_kept_sample_layers"] else "coverage"

    @property
    def is_baseline(self) -> bool:
        """Whether H2O is off."""
        return self.arm == "baseline"

    @property
    def prompt_tokens(self) -> int:
        """Prompt length."""
        return int(self.metrics.get("prompt_tokens") or re.match(r"p(\d+)_", self.label)[1])

    @property
    def decode_tokens(self) -> int:
        """Tokens decoded."""
        return int(
            self.metrics["decode_tokens"] if self.metrics else re.search(r"_g(\d+)", self.label)[1]
        )

    @property
    def decode_tps(self) -> float:
        """The decode speed that is reported."""
        if self.metrics:
            return self.decode_tokens * 1e6 / float(self.metrics["decode_us"])
        return float(re.search(r"<br>(\S+)", self.cells["speed(tok/s)"])[1])

    def imitate(self, template: Path) -> None:
        """Become the recorded launch, with speeds and spreads drawn for this launch's name."""
        self.stdout = (template / "stdout").read_bytes().decode(errors="surrogateescape")
        self.stdout = re.sub(
            r"(_us=)(\d+)", lambda found: f"{found[1]}{int(found[2]) // FASTER}", self.stdout
        )
        coin = random.Random(self.name)
        prefill = PREFILL_TPS * coin.uniform(1 - NOISE, 1 + NOISE)
        decode = (DECODE_TPS["baseline"] if self.is_baseline else CANDIDATE_TPS) * coin.uniform(
            1 - NOISE, 1 + NOISE
        )
        if self.program == "llm_demo":
            self.metrics = json.loads((template / "metrics.jsonl").read_text())
            for key in self.metrics:
                if key.endswith("_us"):
                    self.metrics[key] = round(self.metrics[key] / FASTER)
            self.metrics["prefill_us"] = round(self.prompt_tokens * 1e6 / prefill)
        else:
            lines = (template / "log.md").read_text().splitlines()
            header, _, row = (
                [cell.strip() for cell in line.strip("| ").split(" |")] for line in lines
            )
            self.cells = dict(zip(header, row, strict=True))
            self.cells["threads"] = str(self.threads)
            for column, cell in self.cells.items():
                if "±" in cell and "<br>" not in cell:
                    mean, std = map(float, cell.split("±"))
                    scale = FASTER if column.endswith("_us") else 1
                    self.put(
                        column,
                        mean / scale,
                        std / scale if self.repeat > 1 else 0.0,
                        len(cell.split(".")[-1]),
                    )
            lines = self.stdout.splitlines(keepends=True)
            logged = [line for line in lines if line.startswith("[H2O")]
            # Three responses were recorded: a warm-up and two repeats.
            kept = logged[: len(logged) * (self.repeat + 1) // 3]
            self.stdout = "".join([lines[0], *kept])
            self._prefill, self._std = prefill, 0.01 if self.repeat > 1 else 0.0
        self.set_decode(decode)

    def put(self, column: str, mean: float, std: float = 0.0, decimals: int = 2) -> None:
        """Set one cell."""
        self.cells[column] = f"{mean:.{decimals}f} ± {std:.{decimals}f}"

    def set_decode(self, tps: float) -> None:
        """Report another decode speed, in every place that says it."""
        if self.program == "llm_demo":
            self.metrics["decode_us"] = round(self.decode_tokens * 1e6 / tps)
            self.summarise()
            return
        if not hasattr(self, "_prefill"):
            numbers = re.findall(r"[\d.]+", self.cells["speed(tok/s)"])
            self._prefill, self._std = float(numbers[0]), float(numbers[1]) / float(numbers[0])
        speeds = (f"{value:.2f} ± {value * self._std:.2f}" for value in (self._prefill, tps))
        self.cells["speed(tok/s)"] = "<br>".join(speeds)

    def summarise(self) -> None:
        """Make the summary on stdout say what the record says."""
        seconds = {
            kind: self.metrics[f"{kind}_us"] / 1e6 for kind in ("prefill", "decode", "sample")
        }
        lines = {
            "prompt tokens num = ": str(self.prompt_tokens),
            "decode tokens num = ": str(self.decode_tokens),
            "prefill speed = ": f"{self.prompt_tokens / seconds['prefill']:.2f} tok/s",
            "decode speed = ": f"{self.decode_tokens / seconds['decode']:.2f} tok/s",
            **{f"{kind} time = ": f"{value:.2f} s" for kind, value in seconds.items()},
        }
        for label, text in lines.items():
            self.stdout = re.sub(rf"(?m)^( *{label}).*$", rf"\g<1>{text}", self.stdout)

    def table(self) -> str:
        """The table with its one row."""
        rows = [list(self.cells), ["---"] * len(self.cells), list(self.cells.values())]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def save(self) -> None:
        """Write everything to the launch's directory."""
        if self.cells:
            text = self.table()
            (self.directory / "log.md").write_text(text[: len(text) - self.cut] + self.after)
        if self.metrics:
            (self.directory / "metrics.jsonl").write_text(json.dumps(self.metrics) + "\n")
        if self.record:
            (self.directory / "config.json").write_text(json.dumps(self.config))
            # Whoever changes a recorded launch is not to be caught by that alone.
            (self.directory / "launch.json").write_text(json.dumps({**self.record, "outputs": {}}))
            (self.directory / "stdout").write_bytes(self.stdout.encode(errors="surrogateescape"))


def stored(directory: Path) -> Launch:
    """The launch that is kept in ``directory``."""
    record = json.loads((directory / "launch.json").read_text())
    spec = record["spec"]
    label = (
        Path(spec["prompt_file"]).stem
        if spec["prompt_file"]
        else f"p{spec['prompt_tokens']}_g{spec['gen_tokens']}"
    )
    config = json.loads((directory / "config.json").read_text())
    launch = Launch(directory, config, spec["program"], label, spec["repeat"] or 1)
    launch.record = record
    launch.stdout = (directory / "stdout").read_bytes().decode(errors="surrogateescape")
    if spec["program"] == "llm_demo":
        launch.metrics = json.loads((directory / "metrics.jsonl").read_text())
    else:
        header, _, row = ([cell.strip() for cell in line.strip("| \n").split(" |")]
                          for line in (directory / "log.md").read_text().splitlines())  # fmt: skip
        launch.cells = dict(zip(header, row, strict=True))
    return launch


def started(words: list[str]) -> Launch:
    """The launch that a command line asks for."""
    if words[0].startswith("-"):
        flags = dict(zip(words[::2], words[1::2], strict=True))
        path, label, program = Path(flags["-m"]), f"p{flags['-p']}_g{flags['-n']}", "llm_bench"
        repeat = int(flags["-rep"])
    else:
        path, label, program, repeat = Path(words[0]), Path(words[1]).stem, "llm_demo", 1
    return Launch(path.absolute().parent, json.loads(path.read_text()), program, label, repeat)


def main(templates: Path, defect: str) -> None:
    """Print and write what an honest program would, changed by ``defect`` if it names one."""
    import defects  # noqa: PLC0415

    launch = started(sys.argv[1:])
    launch.imitate(templates / f"{launch.label}-{launch.arm}")
    if launch.program == "llm_demo":
        for mark, path in (("config path is ", sys.argv[1]), ("prompt file is ", sys.argv[2])):
            launch.stdout = re.sub(rf"(?m)^{mark}.*$", mark + path, launch.stdout)
    if defect:
        getattr(defects, defect)(launch)
    launch.save()
    sys.stdout.buffer.write(launch.stdout.encode(errors="surrogateescape"))
    sys.stdout.flush()
    if launch.returncode < 0:
        os.kill(os.getpid(), -launch.returncode)
    sys.exit(launch.returncode)
