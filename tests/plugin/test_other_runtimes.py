"""A runtime that another package registers: its own program, command line and output format, really
launched and judged by the gates.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import file_block
from stand_in import ROOT

MODULE = file_block("acme_runtime.py")
# Speeds differ from launch to launch, as measured ones do, by what they are asked for alone.
TOOL = """import json, pathlib, random, sys, time, zlib
asked = dict(word.split("=", 1) for word in sys.argv[1:])
squeeze = json.loads(pathlib.Path("config.json").read_text())["squeeze"]
with (pathlib.Path(__file__).parent / "launched.txt").open("a") as file:
    file.write(json.dumps(asked | {"squeeze": squeeze}) + chr(10))
noise = random.Random(zlib.crc32(asked["into"].encode())).uniform(-0.002, 0.002)
speed = (1_000_000 if squeeze else 1_000_000 * BASELINE) * (1 + noise)
numbers = {"decode_tps": (speed, speed / 1000), "prefill_tps": (9 * speed, speed / 1000)}
if squeeze:
    numbers |= {"h2o_lossy": (LOSSY, 0.01), "h2o_lossless_fallback": (0, 0)}
print("acme is done")
pathlib.Path(asked["into"]).write_text(json.dumps(
    {"read": int(asked["length"]), "wrote": int(asked["decode"]), "numbers": numbers}))
"""
SELECT = ["-k", "full_strict and (lossy or fallback or decode_drop or launches)"]


@pytest.fixture(autouse=True)
def lock(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine lock of its own: nothing is measured here."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(pytester.path))


@pytest.fixture
def site(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that registers the runtime: a module, a tool and an entry point."""
    folder = pytester.mkdir("site")
    register(folder, "acme", "acme_runtime:AcmeRuntime")
    (folder / "acme_runtime.py").write_text(MODULE)
    tool(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def register(folder: Path, name: str, value: str) -> None:
    """The metadata of a package with one entry point."""
    info = folder / f"{name}_h2o-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-h2o\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest_h2o.runtimes]\n{name} = {value}\n")


def tool(folder: Path, *, baseline: float = 1.0, lossy: float = 3.2) -> None:
    """The stand-in for a program, as fast with compression off as ``baseline`` says."""
    text = TOOL.replace("BASELINE", str(baseline)).replace("LOSSY", str(lossy))
    (folder / "acme_tool.py").write_text(text)


def gates(pytester: pytest.Pytester, *arguments: str, runtime: str = "acme") -> pytest.RunResult:
    """Gates of one case on the runtime, held against a baseline of the same session."""
    return pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", *SELECT,
        "--h2o-runtime", runtime, "--h2o-set", "DECODE_BASELINE_MODE=same_batch",
        "--h2o-set", "OUT=out", *arguments,
    )  # fmt: skip


def launched(site: Path) -> list[dict[str, object]]:
    """What the tool was asked for, launch by launch."""
    return [json.loads(line) for line in (site / "launched.txt").read_text().splitlines()]


def judged(pytester: pytest.Pytester) -> dict[str, dict[str, str]]:
    """Each gate's verdict in the summary of the session."""
    summary = json.loads((pytester.path / "out" / "summary.json").read_text())
    return {each["gate"]: each for each in summary["gates"]}


def outcomes(pytester: pytest.Pytester) -> dict[str, str]:
    """The outcome of each gate in the summary of the session."""
    return {gate: found["outcome"] for gate, found in judged(pytester).items()}


def test_gates_judge_what_another_runtime_launched(pytester: pytest.Pytester, site: Path) -> None:
    """Its command line is used, its output is read, its defaults hold, and its launches are
    compared.
    """
    result = gates(pytester)
    assert result.ret == 0, result.outlines
    result.stdout.fnmatch_lines(["h2o: acme: acme_runtime"])
    lengths = {each["length"] for each in launched(site)}
    sides = [(each["length"], each["squeeze"]) for each in launched(site)]
    assert sorted(sides) == sorted((length, on) for length in lengths for on in (False, True))
    assert {each["times"] for each in launched(site)} == {"2"}


@pytest.mark.parametrize(
    ("changed", "gate"), [({"baseline": 1.5}, "decode_drop"), ({"lossy": 1.1}, "lossy")]
)
def test_gates_fail_on_another_runtime(
    pytester: pytest.Pytester, site: Path, changed: dict[str, float], gate: str
) -> None:
    """A slower candidate fails its decode gate, one that evicts little its output gate, alone."""
    tool(site, **changed)
    assert gates(pytester).ret == 1
    failed = [name for name, outcome in outcomes(pytester).items() if outcome == "fail"]
    assert failed == [gate]


def test_gates_say_what_a_runtime_does_not_report(pytester: pytest.Pytester, site: Path) -> None:
    """What a gate needs and the runtime cannot tell is said in one sentence, the cause of all."""
    module = site / "acme_runtime.py"
    module.write_text(module.read_text().replace('"h2o_columns"', ""))
    source = site / "acme_tool.py"
    source.write_text(source.read_text().replace("if squeeze:", "if False:"))
    chosen = "full_strict and (lossy or metric_columns) or quality or offline_complete"
    result = gates(pytester, "-k", chosen, "--h2o-set", "REQUIRE_QUALITY=1")
    assert result.ret == 1
    said = {gate: (found["reason"], found["cause"]) for gate, found in judged(pytester).items()}
    lossy = "the runtime acme does not report what H2O did (h2o_columns), which this gate needs"
    assert said["lossy"] == (lossy, lossy)
    assert said["metric_columns"][1] == lossy
    assert lossy in said["metric_columns"][0]
    assert "held-out text is predicted (quality), which" in said["quality_under_eviction"][0]
    assert "KV of a prompt in files (kv_dump), which" in said["offline_complete"][0]


def test_a_launch_of_another_runtime_that_leaves_nothing(
    pytester: pytest.Pytester, site: Path
) -> None:
    """Its gates fail with what was expected and what it printed."""
    (site / "acme_tool.py").write_text("print('error: no licence')\n")
    result = gates(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*acme_speed wrote no acme.json*error: no licence*"])


def test_output_that_another_program_cannot_read(pytester: pytest.Pytester, site: Path) -> None:
    """An exception in somebody else's reader is a reason, not the end of the session."""
    (site / "acme_tool.py").write_text("open('acme.json', 'w').write('{}')\n")
    result = gates(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*acme_speed cannot read what it left: KeyError*"])
    assert set(outcomes(pytester).values()) == {"fail"}


def test_replay_of_another_runtime(pytester: pytest.Pytester, site: Path) -> None:
    """Its launches are judged again without launching anything, and without its option."""
    gates(pytester)
    before = len(launched(site))
    again = pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", *SELECT,
        "--h2o-replay", "out", "--h2o-set", "DECODE_BASELINE_MODE=same_batch",
        "--h2o-set", "OUT=again",
    )  # fmt: skip
    assert again.ret == 0, again.outlines
    assert len(launched(site)) == before


def test_replay_of_a_runtime_that_is_not_installed(
    pytester: pytest.Pytester, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can read what it left, and the gates fail saying so."""
    gates(pytester)
    monkeypatch.delenv("PYTHONPATH")
    result = pytester.runpytest_subprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", *SELECT,
        "--h2o-replay", "out", "--h2o-set", "OUT=again",
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*there is no program acme_speed: install the runtime*"])


def test_gates_on_real_prompts_need_a_program_for_them(
    pytester: pytest.Pytester, site: Path
) -> None:
    """What a runtime does not offer fails its gates by name."""
    result = gates(pytester, "-k", "llm_demo and launches")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*a program for prompts is needed*acme offers acme_speed*"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nowhere", None, "there is no runtime nowhere; there are embedded, mnn, pymnn, acme*"),
        ("broken", "no_such_module:Runtime", "runtime broken: no_such_module:Runtime cannot be*"),
        ("odd", "json:dumps", "runtime odd: json:dumps is no class derived from*"),
        ("twin", "acme_runtime:AcmeRuntime", "runtime twin: * calls itself acme*"),
    ],
)
def test_runtimes_that_cannot_be_used(
    pytester: pytest.Pytester, site: Path, name: str, value: str | None, message: str
) -> None:
    """A wrong name or registration is a usage error that says what is wrong."""
    if value:
        register(site, name, value)
    result = gates(pytester, runtime=name)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_a_program_that_takes_the_name_of_another(pytester: pytest.Pytester, site: Path) -> None:
    """A name stands for one program: a replay would read one's output as the other's."""
    module = site / "acme_runtime.py"
    module.write_text(module.read_text().replace("acme_speed", "llm_bench"))
    result = gates(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: runtime acme: its program llm_bench is another than*"])


def test_ours_are_registered_in_the_same_way() -> None:
    """The entry points of this package name the classes that are built in."""
    code = (
        "from pytest_h2o.runtimes.registry import BUILT_IN, _registered\n"
        "assert {n: e.load() for n, e in _registered().items()} == BUILT_IN"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
