"""The listing commands: knobs, presets, prompts, report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest

from pytest_h2o.cli import main
from pytest_h2o.data import bundled
from pytest_h2o.plan.knobs import KNOBS, resolve
from pytest_h2o.report.files import summary
from pytest_h2o.report.formats.summary_md import text as markdown
from pytest_h2o.report.models import read_summary
from pytest_h2o.report.screen import session_lines
from pytest_h2o.runtimes import EmbeddedRuntime
from pytest_h2o.verdict import ShownRow, Verdict

VERDICTS = {
    "gates/test_runtime.py::test_lossy[full_strict]": Verdict(
        gate="lossy", case="full_strict", metric="h2o_lossy", outcome="pass", value=3.1, target=3.0,
        operator=">=", margin=0.1, unit="ratio", rows=(ShownRow("p512_g128", "3.1", 3.1),),
        standing="doubtful", warning="KV was kept",
    ),
    "gates/test_runtime.py::test_lossy[store_tuned]": Verdict(
        gate="lossy", case="store_tuned", outcome="pass", standing="not evidenced",
        not_evidenced="needs lines",
    ),
    "gates/test_runtime.py::test_fallback[store_tuned]": Verdict(
        gate="fallback", case="store_tuned", metric="h2o_lossless_fallback", outcome="fail",
        value=2.0, target=0.0, operator="<=", margin=-2.0,
        reason="h2o_lossless_fallback 2 is not <= 0",
    ),
    "gates/test_m3.py::test_x": Verdict(
        gate="x", case="m3", outcome="skipped", knob="LOSSY_TARGET"
    ),
}  # fmt: skip


def save_summary(
    directory: Path, verdicts: dict[str, Verdict], title: str = "embedded: a model"
) -> Path:
    """A run directory with the summary that a session writes."""
    document = summary(title, resolve(), verdicts)
    (directory / "summary.json").write_text(document.model_dump_json())
    return directory


def test_knobs_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every knob is there with its definition, the value in force and its source."""
    for name in KNOBS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTS", "64,128")
    assert main(["knobs", "--json"]) == 0
    knobs = {knob["name"]: knob for knob in json.loads(capsys.readouterr().out)}
    assert list(knobs) == list(KNOBS)
    assert (knobs["PROMPTS"]["value"], knobs["PROMPTS"]["source"]) == ([64, 128], "environment")
    sources = {knob["source"] for name, knob in knobs.items() if name != "PROMPTS"}
    assert sources == {
        "default", "runtime default", "final default", "no second build is named",
    }  # fmt: skip
    assert knobs["DECODE_BASELINE_MODE"]["value"] == "paired"
    assert (
        knobs["LOSSY_TARGET"]["value"]
        == knobs["LOSSY_TARGET"]["default"]
        == KNOBS["LOSSY_TARGET"].default
    )


def test_knobs_in_the_ini_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ini file of the working directory counts, below the environment and the command line."""
    tmp_path.joinpath("pytest.ini").write_text(
        "[pytest]\nh2o_set =\n  REPEAT=7\n  GENS=9\n  THREADS=3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENS", "10")
    assert main(["knobs", "--json", "--suite", "m3", "--h2o-set", "THREADS=2"]) == 0
    knobs = {
        knob["name"]: (knob["value"], knob["source"])
        for knob in json.loads(capsys.readouterr().out)
    }
    assert knobs["REPEAT"] == (7, "ini")
    assert knobs["GENS"] == ([10], "environment")
    assert knobs["THREADS"] == (2, "command line")
    assert knobs["DECODE_BASELINE_MODE"] == ("paired", "runtime default")
    assert knobs["STORE_RUNS"] == (1, "default")


def test_knobs_of_a_profile_and_of_addopts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a session takes from a profile, and from options in the ini file, is in force here."""
    tmp_path.joinpath("pytest.ini").write_text(
        "[pytest]\naddopts = --h2o-set REPEAT=7 --h2o-set GENS=9\nh2o_profile = small\n"
    )
    profiles = tmp_path / "h2o-profiles"
    profiles.mkdir()
    profiles.joinpath("small.toml").write_text("[knobs]\nTHREADS = 3\nGENS = 8\n")
    profiles.joinpath("wrong.toml").write_text("[knobs]\nTHREADS = 0\n")
    monkeypatch.chdir(tmp_path)
    assert main(["knobs", "--json", "--h2o-set", "GENS=10"]) == 0
    knobs = {knob["name"]: knob for knob in json.loads(capsys.readouterr().out)}
    in_force = {name: (knobs[name]["value"], knobs[name]["source"]) for name in ("REPEAT", "GENS")}
    assert in_force == {"REPEAT": (7, "command line"), "GENS": ([10], "command line")}
    assert (knobs["THREADS"]["value"], knobs["THREADS"]["source"]) == (3, "profile")
    assert main(["knobs", "--json", "--h2o-profile", "wrong"]) == 2
    assert "wrong.toml: knobs.THREADS is 0; expected" in capsys.readouterr().err


def test_a_conftest_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project's own conftest.py may need packages or add options: its ini file is read without
    it.
    """
    for folder in (tmp_path, tmp_path / "tests"):
        folder.mkdir(exist_ok=True)
        folder.joinpath("conftest.py").write_text("import no_such_package\n")
    tmp_path.joinpath("pytest.ini").write_text(
        "[pytest]\naddopts = --of-the-conftest\nh2o_set = REPEAT=7\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["knobs", "--json"]) == 0
    knobs = {knob["name"]: knob for knob in json.loads(capsys.readouterr().out)}
    assert knobs["REPEAT"]["source"] == "ini"


def test_knobs_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """One row of five cells per knob, in order."""
    assert main(["knobs", "--markdown"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip(" `") for row in rows] == list(KNOBS)
    assert {row.count("|") for row in [header, *rows]} == {6}
    embedded = {
        row.split("`")[1]: row.split("|")[2].partition("embedded: ")[2].partition(";")[0].strip()
        for row in rows
    }
    assert {
        name: KNOBS[name].parse(text) for name, text in embedded.items() if text
    } == EmbeddedRuntime.defaults


@pytest.mark.parametrize(("name", "value"), [("LOSSY_TARGET", "much"), ("H2O_KEEP", "0.3")])
def test_knobs_with_a_wrong_environment(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Effective values need a right environment; the list of knobs is printed all the same."""
    monkeypatch.setenv(name, value)
    assert main(["knobs", "--json"]) == 2
    assert name in capsys.readouterr().err
    assert main(["knobs"]) == 0
    assert "KV_LOSSLESS_MAX_QUEUE" in capsys.readouterr().out


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per file, with all combinations and those that the engine runs differently."""
    assert main(["presets"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    counts = {line.split()[0]: tuple(map(int, line.split()[1:3])) for line in lines}
    assert set(counts) == {path.stem for path in bundled("presets").glob("*.json")}
    assert counts["target_ratio_v6"] == (27, 9)
    assert counts["target_speed"] == (3, 3)


def test_combinations_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """A preset's combinations are printed with their values, and repeated ones name the run that
    stands for them.
    """
    assert main(["presets", "target_store_v6"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert [row[1:4] for row in cells] == [
        ["512", "128", keep] for keep in ("0.3", "0.3", "0.33", "0.33")
    ]
    assert [row[11:] for row in cells] == [[], [], [cells[0][0]], [cells[1][0]]]


def test_schema_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema that is printed is one, and takes a preset that ships."""
    assert main(["presets", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(
        json.loads((bundled("presets") / "target_ratio_v5.json").read_text()), schema
    )


def test_unknown_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name is an error that lists the right ones."""
    assert main(["presets", "target\x1b"]) == 2
    error = capsys.readouterr().err
    assert "target_store_v6" in error
    assert "\x1b" not in error


@pytest.mark.parametrize(
    ("arguments", "code", "names", "problem"),
    [
        (
            ["{dir}"],
            1,
            ["prompt_128_1", "prompt_512_1", "prompt_128_2", "prompt_512_2"],
            "prompt_64_1.txt: is empty",
        ),
        (
            ["{dir}", "--h2o-set", "PROMPT_PATTERN=prompt_???_1.txt"],
            0,
            ["prompt_128_1", "prompt_512_1"],
            "",
        ),
        (["--manifest", "{dir}/list.txt"], 0, ["prompt_512_2", "prompt_128_1"], ""),
        (["{dir}", "--manifest", "{dir}/bad.txt"], 1, ["prompt_512_2"], "gone.txt: no such file"),
        (["{dir}", "--manifest", "{dir}/none.txt"], 1, [], ""),
        (["{dir}/nowhere"], 1, [], "nowhere: cannot be read"),
    ],
)
def test_prompts(  # noqa: PLR0913, PLR0917
    tmp_path: Path,
    arguments: list[str],
    code: int,
    names: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The selected prompts are listed in their order with bucket and size; what cannot be run is
    named.
    """
    for name in ("prompt_128_1", "prompt_128_2", "prompt_512_1", "prompt_512_2"):
        (tmp_path / f"{name}.txt").write_text("w" * int(name[-1]))
    (tmp_path / "prompt_64_1.txt").write_text(" \n")
    (tmp_path / "list.txt").write_text("prompt_512_2.txt\nprompt_128_1.txt\n")
    (tmp_path / "bad.txt").write_text("gone.txt\nprompt_512_2.txt\n")
    (tmp_path / "none.txt").write_text("")
    order = [
        "--h2o-set",
        "PROMPT_BUCKET_LIST=" + ("512" if "list" in str(arguments) else "128,512"),
    ]
    assert main(["prompts", *(word.format(dir=tmp_path) for word in arguments), *order]) == code
    out, err = capsys.readouterr()
    _, *lines, total = out.splitlines()
    assert [line.split() for line in lines] == [
        [name.split("_")[1], name[-1], str(tmp_path / f"{name}.txt")] for name in names
    ]
    assert total.startswith(f"{len(names)} prompts")
    assert problem in err
    assert bool(err) == bool(problem)


def test_prompts_that_ship(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a directory the prompts that ship are listed, all of them usable."""
    monkeypatch.delenv("PROMPT_DIR", raising=False)
    assert main(["prompts"]) == 0
    assert f"{len(list(bundled('prompts').glob('*.txt')))} prompts" in capsys.readouterr().out


def test_prompts_with_a_wrong_knob(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong knob is an error that names it."""
    assert main(["prompts", "--h2o-set", "MAX_PROMTS=1"]) == 2
    assert "did you mean MAX_PROMPTS" in capsys.readouterr().err


@pytest.mark.parametrize("as_file", [False, True])
def test_report(tmp_path: Path, as_file: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of a run directory is the one that the session printed, and the outcome is the
    session's.
    """
    path = save_summary(tmp_path, VERDICTS)
    assert main(["report", str(path / "summary.json" if as_file else path)]) == 0
    title, *lines, outcome = capsys.readouterr().out.splitlines()
    assert title == "embedded: a model"
    assert lines == session_lines(list(VERDICTS.values()), 80, color=False)
    assert outcome == "Not accepted: 1 of 3 gates failed (1 cause)"


VERSION_1 = Path(__file__).parents[1] / "data" / "summaries" / "version_1.json"


def test_summaries_of_version_1(capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier version wrote is read with every number and row; what it did not hold is
    absent.
    """
    written = json.loads(VERSION_1.read_text())
    record = read_summary(VERSION_1)
    assert (record.schema_version, record.title) == (2, written["title"])
    assert len(record.gates) == 5
    for gate, before in zip(record.gates, written["gates"], strict=True):
        rows = [[row.label, row.text] for row in gate.rows]
        assert rows == before["rows"]
        assert {name: getattr(gate, name) for name in before if name != "rows"} == {
            name: value for name, value in before.items() if name != "rows"
        }
        assert (gate.interval, gate.baseline, gate.cause) == (None, None, "")
        assert gate.pairs == gate.claims == ()
    assert main(["report", str(VERSION_1)]) == 0
    assert "full_strict" in capsys.readouterr().out


def test_the_first_summaries_are_read(tmp_path: Path) -> None:
    """The first files named neither version nor suite, and gates without rows."""
    gate = {"nodeid": "x", "gate": "lossy", "case": "full", "outcome": "pass"}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"title": "t", "overall_pass": True, "gates": [gate]}))
    record = read_summary(path)
    assert (record.suite, record.not_judged, record.gates[0].rows) == ("", [], ())


def test_a_summary_is_read_back(tmp_path: Path) -> None:
    """What is read is what was written."""
    document = summary("t", resolve(), VERDICTS, suite="runtime", not_judged=["x"])
    (tmp_path / "summary.json").write_text(document.model_dump_json())
    assert read_summary(tmp_path / "summary.json") == document


def test_summaries_of_later_versions(tmp_path: Path) -> None:
    """A file of a version that is not known yet is refused, saying so."""
    content = {**json.loads(VERSION_1.read_text()), "schema_version": 3}
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="schema_version 3 is not known; a later pytest-h2o"):
        read_summary(tmp_path / "summary.json")


def test_report_of_an_accepted_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without a failed gate was accepted."""
    passed = {key: verdict for key, verdict in VERDICTS.items() if verdict.outcome == "pass"}
    assert main(["report", str(save_summary(tmp_path, passed))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Accepted"


@pytest.mark.parametrize(
    ("gates", "left", "outcome"),
    [
        (2, 0, "Accepted: runtime"),
        (2, 3, "No acceptance: 2 of 5 gates of runtime judged, none failed"),
        (3, 3, "Not accepted: 1 of 2 gates failed (1 cause)"),
    ],
)
def test_outcome_of_a_suite(
    tmp_path: Path, gates: int, left: int, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suite is accepted as a whole: while some of its gates were not judged, the others say
    nothing about it.
    """
    verdicts = dict(
        sorted(VERDICTS.items(), key=lambda item: item[1].outcome == "fail")[1 : 1 + gates]
    )
    document = summary("t", resolve(), verdicts, suite="runtime", not_judged=["gate"] * left)
    (tmp_path / "summary.json").write_text(document.model_dump_json())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == outcome
    assert markdown(document).startswith(f"# {outcome}\n")
    assert document.overall_pass == outcome.startswith("Accepted")


@pytest.mark.parametrize(
    ("policy", "accepted"), [("fail", False), ("xfail", True), ("skip", True), ("warn", True)]
)
def test_undecided_gates_count_as_asked(policy: str, accepted: bool) -> None:
    """A study without a decision fails the record, too, unless DECODE_INCONCLUSIVE tolerates it."""
    undecided = {"x": Verdict(gate="decode_drop", case="full_strict", outcome="inconclusive")}
    assert (
        summary("t", resolve([f"DECODE_INCONCLUSIVE={policy}"]), undecided).overall_pass == accepted
    )


def test_report_neutralises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a summary do not reach the terminal."""
    hostile = Verdict(gate="\x1b[2J", case="a\nb", outcome="fail", reason="\x07", unit="\r")
    assert main(["report", str(save_summary(tmp_path, {"x": hostile}, title="\x1b]0;t\x07"))]) == 0
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)


GATE = {**asdict(VERDICTS["gates/test_m3.py::test_x"]), "nodeid": "x"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "not json",
        "[" * 100_000,
        json.dumps({"title": "t", "overall_pass": "yes", "gates": []}),
        json.dumps({"title": "t", "overall_pass": True}),
        json.dumps({"overall_pass": True, "gates": []}),
        json.dumps({"title": "t", "overall_pass": True, "gates": [1]}),
        json.dumps({"title": "t", "overall_pass": True, "gates": [{**GATE, "outcome": "perfect"}]}),
        json.dumps({"title": "t", "overall_pass": True, "gates": [{**GATE, "outcome": []}]}),
        json.dumps({"title": "t", "overall_pass": True, "gates": [{**GATE, "value": "many"}]}),
        json.dumps({"title": "t", "overall_pass": True, "gates": [{**GATE, "margin": 10**400}]}),
    ],
)
def test_report_of_something_else(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no summary is an error that names the file and the next step, never a traceback."""
    (tmp_path / "summary.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path}/summary.json: no summary of a run" in err


def test_report_of_a_run_that_judged_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session that was interrupted before its first verdict left launches alone."""
    (tmp_path / "launches").mkdir()
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path}: nothing was judged before the run ended" in capsys.readouterr().err


def test_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory without a summary is named."""
    assert main(["report", str(tmp_path)]) == 2
    assert (
        "summary.json: no summary of a run (No such file or directory)" in capsys.readouterr().err
    )
