"""The public names: that they are there, that the examples of their docstring hold, and what a run
directory looks like as frames.
"""

from __future__ import annotations

import ast
import doctest
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

import pytest_h2o
from pytest_h2o.metrics import METRICS
from pytest_h2o.parsers.bench_table import read_tables

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SETTINGS = ("PROMPTS=512", "GENS=48", "REPEAT=1", "THREADS=2")


@pytest.fixture(scope="module")
def latest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory ``h2o-runs/latest``: the recorded launches, judged."""
    root = tmp_path_factory.mktemp("public") / "h2o-runs" / "latest"
    settings = [word for setting in SETTINGS for word in ("--h2o-set", setting)]
    arguments = [
        str(ROOT / "gates"), "-p", "no:cacheprovider", "-m", "runtime", "-k", "full_strict",
        *settings, "--h2o-set", f"OUT={root}", "--h2o-replay", str(DATA / "session"),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "pytest", *arguments], capture_output=True, check=False)
    shutil.copytree(DATA / "session" / "launches", root / "launches")
    return root


def test_examples_of_the_docstring(latest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's docstring says what its examples print."""
    directory = latest.parents[1]
    with tarfile.open(DATA / "offline" / "embedded_dump.tar.gz") as dump:
        dump.extractall(directory / "kv_dump", filter="data")
    monkeypatch.chdir(directory)
    result = doctest.testmod(pytest_h2o, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.attempted >= 10
    assert result.failed == 0


def test_names_are_those_that_type_checkers_see() -> None:
    """What is listed, what type checkers import and what is imported on use are the same names."""
    tree = ast.parse(Path(pytest_h2o.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and node.body[0].lineno < 90]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(seen) == sorted(pytest_h2o.__all__)
    assert {name: f"pytest_h2o.{place}" for name, place in pytest_h2o._PLACES.items()} == seen
    for name in pytest_h2o.__all__:
        assert f"`{name}`" in (pytest_h2o.__doc__ or "")
        assert getattr(pytest_h2o, name) is not None
    assert set(pytest_h2o.__all__) <= set(dir(pytest_h2o))


def test_unknown_name() -> None:
    """Another name is an ordinary AttributeError, so that hasattr and copy work."""
    assert not hasattr(pytest_h2o, "Gaet")


def test_type_checkers_see_the_names(tmp_path: Path) -> None:
    """Mypy knows the names and their types, and finds one that is misspelt."""
    path = tmp_path / "ours.py"
    path.write_text(
        "from pytest_h2o import Gaet, Gate, read_run\n"
        "def test_mine(gate: Gate) -> None:\n"
        "    reveal_type(gate.knobs)\n"
        "    reveal_type(read_run('x').directory)\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={tmp_path}", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, *revealed, last = checked.stdout.splitlines()
    assert "has no attribute" in first
    assert "Gaet" in first
    assert [line.rpartition(" ")[2] for line in revealed] == [
        '"pytest_h2o.plan.knobs.Knobs"',
        '"pathlib.Path"',
    ]
    assert last.startswith("Found 1 error")


def test_import_is_cheap() -> None:
    """The package alone imports nothing of its own and nothing heavy."""
    code = "import sys, pytest_h2o; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(shown.stdout.split())
    assert {name for name in names if name.startswith("pytest_h2o.")} == set()
    assert not names & {"pandas", "numpy", "pydantic", "pytest"}


def test_frames_of_a_session(latest: Path) -> None:
    """Every launch, its row and every verdict is a line; numbers are those of the files."""
    run = pytest_h2o.read_run(latest)
    specs = [json.loads(path.read_text()) for path in latest.glob("launches/*/launch.json")]
    assert sorted(run.launches["seconds"]) == sorted(spec["seconds"] for spec in specs)
    assert set(run.metrics["launch"]) == set(run.launches["launch"])
    by_launch = run.metrics.set_index("launch")
    [table] = read_tables(latest / "launches/bench-p512_g48-full-r1/log.md", 1)
    for name, sample in table.rows[0].samples.items():
        line = by_launch.loc["bench-p512_g48x1-full-r1"]
        assert line[name] == sample.mean
        assert (pd.isna(line[f"{name}_std"]), line[f"{name}_n"]) == (sample.std is None, sample.n)
    summary = json.loads((latest / "summary.json").read_text())["gates"]
    columns = ["nodeid", "outcome", "metric", "reason"]
    assert run.gates[columns].to_dict("records") == [
        {name: gate[name].replace("\n", " ") for name in columns} for gate in summary
    ]
    assert [None if pd.isna(value) else value for value in run.gates["value"]] == [
        gate["value"] for gate in summary
    ]


def test_pairs_of_a_session(latest: Path) -> None:
    """Each candidate launch lies beside the baseline of its own replicate and work."""
    pairs = pytest_h2o.read_run(latest).pairs
    bench = pairs[pairs["label"] == "p512_g48"]
    assert bench.groupby("arm").size().to_dict() == {"coverage": 6, "full": 6, "store": 6}
    speeds = pytest_h2o.read_run(latest).metrics.set_index("launch")["decode_tps"]
    for _, pair in pairs.iterrows():
        assert pair["baseline"] == pair["candidate"].replace(pair["arm"], "baseline")
        before, after = speeds[pair["baseline"]], speeds[pair["candidate"]]
        assert (pair["baseline_tps"], pair["candidate_tps"]) == (before, after)
        assert pair["drop"] == pytest.approx(1 - after / before)


def test_metrics_csv_is_the_frame(latest: Path) -> None:
    """What a session writes is what the frame says, without deviations and repeats."""
    written = pd.read_csv(latest / "metrics.csv")
    frame = pytest_h2o.read_run(latest).metrics
    assert [name for name in frame if name in written] == list(written)
    means = [metric.name for metric in METRICS if metric.name in written]
    left_out = set(frame) - set(written) - {"prompt_tokens", "decode_tokens"}
    assert left_out == {name + suffix for name in means for suffix in ("_std", "_n")}
    for name in means:
        assert list(written[name].dropna()) == pytest.approx(list(frame[name].dropna()), rel=1e-5)


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "runs").iterdir()))
def test_archives(name: str) -> None:
    """Every recorded layout is read: a line per launch, an explanation of every column, a problem
    where a launch showed nothing.
    """
    run = pytest_h2o.read_run(DATA / "runs" / name)
    assert len(run.launches) > 0
    assert run.gates.empty
    assert run.pairs.empty
    measured = run.metrics.reindex(columns=["prefill_tps", "combined_tps"]).notna().any(axis=1)
    showed_nothing = set(run.launches["launch"]) - set(run.metrics["launch"][measured])
    assert set(run.launches["launch"][run.launches["problem"] != ""]) == showed_nothing
    assert run.columns["meaning"].str.len().min() > 0


def test_metrics_that_nobody_knows(tmp_path: Path) -> None:
    """A measurement of tomorrow is a column of the frame."""
    folder = tmp_path / "run"
    shutil.copytree(DATA / "field" / "backend_hexagon", folder)
    header, line, row = (folder / "log.md").read_text().splitlines()
    lines = [f"{header} heat |", f"{line} - |", f"{row} 41.50 ± 0.50 |"]
    (folder / "log.md").write_text("\n".join([*lines, ""]))
    run = pytest_h2o.read_run(folder)
    assert run.metrics["heat"].tolist() == [41.5]
    assert run.metrics["heat_std"].tolist() == [0.5]
    meanings = run.columns.set_index("column")["meaning"]
    assert meanings["heat"] == "as the program prints it"


def test_archives_beside_a_baseline() -> None:
    """The rows of two archives of the same work make pairs; a baseline with H2O on is none."""
    base = DATA / "runs" / "bench_baseline"
    run = pytest_h2o.read_run(DATA / "runs" / "bench_full", baseline=base)
    assert run.pairs["label"].tolist() == ["p512_g128", "p1024_g128"]
    expected = pytest_h2o.read_run(base).metrics["decode_tps"].tolist()
    assert run.pairs["baseline_tps"].tolist() == expected
    with pytest.raises(pytest_h2o.RecordingError, match="was run with H2O on"):
        pytest_h2o.read_run(base, baseline=DATA / "runs" / "bench_full")


def test_launches_that_cannot_be_read(tmp_path: Path) -> None:
    """A launch that did not end, or whose record is damaged, is named and not silently absent."""
    shutil.copytree(DATA / "session" / "launches", tmp_path / "launches")
    damaged, *_ = sorted((tmp_path / "launches").iterdir())
    (damaged / "launch.json").write_text("{")
    (tmp_path / "launches" / "unended").mkdir()
    run = pytest_h2o.read_run(tmp_path)
    assert [path.name for path in run.unread] == [damaged.name, "unended"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds none of launches/"),
        ({"boot.log": "kernel: ready"}, "none has a table"),
        ({"launches.json": "[1"}, "launches.json: "),
        ({"summary.json": "{}"}, "summary.json is no summary of a run"),
        ({"summary.json": "[" * 100_000}, "summary.json is no summary of a run"),
        ({"summary.json": '{"overall_pass": true, "gates": [{}]}'}, "no summary of a run"),
    ],
)
def test_what_is_no_run(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """The error names the directory, or the file in it that is at fault."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(pytest_h2o.RecordingError, match=message) as caught:
        pytest_h2o.read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_session_without_launches(tmp_path: Path, latest: Path) -> None:
    """A session that replayed another directory has verdicts alone; its frames are empty, not an
    error.
    """
    shutil.copy(latest / "summary.json", tmp_path)
    run = pytest_h2o.read_run(tmp_path)
    assert len(run.gates) > 0
    assert run.metrics.empty
    assert run.pairs.empty
    assert run.launches.empty


def test_hostile_names(tmp_path: Path) -> None:
    """Texts of a recording come as one line without control characters."""
    argv = ["./llm_bench", "-p", "8", "\x1b]0;owned\x07\n"]
    launches = [{"argv": argv, "returncode": 3, "run_id": "a\x1b[2J"}]
    (tmp_path / "launches.json").write_text(json.dumps(launches))
    run = pytest_h2o.read_run(tmp_path)
    for frame in (run.launches, run.metrics):
        for text in frame.to_numpy().ravel():
            assert str(text).isprintable()
