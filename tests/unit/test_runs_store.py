"""The run store: every spec launched once, also between processes; failures kept; earlier sessions
reused.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_h2o.plan.specs import ConfigValue, LaunchSpec
from pytest_h2o.runs.directory import check_room, create_session_dir
from pytest_h2o.runs.locks import hold, machine_lock_path
from pytest_h2o.runs.records import (
    LaunchRecord,
    RecordError,
    load_record,
    save_record,
    standard_paths,
)
from pytest_h2o.runs.store import ReplayStore, RunStore
from pytest_h2o.runtimes import MnnRuntime
from pytest_h2o.runtimes.base import Command, RuntimeSetupError

PATIENCE_S = 60.0
COUNT = "open({!r}, 'a').write('x')"
STAMPS = """
import os, time
start = time.monotonic_ns()
time.sleep(0.05)
open(f"{os.environ['STAMPS']}/{os.getpid()}", "w").write(f"{start} {time.monotonic_ns()}")
"""
HANG_ONCE = """
import os, time
if not os.path.exists(os.environ["MARK"]):
    open(os.environ["MARK"], "w").close()
    time.sleep(600)
"""
SPEC = LaunchSpec(
    program="llm_bench", arm="full", replicate=1, config={"kv_h2o_enable": True}, gen_tokens=8,
    prompt_tokens=64, repeat=1, timeout_s=PATIENCE_S,
)  # fmt: skip


class FakeRuntime:
    """Runs Python code in place of both programs."""

    name = "fake"

    def __init__(self, code: str, **inputs: str) -> None:
        self.code = code
        self.inputs = inputs

    def describe(self) -> str:
        """What it is."""
        return "fake: a test"

    def check(self) -> None:
        """Nothing can be wrong."""

    def fingerprint(self) -> dict[str, str]:
        """What the test says."""
        return {"code": self.code, **self.inputs}

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """Run the code in the launch's directory."""
        return Command(
            argv=(sys.executable, "-I", "-S", "-c", self.code),
            env=spec.env,
            cwd=directory,
            config_path=directory / "config.json",
            config={"base_dir": "/größe/", **spec.config},
            overridden={"kv_a": 1},
        )


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine lock of a test is its own, so that tests do not wait for a real session."""
    directory = tmp_path / "lock"
    directory.mkdir()
    monkeypatch.setenv("H2O_LOCK_DIR", str(directory))
    return directory


def other_process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Python code in another process, with this module's names."""
    setup = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from "
        f"test_runs_store import *\n"
    )
    return subprocess.Popen((sys.executable, "-c", setup + code, *map(str, arguments)))


def wait_for(path: Path) -> None:
    """Wait until another process has written a file."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)


def test_a_launch_is_kept(tmp_path: Path) -> None:
    """The directory holds config, output and record, and the record reads back equal."""
    record = RunStore(tmp_path / "s", FakeRuntime("print('hello')")).get(SPEC)
    assert record.directory == tmp_path / "s" / "launches" / "bench-p64_g8x1-full-r1"
    assert (record.status, record.reason, record.returncode) == ("ok", "exit code 0", 0)
    assert record.stdout.read_text() == "hello\n"
    assert json.loads(record.config_path.read_text()) == {
        "base_dir": "/größe/",
        "kv_h2o_enable": True,
    }
    assert record.overridden == {"kv_a": 1}
    assert record.runtime == "fake: a test"
    assert load_record(record.directory / "launch.json") == record
    assert "metrics" not in json.loads(
        (record.directory / "launch.json").read_text()
    )  # llm_demo alone writes them


def test_once_per_session(tmp_path: Path) -> None:
    """Asking again, in this store or in another one of the session, does not launch again."""
    runtime = FakeRuntime(COUNT.format(str(tmp_path / "count")))
    stores = [RunStore(tmp_path / "s", runtime) for _ in range(2)]
    directories = {store.get(SPEC).directory for store in stores for _ in range(2)}
    assert len(directories) == 1
    assert (tmp_path / "count").read_text() == "x"


def test_equal_launches_of_other_arms_are_one(tmp_path: Path) -> None:
    """The arm is only a name; another replicate or setting is another launch."""
    store = RunStore(tmp_path / "s", FakeRuntime(COUNT.format(str(tmp_path / "count"))))
    first = store.get(SPEC)
    assert store.get(replace(SPEC, arm="other", timeout_s=5)) is first
    assert store.get(replace(SPEC, replicate=2)).directory != first.directory
    assert store.get(replace(SPEC, config={"kv_h2o_enable": False})).directory != first.directory
    assert (tmp_path / "count").read_text() == "xxx"


def test_directory_names(tmp_path: Path) -> None:
    """Names that are no file names, are too long or occur twice become usable directories."""
    store = RunStore(tmp_path / "s", FakeRuntime(""))
    arms = ["a/../../b", "x" * 300, "x" * 300 + "y", "größe\n"]
    specs = [replace(SPEC, arm=arm, config={"kv": number}) for number, arm in enumerate(arms)]
    directories = [store.get(spec).directory for spec in specs]
    assert len(set(directories)) == len(specs)
    assert {directory.parent for directory in directories} == {tmp_path / "s" / "launches"}
    assert [store.get(spec).status for spec in specs] == ["ok"] * len(specs)
    assert all(len(directory.name) < 200 and directory.name.isascii() for directory in directories)


def test_failure_is_launched_once(tmp_path: Path) -> None:
    """A failing program is not started again for every gate; the record says what it printed."""
    code = (
        COUNT.format(str(tmp_path / "count"))
        + "; print('Error: File not exist: llm.mnn'); raise SystemExit(4)"
    )
    for _ in range(3):
        record = RunStore(tmp_path / "s", FakeRuntime(code)).get(SPEC)
    assert record.status == "failed"
    assert record.reason.splitlines() == ["exit code 4", "  Error: File not exist: llm.mnn"]
    assert (tmp_path / "count").read_text() == "x"


def test_telling_lines_in_much_output(tmp_path: Path) -> None:
    """Of a long output of garbage, the end is looked at."""
    code = (
        "import os; os.write(1, b'\\xff\\x00' * 3_000_000 + b'\\nError: out of memory\\n'); "
        "os.abort()"
    )
    record = RunStore(tmp_path / "s", FakeRuntime(code)).get(SPEC)
    assert record.reason.startswith("ended by signal 6 (SIGABRT)\n")
    assert "Error: out of memory" in record.reason
    assert len(record.reason) < 5000


def test_timeout_is_stored(tmp_path: Path) -> None:
    """A hanging program is waited for once."""
    record = RunStore(tmp_path / "s", FakeRuntime("import time; time.sleep(600)")).get(
        replace(SPEC, timeout_s=0.1)
    )
    assert record.status == "timeout"
    assert RunStore(tmp_path / "s", FakeRuntime("")).get(SPEC) == record


def test_start_that_fails_is_stored(tmp_path: Path) -> None:
    """A missing binary is a record with cause and advice, through the real runtime."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    runtime = MnnRuntime({"llm_bench": tmp_path / "none"}, config, "a test")
    record = RunStore(tmp_path / "s", runtime).get(SPEC)
    assert record.status == "not_started"
    assert (
        record.reason
        == f"could not start {tmp_path}/none: no such file; build it or correct the path"
    )
    assert (record.seconds, record.cpu_seconds, record.returncode) == (None, None, None)


def test_setup_error_is_stored(tmp_path: Path) -> None:
    """A program that was not given fails its launches with the runtime's own words."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    runtime = MnnRuntime({"llm_demo": tmp_path / "none"}, config, "a test")
    record = RunStore(tmp_path / "s", runtime).get(SPEC)
    assert (record.status, record.started_utc) == ("not_started", None)
    assert record.reason.startswith("llm_bench is needed but was not given")
    assert load_record(record.directory / "launch.json") == record


def test_broken_config_is_stored(tmp_path: Path) -> None:
    """A base config that is not JSON fails each launch once, without an exception."""
    config = tmp_path / "config.json"
    config.write_text("{")
    record = RunStore(tmp_path / "s", MnnRuntime({"llm_bench": tmp_path}, config, "a test")).get(
        SPEC
    )
    assert record.status == "not_started"
    assert "is not JSON" in record.reason


@pytest.mark.parametrize(
    ("program", "output", "status"),
    [
        ("llm_demo", "loading\\nLLM init error\\n", "failed"),
        ("llm_demo", "the log says\\nLLM init error\\n####\\nprompt tokens num = 5\\n", "ok"),
        ("llm_bench", "LLM init error\\n", "ok"),
    ],
)
def test_init_error_with_exit_code_0(
    tmp_path: Path, program: str, output: str, status: str
) -> None:
    """Older llm_demo programs exit with 0 when the model could not be loaded."""
    spec = LaunchSpec(
        program=program,
        arm="x",
        replicate=1,
        config={},
        gen_tokens=8,
        prompt_file=tmp_path / "p.txt",
    )
    assert RunStore(tmp_path / "s", FakeRuntime(f"print('{output}')")).get(spec).status == status


def test_peek_never_launches(tmp_path: Path) -> None:
    """Peeking shows a record that is there and nothing else."""
    store = RunStore(tmp_path / "s", FakeRuntime(""))
    assert store.peek(SPEC) is None
    record = store.get(SPEC)
    assert RunStore(tmp_path / "s", FakeRuntime("")).peek(SPEC) == record


def test_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told with the seconds so far; a record that is there makes no noise."""
    monkeypatch.setattr("pytest_h2o.runs.launcher.TICK_S", 0.0)
    events: list[tuple[str, str, float]] = []
    store = RunStore(
        tmp_path / "s",
        FakeRuntime("import time; time.sleep(0.6)"),
        on_event=lambda kind, spec, seconds: events.append((kind, spec.name, seconds)),
    )
    store.get(SPEC)
    store.get(SPEC)
    kinds = [kind for kind, _, _ in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert set(kinds[1:-1]) == {"tick"}
    assert {name for _, name, _ in events} == {SPEC.name}
    seconds = [seconds for _, _, seconds in events]
    assert seconds == sorted(seconds)


def test_records_in_order(tmp_path: Path) -> None:
    """All records of the session are listed."""
    store = RunStore(tmp_path / "s", FakeRuntime(""))
    records = [store.get(replace(SPEC, replicate=number)) for number in (3, 1, 2)]
    assert {record.name for record in store.records()} == {record.name for record in records}
    assert [r.started_utc for r in store.records()] == sorted(r.started_utc or "" for r in records)


def test_processes_share_launches(tmp_path: Path) -> None:
    """Workers that ask for the same spec at the same time launch it once and get the same
    record.
    """
    code = (
        "record = RunStore(Path(sys.argv[1]), FakeRuntime(sys.argv[2])).get(SPEC)\n"
        "sys.exit(record.reason != 'exit code 3')"
    )
    program = (
        f"import time; {COUNT.format(str(tmp_path / 'count'))}; time.sleep(0.3); raise "
        f"SystemExit(3)"
    )
    workers = [other_process(code, tmp_path / "s", program) for _ in range(4)]
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "x"


def test_sessions_never_overlap(tmp_path: Path) -> None:
    """Launches of sessions that run at the same time on one machine take turns."""
    code = (
        "store = RunStore(Path(sys.argv[1]), FakeRuntime(STAMPS))\n"
        "records = [store.get(replace(SPEC, replicate=n, env={'STAMPS': sys.argv[2]})) for n in "
        "range(1, 9)]\n"
        "sys.exit(any(record.status != 'ok' for record in records))"
    )
    (tmp_path / "stamps").mkdir()
    sessions = [other_process(code, tmp_path / name, tmp_path / "stamps") for name in "ab"]
    assert [session.wait(PATIENCE_S) for session in sessions] == [0, 0]
    spans = sorted(
        tuple(map(int, path.read_text().split())) for path in (tmp_path / "stamps").iterdir()
    )
    assert len(spans) == 16
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_killed_worker(tmp_path: Path) -> None:
    """What a killed worker left is put aside and its launch repeated; its locks block nobody."""
    spec = replace(SPEC, env={"MARK": str(tmp_path / "mark")})
    code = (
        "RunStore(Path(sys.argv[1]), FakeRuntime(HANG_ONCE)).get(replace(SPEC, env={'MARK': "
        "sys.argv[2]}))"
    )
    worker = other_process(code, tmp_path / "s", tmp_path / "mark")
    wait_for(tmp_path / "mark")
    worker.kill()
    worker.wait()
    record = RunStore(tmp_path / "s", FakeRuntime(HANG_ONCE)).get(spec)
    assert record.status == "ok"
    assert record.directory.with_name(f"{record.directory.name}.interrupted-1").is_dir()
    assert [kept.name for kept in ReplayStore(tmp_path / "s").records()] == [spec.name]


def test_damaged_record_is_launched_again(tmp_path: Path) -> None:
    """A record that cannot be read counts as an interrupted launch."""
    record = RunStore(tmp_path / "s", FakeRuntime("")).get(SPEC)
    (record.directory / "launch.json").write_text('{"schema_version": 1')
    assert RunStore(tmp_path / "s", FakeRuntime("")).get(SPEC).status == "ok"
    assert record.directory.with_name(f"{record.directory.name}.interrupted-1").is_dir()


def test_interrupted_launch_leaves_no_record(tmp_path: Path) -> None:
    """Ctrl-C is passed on, and the launch is repeated when it is asked for again."""

    def interrupt(kind: str, *_: object) -> None:
        if kind == "end":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunStore(tmp_path / "s", FakeRuntime(""), on_event=interrupt).get(SPEC)
    store = RunStore(tmp_path / "s", FakeRuntime(""))
    assert store.peek(SPEC) is None
    assert store.get(SPEC).status == "ok"


def test_nothing_is_launched_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something between a launch and pytest takes Ctrl-C for an error, the next gate launches
    nothing.
    """
    launched: list[str] = []

    def interrupted(command: Command, *_: object, **__: object) -> None:
        launched.append(command.cwd.name)
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_h2o.runs.launching.launch", interrupted)
    store = RunStore(tmp_path / "s", FakeRuntime(""))
    for spec in (SPEC, replace(SPEC, replicate=7)):
        with pytest.raises(KeyboardInterrupt):
            store.get(spec)
    assert len(launched) == 1


def test_launch_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the launch fails with that reason, and is not repeated for the next gate."""

    def full(path: Path, text: str) -> None:
        if path.name == "launch.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_text(text)

    monkeypatch.setattr("pytest_h2o.runs.records.write_atomically", full)
    store = RunStore(tmp_path / "s", FakeRuntime(COUNT.format(str(tmp_path / "count"))))
    records = [store.get(SPEC), store.get(SPEC)]
    assert {(record.status, record.reason) for record in records} == {
        ("failed", f"it cannot be kept in {tmp_path}/s/launches: No space left on device; "
         "make room, or give another --h2o-out"),
    }  # fmt: skip
    assert (tmp_path / "count").read_text() == "x"


def test_wait_is_reported(tmp_path: Path, lock_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another session launches, the waiting one says so."""
    monkeypatch.setattr("pytest_h2o.runs.locks.REPORT_EVERY_S", 0.05)
    release = threading.Event()
    held = threading.Event()

    def holder() -> None:
        with hold(machine_lock_path()):
            held.set()
            release.wait(PATIENCE_S)

    def listen(kind: str, spec: LaunchSpec, seconds: float) -> None:
        events.append(kind)
        release.set()

    events: list[str] = []
    thread = threading.Thread(target=holder)
    thread.start()
    held.wait(PATIENCE_S)
    RunStore(tmp_path / "s", FakeRuntime(""), on_event=listen).get(SPEC)
    thread.join()
    assert machine_lock_path().parent == lock_dir
    assert events[0] == "wait"
    assert events[-2:] == ["start", "end"]


def is_free(path: Path) -> bool:
    """Whether nobody holds a lock."""
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def test_who_waits_comes_before_a_holder_that_wants_it_again(tmp_path: Path) -> None:
    """A session that launches one program after the other lets another one launch in between."""
    code = "with hold(Path(sys.argv[1]), fair=True): Path(sys.argv[2]).touch()"
    path = tmp_path / "x.lock"
    with hold(path, fair=True):
        other = other_process(code, path, tmp_path / "held")
        while is_free(path.with_name("x.lock.turn")):
            time.sleep(0.02)
    with hold(path, fair=True):
        assert (tmp_path / "held").exists()
    assert other.wait(PATIENCE_S) == 0


def test_lock_of_a_killed_holder(tmp_path: Path) -> None:
    """The kernel frees the lock of a process that is killed."""
    code = "with hold(Path(sys.argv[1])): Path(sys.argv[2]).touch(); time.sleep(600)"
    holder = other_process(code, tmp_path / "x.lock", tmp_path / "held")
    wait_for(tmp_path / "held")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold(tmp_path / "x.lock"):
        pass


def test_lock_may_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    """Who holds the machine for several launches can launch."""

    def waits(_: float) -> None:
        pytest.fail("waits for itself")

    with hold(tmp_path / "x.lock", fair=True), hold(tmp_path / "x.lock", waits, fair=True):
        pass


def test_lock_that_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock directory that does not work is a failed launch that says what to do."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path / "file"))
    record = RunStore(tmp_path / "s", FakeRuntime("")).get(SPEC)
    assert record.status == "not_started"
    assert "cannot be locked" in record.reason
    assert "set H2O_LOCK_DIR" in record.reason


def test_machine_lock_does_not_follow_tmpdir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Jobs with temporary directories of their own meet at the same file."""
    before = machine_lock_path({})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert machine_lock_path({}) == before == Path(f"/tmp/pytest-h2o-{os.getuid()}.lock")


def test_resume_reuses_unchanged_launches(tmp_path: Path) -> None:
    """A new session takes over successful launches of an earlier one, files included."""
    runtime = FakeRuntime("print('first')")
    old = RunStore(tmp_path / "old", runtime).get(SPEC)
    (old.directory / "kv_dump").mkdir()
    (old.directory / "kv_dump" / "layer").write_text("kv")
    new = RunStore(tmp_path / "new", runtime, previous=tmp_path / "old").get(SPEC)
    shutil.rmtree(tmp_path / "old")
    assert new.reused_from == str(old.directory)
    assert replace(new, reused_from=None, **standard_paths(old.directory)) == old
    assert new.stdout.read_text() == "first\n"
    assert (new.directory / "kv_dump" / "layer").read_text() == "kv"
    assert RunStore(tmp_path / "new", runtime).peek(SPEC) == new


@pytest.mark.parametrize("change", ["binary", "prompt", "failed", "spec"])
def test_resume_repeats_what_changed(tmp_path: Path, change: str) -> None:
    """Another binary, prompt text or spec, or a failure before, is launched in the new session."""
    prompt = tmp_path / "p.txt"
    prompt.write_text("one")
    spec = LaunchSpec(
        program="llm_demo", arm="x", replicate=1, config={}, gen_tokens=8, prompt_file=prompt
    )
    code = "import os; raise SystemExit('FAIL' in os.environ)"
    RunStore(tmp_path / "old", FakeRuntime(code, binary="1")).get(
        replace(spec, env={"FAIL": ""}) if change == "failed" else spec
    )
    if change == "prompt":
        prompt.write_text("two")
    if change in ("failed", "spec"):
        spec = replace(spec, env={"FAIL": ""})
    runtime = FakeRuntime(code, binary="2" if change == "binary" else "1")
    assert (
        RunStore(tmp_path / "new", runtime, previous=tmp_path / "old").get(spec).reused_from is None
    )


def test_replay_of_a_moved_session(tmp_path: Path) -> None:
    """A session directory that was moved is replayed without launching, with its files where they
    are now.
    """
    specs = [replace(SPEC, replicate=number) for number in (1, 2)]
    store = RunStore(tmp_path / "old", FakeRuntime("print('hello')"))
    old = [store.get(spec) for spec in specs]
    (tmp_path / "old").rename(tmp_path / "new")
    replay = ReplayStore(tmp_path / "new")
    records = [replay.get(spec) for spec in specs]
    assert [record.stdout.read_text() for record in records] == ["hello\n"] * 2
    assert [
        replace(new, **standard_paths(each.directory))
        for new, each in zip(records, old, strict=True)
    ] == old
    assert replay.records() == records


def test_replay_finds_prompts_that_moved(tmp_path: Path) -> None:
    """A prompt is recognised by its file name when the checkout lies elsewhere."""
    spec = LaunchSpec(
        program="llm_demo",
        arm="x",
        replicate=1,
        config={},
        gen_tokens=8,
        prompt_file=Path("/a/p.txt"),
    )
    record = RunStore(tmp_path / "s", FakeRuntime("")).get(spec)
    assert ReplayStore(tmp_path / "s").get(replace(spec, prompt_file=Path("/b/p.txt"))) == record
    assert (
        ReplayStore(tmp_path / "s").get(replace(spec, prompt_file=Path("/b/q.txt"))).status
        == "not_recorded"
    )


def test_replay_without_the_launch(tmp_path: Path) -> None:
    """A launch that was not recorded says so and is not made."""
    record = ReplayStore(tmp_path / "none").get(SPEC)
    assert record.status == "not_recorded"
    assert str(tmp_path / "none") in record.reason
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"status": "fine"},
        {"seconds": "1"},
        {"argv": "x"},
        {"returncode": -11},
        {"argv": [1]},
        {"inputs": {"a": 1}},
        {"stdout": None},
        {"spec": {}},
        {"spec": None},
        {"spec": {**vars(SPEC), "config": {"a": None}}},
        {"spec": {**vars(SPEC), "program": "rm"}},
        None,
    ],
)
def test_damaged_record(tmp_path: Path, change: Mapping[str, object] | None) -> None:
    """A record with a wrong value is refused with the name of its file."""
    record = RunStore(tmp_path / "s", FakeRuntime("")).get(SPEC)
    path = record.directory / "launch.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change} if change is not None else [content]))
    with pytest.raises(RecordError, match=r"launch\.json is not a launch record"):
        load_record(path)


texts = st.text(max_size=8)
values: st.SearchStrategy[ConfigValue] = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), texts
)
seconds = st.none() | st.floats(0, 1e6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.dictionaries(texts, values, max_size=4),
    st.lists(texts | st.just("\udcff"), max_size=4),
    seconds,
    texts,
)
def test_records_survive_their_file(
    tmp_path: Path,
    config: dict[str, ConfigValue],
    argv: list[str],
    seconds: float | None,
    reason: str,
) -> None:
    """Whatever a record holds is read back equal and with the same types."""
    record = LaunchRecord(
        spec=replace(SPEC, config=config), status="ok", reason=reason, argv=tuple(argv),
        seconds=seconds, overridden={"a": [1, None]}, **standard_paths(tmp_path),
    )  # fmt: skip
    save_record(record)
    loaded = load_record(tmp_path / "launch.json")
    assert loaded == record
    assert [type(value) for value in loaded.spec.config.values()] == [
        type(value) for value in config.values()
    ]


def test_session_directories(tmp_path: Path) -> None:
    """Sessions that start in the same second get directories of their own; latest points to the
    last one.
    """
    base = tmp_path / "größe" / "h2o-runs"
    made = [create_session_dir(base) for _ in range(5)]
    assert len(set(made)) == 5
    assert all(directory.is_dir() and not list(directory.iterdir()) for directory in made)
    assert (base / "latest").resolve() == made[-1].resolve()
    assert {path.name for path in base.iterdir()} == {
        "latest",
        *(directory.name for directory in made),
    }


def test_latest_that_is_a_directory_stays(tmp_path: Path) -> None:
    """The link is a convenience: a directory of its name is not replaced."""
    (tmp_path / "latest" / "x").mkdir(parents=True)
    create_session_dir(tmp_path)
    assert (tmp_path / "latest" / "x").is_dir()
    assert not list(tmp_path.glob(".latest*"))


def test_no_room_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory below a file, or on a full disk, is refused before anything is launched."""
    check_room(tmp_path / "new" / "run")
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(RuntimeSetupError, match="file is not a directory that can be written to"):
        check_room(tmp_path / "file" / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=65535 * 1024))
    with pytest.raises(RuntimeSetupError, match="63 MiB are free and 64 are needed"):
        check_room(tmp_path / "run")


def test_inputs_are_those_of_each_launch(tmp_path: Path) -> None:
    """What is rebuilt while a session runs is another program in the launches that follow."""
    runtime = FakeRuntime("")
    store = RunStore(tmp_path, runtime)
    before = store.get(SPEC)
    runtime.inputs = {**runtime.inputs, "program": "rebuilt"}
    assert store.get(replace(SPEC, replicate=2)).inputs != before.inputs


def test_a_program_that_writes_over_the_index(tmp_path: Path) -> None:
    """What it spoils is launched again, and nothing of it is believed."""
    runtime = FakeRuntime("")
    RunStore(tmp_path, runtime).get(SPEC)
    (tmp_path / "launches" / "index.json").write_text("{")
    assert RunStore(tmp_path, runtime).get(SPEC).status == "ok"


def test_endless_output_is_not_hashed(tmp_path: Path) -> None:
    """A sparse file of 8 TiB ends its launch, and nobody reads it through."""
    store = RunStore(tmp_path, FakeRuntime("import os; os.truncate(1, 1 << 43)"))
    record = store.get(SPEC)
    assert (record.status, record.outputs) == ("failed", {})
