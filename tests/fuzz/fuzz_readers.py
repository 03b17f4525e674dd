"""Coverage-guided fuzzing of everything that reads what programs print.

``pip install -e ".[fuzz]"``, then ``python tests/fuzz/fuzz_readers.py -seconds 3600``. Needs no
other argument: inputs that reach new code are kept in ``.fuzz`` in the working directory, starting
from ``tests/data/fuzz`` and the recorded runs. A crash, a hang, or a number that is not in the
input ends the run and leaves the input as ``.fuzz/crash-...``; a fixed one belongs in
``tests/data/fuzz``, which ``test_fuzz_readers.py`` replays.
"""

# ruff: noqa: PLC0415  what is imported after atheris.instrument_imports() is instrumented

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
SEPARATOR = b"\x1e"
MAX_BYTES = 8192


def check(data: bytes, directory: Path) -> None:
    """Read ``data`` with every reader: stdout, then after a separator byte the table, JSON or
    record file.
    """
    from pytest_h2o.parsers.demo_output import generated_text
    from pytest_h2o.parsers.loglines import read_log_facts, telling_lines

    stdout, other = directory / "stdout", directory / "other"
    parts = data.partition(SEPARATOR)
    stdout.write_bytes(parts[0])
    other.write_bytes(parts[2])
    for path in (stdout, other):
        check_tables(path)
    check_json(other)
    check_demo(stdout, other)
    facts = read_log_facts(stdout)
    assert facts.plans >= 0
    assert facts.stale_plans >= 0
    lines = telling_lines(stdout, other)
    assert len(lines) <= 8
    assert all(line.isprintable() for line in lines)
    assert len(generated_text(stdout)) <= len(parts[0]) + 1


def check_tables(path: Path) -> None:
    """Every number of a row stands in the line that the row names."""
    from pytest_h2o.parsers.bench_table import read_tables

    lines = path.read_bytes().split(b"\n")
    for table in read_tables(path, 3):
        assert printable(table.problems)
        for row in table.rows:
            raw = lines[row.line - 1].decode(errors="replace")
            numbers = [] if "\x1b" in raw else list(numbers_in(raw))
            for sample in row.samples.values():
                for value in (sample.mean, sample.std):
                    assert not numbers or value is None or math.isnan(value) or value in numbers, (
                        value,
                        raw,
                    )
            assert printable(row.problems)


def check_json(path: Path) -> None:
    """What is read as JSON is JSON for Python's reader too, with as many results."""
    from pytest_h2o.parsers.bench_json import read_bench_json
    from pytest_h2o.parsers.rows import ParseError

    with suppress(ParseError):
        rows = read_bench_json(path, 3)
        assert len(json.loads(path.read_bytes().decode(errors="replace"))["results"]) == len(rows)


def check_demo(stdout: Path, metrics: Path) -> None:
    """A row without a problem has the speed of the last record's tokens and microseconds."""
    from pytest_h2o.parsers.demo_output import read_demo

    row = read_demo(stdout, metrics, "prompt")
    assert printable(row.problems)
    text = metrics.read_bytes().decode(errors="replace")
    if not row.problems and "\x1b" not in text:
        record = json.loads(
            [line.strip("\0") for line in text.split("\n") if line.strip("\0").strip()][-1]
        )
        speed = float(record["decode_tokens"]) * 1e6 / float(record["decode_us"])
        assert math.isclose(row.samples["decode_tps"].mean, speed, rel_tol=1e-9)


def numbers_in(text: str) -> Iterable[float]:
    """Every number of a line, by cutting it at all that no number contains."""
    for word in re.split(r"[^-+.0-9A-Za-z]+", text):
        with suppress(ValueError):
            yield float(word)


def printable(texts: Iterable[str]) -> bool:
    """Whether nothing can disturb a terminal."""
    return all(text.isprintable() for text in texts)


def seeds() -> Iterable[bytes]:
    """The committed corpus, and the heads and tails of everything that real programs printed."""
    for path in (DATA / "fuzz").iterdir():
        yield path.read_bytes()
    for path in sorted((DATA / "runs").rglob("*")):
        if (
            path.suffix in ("", ".log", ".md", ".stdout", ".stderr", ".jsonl")
            or path.name == "out.json"
        ):
            content = path.read_bytes() if path.is_file() else b""
            separator = SEPARATOR if path.suffix in (".log", ".md", ".jsonl", ".json") else b""
            for part in {content[: MAX_BYTES // 2], content[-MAX_BYTES // 2 :]}:
                yield separator + part


def main() -> None:
    """Fuzz for some seconds."""
    import atheris

    parser = argparse.ArgumentParser()
    parser.add_argument("-seconds", type=int, default=60)
    parser.add_argument("-corpus", type=Path, default=Path(".fuzz"))
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=["pytest_h2o.parsers", "pytest_h2o.metrics"]):
        import pytest_h2o.parsers.bench_json
        import pytest_h2o.parsers.bench_table
        import pytest_h2o.parsers.demo_output
        import pytest_h2o.parsers.loglines  # noqa: F401
    arguments.corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds()):
        (arguments.corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        options = [
            f"-max_total_time={arguments.seconds}",
            f"-max_len={MAX_BYTES}",
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]
        words = [
            sys.argv[0],
            str(arguments.corpus),
            f"-artifact_prefix={arguments.corpus}/",
            "-print_final_stats=1",
        ]
        atheris.Setup([*words, *options], lambda data: check(data, Path(name)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
