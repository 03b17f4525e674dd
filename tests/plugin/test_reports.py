"""The files of a run directory: the original's keys, valid against the schemas that ship, equal
numbers everywhere.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pydantic
import pytest
from lxml import etree

from pytest_h2o.commands.schema import schemas
from pytest_h2o.kit import documents
from pytest_h2o.report import models
from pytest_h2o.session import session

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    Path(module.__file__).parent / "schemas" / f"{name}.json": model
    for module in (models, documents)
    for name, model in module.SCHEMAS.items()
}
GOLDEN = ROOT / "tests" / "data" / "runs"
RECORDED = ROOT / "tests" / "data" / "session"
SETTINGS = [
    "PROMPTS=512", "GENS=48", "REPEAT=1", "THREADS=2", "FULL_RUNS=1",
    "PROMPT_PATTERN=prompt_512_*.txt", "DECODE_TOKENS=64", "KV_DUMP_PROMPTS=1",
    "DECODE_DROP_TARGET=0.8", "LLM_DEMO_DECODE_DROP_TARGET=0.8", "LOSSLESS_TARGET=1.2",
    "REQUIRE_QUALITY=0",
]  # fmt: skip
PRELOADED = (np, pd, session)
FILES = {
    "summary.json": "summary",
    "m3/m3_report.json": "m3_report",
    "llm_demo/llm_demo_report.json": "llm_demo_report",
    "llm_demo/baseline_summary.json": "llm_demo_summary",
    "llm_demo/candidate_summary.json": "llm_demo_summary",
    "final/final_report.json": "final_report",
    "all_in_one/all_in_one_report.json": "all_in_one_report",
}


def replay(pytester: pytest.Pytester, *arguments: str) -> Path:
    """The run directory of a replay of the recorded session."""
    settings = [word for setting in SETTINGS for word in ("--h2o-set", setting)]
    pytester.runpytest_inprocess(
        str(ROOT / "gates"), "--rootdir", str(ROOT), "-p", "no:cacheprovider",
        "--h2o-replay",
        str(RECORDED),
        "--h2o-runtime",
        "embedded",
        "--h2o-set",
        "OUT=out",
        "--junitxml=junit.xml",
        *settings, *arguments,
    )  # fmt: skip
    return pytester.path / "out"


def document(path: Path) -> Any:
    return json.loads(path.read_text())


@cache
def schema(name: str) -> Any:
    return schemas()[name]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shipped_schemas_are_the_models() -> None:
    """Each schema file is what its model generates, and there is no other; older versions of
    pydantic say less of a dataclass, and a constant twice.
    """
    shipped = [path for folder in {path.parent for path in DOCUMENTS} for path in folder.iterdir()]
    assert set(shipped) == set(DOCUMENTS)
    newest = tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 14)
    for path, model in DOCUMENTS.items():
        text, generated = path.read_text(), models.schema_text(model)
        if newest:
            assert text == generated
        else:
            assert alike(json.loads(text)) == alike(json.loads(generated))


def alike(part: Any) -> Any:
    """A schema without what versions of pydantic write differently."""
    if isinstance(part, list):
        return [alike(each) for each in part]
    if not isinstance(part, dict):
        return part
    left_out = {"additionalProperties", "description"}
    if "const" in part:
        left_out |= {"enum", "type"}
    return {name: alike(each) for name, each in part.items() if name not in left_out}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "presets").glob("*.json")), ids=lambda path: path.stem
)
def test_presets_are_valid(path: Path) -> None:
    """Every preset that ships is valid against the schema that ships, which refuses a misspelt
    key.
    """
    jsonschema.validate(document(path), schema("preset"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document(path), "h2o_keep_ratio": [0.3]}, schema("preset"))


def test_all_in_one_writes_everything(pytester: pytest.Pytester) -> None:
    """Every part has its folder, and every JSON file is valid against its schema."""
    out = replay(pytester, "-m", "all_in_one")
    for name, kind in FILES.items():
        jsonschema.validate(document(out / name), schema(kind))
    for row in lines(out / "m3" / "results.jsonl"):
        jsonschema.validate(row, schema("m3_row"))
    for path in out.glob("llm_demo/*_runs.jsonl"):
        for row in lines(path):
            jsonschema.validate(row, schema("llm_demo_run"))
    for path in out.glob("cases/*/manifest.json"):
        for entry in document(path):
            jsonschema.validate(entry, schema("manifest_entry"))
    assert {path.parent.name for path in out.glob("cases/*/summary.md")} == {
        "full_strict", "store_tuned", "full_coverage", "joint_full-1", "joint_store-1",
        "runtime_fixed", "runtime_same_batch", "runtime_rolling",
    }  # fmt: skip
    report = document(out / "all_in_one" / "all_in_one_report.json")
    assert report["suite_counts"] == {"runtime": 3, "m3": 1, "llm_demo": 1, "final": 1}
    assert lines(out / "all_in_one" / "all_in_one_results.jsonl") == report["rows"]
    assert (
        lines(out / "final" / "results.jsonl")
        == document(out / "final" / "final_report.json")["rows"]
    )
    for row in report["rows"]:
        assert (out / row["summary"]).is_file()
        assert row["return_code"] == (0 if row["overall_pass"] else 1)
    assert report["overall_pass"] == all(row["overall_pass"] for row in report["rows"])


def test_parts_that_are_off(pytester: pytest.Pytester) -> None:
    """A part that its knob turns off is neither judged nor reported."""
    off = [
        word for name in ("RUNTIME_FIXED", "M3", "FINAL") for word in ("--h2o-set", f"RUN_{name}=0")
    ]
    report = document(
        replay(pytester, "-m", "all_in_one", *off) / "all_in_one" / "all_in_one_report.json"
    )
    assert report["suite_counts"] == {"runtime": 2, "llm_demo": 1}


def properties(path: Path) -> Iterator[dict[str, str]]:
    for case in ET.parse(path).iter("testcase"):
        found = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        if "gate" in found:
            yield found


def test_numbers_are_equal_everywhere(pytester: pytest.Pytester) -> None:
    """JUnit, summary.json and the Quality Gate hold the same values, and the case's row is the
    report's.
    """
    out = replay(pytester, "-m", "runtime", "-o", "h2o_junit_properties=true")
    gates = document(out / "summary.json")["gates"]
    junit = {(item["gate"], item["case"]): item for item in properties(pytester.path / "junit.xml")}
    assert {(gate["gate"], gate["case"]) for gate in gates} == set(junit)
    suite = ET.parse(pytester.path / "junit.xml").find("testsuite/properties")
    of_suite = {item.attrib["name"]: item.attrib["value"] for item in suite}
    for gate in gates:
        text = junit[gate["gate"], gate["case"]].get("value")
        assert gate["value"] == (None if text is None else float(text))
        shown = of_suite.get(f"{gate['gate']}[{gate['case']}].value")
        assert gate["value"] == (None if shown is None else float(shown))
    values = {
        gate["gate"]: gate["value"] for gate in gates if gate["case"] in ("full_strict", "offline")
    }
    quality = dict(
        re.findall(
            r"^- (\w+): (.*)$", (out / "cases/full_strict/summary.md").read_text(), re.MULTILINE
        )
    )
    assert float(quality["lossy_best"]) == pytest.approx(values["lossy"], abs=1e-4)
    assert float(quality["lossless_online_value"]) == pytest.approx(
        values["online_sim_lossless"], abs=1e-4
    )
    assert float(quality["runtime_queue_peak_best"]) == pytest.approx(
        values["queue_peak"], abs=1e-4
    )
    assert float(quality["decode_drop_ratio"]) == pytest.approx(values["decode_drop"], abs=1e-6)
    assert quality["quality_status"] == "PASS"
    assert quality["overall_pass"] == "true"
    for prefix in ("upper", "online"):
        evaluation = document(Path(quality[f"{prefix}_selected_json"]))
        assert quality[f"{prefix}_selected_entries"] == str(evaluation["selected_entries"])
        assert quality[f"{prefix}_selected_layers"] == ",".join(
            map(str, evaluation["selected_layers"])
        )


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["one process", "xdist"])
def test_junit_says_what_was_tested(pytester: pytest.Pytester, workers: list[str]) -> None:
    """The suite's properties name runtime, kit, package, run directory, inputs and knobs, as
    summary.json does.
    """
    out = replay(
        pytester, "-m", "runtime", "-k", "lossy and full_strict", "--h2o-kit", "v5", *workers
    )
    schema_file = ROOT / "tests" / "data" / "junit" / "jenkins-junit-10.xsd"
    etree.XMLSchema(etree.parse(schema_file)).assertValid(etree.parse("junit.xml"))
    suite = ET.parse(pytester.path / "junit.xml").find("testsuite/properties")
    assert suite is not None
    found = {item.attrib["name"]: item.attrib["value"] for item in suite}
    record = document(out / "summary.json")
    recorded = document(next(RECORDED.glob("launches/*/launch.json")))
    assert record["runtime"] == recorded["runtime"]
    assert record["inputs"] == recorded["inputs"]
    for name in ("runtime", "kit", "version", "run_directory"):
        assert found[f"h2o.{name}"] == record[name]
    assert (found["h2o.kit"], found["h2o.version"]) == ("v5", version("pytest-h2o"))
    assert found["h2o.input.llm_weight"] == recorded["inputs"]["llm_weight"]
    assert (found["h2o.knob.LOSSLESS_TARGET"], found["h2o.knob.PROMPTS"]) == ("1.2", "[512]")


def test_sections_of_the_summary(pytester: pytest.Pytester) -> None:
    """The best rows come before the Quality Gate, with the selected lossless ratio in the total."""
    out = replay(pytester, "-m", "runtime", "-k", "full_strict or offline")
    text = (out / "cases/full_strict/summary.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Best Lossy Ratio", "Best Decode TPS", "Best Total Ratio", "Pareto Top-5 (by selected "
                                                                   "total then decode)",
        "Quality Gate",
    ]  # fmt: skip
    quality = dict(re.findall(r"^- (\w+): (.*)$", text, re.MULTILINE))
    [row] = re.findall(
        r"^\| 1 \(.*",
        text.partition("## Best Total Ratio")[2].partition("## Pareto")[0],
        re.MULTILINE,
    )
    lossy, _, total = (float(cell) for cell in row.split("|")[3:6])
    assert total == pytest.approx(lossy * float(quality["lossless_selected_value"]), rel=1e-3)
    assert float(quality["avg_total_ratio"]) == pytest.approx(total, rel=1e-3)


def test_keys_of_the_quality_gate(pytester: pytest.Pytester) -> None:
    """The keys come in the original's order; a limit's target is there only while the limit is
    on.
    """
    out = replay(
        pytester, "-m", "runtime", "-k", "full_strict", "--h2o-set", "MAX_LOSSLESS_ASYNC_WAIT_US=-1"
    )
    section = (out / "cases/full_strict/summary.md").read_text().partition("## Quality Gate")[2]
    keys = re.findall(r"^- (\w+): ", section, re.MULTILINE)
    assert " ".join(keys) == (
        "quality_status lossy_target lossy_best lossy_pass lossless_target "
        "lossless_selected_source "
        "lossless_selected_value lossless_selected_pass lossless_online_value lossless_online_pass "
        "runtime_decomp_required runtime_decomp_best_us runtime_metric_columns_strict "
        "runtime_metric_columns_ok runtime_metric_columns_pass runtime_metric_missing_columns "
        "runtime_decomp_gate_enabled runtime_decomp_target_us runtime_async_queue_peak_best "
        "runtime_async_queue_activity_required runtime_async_wait_best_us "
        "runtime_async_wait_gate_enabled "
        "runtime_decode_cache_hit_best runtime_decode_cache_miss_best "
        "runtime_decode_cache_activity_best "
        "runtime_decode_cache_required runtime_decode_cache_activity_required "
        "runtime_decomp_required_pass "
        "runtime_decomp_budget_pass runtime_async_queue_activity_pass runtime_async_wait_pass "
        "runtime_decode_cache_required_pass runtime_decode_cache_activity_pass "
        "runtime_queue_peak_best "
        "runtime_fallback_best runtime_backpressure_skip_best runtime_queue_peak_gate_enabled "
        "runtime_queue_peak_target runtime_queue_peak_pass runtime_fallback_gate_enabled "
        "runtime_fallback_target runtime_fallback_pass runtime_backpressure_skip_gate_enabled "
        "runtime_backpressure_skip_pass runtime_decomp_pass overall_pass decode_baseline "
        "decode_baseline_source decode_baseline_samples decode_best decode_drop_ratio "
        "decode_drop_target "
        "decode_pass"
    )


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "xdist"])
def test_a_part_of_a_suite_accepts_nothing(pytester: pytest.Pytester, workers: list[str]) -> None:
    """With some of its gates deselected a suite's report names them and does not say that it
    passed.
    """
    out = replay(pytester, "-m", "m3", "-k", "queue_peak or fallback", *workers)
    report = document(out / "m3" / "m3_report.json")
    assert (report["overall_pass"], report["overall_pass_runs"], report["total_runs"]) == (
        False,
        0,
        2,
    )
    page = (out / "cases" / "joint_store-1" / "summary.md").read_text()
    assert "not judged: gates/test_runtime.py::test_lossy\\[joint_store-1]" in page
    assert "joint_full" not in page
    assert {"- quality_status: FAIL", "- runtime_queue_peak_pass: true"} <= {*page.splitlines()}
    assert any("test_lossy[joint_full-1]" in name for name in report["not_judged"])
    assert not any("queue_peak" in name for name in report["not_judged"])
    assert not (out / "final").exists()


@pytest.mark.parametrize(
    ("selection", "headline"),
    [
        (["-m", "offline"], "Accepted: offline"),
        (
            ["-m", "offline", "-k", "tensor"],
            "No acceptance: 2 of 6 gates of offline judged, none failed",
        ),
        (["-m", "offline or m3", "-k", "tensor"], "No acceptance: 2 of *"),
        (
            ["-m", "offline", "--deselect", "gates/test_offline.py::test_offline_verified"],
            "No acceptance: 5 of 6 *",
        ),
        (
            ["-m", "offline", f"--ignore={ROOT / 'gates' / 'test_m3.py'}"],
            "No acceptance: single gates of offline *",
        ),
    ],
)
def test_acceptance_is_of_a_whole_suite(
    pytester: pytest.Pytester, selection: list[str], headline: str
) -> None:
    """Passing gates accept the suite that was asked for only if all of its gates are among them."""
    out = replay(pytester, *selection)
    found = document(out / "summary.json")
    accepted = headline.startswith("Accepted")
    assert {gate["outcome"] for gate in found["gates"]} == {"pass"}
    assert (found["overall_pass"], found["suite"]) == (
        accepted,
        "offline" if selection[1] == "offline" else "",
    )
    assert accepted <= (not found["not_judged"])
    for page in ("summary.md", "report.html"):
        pytest.LineMatcher((out / page).read_text().splitlines()).fnmatch_lines([f"*{headline}*"])


def test_a_gate_named_alone_accepts_nothing(pytester: pytest.Pytester) -> None:
    """The command that repeats one gate judges no suite and no case."""
    settings = [word for setting in SETTINGS for word in ("--h2o-set", setting)]
    gate = f"{ROOT}/gates/test_runtime.py::test_fallback[full_strict]"
    result = pytester.runpytest_inprocess(
        gate, "--rootdir", str(ROOT), "-p", "no:cacheprovider", "--h2o-replay", str(RECORDED),
        "--h2o-runtime", "embedded", "--h2o-set", "OUT=out", *settings,
    )  # fmt: skip
    result.assert_outcomes(passed=1)
    assert document(pytester.path / "out" / "summary.json")["overall_pass"] is False
    page = (pytester.path / "out" / "summary.md").read_text()
    assert page.startswith("# No acceptance: single gates judged, none failed\n")
    assert (
        "- overall_pass: false"
        in (pytester.path / "out" / "cases" / "full_strict" / "summary.md").read_text()
    )


def test_what_was_not_measured_is_null(pytester: pytest.Pytester) -> None:
    """A gate without a value leaves null, never a zero, and the suite fails."""
    out = replay(pytester, "-m", "m3", "--h2o-set", "STORE_RUNS=7")
    rows = {(row["case"], row["run"]): row for row in lines(out / "m3" / "results.jsonl")}
    lost = rows["joint_store", 7]
    assert lost["quality_status"] == "FAIL"
    assert lost["decode_best"] is None
    assert lost["lossy_best"] is None
    assert rows["joint_store", 1]["decode_best"] > 0


@pytest.mark.parametrize(
    ("run", "labels", "speeds"),
    [
        ("bench_columns_varied", ["p64_g8"] * 4, [173.34, 404.47, 140.63, 439.22]),
        (
            "bench_prefill_decode_table",
            ["pp64", "pp128", "tg16", "pp64+tg16"],
            [None, None, 758.76, None],
        ),
        ("fail_missing_weights", ["p64_g16"], None),
    ],
)
def test_one_line_per_row(
    pytester: pytest.Pytester, run: str, labels: list[str], speeds: list[float | None] | None
) -> None:
    """Every row of a recorded table is in metrics.csv, decode speed first, and a launch that
    printed none is, too.
    """
    table = pd.read_csv(
        replay(pytester, "-m", "runtime", "-k", "lossy", "--h2o-replay", str(GOLDEN / run))
        / "metrics.csv"
    )
    assert list(table["label"]) == labels
    columns = list(table.columns)
    assert columns[columns.index("cpu_seconds") + 1 :][:2] == (
        ["decode_tps", "prefill_tps"] if speeds else []
    )
    if speeds:
        assert [None if np.isnan(speed) else speed for speed in table["decode_tps"]] == speeds


def test_one_line_per_prompt(pytester: pytest.Pytester) -> None:
    """Record and summary of a prompt agree in its line; one whose record is lost is there, with
    what is wrong.
    """
    out = replay(pytester, "-m", "llm_demo", "--h2o-replay", str(GOLDEN / "demo_full"))
    rows = {
        Path(row["prompt_file"]).stem: row
        for row in lines(out / "llm_demo" / "candidate_runs.jsonl")
    }
    good, ignored = rows["prompt_512_1"], rows["prompt_128_1"]
    assert (good["status_reason"], good["effective_returncode"], good["prompt_bucket"]) == (
        "ok",
        0,
        "512",
    )
    assert (good["prompt_tokens"], good["cli_prompt_tokens"], good["decode_tokens"]) == (
        751,
        751,
        256,
    )
    assert good["decode_s"] == pytest.approx(good["cli_decode_s"], abs=0.006)
    assert good["decode_tps"] == pytest.approx(256 / good["decode_s"])
    assert good["h2o_metrics"]["h2o_total_evict_tokens"] == 4736
    assert (ignored["returncode"], ignored["effective_returncode"], ignored["h2o_metrics"]) == (
        0,
        2,
        {},
    )
    assert "0 prompt tokens" in ignored["status_reason"]
    assert not ignored["has_jsonl_summary_metrics"]
    assert ignored["decode_tps"] is None
    summary = document(out / "llm_demo" / "candidate_summary.json")
    assert (summary["total_runs"], summary["pass_runs"], summary["overall_pass"]) == (4, 3, False)
    assert summary["bucket_stats"]["2048"]["decode_tps_avg"] == rows["prompt_2048_1"]["decode_tps"]
