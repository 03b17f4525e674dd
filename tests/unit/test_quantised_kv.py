"""The suite kv_quant: its cases, what is launched for it, and its verdicts on reports that a test
makes up.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate_functions import KV_QUANT, judge, make_run
from quantised_texts import KNOBS, texts_of

from pytest_h2o.evidence.kv_quant_cost import Compared, bytes_ratio, in_force
from pytest_h2o.lab.workload import Workload
from pytest_h2o.parsers.held_out import read_kv_report, read_perplexity
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.plan.cases import all_cases, baseline_of, launches
from pytest_h2o.plan.knobs import baseline_config, resolve
from pytest_h2o.plan.kv_quant import OPTIONS
from pytest_h2o.report.text import summary_rows
from pytest_h2o.runs.records import LaunchRecord, standard_paths
from pytest_h2o.runtimes import MnnRuntime, RuntimeSetupError, programs_by_work
from pytest_h2o.runtimes.programs import PPL_EVAL
from pytest_h2o.session.reporter import Reporter
from pytest_h2o.verdict import NO_H2O, Verdict

STOCK = Path(__file__).parents[1] / "data" / "upstream"
PROGRAMS = programs_by_work(MnnRuntime.programs)


def test_each_option_is_a_case() -> None:
    """One on prompt lengths and one on real prompts; H2O is off in both, and in their baseline."""
    cases = all_cases(KNOBS)
    for option, each in OPTIONS.items():
        (spec, *_) = launches(cases[each.name], KNOBS, [])
        (real,) = launches(cases[f"{each.name}_prompts"], KNOBS, [Path("prompt_128_1.txt")])
        for launch in (spec, real):
            assert launch.config == baseline_config()
            assert launch.attention_option == option
            assert baseline_of(launch).attention_option == 0


def test_h2o_keeps_the_option_in_its_baseline() -> None:
    """Where H2O is under test, both sides quantise alike."""
    knobs = resolve(["ATTENTION_OPTION=2"], suite="runtime")
    (spec, *_) = launches(all_cases(knobs)["full_strict"], knobs, [])
    assert (spec.attention_option, baseline_of(spec).attention_option) == (2, 2)


def test_the_option_that_is_given_is_the_case() -> None:
    """ATTENTION_OPTION says which one, where it is given."""
    names = [case.name for case in all_cases(resolve(["ATTENTION_OPTION=6"])).values()]
    assert [name for name in names if name.endswith("_prompts")] == ["kv_tq4_prompts"]


# Case, perplexity, divergence and bytes a token, and what the three gates on these decide.
JUDGED = [
    ("k_int8", (15.1, 0.001, 6160.0), ["pass", "pass", "pass"]),
    ("kv_int8", (15.1, 0.001, 4300.0), ["pass", "pass", "pass"]),
    ("kv_int8", (15.1, 0.001, 6160.0), ["pass", "pass", "fail"]),  # V is left as it was
    ("kv_tq4", (102.8, 1.88, 1134.0), ["fail", "fail", "pass"]),
    ("kv_tq3", (15.1, 0.001, 8192.0), ["pass", "pass", "fail"]),
    ("k_tq3", (15.1, 0.2, 4900.0), ["pass", "fail", "pass"]),
]


@pytest.mark.parametrize(("case", "seen", "outcomes"), JUDGED)
def test_verdicts(
    tmp_path: Path, case: str, seen: tuple[float, float, float], outcomes: list[str]
) -> None:
    """Perplexity, divergence and bytes are each judged on their own."""
    perplexity, divergence, kv_bytes = seen
    text = texts_of(tmp_path, case, perplexity=perplexity, divergence=divergence, kv_bytes=kv_bytes)
    runs = {"quant_plain_run": make_run([]), "quant_run": make_run([])}
    found = [
        judge(KV_QUANT.test_perplexity, KNOBS, case, quant_text=text),
        judge(KV_QUANT.test_divergence, KNOBS, case, quant_text=text),
        judge(KV_QUANT.test_kv_bytes, KNOBS, case, quant_text=text, **runs),
    ]
    assert [verdict.outcome for verdict in found] == outcomes


def test_v_that_is_left_as_it_is(tmp_path: Path) -> None:
    """Where K and V were asked for and the saving is that of K alone, the sentence says so."""
    runs = {"quant_plain_run": make_run([]), "quant_run": make_run([])}
    for kv_bytes, said in ((6060.0, True), (8192.0, False)):
        text = texts_of(tmp_path, "kv_int8", perplexity=15, divergence=0, kv_bytes=kv_bytes)
        found = judge(KV_QUANT.test_kv_bytes, KNOBS, "kv_int8", quant_text=text, **runs)
        assert found.outcome == "fail"
        assert ("and 1/1.33 where V is left as it is" in found.reason) == said


def test_bytes_by_the_peaks_of_two_lengths(tmp_path: Path) -> None:
    """Without a report the memory of the launches at two prompt lengths tells."""
    text = texts_of(tmp_path, "kv_int8", perplexity=15, divergence=0, kv_bytes=None)
    runs = []
    for each in (8192, 2048):
        run = make_run([{"peak_memory_mb": 50.0}, {"peak_memory_mb": 50.0 + each / 2**11}])
        longer = replace(run.rows[1], prompt_tokens=1024)
        runs.append(replace(run, rows=(run.rows[0], longer)))
    assert bytes_ratio(text, *runs).value == pytest.approx(4)
    short = make_run([{"peak_memory_mb": 50.0}])
    assert "PROMPTS two lengths" in bytes_ratio(text, short, short).missing


def test_kv_that_predicts_the_same_is_not_quantised(tmp_path: Path) -> None:
    """To the last digit the same perplexity: the option was passed over."""
    for perplexity, standing in ((15.0, "contradicted"), (15.1, "supported")):
        text = texts_of(tmp_path, "kv_int8", perplexity=perplexity, divergence=0, kv_bytes=1.0)
        (found,) = in_force(text, make_run([]))
        assert found.standing == standing


def test_a_report_about_eviction_alone(tmp_path: Path) -> None:
    """A program that cannot quantise fails each gate with one cause."""
    text = texts_of(tmp_path, "kv_int8", perplexity=15, divergence=0, kv_bytes=1.0)
    (text.candidate.directory / "quality.json").write_text('{"quality": []}')
    found = judge(KV_QUANT.test_perplexity, KNOBS, "kv_int8", quant_text=text)
    assert (found.outcome, found.cause) == (
        "fail",
        "llm_bench cannot report what quantised KV costs",
    )


def test_a_program_without_h2o_is_said_once_a_suite() -> None:
    """In the table, and among the failures: the first at length, the others counted; each fails."""
    found: list[Verdict] = []
    reports: list[pytest.TestReport] = []
    for number, suites in enumerate(("runtime", "runtime", "m3")):
        verdict = Verdict(gate=f"g{number}", outcome="fail", cause=NO_H2O, suites=suites)
        found.append(verdict)
        properties = verdict.properties()
        where = ("gates.py", 1, "g")
        reports.append(
            pytest.TestReport(
                str(number), where, {}, "failed", "", "call", user_properties=properties
            )
        )
    rows = summary_rows(found, note=200)[1:]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
        ("FAIL", "2 gates", "runtime", NO_H2O),
        ("FAIL", "1 gate", "m3", NO_H2O),
    ]
    reporter: Any = SimpleNamespace(without_h2o={})
    shown = [Reporter.pytest_report_teststatus(reporter, report) for report in reports]
    assert shown == [None, ("without H2O", "F", "FAILED"), None]


def test_rows_without_h2o_have_one_reason() -> None:
    """Whatever number of H2O is asked for; a binary that prints some of them is only older."""
    assert make_run([{"decode_tps": 10.0}]).highest("h2o_lossy").missing == NO_H2O
    older = make_run([{"decode_tps": 10.0, "h2o_lossy": 3.0}])
    assert "older" in older.highest("h2o_lossless").missing


def test_ppl_eval_stands_in_for_stock_binaries(tmp_path: Path) -> None:
    """It is found beside llm_bench, and reads a text that is written for it. Nothing is run here:
    the words are those of a recorded launch.
    """
    recorded = json.loads((STOCK / "ppl" / "launch.json").read_text())["argv"]
    bench = tmp_path / "bin" / "llm_bench"
    bench.parent.mkdir()
    bench.touch()
    (tmp_path / "config.json").write_text("{}")
    runtime = MnnRuntime({"llm_bench": bench}, tmp_path / "config.json", "a test")
    work = Workload(KNOBS, tmp_path, programs=PROGRAMS)
    baseline, candidate = work.text_launches(work.cases["kv_tq4"])
    with pytest.raises(RuntimeSetupError, match="ppl_eval is needed and is not in"):
        runtime.command(candidate, tmp_path)
    bench.with_name("ppl_eval").touch()
    command = runtime.command(candidate, tmp_path)
    assert command.argv[:3] == (
        str(bench.with_name("ppl_eval")),
        str(tmp_path / "config.json"),
        str(tmp_path),
    )
    assert len(command.argv) == len(recorded)
    assert command.config["attention_mode"] == 14
    assert "attention_mode" not in runtime.command(baseline, tmp_path).config
    assert list(command.texts) == [tmp_path / "prompt.txt"]


@pytest.mark.parametrize(("made_up", "outcome"), [(380.0, "pass"), (1500.0, "fail")])
def test_stock_perplexity_is_judged(tmp_path: Path, made_up: float, outcome: str) -> None:
    """Against a recorded output of ppl_eval; that of quantised KV is the same with another number,
    for none was recorded.
    """
    work = Workload(KNOBS, tmp_path, programs=PROGRAMS)
    recorded = (STOCK / "ppl" / "stdout").read_text()
    found: list[LaunchRecord] = []
    for spec in work.text_launches(work.cases["kv_tq4"]):
        paths = standard_paths(tmp_path / spec.arm)
        paths["directory"].mkdir()
        number = str(made_up) if spec.attention_option else "371.062988"
        paths["stdout"].write_text(recorded.replace("371.062988", number))
        found.append(LaunchRecord(spec=spec, status="ok", reason="", **paths))
    verdict = judge(KV_QUANT.test_perplexity, KNOBS, "kv_tq4", quant_text=Compared(*found))
    assert verdict.outcome == outcome


def test_recorded_perplexity(tmp_path: Path) -> None:
    """What ppl_eval printed, and nothing where it printed none."""
    assert read_perplexity(STOCK / "ppl" / "stdout").perplexity == 371.062988
    assert PPL_EVAL.failure((STOCK / "ppl" / "stdout").read_text()) == ""
    for text in ("", "Perplexity: \n", "Perplexity: 1e\n"):
        (tmp_path / "stdout").write_text(text)
        with pytest.raises(ParseError):
            read_perplexity(tmp_path / "stdout")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"kv_bytes_per_token": -1, "kv_quality": []}',
        '{"kv_bytes_per_token": null, "kv_quality": '
        '[{"policy": "full", "perplexity": NaN, "divergence": 0}]}',
    ],
)
def test_broken_reports(tmp_path: Path, text: str) -> None:
    """Numbers that are none are no report."""
    (tmp_path / "quality.json").write_text(text)
    with pytest.raises(ParseError):
        read_kv_report(tmp_path / "quality.json")
