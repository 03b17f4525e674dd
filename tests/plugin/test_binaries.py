"""Somebody else's binaries: found by option, environment, profile, ini or build directory, checked,
and launched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sessions import running, start, wait_until
from stand_in import ROOT, install, launches

GATES = str(ROOT / "gates")
SELECT = ["-k", "full_strict and (fallback or queue_peak)", "--h2o-set", "PROMPTS=512"]
# Joins its words as ssh does, and hands them to a shell elsewhere, which gets neither signals nor
# the environment.
FAKE_SSH = """#!{python}
import os, subprocess, sys
open({log!r}, "a").write(repr(sys.argv[1:]) + chr(10))
line, environment = " ".join(sys.argv[2:]), {{"PATH": os.environ["PATH"]}}
print("*** welcome, errors are logged ***", file=sys.stderr, flush=True)
here = dict(shell=True, cwd="/", env=environment, start_new_session=True)
raise SystemExit(subprocess.run(line, **here).returncode)
"""
FAKE_SRUN = """#!{python}
import os, sys
open({log!r}, "a").write(repr(sys.argv[1:]) + chr(10))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def lock(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine lock of its own: nothing is measured here, so nobody's measurement is waited
    for.
    """
    monkeypatch.setenv("H2O_LOCK_DIR", str(pytester.path))


def run_gates(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Two gates of one case in a process of their own."""
    return pytester.runpytest_subprocess(
        GATES, "--rootdir", str(ROOT), "-p", "no:cacheprovider", *SELECT, *arguments
    )


def command(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    """The ``pytest-h2o`` command."""
    return pytester.run(sys.executable, "-m", "pytest_h2o.cli", *words)


def program(path: Path, text: str, log: Path) -> Path:
    """A launcher that notes its words."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.format(python=sys.executable, log=str(log)))
    path.chmod(0o755)
    return path


def profile(folder: Path, name: str, text: str = "") -> None:
    """A profile whose programs are in ``folder``."""
    path = folder / "h2o-profiles" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'llm_bench = "../llm_bench"\nllm_demo = "../llm_demo"\nmodel_config = '
        f'"../config.json"\n{text}'
    )


def test_profile(pytester: pytest.Pytester) -> None:
    """A profile found above the working directory names programs, knobs and environment, and the
    header says so.
    """
    install(pytester.path, "(here / 'env').write_text(os.environ['MARK'])")
    profile(
        pytester.path, "server", '[knobs]\nTHREADS = 3\nBACKEND = "opencl"\n[env]\nMARK = "a b"\n'
    )
    pytester.mkdir("below")
    result = pytester.runpytest_subprocess(
        GATES,
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        *SELECT,
        "--h2o-profile",
        "../h2o-profiles/server.toml",
    )
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: profile * cannot be read*"])
    result = run_gates(pytester, "--h2o-profile", "server")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["h2o: mnn: *llm_bench from profile server*with MARK set*"])
    [(_, _, _, arguments)] = launches(pytester.path)
    assert arguments[2:6] == ["-a", "opencl", "-t", "3"]
    assert pytester.path.joinpath("env").read_text() == "a b"


def test_options_and_environment_come_before_the_profile(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part of a profile can be replaced without editing it."""
    install(pytester.path)
    install(pytester.path / "other")
    profile(pytester.path, "server", "[knobs]\nTHREADS = 3\nREPEAT = 7\n")
    monkeypatch.setenv("LLM_BENCH", "other/llm_bench")
    monkeypatch.setenv("THREADS", "5")
    run_gates(pytester, "--h2o-profile", "server", "--h2o-set", "REPEAT=1")
    [(_, _, _, arguments)] = launches(pytester.path / "other")
    assert (arguments[5], arguments[15]) == ("5", "1")


def test_a_replay_has_the_defaults_of_the_runtime_that_was_recorded(
    pytester: pytest.Pytester,
) -> None:
    """Without a program the embedded runtime would be meant, whose defaults launch other lengths
    and repeats.
    """
    options = install(pytester.path)
    assert run_gates(pytester, *options).ret == 0
    result = run_gates(pytester, "--h2o-replay", "h2o-runs/latest")
    assert result.ret == 0
    assert len(launches(pytester.path)) == 1


def test_base_config_is_never_touched_and_replaced_keys_are_said(pytester: pytest.Pytester) -> None:
    """The launch reads a copy; the header names the keys of the base config that it gives other
    values.
    """
    options = install(pytester.path)
    config = pytester.path / "config.json"
    config.write_text(
        json.dumps({"kv_h2o_block_tokens": 7, "thread_num": 3, "kv_h2o_enable": True, "mine": [1]})
    )
    before = hashlib.sha256(config.read_bytes()).hexdigest(), config.stat().st_mtime_ns
    result = run_gates(pytester, *options)
    result.stdout.fnmatch_lines(
        [
            "h2o: at least 1 launch planned",
            "h2o: the launches replace these keys of the model config: kv_h2o_block_tokens",
        ]
    )
    assert (hashlib.sha256(config.read_bytes()).hexdigest(), config.stat().st_mtime_ns) == before
    [summary] = pytester.path.glob("h2o-runs/[0-9]*/summary.json")
    assert json.loads(summary.read_text())["overridden"] == {"kv_h2o_block_tokens": 7}
    [record] = pytester.path.glob("h2o-runs/[0-9]*/launches/*/launch.json")
    assert json.loads(record.read_text())["overridden"] == {"kv_h2o_block_tokens": 7}
    assert json.loads(record.with_name("config.json").read_text())["mine"] == [1]


def test_baselines_are_planned(pytester: pytest.Pytester) -> None:
    """A gate that compares answers needs as many launches with H2O off as with it on."""
    options = install(pytester.path)
    result = run_gates(
        pytester,
        *options,
        "-m",
        "llm_demo",
        "-k",
        "greedy or eviction_active",
        "--h2o-set",
        "MAX_PROMPTS=2",
    )
    result.stdout.fnmatch_lines(["h2o: at least 4 launches planned", "[[]4 of about 4] *"])
    assert len(launches(pytester.path)) == 4


@pytest.mark.parametrize(
    ("name", "words"), [("srun", "srun -N1"), ("ssh", "ssh -tt"), ("wrap", "wrap -c {command}")]
)
def test_launcher(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    """Launches go through the launcher; odd characters survive its shell, variables and working
    directory arrive.
    """
    folder = pytester.path / "it's $HOME; größe"
    options = install(folder, "(here / 'env').write_text(os.environ['MARK'])")
    log = pytester.path / "launcher.log"
    program(pytester.path / "bin" / name, FAKE_SRUN if name == "srun" else FAKE_SSH, log)
    monkeypatch.setenv("PATH", str(pytester.path / "bin"), prepend=":")
    monkeypatch.chdir(folder)
    result = run_gates(
        pytester, *options, "--h2o-launcher", words, "--h2o-set", "H2O_LAUNCH_ENV='MARK=a $b \"c'"
    )
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])
    assert len(log.read_text().splitlines()) == len(launches(folder)) == 1
    assert folder.joinpath("env").read_text() == 'a $b "c'
    assert Path(launches(folder)[0][2]).name == "bench-p512_g128x3-full-r1"
    result.stdout.fnmatch_lines([f"h2o: mnn: *launched by {words.partition(' ')[0]} *"])


# Neither heeds TERM, and what would find them on this machine is not in their environment.
ELSEWHERE = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
with (here / "pids").open("a") as file:
    file.write(f"{os.getpid()} ")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["deadline", "killed session"])
def test_nothing_goes_on_elsewhere(tmp_path: Path, number: signal.Signals | None) -> None:
    """A launch on another machine ends at its deadline, and when the session dies, with its
    children.
    """
    install(tmp_path, ELSEWHERE)
    program(tmp_path / "bin" / "ssh", FAKE_SSH, tmp_path / "launcher.log")
    session = start(
        tmp_path, *SELECT, "--h2o-launcher", f"{tmp_path}/bin/ssh host",
        "--h2o-set", f"LAUNCH_TIMEOUT_S={600 if number else 1}",
    )  # fmt: skip
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    if number:
        session.send_signal(number)
    output = session.communicate(timeout=60)[0]
    wait_until(lambda: not any(running(pid) for pid in pids.read_text().split()))
    assert number or "did not end within 1 s and was stopped" in output


def test_cpus(pytester: pytest.Pytester) -> None:
    """Launches are bound to the CPUs that were given."""
    options = install(
        pytester.path, "(here / 'cpus').write_text(str(sorted(os.sched_getaffinity(0))))"
    )
    run_gates(pytester, *options, "--h2o-set", "H2O_CPUS=0")
    assert pytester.path.joinpath("cpus").read_text() == "[0]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--h2o-launcher", "no-such-launcher -x"],
            "no-such-launcher is not a program on the PATH*",
        ),
        (["--h2o-launcher", "srun 'x"], "H2O_LAUNCHER=*quotation*"),
        (
            ["--h2o-set", "H2O_CPUS=first"],
            "H2O_CPUS='first': expected a list of CPUs such as 0-3,8",
        ),
        (["--h2o-set", "H2O_LAUNCH_ENV=X"], "H2O_LAUNCH_ENV: 'X' is not NAME=VALUE*"),
        (
            ["--h2o-profile", "serve"],
            "no h2o-profiles/serve.toml in *; there is bad, knob, server*",
        ),
        (
            ["--h2o-profile", "h2o-profiles/bad.toml"],
            "profile *bad.toml: llm_bensch: unknown key; did you mean llm_bench*",
        ),
        (
            ["--h2o-profile", "h2o-profiles/knob.toml"],
            "profile *knob.toml: knobs.THREDS: unknown key; did you mean THREADS*",
        ),
    ],
)
def test_wrong_setup_is_a_usage_error(
    pytester: pytest.Pytester, arguments: list[str], message: str
) -> None:
    """Nothing is launched, and the message names what to correct."""
    options = install(pytester.path)
    profile(pytester.path, "server")
    profile(pytester.path, "knob", "[knobs]\nTHREDS = 1\n")
    profile(pytester.path, "bad", 'llm_bensch = "x"\n')
    result = run_gates(pytester, *options, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not pytester.path.joinpath("h2o-runs").exists()


# A build with the KV dump switch dumps unless it is told not to.
DUMPS = """
folder = os.environ.get("MNN_KV_DUMP_DIR", "dumps")
if folder != "0":
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, "meta_prefill_l0.json"), "w").close()
"""


def test_doctor_on_a_build_without_dumps(pytester: pytest.Pytester) -> None:
    """The offline gates would fail, so not every gate can be evaluated."""
    install(pytester.path)
    profile(pytester.path, "server", "[knobs]\nTHREADS = 3\n")
    result = command(pytester, "doctor", "--h2o-profile", "server")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["FAIL  KV dump     llm_demo wrote none: *a build with the KV dump switch, or DUMP_DIR"]
    )


def test_doctor_on_a_good_setup(pytester: pytest.Pytester) -> None:
    """Each program is launched once, and what would be used is said with its source."""
    install(pytester.path, DUMPS)
    profile(pytester.path, "server", "[knobs]\nTHREADS = 3\n")
    result = command(pytester, "doctor", "--h2o-profile", "server")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "-     runtime     mnn: *(llm_bench from profile server, llm_demo from profile "
            "server, model config *",
            "-     knobs       THREADS=3 (profile), all others have the defaults of the mnn *",
            "ok    prompts     6 of 128, 6 of 512, 6 of 2048 in *",
            "-     config      launches replace these keys of yours: none",
            "ok    llm_bench   ended well after *, all 19 H2O columns are there",
            "ok    llm_demo    ended well after *",
            "ok    KV dump     written when asked for",
            "usable: every gate can be evaluated",
        ]
    )
    assert len(launches(pytester.path)) == 2
    assert [path.parent.name for path in pytester.path.rglob("meta_*.json")] == [
        "kv_dump"
    ]  # none of llm_bench


def test_doctor_names_the_defaults_of_the_embedded_runtime(pytester: pytest.Pytester) -> None:
    """Knobs that nobody set differ from the table's where the embedded runtime is used."""
    result = command(
        pytester, "doctor", "--model-config", "absent.json", "--h2o-runtime", "embedded"
    )
    result.stdout.fnmatch_lines(["-     knobs       all have the defaults of the embedded runtime"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.joinpath("llm.mnn.weight").unlink(), "FAIL  files *file "
                                                                "*/llm.mnn.weight is missing*"),
        (lambda path: path.joinpath("llm_demo").chmod(0o644), "FAIL  files *llm_demo */llm_demo "
                                                              "is not executable*"),
        (
            lambda path: install(path, "print('Unable to open x', flush=True); "
                                       "os.kill(os.getpid(), 11)"),
            "FAIL  llm_bench * signal 11 (SIGSEGV)*Unable to open x*",
        ),
        (
            lambda path: path.joinpath("pytest.ini").write_text("[pytest]\nh2o_set = "
                                                                "DUMP_DIR=dump"),
            "FAIL  settings    DUMP_DIR=dump: not a directory; *",
        ),
        (lambda path: path.joinpath("prompts").mkdir(), "FAIL  prompts     none in */prompts "
                                                        "(--prompt-dir)*"),
    ],
)  # fmt: skip
def test_doctor_on_a_bad_setup(pytester: pytest.Pytester, damage: object, message: str) -> None:
    """What is wrong is said, and the exit code is 1."""
    options = install(pytester.path)
    damage(pytester.path)  # type: ignore[operator]
    prompts = ["--prompt-dir", "prompts"] if pytester.path.joinpath("prompts").exists() else []
    result = command(pytester, "doctor", *options, *prompts)
    assert result.ret == 1
    result.stdout.fnmatch_lines([message, "not usable: correct what is marked FAIL"])


def test_doctor_on_an_older_binary(pytester: pytest.Pytester) -> None:
    """Missing columns are named."""
    options = install(pytester.path)
    path = pytester.path / "llm_bench"
    path.write_text(
        path.read_text().replace("lengths)\n", 'lengths).replace("_async_wait_us", "_x")\n', 1)
    )
    result = command(pytester, "doctor", *options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["FAIL  llm_bench * lacks h2o_lossless_async_wait_us: the binary is older than these *"]
    )


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_bundled_gates_honour_the_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    """`pytest-h2o final` reads the ini file of the project it is run in, also in workers and below
    the ini file.
    """
    install(pytester.path)
    pytester.makeini(
        "[pytest]\nllm_bench = llm_bench\nllm_demo = llm_demo\nmodel_config = config.json\n"
        "python_files = check_*.py\nh2o_set =\n    MAX_LOSSLESS_QUEUE_PEAK=0.5\n    PROMPTS=512"
    )
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    result = command(pytester, "final", *SELECT, *workers)
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (1, 1)
    result.stdout.fnmatch_lines(
        ["h2o: mnn: llm_bench */llm_bench,*llm_bench in the ini file*", "*<= 0.5*"]
    )
    assert len(launches(pytester.path)) == 1


def test_rerun_line_works_outside_the_checkout(pytester: pytest.Pytester) -> None:
    """The command that a failure prints repeats that gate with the same settings."""
    options = install(pytester.path / "a b")
    result = run_gates(pytester, *options, "--h2o-set", "MAX_LOSSLESS_QUEUE_PEAK=0.5")
    [line] = [line for line in result.outlines if line.startswith("  rerun ")]
    words = shlex.split(line.removeprefix("  rerun"))
    assert words[0] == "pytest"
    again = pytester.runpytest_subprocess(*words[1:], "-p", "no:cacheprovider")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["h2o_lossless_queue_peak 1 is not <= 0.5 blocks", line])


@pytest.mark.parametrize("changed", ["", "llm_bench", "llm.mnn.weight", "config.json", "libMNN.so"])
def test_resume(pytester: pytest.Pytester, changed: str) -> None:
    """An earlier session's launch is taken over unless the binary, a library of it, the model or
    the config changed.
    """
    options = install(pytester.path)
    pytester.path.joinpath("libMNN.so").write_text("1")
    run_gates(pytester, *options, "--h2o-out", "first")
    [first] = pytester.path.glob("first/20*")
    if changed:
        path = pytester.path / changed
        path.write_text('{"more": 1}' if changed == "config.json" else path.read_text() + "\n")
    result = run_gates(pytester, *options, "--h2o-out", "second", "--h2o-resume", str(first))
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])
    assert len(launches(pytester.path)) == (2 if changed else 1)
    [record] = pytester.path.glob("second/latest/launches/*/launch.json")
    assert (json.loads(record.read_text())["reused_from"] is None) == bool(changed)


EVIL = (
    "\x1b[31mred\x1b]0;title\x07 <b>bold</b> | cell `code` \x00\x08 \u202egnp ]]> & "
    "\ud83d\udca5 \x85"
)


def test_odd_paths_and_hostile_output(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a session parses, the terminal gets no control character, and nothing else is
    written.
    """
    folder = pytester.path / 'it\'s "a" <b> | größe,\nnew $(touch x) 💥'
    evil = f"print({EVIL.encode('utf-16', 'surrogatepass').decode('utf-16')!r}, flush=True)"
    options = install(folder, f"{evil}\nos.write(1, b'error: ' + bytes(range(256)) + bytes(10))")
    prompts = folder / "prompts"
    prompts.mkdir()
    prompts.joinpath("prompt_128_\x1b[31m'é.txt").write_text("Once upon a time.")
    here = pytester.mkdir("here")
    monkeypatch.chdir(here)
    before = files(pytester.path)
    select = [
        "-k",
        "full_strict or test_launches or test_prompts",
        "--h2o-set",
        "PROMPTS=512",
        "--h2o-out",
        "out",
    ]
    result = pytester.runpytest_subprocess(
        GATES, "--rootdir", str(ROOT), "-p", "no:cacheprovider", *select, *options,
        "--prompt-dir", str(prompts), "--junitxml=out/report.xml",
    )  # fmt: skip
    assert result.parseoutcomes()["passed"] > 5
    shown = result.stdout.str() + result.stderr.str()
    assert not [c for c in shown.replace("\n", "").replace("\t", "") if not c.isprintable()]
    written = {path for path in files(pytester.path) - before if "/runpytest-" not in str(path)}
    outside = {path for path in written if not path.is_relative_to(here / "out")}
    # The stand-in's own file, what this test captured, and the locks of the machine.
    lock = f"pytest-h2o-{os.getuid()}.lock"
    assert {path.name for path in outside} == {
        "launches.txt",
        "stdout",
        "stderr",
        lock,
        f"{lock}.turn",
    }
    summary = here / "out" / "latest" / "summary.json"
    assert json.loads(summary.read_text())["gates"]
    assert ElementTree.parse(here / "out" / "report.xml").getroot().find(".//testcase") is not None
    for page in summary.parent.rglob("*.md"):
        if page.name != "log.md":
            assert not [
                c for c in page.read_text("utf-8").replace("\n", "") if not c.isprintable()
            ], page
            assert "<b>" not in page.read_text("utf-8")


@pytest.mark.parametrize("body", ["sys.exit(3)", "os.kill(os.getpid(), 11)"])
def test_hostile_output_of_a_failure(pytester: pytest.Pytester, body: str) -> None:
    """The telling lines of a failed launch are neutralised wherever they appear."""
    options = install(
        pytester.path,
        f"os.write(1, b'error: \\x1b[31m <b>&]]> \\x00\\x08 \\xff' + bytes(10))\n{body}",
    )
    result = run_gates(pytester, *options, "--junitxml=report.xml")
    assert result.parseoutcomes()["failed"] == 2
    result.stdout.fnmatch_lines(["*error: *<b>&]]>*"])
    assert "\x1b" not in result.stdout.str()
    root = ElementTree.parse(pytester.path / "report.xml").getroot()
    assert len(root.findall(".//failure")) == 2
    for path in pytester.path.glob("h2o-runs/[0-9]*/*.json"):
        json.loads(path.read_text())
    [page] = pytester.path.glob("h2o-runs/[0-9]*/summary.md")
    assert "<b>" not in page.read_text()


def files(folder: Path) -> set[Path]:
    """Every file below a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}
