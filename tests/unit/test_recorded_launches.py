"""Wherever a launch lies below a directory, it is read, or it is named as not read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import pytest

from pytest_h2o.kit.archives import read_recording
from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import read_launch

DATA = Path(__file__).parents[1] / "data"
BENCH = DATA / "runs" / "bench_full"
DEMO_RUN = DATA / "runs" / "demo_full"
SWEEP = DATA / "archives" / "runtime"
DEMO = DATA / "archives" / "llm_demo"
SESSION = DATA / "session" / "launches"
OWN = "bench-p512_g48-full-r1"
LOG = "run_0002_p1024_g128.log"
DEEP = "/".join("abcdefghijklmnop")
SWEPT = "run_0002_p1024_g128_k0.3_b32_lr3.2"


def tree(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, dirs_exist_ok=True))


def file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def entries(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


def keep_first(path: Path) -> None:
    path.write_text(json.dumps(entries(path)[:1]))


def beside_a_demo_pack(root: Path) -> None:
    tree(DEMO, root)
    tree(BENCH, root / "extra")


def in_a_demo_pack(root: Path) -> None:
    tree(DEMO, root)
    tree(BENCH, root)


def below_a_sweep(root: Path) -> None:
    tree(SWEEP, root)
    tree(BENCH, root / "again" / "and" / "again")


def deep(root: Path) -> None:
    tree(SWEEP, root)
    tree(BENCH, root / DEEP)


def called_like_a_part(root: Path) -> None:
    for name in ("logs", "metrics", "configs", "baseline_batch"):
        tree(BENCH, root / name / "extra")
    tree(BENCH, root / "baseline_batch")


def hidden(root: Path) -> None:
    tree(SWEEP, root)
    tree(BENCH, root / ".old")


def only_logs(root: Path) -> None:
    tree(SWEEP, root / "sweep")
    file(BENCH / "logs" / LOG, root / "extra" / "logs" / LOG)


def a_table_alone(root: Path) -> None:
    tree(SWEEP, root / "sweep")
    file(BENCH / "logs" / LOG, root / "extra" / LOG)


def a_table_beside_a_list(root: Path) -> None:
    tree(BENCH, root)
    keep_first(root / "launches.json")
    (root / "logs" / LOG).rename(root / LOG)


def a_table_that_a_list_lacks(root: Path) -> None:
    tree(BENCH, root)
    keep_first(root / "launches.json")


def two_lists(root: Path) -> None:
    tree(BENCH, root)
    first, second = entries(root / "launches.json")
    (root / "launches.json").write_text(json.dumps([first]))
    (root / "launch.json").write_text(json.dumps(second))


def a_manifest_beside_a_list(root: Path) -> None:
    tree(SWEEP, root)
    first, _ = entries(root / "manifest.json")
    named = [{"run_id": first["run_id"], "returncode": 0}]
    (root / "launches.json").write_text(json.dumps(named))
    (root / "bench_stdout.log").unlink()


def a_transcript_alone(root: Path) -> None:
    tree(SWEEP, root)
    (root / "manifest.json").unlink()
    shutil.rmtree(root / "logs")


def printed_of_no_launch(root: Path) -> None:
    tree(DEMO_RUN, root)
    keep_first(root / "launches.json")


def without_launch_json(root: Path) -> None:
    tree(SWEEP, root)
    file(BENCH / "logs" / LOG, root / "extra" / "log.md")


def a_transcript_of_no_directory(root: Path) -> None:
    tree(SWEEP, root)
    shutil.rmtree(root / "baseline_batch")


def metrics_alone(root: Path) -> None:
    tree(DEMO, root)
    candidate = root / "candidate"
    (candidate / "candidate_runs.jsonl").unlink()
    (candidate / "logs" / "candidate_prompt_2048_1.stdout.log").unlink()


def cut_off(root: Path) -> None:
    tree(SESSION / OWN, root / "launches" / OWN)
    tree(SESSION / OWN, root / "launches" / "broken")
    (root / "launches" / "broken" / "launch.json").unlink()


def unreadable(root: Path) -> None:
    tree(SESSION / OWN, root / "launches" / OWN)
    file(SESSION / OWN / "stdout", root / "launches" / "broken" / "launch.json")


def twice(root: Path) -> None:
    tree(SESSION / OWN, root / "launches" / OWN)
    tree(SESSION / OWN, root / "launches" / "z")


def appended(root: Path) -> None:
    tree(BENCH, root)
    path = root / "logs" / LOG
    path.write_text(path.read_text().replace("±", "± 1") + path.read_text())


def a_folder_of(name: str, source: Path = BENCH / "logs" / LOG) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        tree(SWEEP, root)
        file(source, root / "extra" / name)

    make.__name__ = f"extra/{name}"
    return make


def beside_the_list(name: str, source: Path) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        tree(SWEEP, root)
        file(source, root / name)

    make.__name__ = f"beside: {name}"
    return make


def a_renamed_transcript(root: Path) -> None:
    tree(SWEEP, root)
    (root / "bench_stdout.log").rename(root / "bench_stdout.log.1")


def a_table_with_columns_in_another_order(root: Path) -> None:
    tree(SWEEP, root)
    rows = (BENCH / "logs" / LOG).read_text().splitlines()
    turned = ["|".join(reversed(row.split("|"))) for row in rows]
    (root / "extra.log").write_text("\x1b[1m" + "\n".join(turned))


def listed_twice(root: Path) -> None:
    tree(BENCH, root)
    launches = entries(root / "launches.json")
    (root / "launches.json").write_text(json.dumps([*launches, launches[1]]))


def a_combination_twice(root: Path) -> None:
    tree(SWEEP, root)
    combinations = entries(root / "manifest.json")
    (root / "manifest.json").write_text(json.dumps([*combinations, combinations[1]]))


def in_the_logs_of_a_session(root: Path) -> None:
    tree(SESSION / OWN, root / "launches" / OWN)
    file(BENCH / "logs" / LOG, root / "logs" / LOG)


def prompts_that_another_pack_has(root: Path) -> None:
    tree(SWEEP, root / "final" / "runtime_full_strict")
    tree(DEMO, root / "other")


def below_a_pack(root: Path) -> None:
    cut_off(root / "inner")
    tree(SWEEP, root / "sweep")


LAUNCHES: dict[Callable[[Path], None], str] = {
    beside_a_demo_pack: f"extra/logs/{LOG}",
    in_a_demo_pack: f"logs/{LOG}",
    below_a_sweep: f"again/and/again/logs/{LOG}",
    deep: f"{DEEP}/logs/{LOG}",
    called_like_a_part: f"metrics/extra/logs/{LOG}",
    hidden: f".old/logs/{LOG}",
    only_logs: f"extra/logs/{LOG}",
    a_table_alone: f"extra/{LOG}",
    a_table_beside_a_list: LOG,
    a_table_that_a_list_lacks: f"logs/{LOG}",
    two_lists: f"logs/{LOG}",
    a_manifest_beside_a_list: f"logs/{SWEPT}.log",
    a_transcript_alone: f"configs/{SWEPT}.json",
    metrics_alone: "candidate/metrics/candidate_prompt_2048_1.jsonl",
    printed_of_no_launch: "prompt_2048_1.stdout",
    without_launch_json: "extra/log.md",
    a_transcript_of_no_directory: "baseline_batch_stdout.log",
    cut_off: "launches/broken",
    unreadable: "launches/broken",
    twice: "launches/z",
    appended: f"logs/{LOG} holds 2 tables",
    below_a_pack: "inner/launches/broken",
    a_folder_of("stdout"): "extra/stdout",
    a_folder_of("logs/x.stdout"): "extra/logs/x.stdout",
    a_folder_of("logs/x.stdout.log"): "extra/logs/x.stdout.log",
    a_folder_of("x.metrics.jsonl"): "extra/x.metrics.jsonl",
    a_folder_of("night.txt"): "extra/night.txt",
    a_folder_of("night.log.2"): "extra/night.log.2",
    a_folder_of("logs/NIGHT.LOG"): "extra/logs/NIGHT.LOG",
    a_folder_of("out"): "extra/out",
    beside_the_list("x.OUT", BENCH / "logs" / LOG): "x.OUT",
    beside_the_list("answers.txt", DEMO_RUN / "prompt_2048_1.stdout"): "answers.txt",
    beside_the_list("night_stdout.log", BENCH / "logs" / LOG): "night_stdout.log",
    beside_the_list("candidate/logs/x.stdout.log", BENCH / "logs" / LOG): (
        "candidate/logs/x.stdout.log"
    ),
    beside_the_list("baseline_batch/x.stdout", BENCH / "logs" / LOG): "baseline_batch/x.stdout",
    a_renamed_transcript: "bench_stdout.log.1",
    a_table_with_columns_in_another_order: "extra.log",
    listed_twice: f"logs/{LOG} is named by 2 launches",
    a_combination_twice: f"logs/{SWEPT}.log is named by 2 launches",
    in_the_logs_of_a_session: f"logs/{LOG}",
    prompts_that_another_pack_has: "final",
}


@pytest.mark.parametrize("make", LAUNCHES, ids=lambda make: make.__name__)
def test_a_launch_is_read_or_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    """One of its files is read, or stands in what could not be."""
    root = tmp_path / "archive"
    make(root)
    recording = read_recording(root)
    launches = chain.from_iterable((*part.launches, *part.baseline) for part in recording.parts)
    files = [path for each in launches for path in (*each.record.files, each.record.config_path)]
    wanted = root / LAUNCHES[make]
    named = [text for text in recording.unread if str(wanted) in text]
    assert wanted in files or named
    assert make not in (cut_off, twice, printed_of_no_launch) or len(named) == 1


@pytest.mark.parametrize(
    "name", ["README.md", "summary.md", "console.txt", "run.console.log", "x.stderr.log", "x.html"]
)
def test_what_is_written_about_launches(tmp_path: Path, name: str) -> None:
    """Reports and consoles hold tables and command lines as well, and are of no launch."""
    root = tree(SWEEP, tmp_path / "archive")
    text = (root / "bench_stdout.log").read_text()
    (root / name).write_text(text + (BENCH / "logs" / LOG).read_text())
    assert read_recording(root).unread == ()


@pytest.mark.parametrize("name", ["baseline", "h2o_off", "Baseline_Batch", "without"])
def test_a_renamed_baseline(tmp_path: Path, name: str) -> None:
    """The launches with H2O off below a sweep are its baseline by what their manifest says."""
    root = tree(SWEEP, tmp_path / "archive")
    (root / "baseline_batch").rename(root / name)
    (root / "baseline_batch_stdout.log").rename(root / f"{name}_stdout.log")
    recording = read_recording(root)
    [part] = recording.parts
    assert (len(part.launches), len(part.baseline), recording.unread) == (2, 2, ())


@pytest.mark.parametrize("source", [BENCH, DEMO_RUN, SWEEP, DEMO, SESSION.parent])
def test_nothing_is_named_in_vain(source: Path) -> None:
    """Of a recording that is whole, nothing is left over."""
    assert read_recording(source).unread == ()


def test_cases_of_one_name(tmp_path: Path) -> None:
    """However many there are, each is a part of its own."""
    for place in ("a/p", "b/p", "c/p", "d/q"):
        tree(BENCH, tmp_path / place / "run")
    names = [part.name for part in read_recording(tmp_path).parts]
    assert names == ["run", "run.p", "run.2", "run.q"]


def test_logs_of_nothing_known(tmp_path: Path) -> None:
    """In a folder that holds nothing else, each is a launch."""
    for number in range(3):
        (tmp_path / f"{number}.log").write_text(f"{number}: cannot open the model\n")
    [part] = read_recording(tmp_path).parts
    assert [each.record.stdout.name for each in part.launches] == ["0.log", "1.log", "2.log"]


def test_launches_of_which_a_list_has_names_alone(tmp_path: Path) -> None:
    """Without command lines or a transcript, each is still a launch that ended as it says."""
    root = tree(SWEEP, tmp_path / "archive")
    names = [entry["run_id"] for entry in entries(root / "manifest.json")]
    listed = [{"run_id": names[0], "returncode": 0}, {"run_id": names[1], "returncode": -11}]
    (root / "launches.json").write_text(json.dumps(listed))
    for name in ("manifest.json", "bench_stdout.log"):
        (root / name).unlink()
    [part] = read_recording(root).parts
    assert [each.record.table.stem for each in part.launches] == names
    assert [each.record.status for each in part.launches] == ["ok", "failed"]


def test_a_prompt_that_the_candidate_lacks_once(tmp_path: Path) -> None:
    """Of two prompts of one name, the candidate's launch is that of the first."""
    root = tree(DEMO, tmp_path / "archive")
    path = root / "baseline" / "baseline_runs.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_text(path.read_text() + first.replace("prompts_used/", "others/"))
    [part] = read_recording(root).parts
    assert (len(part.baseline), len(part.launches)) == (3, 3)
    assert [each.record.status for each in part.launches] == ["ok", "ok", "not_recorded"]


def test_a_log_of_another_length(tmp_path: Path) -> None:
    """A manifest says which row a launch was made for, with a transcript or without."""
    root = tree(SWEEP, tmp_path / "archive")
    (root / "bench_stdout.log").unlink()
    file(BENCH / "logs" / "run_0001_p512_g128.log", root / "logs" / f"{SWEPT}.log")
    [part] = read_recording(root).parts
    problems = [problem for each in part.launches for problem in each.read("x").problems]
    assert [problem.partition(" (")[0] for problem in problems] == [
        "the row is p512_g128, launched was p1024_g128"
    ]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["-p", "512,1024"], ["p512_g128", "p1024_g128"]),
        (["-p", "512", "-t", "1,2"], ["p512_g128", "p512_g128"]),
        (["-p", "512", "-t", "1,2", "-kv", "false"], ["pp512", "tg128"] * 2),
    ],
)
def test_rows_that_a_command_line_asks_for(
    tmp_path: Path, options: list[str], rows: list[str]
) -> None:
    """All of them are expected; where some are missing the launch is unusable."""
    root = tree(BENCH, tmp_path / "archive")
    argv = ["./llm_bench", "-m", "c.json", "-kv", "true", "-n", "128", *options]
    (root / "launches.json").write_text(json.dumps([{"run_id": SWEPT, "argv": argv}]))
    shutil.rmtree(root / "logs")
    file(BENCH / "logs" / "run_0001_p512_g128.log", root / "logs" / f"{SWEPT}.log")
    recording = read_recording(root)
    [launch] = recording.parts[0].launches
    assert sorted(launch.labels) == sorted(rows)
    [problem, *_] = launch.read("x").problems
    assert f"1 rows where {len(rows)} were launched" in problem


def test_all_launches_of_a_recording(tmp_path: Path) -> None:
    """Those of each part are among its launches, also for a case that none of them is called by."""
    for place in ("a", "b"):
        tree(BENCH, tmp_path / place)
    recording = read_recording(tmp_path)
    case = replace(recording.parts[0].case(resolve()), name="another")
    assert len(recording.records) == 4
    assert len(recording.launches_of(case).launches) == 4


def test_a_launch_whose_speeds_are_no_numbers() -> None:
    """It is unusable, whatever else its row holds."""
    [part] = read_recording(DATA / "runs" / "fail_incompatible_model").parts
    [problem, *_] = part.launches[0].read("x").problems
    assert "decode_tps is inf ± nan in p64_g16, not a number" in problem


def test_a_table_that_changed_after_its_launch(tmp_path: Path) -> None:
    """None of its rows is read, and it is said."""
    tree(BENCH, tmp_path)
    record = read_recording(tmp_path).records[0].sealed()
    record.table.write_text(record.table.read_text().replace("2.7", "3.7"))
    rows, [problem] = read_launch(record)
    assert (rows, "changed after the launch had ended" in problem) == ([], True)


def test_a_pack_without_a_baseline(tmp_path: Path) -> None:
    """It is said, beside the candidate's launches."""
    root = tree(DEMO, tmp_path / "archive")
    shutil.rmtree(root / "baseline")
    [part] = read_recording(root).parts
    assert (len(part.launches), "has no launches of baseline" in part.trouble) == (2, True)


def test_links(tmp_path: Path) -> None:
    """What is linked from elsewhere is read, and a link that leads back is not followed."""
    sweep = tree(SWEEP, tmp_path / "elsewhere" / "sweep")
    root = tmp_path / "archive"
    tree(BENCH, root / "real")
    (root / "linked").symlink_to(sweep)
    (root / "a-link").symlink_to(root / "real")
    (root / "back").symlink_to(root)
    assert [part.name for part in read_recording(root).parts] == ["real", "linked"]


OWN_LAUNCHES = {BENCH: 2, SWEEP: 4, DEMO: 4, SESSION.parent: 37}
FOLDERS = (
    "launches", "kv_dump/extra", "kv_dump", ".tmp/extra", ".locks/extra", "cases/extra", "cases",
    "logs/extra", "metrics/extra", "metrics", "configs/extra", "baseline_batch/extra",
    "baseline_batch", "baseline/extra", "baseline/logs/extra", "candidate/metrics/extra",
    "offline", "extra.log", "logs/extra.log", "*", "a/launches", "launches.json.d",
)  # fmt: skip


# A session has many launches to read.
PLACES = [*product((BENCH, SWEEP, DEMO), FOLDERS), *product([SESSION.parent], FOLDERS[2:7])]


@pytest.mark.parametrize(("root", "below"), PLACES, ids=lambda value: getattr(value, "name", value))
def test_a_recording_in_a_folder_of_any_name(tmp_path: Path, root: Path, below: str) -> None:
    """Its launches are read beside those of what it lies in, whatever the folder is to that."""
    archive = tree(root, tmp_path / "archive")
    tree(BENCH, archive / below)
    recording = read_recording(archive)
    found = chain.from_iterable((*part.launches, *part.baseline) for part in recording.parts)
    # Those in baseline_batch are the baseline of more than one case.
    assert len(list(found)) >= OWN_LAUNCHES[root] + 2


@pytest.mark.parametrize(
    "name", ["a.log", "*.log", "launches", "x.stdout", "log.md", "q'u\"o", "-k", "new\nline"]
)
def test_a_recording_of_any_name(tmp_path: Path, name: str) -> None:
    """Given itself, or the folder that it lies in."""
    tree(BENCH, tmp_path / "night" / name)
    for root in (tmp_path / "night", tmp_path / "night" / name):
        [part] = read_recording(root).parts
        assert len(part.launches) == 2


def test_a_launch_that_was_made_again(tmp_path: Path) -> None:
    """What its first launch printed is looked at too."""
    root = tree(SWEEP, tmp_path / "archive")
    path = root / "bench_stdout.log"
    _, first, second = path.read_text().split("Running: ")
    path.write_text(f"Running: {first}Running: {second}Running: {second}")
    [part] = read_recording(root).parts
    printed = [each.record.stdout.read_text() for each in part.launches]
    assert sorted(printed) == sorted(text.split("\n", 1)[1] for text in (first, second, second))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_transcript_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    """Each launch has what it printed."""
    root = tree(SWEEP, tmp_path / "archive")
    path = root / "bench_stdout.log"
    path.write_text(path.read_text(), encoding)
    [part] = read_recording(root).parts
    [whole] = read_recording(SWEEP).parts
    printed = [each.record.stdout.read_text() for each in part.launches]
    assert printed == [each.record.stdout.read_text() for each in whole.launches]


def test_a_transcript_with_a_prefix_on_each_line(tmp_path: Path) -> None:
    """Nothing tells its launches apart, and it is not left out."""
    root = tree(SWEEP, tmp_path / "archive")
    path = root / "bench_stdout.log"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"12:00:01 {line}" for line in lines))
    with pytest.raises(RecordingError, match="above the first line that begins with 'Running: '"):
        read_recording(root)


def test_a_launch_that_only_the_baseline_has(tmp_path: Path) -> None:
    """The case lacks it, and says so."""
    root = tree(SWEEP, tmp_path / "archive")
    keep_first(root / "manifest.json")
    text = (root / "bench_stdout.log").read_text()
    (root / "bench_stdout.log").write_text("Running: " + text.split("Running: ")[1])
    (root / "logs" / f"{SWEPT}.log").unlink()
    recording = read_recording(root)
    [case] = [case for case in recording.cases(resolve()).values() if case.work == "lengths"]
    [problem] = recording.run(case).problems
    assert "no launch of p1024_g128, which baseline_batch has" in problem


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named; its launches are not left out."""
    root = tree(SWEEP, tmp_path / "archive")
    (root / "extra").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> object:
        if path.name == "extra":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(RecordingError, match="extra cannot be read: Permission denied"):
        read_recording(root)


def test_more_launches_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit nothing is judged in part: the place, the number and the limit are said."""
    monkeypatch.setattr("pytest_h2o.kit.layouts.MAX_ENTRIES", 2)
    for root in (tmp_path / "a" / "logs", tmp_path / "b"):
        for number in range(3):
            file(BENCH / "logs" / LOG, root / f"{number}.log")
    listed = tree(BENCH, tmp_path / "c")
    launches = entries(listed / "launches.json")
    (listed / "launches.json").write_text(json.dumps([*launches, *launches]))
    for name, said in (("a", "3 launches, at most 2"), ("b", "3 launches"), ("c", "4 launches")):
        with pytest.raises(RecordingError, match=rf"{tmp_path / name}.*: {said}"):
            read_recording(tmp_path / name)
    monkeypatch.setattr("pytest_h2o.kit.layouts.MAX_ENTRIES", 3)
    assert len(read_recording(tmp_path / "b").parts[0].launches) == 3


def test_more_directories_than_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit it is said what to give instead."""
    tree(BENCH, tmp_path / "run")
    for number in range(6):
        (tmp_path / f"d{number}" / "e").mkdir(parents=True)
    monkeypatch.setattr("pytest_h2o.kit.archives.MAX_DIRECTORIES", 10)
    with pytest.raises(RecordingError, match=r"more than 10 directories; give one nearer"):
        read_recording(tmp_path)
    monkeypatch.setattr("pytest_h2o.kit.archives.MAX_DIRECTORIES", 14)
    assert len(read_recording(tmp_path).parts[0].launches) == 2


@pytest.mark.parametrize("told_by", ["launch.json", "manifest.json", "bench_stdout.log"])
def test_a_launch_that_left_no_log(tmp_path: Path, told_by: str) -> None:
    """Beside a list that does not name it, a second list or a transcript alone tells of it: it is a
    launch without output, not none.
    """
    root = tree(SWEEP, tmp_path / "archive")
    first, _ = entries(root / "manifest.json")
    argv = ["./llm_bench", "-m", "m/config.json", "-p", "1024", "-n", "128", "-kv", "true"]
    (root / "logs" / f"{SWEPT}.log").unlink()
    (root / "launches.json").write_text(json.dumps([{"run_id": first["run_id"]}]))
    if told_by != "manifest.json":
        (root / "manifest.json").unlink()
    if told_by == "launch.json":
        (root / "launch.json").write_text(json.dumps({"argv": argv, "returncode": 0}))
    if told_by != "bench_stdout.log":
        text = (root / "bench_stdout.log").read_text()
        (root / "bench_stdout.log").write_text("Running: " + text.split("Running: ")[1])
    shutil.rmtree(root / "baseline_batch")
    recording = read_recording(root)
    [case] = [case for case in recording.cases(resolve()).values() if case.work == "lengths"]
    assert any("no table" in problem for problem in recording.run(case).problems)
