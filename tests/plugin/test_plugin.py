"""The plugin from outside: options, errors before any launch, and no cost where no gate is
collected.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import file_block

from pytest_h2o.plan.suites import SUITES

ROOT = Path(__file__).parents[2]
GATES = ROOT / "gates"


def run_gates(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """The project's gates in a process of their own, started in an empty directory."""
    return pytester.runpytest_subprocess(
        str(GATES), "--rootdir", str(ROOT), "-p", "no:cacheprovider", *arguments
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--h2o-set", "LOSSY_TARGT=3"], "*unknown knob LOSSY_TARGT; did you mean LOSSY_TARGET?*"),
        (["--h2o-set", "REPEAT=none"], "*REPEAT='none': expected an integer at least 1*"),
        (["--h2o-replay", "nowhere"], "*--h2o-replay nowhere: not a directory*"),
        (
            ["--llm-bench", "missing/llm_bench", "--model-config", "config.json"],
            "*missing/llm_bench*",
        ),
        (["--model-config", "config.json"], "*config.json*"),
        (
            ["-m", "sweep", "--h2o-preset", "target_ratio", "--h2o-set", "REPEAT=1"],
            "*REPEAT on the command line: decided by the preset target_ratio*",
        ),
        (["-m", "sweep"], "*-m sweep needs --h2o-preset NAME; there are target_core_gate_v5, *"),
        (["--h2o-preset", "nothing"], "*nothing.json: no such preset*"),
        (["-m", "finall"], "*-m finall: no such suite; did you mean final?*"),
        (["--h2o-set", "DUMP_DIR=nowhere"], "DUMP_DIR=nowhere: not a directory; *"),
        (["--h2o-set", "PROMPT_MANIFEST=nothing"], "PROMPT_MANIFEST=nothing: not a file; *"),
        (
            ["-m", "all_in_one"],
            "the decode gate of runtime_fixed needs DECODE_BASELINE=*; RUN_RUNTIME_FIXED=0 *",
        ),
        (
            ["-m", "all_in_one", "-n", "1"],
            "the decode gate of runtime_fixed needs DECODE_BASELINE=*",
        ),
    ],
)
def test_wrong_settings_are_usage_errors(
    pytester: pytest.Pytester, arguments: list[str], message: str
) -> None:
    """A wrong setting ends the session before anything is launched, names itself, and leaves no run
    directory.
    """
    pytester.path.joinpath("config.json").write_text("{}")
    result = run_gates(pytester, "-m", "final", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not pytester.path.joinpath("h2o-runs").exists()


def test_nearly_a_knob_in_the_environment(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that was meant as a knob is warned of, once in a session with workers."""
    monkeypatch.setenv("LOSSY_TARGT", "4")
    result = run_gates(
        pytester, "-m", "final", "--h2o-replay", str(ROOT / "tests/data/runs/bench_full"), "-n", "1"
    )
    assert str(result.stdout).count("LOSSY_TARGT is no knob; did you mean LOSSY_TARGET?") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("LLM_BENCH = build/llm_bench", "LLM_BENCH is written llm_bench in an ini file"),
        ("H2O_SET = LOSSY_TARGET=4", "H2O_SET is written h2o_set in an ini file"),
        (
            "LOSSY_TARGET = 4",
            "LOSSY_TARGET is a knob; give it as a line of h2o_set: LOSSY_TARGET=VALUE",
        ),
    ],
)
def test_names_of_the_ini_file(pytester: pytest.Pytester, line: str, message: str) -> None:
    """A name that pytest would pass over with a warning does not leave the session to another
    runtime or target.
    """
    pytester.makeini(f"[pytest]\n{line}\n")
    result = run_gates(pytester, "-c", "tox.ini", "-m", "final")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: */tox.ini: {message}"])


def test_config_that_is_not_json(pytester: pytest.Pytester) -> None:
    """A model config that is not JSON is named with the place of the fault."""
    program = pytester.path / "llm_bench"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    pytester.path.joinpath("config.json").write_text('{"llm_model": ')
    result = run_gates(pytester, "--llm-bench", str(program), "--model-config", "config.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *config.json*JSON*"])


@pytest.mark.parametrize(
    ("arguments", "selected", "deselected"),
    [
        (
            ["-k", "lossy"],
            {"test_lossy[[]full_strict]", "test_lossy[[]joint_store-1]"},
            {"test_fallback[[]full_strict]"},
        ),
        (
            ["-k", "decode and store"],
            {"test_decode_drop[[]store_tuned]"},
            {"test_decode_drop[[]full_strict]"},
        ),
        (["-m", "runtime"], {"test_lossy[[]full_coverage]"}, {"test_lossy[[]joint_full-1]"}),
        (
            ["-m", "m3"],
            {"test_lossy[[]joint_full-3]", "test_every_launch_usable[[]joint_full]"},
            {"test_lossy[[]full_strict]"},
        ),
        (["-m", "llm_demo"], {"test_bucket_decode[[]512]"}, {"test_lossy[[]full_strict]"}),
        (
            ["-m", "store_smoke"],
            {"test_lossy[[]store_smoke]"},
            {"test_decode_drop[[]store_smoke]", "test_lossy[[]store_tuned]"},
        ),
        (
            ["-m", "full_eval"],
            {"test_full_eval.py::test_online_sim_lossless", "test_decode_drop[[]full_eval]"},
            {"test_offline.py::test_online_sim_lossless"},
        ),
        (
            ["-m", "sweep", "--h2o-preset", "target_core_gate_v6"],
            {"test_lossy[[]run_0004_p1024_g128_k0.3_b32_lr3.2]"},
            {"test_lossy[[]full_strict]"},
        ),
        (
            ["-m", "final"],
            {
                "test_lossy[[]full_strict]",
                "test_lossy[[]joint_full-1]",
                "test_prompts",
                "test_offline_complete",
            },
            {
                "test_lossy[[]store_smoke]",
                "test_lossy[[]runtime_fixed]",
                "test_full_eval.py::test_offline_complete",
            },
        ),
        (
            ["-m", "final", "--h2o-kit", "v5"],
            {"test_lossy[[]full_coverage]", "test_lossy[[]joint_store-1]", "test_offline_complete"},
            {"test_prompts", "test_bucket_decode[[]512]"},
        ),
        (
            ["-m", "all_in_one", "--h2o-set", "RUN_RUNTIME_FIXED=0", "--h2o-set", "RUN_FINAL=0"],
            {"test_decode_drop[[]runtime_rolling]", "test_lossy[[]joint_full-1]", "test_prompts"},
            {"test_decode_drop[[]runtime_fixed]", "test_lossy[[]full_strict]"},
        ),
    ],
)
def test_selection(
    pytester: pytest.Pytester, arguments: list[str], selected: set[str], deselected: set[str]
) -> None:
    """Markers and -k select gates by requirement, case and suite, as one expects."""
    result = run_gates(pytester, "--collect-only", "-q", *arguments)
    assert result.ret == pytest.ExitCode.OK
    for name in selected:
        result.stdout.fnmatch_lines([f"*{name}"])
    for name in deselected:
        result.stdout.no_fnmatch_line(f"*{name}")


def test_nothing_is_imported_where_no_gate_is(pytester: pytest.Pytester) -> None:
    """In a project without gates only the thin plugin module is loaded, and no file is written."""
    pytester.makepyfile(
        """
        import json, sys
        def test_modules():
            with open("modules.json", "w") as file:
                heavy = "pytest_h2o", "numpy", "pandas", "pydantic", "zstandard", "filelock"
                json.dump([name for name in sys.modules if name.split(".")[0] in heavy], file)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert sorted(json.loads(pytester.path.joinpath("modules.json").read_text())) == [
        "pytest_h2o",
        "pytest_h2o.fixtures",
        "pytest_h2o.plan",
        "pytest_h2o.plan.needs",
        "pytest_h2o.plan.suites",
        "pytest_h2o.plugin",
        "pytest_h2o.pytest_private",
    ]
    assert not pytester.path.joinpath("h2o-runs").exists()


def test_somebody_else_may_call_something_gate(pytester: pytest.Pytester) -> None:
    """A parameter or a fixture of that name makes no gate of a test, in workers either; nothing is
    written.
    """
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture
        def gate(): return 1
        def test_fixture(gate): assert gate == 1
        """,
        test_other="""
        import pytest
        @pytest.mark.parametrize("gate", [2])
        def test_parameter(gate): assert gate == 2
        """,
    )
    for workers in ("0", "1"):
        pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", workers).assert_outcomes(
            passed=2
        )
    assert not pytester.path.joinpath("h2o-runs").exists()


def test_gates_of_a_project_in_workers(pytester: pytest.Pytester) -> None:
    """The controller learns of them from its workers, which may have other directories for
    temporary files: no conftest.py announces them, and they are judged, shown and recorded as in
    one process.
    """
    pytester.makepyfile("def test_mine(gate): gate.holds('mine', [])")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["pass  mine *", "Accepted", "report *report.html", "rerun pytest *"]
    )
    [written] = pytester.path.glob("h2o-runs/2*/summary.json")
    assert [gate["gate"] for gate in json.loads(written.read_text())["gates"]] == ["mine"]
    workers = f"2*popen//env:TMPDIR={pytester.mkdir('elsewhere')}"
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "--tx", workers, "--dist", "load", "--h2o-set", "OUT=given"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["pass  mine *", "Accepted"])
    assert pytester.path.joinpath("given", "summary.json").is_file()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("LOSSY_TARGT=3", "*unknown knob LOSSY_TARGT*"),
        ("RUN_RUNTIME_FIXED=1", "*decode gate of runtime_fixed needs DECODE_BASELINE=*"),
    ],
)
def test_wrong_settings_in_workers_are_usage_errors(
    pytester: pytest.Pytester, setting: str, message: str
) -> None:
    """A setting that no gate can be judged with ends the session before a test runs, whatever the
    gates are called that need it.
    """
    pytester.makepyfile(OWN.format(mark="runtime"))
    arguments = ("-p", "no:cacheprovider", "-n", "1", "-k", "own_decode", "--h2o-set", setting)
    result = pytester.runpytest_subprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not pytester.path.joinpath("h2o-runs").exists()


def write_own_gate(pytester: pytest.Pytester) -> None:
    """Write the files that extending.md shows for a gate of one's own."""
    for name in ("test_ours.py", "conftest.py"):
        pytester.path.joinpath(name).write_text(file_block(name))


def test_gate_of_the_page(pytester: pytest.Pytester) -> None:
    """The example of extending.md judges a recorded session."""
    write_own_gate(pytester)
    settings = [
        word for knob in ("PROMPTS=512", "GENS=48", "REPEAT=1") for word in ("--h2o-set", knob)
    ]
    recorded = ROOT / "tests" / "data" / "session"
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", *settings, "--h2o-replay", str(recorded)
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["pass  half_goes *> 2 *"])


def test_gate_of_the_page_is_planned(pytester: pytest.Pytester) -> None:
    """Its launches, and those that a fixture of one's own declares, count before the first is
    made.
    """
    write_own_gate(pytester)
    arguments = ("-p", "no:cacheprovider", "--collect-only", "--h2o-set", "PROMPTS=16,32")
    result = pytester.runpytest_subprocess(*arguments)
    result.stdout.fnmatch_lines(["h2o: at least 2 launches planned"])
    pytester.makepyfile(test_stored="def test_stored(stored, gate): gate.holds('stored', [])")
    result = pytester.runpytest_subprocess(*arguments)
    result.stdout.fnmatch_lines(["h2o: at least 4 launches planned"])


OWN = """
    import pytest
    pytestmark = pytest.mark.{mark}

    @pytest.fixture
    def speeds(decode_study): return decode_study

    def test_own_lossy(run, gate): gate.positive(run.best("h2o_lossy"))
    def test_own_decode(speeds, gate): gate.passes_study(speeds, "DECODE_DROP_TARGET")
    def test_own_bucket(bucket_study, gate):
        gate.passes_study(bucket_study, "LLM_DEMO_DECODE_DROP_TARGET")
    def test_own_joint(joint_runs, gate): gate.holds("own", [])
"""


def own_ids(result: pytest.RunResult, gate: str) -> list[str]:
    """The parameters of one gate among what was collected."""
    lines = [line.partition(f"::test_{gate}[")[2] for line in result.outlines]
    # What stands for a suite that has no case here, in newer and in older versions of pytest.
    empty = ("", "NOTSET]", "quant_case0]")
    return [line.removesuffix("]") for line in lines if line not in empty]


def test_own_gates_are_as_ours(pytester: pytest.Pytester) -> None:
    """Without a conftest.py they have the ids, the launches and the suites of the gates that
    ship.
    """
    pytester.makepyfile(OWN.format(mark="slow"))
    pytester.makeini("[pytest]\nmarkers = slow: takes time\n")
    arguments = ("-p", "no:cacheprovider", "--collect-only")
    no_fixed = ("--h2o-set", "RUN_RUNTIME_FIXED=0")
    own = pytester.runpytest_subprocess("-q", *arguments, *no_fixed)
    every = (
        "-m",
        " or ".join(SUITES.keys() - {"sweep"}),
    )  # without it the gates that ship are those of final
    ours = run_gates(pytester, "--collect-only", "-q", *no_fixed, *every)
    twins = {"own_lossy": "lossy", "own_decode": "decode_drop", "own_bucket": "bucket_decode"}
    for mine, theirs in {**twins, "own_joint": "every_launch_usable"}.items():
        assert own_ids(own, mine) == own_ids(ours, theirs) != []
    paired = ("--h2o-set", "DECODE_BASELINE_MODE=paired", "-k", "full_strict or store_tuned")
    planned = []
    for result in (
        pytester.runpytest_subprocess(*arguments, *paired),
        run_gates(pytester, "--collect-only", *paired, *every),
    ):
        planned += [line for line in result.outlines if "launches planned" in line]
    assert len(planned) == 2
    assert planned[0] == planned[1]


def test_own_gates_are_in_the_suites(pytester: pytest.Pytester) -> None:
    """A gate marked as part of the runtime suite is part of the acceptance, from wherever it
    lies.
    """
    pytester.makepyfile(OWN.format(mark="runtime"))
    result = pytester.runpytest_subprocess("--collect-only", "-q", "-m", "final")
    assert "full_strict" in own_ids(result, "own_lossy")


def test_wrong_settings_of_own_gates_are_usage_errors(pytester: pytest.Pytester) -> None:
    """Without a conftest.py too, a wrong setting ends the session and is no failure of a test."""
    pytester.makepyfile(OWN.format(mark="runtime"))
    result = pytester.runpytest_subprocess("--h2o-set", "LOSSY_TARGT=3")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *unknown knob LOSSY_TARGT*"])


def test_somebody_else_may_have_fixtures_of_these_names(pytester: pytest.Pytester) -> None:
    """Fixtures and parameters called run, demo or bucket are theirs, and nothing is planned."""
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture
        def run(): return 1
        @pytest.fixture
        def demo(): return 2
        @pytest.mark.parametrize("bucket", [3])
        def test_theirs(run, demo, bucket): assert (run, demo, bucket) == (1, 2, 3)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*h2o: *")


def test_knobs_command() -> None:
    """`pytest-h2o knobs` lists every knob with its default."""
    command = [sys.executable, "-m", "pytest_h2o.cli", "knobs"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "LOSSY_TARGET" in listed
    assert "MAX_LOSSLESS_QUEUE_PEAK" in listed
