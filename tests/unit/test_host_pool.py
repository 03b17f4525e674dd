"""The hosts of a session: how they are written, who gets which, and what happens when one dies."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from code_runtime import SPEC, Code
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.lab.decode import history_key
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.measuring import stayed
from pytest_h2o.plan.cases import all_cases, baseline_of
from pytest_h2o.plan.knobs import KnobError, resolve
from pytest_h2o.plan.needs import Demand
from pytest_h2o.plan.seats import by_kind, hosts_text, kind_of, number_of, parse_hosts, seats_of
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runs.hosts import HostPool, HostsGoneError
from pytest_h2o.runs.store import LaunchRecord, RunStore
from pytest_h2o.runtimes.base import RuntimeSetupError
from pytest_h2o.runtimes.placement import PlacedRuntime, parse_placement

NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_.:@-]{0,8}", fullmatch=True)
KINDS = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
# Runs the words behind its host, unless a file named after the host says that it is gone.
LAUNCHER = """#!{python} -IS
import os, pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / "calls").open("a") as file:
    file.write(" ".join(sys.argv[1:3]) + chr(10))
if (folder / f"{{sys.argv[1]}}.gone").exists():
    sys.exit("no route to host")
os.execvp(sys.argv[2], sys.argv[2:])
"""
# The host is gone in the middle of a launch that is made on it.
DIES = """
import pathlib, sys
host = pathlib.Path({folder!r}) / "{host}.gone"
first = not host.exists()
host.touch()
sys.exit(1 if first else 0)
"""


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))


def placed(folder: Path, hosts: str, code: str = "") -> PlacedRuntime:
    """A runtime behind a launcher that names its host."""
    launcher = folder / "launcher"
    launcher.write_text(LAUNCHER.format(python=sys.executable))
    launcher.chmod(0o755)
    placement = parse_placement(f"{launcher} {{host}}", "", "")
    return PlacedRuntime(Code(code), placement, parse_hosts(hosts))


@given(
    st.one_of(
        st.lists(NAMES, min_size=1, max_size=5, unique=True).map(lambda names: {"": tuple(names)}),
        st.dictionaries(KINDS, st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=3),
    )
)
def test_hosts_are_read_as_they_are_written(hosts: Mapping[str, list[str]]) -> None:
    """Any hosts survive the way through their text; one that is named twice is refused."""
    given_hosts = {kind: tuple(names) for kind, names in hosts.items()}
    every = list(chain.from_iterable(given_hosts.values()))
    if len(set(every)) < len(every):
        with pytest.raises(KnobError, match="twice"):
            parse_hosts(hosts_text(given_hosts))
    else:
        assert parse_hosts(hosts_text(given_hosts)) == given_hosts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,,b", "is no name of a host"),
        ("-oProxyCommand=x", "is no kind of host"),
        ("-a", "'-a' is no name"),
        ("a,b a", "twice"),
        ("pixel=a,b c", "c has no kind"),
        ("pixel=a pixel=b", "pixel twice"),
        ("pixel=", "'' is no name"),
    ],
)
def test_wrong_hosts_are_refused(text: str, message: str) -> None:
    """The message says what is wrong; an option of the launcher is no host."""
    with pytest.raises(KnobError, match=message):
        parse_hosts(text)


@given(
    st.dictionaries(
        KINDS,
        st.sampled_from(["ssh {host}", "env A=1 {host} -x", "adb -s {host} shell"]),
        min_size=1,
    )
)
def test_launchers_of_kinds_are_read_as_they_are_written(launchers: Mapping[str, str]) -> None:
    """Each kind has the words behind its name; launches on its hosts are made by them."""
    text = "; ".join(f"{kind}={words}" for kind, words in launchers.items())
    assert by_kind("H2O_LAUNCHER", text) == launchers
    placement = parse_placement(text, "", "")
    for kind, words in launchers.items():
        assert shlex.join(placement.on("x", kind).launcher) == words.replace("{host}", "x")


def test_a_launcher_of_all_kinds_is_none_of_one() -> None:
    """Words with an equals sign later on are no kinds; a kind that is given twice is refused."""
    for text in ("ssh {host}", "env A=1; B=2 {host}", ""):
        assert by_kind("H2O_LAUNCHER", text) == {"": text}
    with pytest.raises(KnobError, match="once for each kind, not 'a=adb'"):
        by_kind("H2O_LAUNCHER", "a=ssh {host}; a=adb")


def test_seats() -> None:
    """The first seat of hosts without a kind is no mark in names and keys."""
    hosts = parse_hosts("pixel=a,b server=c")
    assert seats_of(hosts, "pixel") == ("pixel", "pixel/2")
    assert seats_of(parse_hosts("a,b,c"), "") == seats_of({"": ("a", "b", "c")}, "")
    assert seats_of({}, "") == ("",)
    assert [(kind_of(seat), number_of(seat)) for seat in ("", "/3", "pixel", "pixel/2")] == [
        ("", 0), ("", 2), ("pixel", 0), ("pixel", 1),
    ]  # fmt: skip
    assert replace(SPEC, seat="").key == SPEC.key != replace(SPEC, seat="/2").key
    assert replace(SPEC, seat="/2").name == f"{SPEC.name}@2"
    assert replace(SPEC, seat="pixel/2").name == f"{SPEC.name}@pixel.2"


@pytest.mark.parametrize("hosts", ["a", "a,b", "a,b,c", "pixel=a,b server=c,d,e"])
def test_what_is_compared_is_planned_on_one_seat(tmp_path: Path, hosts: str) -> None:
    """Both launches of every pair, and all pairs of a study, are on one seat; every seat has work
    where there are studies enough.
    """
    knobs = resolve([f"H2O_HOSTS={hosts}", "DECODE_BASELINE_MODE=paired"])
    names = [name for name, case in all_cases(knobs).items() if case.studied and not case.quantises]
    prompts = Path(__file__).parents[2] / "prompts"
    lab = Lab(tmp_path, knobs, lambda spec: None, prompts, demand=Demand(studies=frozenset(names)))  # type: ignore[arg-type, return-value]
    used = set()
    for name in names:
        case = lab.cases[name]
        buckets = lab.buckets if case.work == "prompts" else [""]
        for bucket in buckets:
            pairs = [*lab.plan.pairs(case, 1, bucket), *lab.plan.pairs(case, 7, bucket)]
            [seat] = {spec.seat for pair in pairs for spec in pair}
            assert seat in case.seats
            used.add(seat)
            neighbours = lab.plan.neighbours(case, pairs[0][1])
            assert {spec.key for spec in pairs[0]} <= {spec.key for spec in neighbours}
            assert {spec.seat for spec in neighbours} == {seat}
    kinds = parse_hosts(hosts)
    first = next(iter(kinds))
    assert used >= set(seats_of(kinds, first))


def test_kinds_have_cases_of_their_own() -> None:
    """Cases of prompt lengths are judged on each kind; what other gates look at is on the first."""
    cases = all_cases(resolve(["H2O_HOSTS=pixel=a,b server=c"]))
    judged = [name for name, case in cases.items() if case.judged and case.arm == "full"]
    assert {"full_strict@pixel", "full_strict@server"} <= set(judged)
    assert "full_strict" not in judged
    assert (cases["full_strict"].kind, cases["candidate"].kind) == ("pixel", "pixel")
    assert cases["full_strict@server"].seats == ("server",)
    assert "full_strict@a" not in all_cases(resolve(["H2O_HOSTS=a,b"]))


def test_history_is_kept_by_kind() -> None:
    """Speeds of one kind of host are not those of another, nor of this machine."""
    knobs = resolve(["H2O_HOSTS=pixel=a,b server=c"])
    keys = [history_key(knobs, "pixel"), history_key(knobs, "server"), history_key(resolve())]
    assert keys[0].startswith("pixel_cpu_t4")
    assert len(set(keys)) == 3


def test_launches_of_a_seat_stay_and_move_together(tmp_path: Path) -> None:
    """Where the host of a seat is taken out, the launches that were made on it are made again on
    another; those of other seats stay.
    """
    runtime = placed(tmp_path, "a,b,c")
    store = RunStore(tmp_path / "s", runtime)
    specs = [replace(SPEC, replicate=number, seat=seat) for number in (1, 2) for seat in ("", "/2")]
    before = [store.get(spec) for spec in specs]
    assert [record.host for record in before] == ["a", "b", "a", "b"]
    assert stayed(before)
    pool = HostPool(tmp_path / "s", runtime)  # as another process has it
    with pool.take("/2", print) as host:
        pool.remove(host, "unplugged")
    after = [store.get(spec) for spec in specs]
    assert [record.host for record in after] == ["a", "c", "a", "c"]
    assert not stayed([*before, *after])
    assert len(store.records()) == 4


def test_what_there_was_no_time_for_is_on_no_host(tmp_path: Path) -> None:
    """Launches that were not made end the run of a case, and do not have it measured again."""
    runtime = placed(tmp_path, "a,b")
    store = RunStore(tmp_path / "s", runtime)
    asked: list[str] = []

    def get(spec: LaunchSpec) -> LaunchRecord:
        asked.append(spec.name)
        assert len(asked) < 20
        record = store.get(spec)
        if spec.prompt_tokens == 64:
            return record
        return replace(record, status="out_of_time", host="", spec=spec)

    knobs = resolve(["H2O_HOSTS=a,b", "PROMPTS=64,128", "GENS=8"])
    lab = Lab(tmp_path, knobs, get, tmp_path)
    run = lab.run("full_strict")
    assert [record.host for record in run.launches] == ["a", ""]
    assert stayed(run.launches)


def test_a_host_that_dies_in_a_launch(tmp_path: Path) -> None:
    """The launch is made again on another host, and nothing more on the first."""
    code = DIES.format(folder=str(tmp_path), host="a")
    runtime = placed(tmp_path, "a,b", code)
    store = RunStore(tmp_path / "s", runtime)
    record = store.get(SPEC)
    assert (record.status, record.host) == ("ok", "b")
    why = "it does not answer: exit code 1, no route to host"
    assert store.hosts.gone == {"a": why}
    kept = json.loads((tmp_path / "s" / "hosts.json").read_text())
    assert kept == {"hosts": {"": ["a", "b"]}, "gone": {"a": why}}
    assert store.get(replace(SPEC, replicate=2)).host == "b"
    assert (tmp_path / "calls").read_text().count("a ") == 2


def test_a_program_that_fails_is_no_dead_host(tmp_path: Path) -> None:
    """The host answers, so the failure is the program's and is kept."""
    store = RunStore(tmp_path / "s", placed(tmp_path, "a,b", "raise SystemExit(255)"))
    record = store.get(SPEC)
    assert (record.status, record.returncode, record.host) == ("failed", 255, "a")
    assert store.hosts.gone == {}


def test_no_host_is_left(tmp_path: Path) -> None:
    """All gone ends it; one kind gone fails what is planned on it, for others go on."""
    runtime = placed(tmp_path, "pixel=a server=b")
    for name in ("a", "b"):
        (tmp_path / f"{name}.gone").touch()
    store = RunStore(tmp_path / "s", runtime)
    record = store.get(replace(SPEC, seat="pixel"))
    assert record.status == "not_started"
    assert record.reason.startswith("no host of the kind pixel is left: a: it does not answer")
    with pytest.raises(HostsGoneError, match=r"no host is left: a: .*; b: it does not answer"):
        store.get(replace(SPEC, seat="server"))


def test_one_launch_at_a_time_on_a_host(tmp_path: Path) -> None:
    """While all hosts are taken a launch waits, and takes the first that is free."""
    pool = HostPool(tmp_path, placed(tmp_path, "a,b"), roaming=True)
    taken: list[str] = []

    def third() -> None:
        with pool.take("", print) as host:
            taken.append(host.name)

    with pool.take("", print) as first:
        with pool.take("", print) as second:
            assert {first.name, second.name} == {"a", "b"}
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(0.2)
            assert taken == []
        waiting.join(10)
        assert taken == [second.name]


def test_resume_takes_over_what_the_same_host_launched(tmp_path: Path) -> None:
    """What was launched on a host that is out now is launched again, as it is compared with what
    will be; a sweep takes all over.
    """
    runtime = placed(tmp_path, "a,b")
    specs = [replace(SPEC, seat=""), replace(SPEC, seat="/2")]
    first = RunStore(tmp_path / "1", runtime)
    for spec in specs:
        first.get(spec)
    second = RunStore(tmp_path / "2", runtime, previous=tmp_path / "1")
    with second.hosts.take("/2", print) as host:
        second.hosts.remove(host, "unplugged")
    assert [bool(second.get(spec).reused_from) for spec in specs] == [True, False]
    pool = HostPool(tmp_path / "3", runtime, roaming=True)
    third = RunStore(tmp_path / "3", runtime, previous=tmp_path / "1", hosts=pool)
    assert all(third.get(spec).reused_from for spec in specs)


@pytest.mark.parametrize(
    ("launcher", "hosts", "message"),
    [
        ("ssh board", "a,b", "does not say where {host} goes"),
        ("ssh {host}", "", "asks for a host; name some with --h2o-hosts"),
        ("", "a", "does not say where"),
        ("pixel=ssh {host}", "pixel=a server=b", "for the kinds pixel, and H2O_HOSTS has pixel, s"),
        (
            "pixel=ssh {host}; server=env H={host}; x=ssh {host}",
            "pixel=a server=b",
            "pixel, server, x",
        ),
        ("pixel=ssh {host}; server=ssh c", "pixel=a server=b", "does not say where {host} goes"),
        ("pixel=ssh {host}", "", "asks for a host; name some"),
        ("pixel=ssh {host}; server=no-such {host}", "pixel=a server=b", "no-such is not a program"),
    ],
)
def test_launcher_and_hosts_belong_together(launcher: str, hosts: str, message: str) -> None:
    """One without the other is refused before anything is launched."""
    runtime = PlacedRuntime(Code(""), parse_placement(launcher, "", ""), parse_hosts(hosts))
    with pytest.raises(RuntimeSetupError, match=message):
        runtime.check()


def test_baselines_are_of_the_seat(tmp_path: Path) -> None:
    """A baseline that several arms share is launched on each seat that has one of them."""
    spec = replace(SPEC, seat="/2")
    assert baseline_of(spec).seat == "/2"
    assert baseline_of(spec).key != baseline_of(SPEC).key


def test_each_host_can_be_asked(tmp_path: Path) -> None:
    """Those that answer, and why others do not."""
    (tmp_path / "b.gone").touch()
    pool = HostPool(tmp_path, placed(tmp_path, "x=a y=b"))
    assert {host.name: host.silence() for host in pool.named} == {
        "a": "",
        "b": "it does not answer: exit code 1, no route to host",
    }
    assert HostPool(tmp_path / "2", Code("")).named == []


def test_srun_says_what_its_exit_code_does_not(tmp_path: Path) -> None:
    """When its node fails, srun says so and exits with 0; other launchers say what they like."""
    stderr = tmp_path / "stderr"
    stderr.write_text("step 1\nsrun: error: Node failure on n1\nsrun: Job step aborted\n")
    for launcher, expected in (
        ("srun -w {host}", "srun: error: Node failure on n1"),
        ("ssh {host}", ""),
    ):
        runtime = PlacedRuntime(Code(""), parse_placement(launcher, "", ""), parse_hosts("n1"))
        [host] = HostPool(tmp_path, runtime).named
        assert host.loss(ok=True, stderr=stderr) == expected
        assert host.loss(ok=True, stderr=tmp_path / "none") == ""
