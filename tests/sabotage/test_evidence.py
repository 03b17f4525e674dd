"""Evidence on recorded output of real programs: what each run deserves, and that honest runs are
not accused.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from golden import RUNS, bench_records, demo_records

from pytest_h2o.evidence import (
    decode_evidence,
    eviction_evidence,
    launches_evidence,
    lossless_evidence,
    settings_evidence,
    spans_evidence,
)
from pytest_h2o.evidence.look import looks_at
from pytest_h2o.evidence.perplexity import perplexity_increase, quality_evidence
from pytest_h2o.evidence.settings_in_force import cores_used
from pytest_h2o.evidence.speed import ANEW, PLAIN
from pytest_h2o.kit.archives import read_recording
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.runs.results import Run, read_launches
from pytest_h2o.verdict import Evidence

HONEST = [
    "bench_full",
    "bench_full_coverage",
    "bench_store",
    "bench_probe",
    "demo_full",
    "demo_store",
]
ABOUT_RUNS = (
    eviction_evidence,
    lossless_evidence,
    settings_evidence,
    lambda run: launches_evidence([run]),
)


def read(name: str, directory: Path) -> Run:
    """A recorded run; the prompt that the program ignored is left out, as the prompt gate fails for
    it.
    """
    records = (
        demo_records(name, directory) if name.startswith("demo") else bench_records(name, directory)
    )
    return read_launches(name, [record for record in records if record.label != "prompt_128_1"])


def said(evidence: list[Evidence], standing: str) -> str:
    return "; ".join(f"{item.claim}: {item.text}" for item in evidence if item.standing == standing)


@pytest.mark.parametrize("name", HONEST)
def test_honest_runs_are_not_accused(name: str, tmp_path: Path) -> None:
    """Nothing contradicts a real run, and the claims it can prove are supported."""
    run = read(name, tmp_path)
    found = [item for about in ABOUT_RUNS for item in about(run)]
    assert said(found, "contradicted") == ""
    assert "KV shrank after" in said(found, "supported")
    assert "h2o_lossless_roundtrips" in said(found, "not evidenced")


@pytest.mark.parametrize("name", HONEST)
def test_honest_comparisons_are_not_accused(name: str, tmp_path: Path) -> None:
    """A real candidate beside a real baseline: fair but for the KV that the program keeps between
    requests.
    """
    kind = name.partition("_")[0]
    candidate, baseline = (
        read(name, tmp_path / "candidate"),
        read(f"{kind}_baseline", tmp_path / "baseline"),
    )
    beside = {record.label: record for record in baseline.launches}
    evidence = decode_evidence([(beside[record.label], record) for record in candidate.launches])
    assert said(evidence, "contradicted") == ""
    assert "off in the baseline" in said(evidence, "supported")
    if kind == "bench":
        assert "KV of earlier requests was kept" in said(evidence, "doubtful")


@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize("name", [name for name in HONEST if name.startswith("bench")])
def test_unknown_repeats_accuse_nobody(name: str, manifest: bool, tmp_path: Path) -> None:
    """Where the number of responses was not kept, what the log lines add up to refutes nothing."""
    recording = Path(shutil.copytree(RUNS / name, tmp_path / name))
    (recording / "launches.json").unlink()
    if manifest:
        entries = [
            {"run_id": f"run_000{n}_p{n * 512}_g128", "prompt_len": n * 512, "gen_len": 128}
            for n in (1, 2)
        ]
        (recording / "manifest.json").write_text(json.dumps(entries))
    found = read_recording(recording)
    run = found.run(found.cases(resolve())[name])
    assert (run.problems, len(run.rows)) == ((), 2)
    evidence = [item for about in ABOUT_RUNS for item in about(run)]
    evidence += decode_evidence([(record, record) for record in run.launches])
    assert "KV shrank after" in said(evidence, "supported")
    assert {item.claim for item in evidence if item.standing == "contradicted"} <= {PLAIN, ANEW}


def test_stale_kv_is_quantified(tmp_path: Path) -> None:
    """The warning names the longest cache and the request it was seen in."""
    evidence = eviction_evidence(read("bench_full", tmp_path))
    assert "kv= reaches 2440 in a request of 640 tokens" in said(evidence, "doubtful")


def test_claims_without_eviction(tmp_path: Path) -> None:
    """A lossy ratio above 3 whose plans were nearly all dropped is contradicted twice: by lines and
    by token counts.
    """
    evidence = said(
        eviction_evidence(read("bench_claims_without_eviction", tmp_path)), "contradicted"
    )
    assert "248 of 256 eviction plans were dropped as stale, and KV grew to 2567 tokens" in evidence
    assert "plans were made and not applied" in evidence


def test_never_triggered(tmp_path: Path) -> None:
    """Ratios of exactly 1 say that nothing was evicted, and the setting that explains it is
    named.
    """
    evidence = said(eviction_evidence(read("bench_never_triggered", tmp_path)), "contradicted")
    assert "H2O never triggered" in evidence
    assert "H2O_TRIGGER_MIN is 100000, the longest response has 1152 tokens" in evidence
    assert lossless_evidence(read("bench_never_triggered", tmp_path / "again")) == []


@pytest.mark.parametrize(("factor", "standing"), [(1.0, "contradicted"), (0.005, "doubtful")])
def test_equal_speeds(factor: float, standing: str, tmp_path: Path) -> None:
    """Equal in every digit is a copy where the digits are many; slow launches may agree by
    chance.
    """
    first, second = (bench_records("bench_full", tmp_path / name)[0] for name in ("one", "two"))
    for record in (first, second):
        text = record.table.read_text()
        record.table.write_text(
            re.sub(r"(\d+\.\d\d) ± ", lambda found: f"{float(found[1]) * factor:.2f} ± ", text)
        )
    second = replace(second, spec=replace(second.spec, replicate=2))
    evidence = launches_evidence([read_launches("full", [first]), read_launches("full", [second])])
    assert "as bench-" in said(evidence, standing)


def rewritten(tmp_path: Path, *changes: tuple[str, str]) -> Run:
    """The run ``bench_full`` with regular expressions replaced in its tables."""
    records = bench_records("bench_full", tmp_path)
    for record in records:
        text = record.table.read_text()
        for pattern, text_there in changes:
            text = re.sub(pattern, text_there, text)
        record.table.write_text(text)
    return read_launches("full", records)


def test_deviations_of_equal_repeats(tmp_path: Path) -> None:
    """The root of a rounding error below zero is printed as -nan: the repeats were equal, and
    nothing contradicts.
    """
    run = rewritten(tmp_path, (r"(0\.3\d{3}) ± 0\.\d{4}", r"\1 ± -nan"))
    assert "-nan" in run.launches[0].table.read_text()
    assert said(eviction_evidence(run), "contradicted") == ""


@pytest.mark.parametrize(("speed", "standing"), [("0.71", "doubtful"), ("71.00", "contradicted")])
def test_repeats_without_a_spread(speed: str, standing: str, tmp_path: Path) -> None:
    """Two decimals of less than a token a second cannot show how repeats differ; those of many
    can.
    """
    run = rewritten(
        tmp_path,
        (r"\d+\.\d\d ± \d+\.\d\d<br>\d+\.\d\d ± \d+\.\d\d", f"{speed} ± 0.00<br>{speed} ± 0.00"),
    )
    assert "± 0 in both speeds: 3 repeats were asked for" in said(
        launches_evidence([run]), standing
    )


@pytest.mark.parametrize(
    ("words", "backend", "rows"),
    [
        ("llm_bench -kv true -fp log.md -a opencl", "opencl", 1),
        ("llm_bench -kv true -fp log.md -a vulkan", "vulkan", 1),
        ("taskset -c 0,1 nice -n 5 /opt/mnn/llm_bench -kv true -fp log.md", "cpu", 1),
        ("llm_bench -kv true -fp log.md -m a.json,b.json", "cpu", 2),
        ("llm_bench -kv true,false -fp log.md,other.md", "cpu", 1),
    ],
)
def test_recorded_command_lines(words: str, backend: str, rows: int, tmp_path: Path) -> None:
    """Launchers have options of their own, lists of models print a row each, and only names are cut
    at a comma.
    """
    argv = [*words.split(), "-p", "512", "-n", "128", "-rep", "3"]
    (tmp_path / "launch.json").write_text(json.dumps({"argv": argv, "returncode": 0}))
    lines = (RUNS / "bench_full/logs/run_0001_p512_g128.log").read_text().splitlines()
    (tmp_path / "log.md").write_text("\n".join([*lines, lines[-1]][: len(lines) + rows - 1]) + "\n")
    found = read_recording(tmp_path)
    run = found.run(next(iter(found.cases(resolve()).values())))
    assert (run.problems, len(run.rows), run.launches[0].spec.backend) == ((), rows, backend)


def test_blocks_of_another_length(tmp_path: Path) -> None:
    """Blocks may lack the hot sink; all blocks of 100 tokens are not the 128 asked for."""
    records = bench_records("bench_full_coverage", tmp_path)
    config = {
        "kv_lossless_runtime_mode": "full",
        "kv_lossless_block_tokens": 128,
        "kv_lossless_hot_sink_tokens": 16,
    }
    asked = [replace(record, spec=replace(record.spec, config=config)) for record in records]
    assert said(spans_evidence(read_launches("full", asked)), "contradicted") == ""
    for record in asked:
        record.stdout.write_text(record.stdout.read_text().replace(" tokens=128 ", " tokens=112 "))
    assert (
        said(spans_evidence(read_launches("full", asked)), "contradicted") == ""
    )  # later ones may lack the sink as well
    for record in asked:
        record.stdout.write_text(record.stdout.read_text().replace(" tokens=112 ", " tokens=100 "))
    found = said(spans_evidence(read_launches("full", asked)), "contradicted")
    assert "first blocks of 100 tokens, asked for 128; later blocks of 100" in found


@pytest.mark.parametrize(("cpu_seconds", "standing"), [(40.0, "supported"), (47.0, "contradicted")])
def test_more_cores_than_threads(cpu_seconds: float, standing: str, tmp_path: Path) -> None:
    """Two threads, an encode worker and one core to spare cannot use 47 seconds of CPU time in
    10.
    """
    record = replace(bench_records("bench_full", tmp_path)[0], argv=("llm_bench",), seconds=10.0)
    spec = replace(record.spec, threads=2, config={"kv_lossless_async_threads": 1})
    (look,) = looks_at(read_launches("full", [replace(record, spec=spec, cpu_seconds=cpu_seconds)]))
    evidence = cores_used(look)
    assert evidence
    assert f"{cpu_seconds / 10} cores were busy on average" in said([evidence], standing)


@pytest.mark.parametrize("value", ["x", float("inf")])
@pytest.mark.parametrize("run", ["bench_never_triggered", "bench_store"])
def test_recorded_configs_hold_anything(run: str, value: float | str, tmp_path: Path) -> None:
    """A key whose value is no number is no reason for a traceback, in whatever check looks at
    it.
    """
    keys = {
        "kv_h2o_layer_start", "kv_h2o_update_interval", "kv_h2o_trigger_min_tokens",
        "kv_h2o_target_lossy_ratio", "kv_lossless_hot_sink_tokens", "kv_lossless_block_tokens",
        "kv_lossless_decode_cache_blocks",
    }  # fmt: skip
    config = dict.fromkeys(keys, value) | {
        "kv_h2o_target_mode": "adaptive",
        "kv_lossless_runtime_mode": "store",
    }
    records = [
        replace(each, spec=replace(each.spec, config=config))
        for each in bench_records(run, tmp_path)
    ]
    found = read_launches(run, records)
    assert [item for about in (*ABOUT_RUNS, spans_evidence) for item in about(found)]


def test_nothing_left_to_evict(tmp_path: Path) -> None:
    """Where protected tokens are all that is kept, the settings are blamed, not the program."""
    (record, *_) = bench_records("bench_never_triggered", tmp_path)
    record.stdout.write_text(
        "[H2O] floor-keep dominates target: layer=2 kv=640 floor=640 target=214\n" * 20
    )
    record = replace(record, spec=replace(record.spec, config={"kv_h2o_trigger_min_tokens": 512}))
    assert "sink and recent tokens leave nothing to evict" in said(
        eviction_evidence(read_launches("full", [record])), "contradicted"
    )


def test_unusable_runs_are_not_looked_at(tmp_path: Path) -> None:
    """Where a launch has no row every gate fails for that reason; evidence adds nothing."""
    (record, *others) = bench_records("bench_full", tmp_path)
    record.table.unlink()
    run = read_launches("full", [record, *others])
    assert [item for about in ABOUT_RUNS for item in about(run)] == []
    assert decode_evidence([(record, record)]) == []


@pytest.mark.parametrize(
    ("h2o", "increase", "standing"),
    [
        ((14.298, 0.01905, 22.367, 2.482), 0.018, "supported"),
        ((17.562, 0.15039, 22.367, 2.482), 0.25, "contradicted"),
        ((14.298, 0.01905, 23.296, 2.482), 0.018, "contradicted"),
        ((14.049, 0.0, 21.882, 1.0), 0.0, "contradicted"),
    ],
    ids=["honest", "keeps_the_oldest_tokens", "forgets_the_beginning", "evicts_nothing"],
)
def test_quality_of_what_is_kept(
    h2o: tuple[float, ...], increase: float, standing: str, tmp_path: Path
) -> None:
    """Numbers of the embedded engine, and of engines whose H2O keeps the wrong tokens, or all of
    them.
    """
    (record, *_) = bench_records("bench_full", tmp_path)
    target = record.spec.config["kv_h2o_target_lossy_ratio"]
    rows = {
        "full": (14.049, 0.0, 21.882, 1.0),
        "h2o": h2o,
        "window": (13.877, 0.02664, 23.296, 2.482),
    }
    keys = ("perplexity", "divergence", "recall_perplexity", "effective_ratio")
    report = [
        {"policy": name, "target": target} | dict(zip(keys, each, strict=True))
        for name, each in rows.items()
    ]
    (record.directory / "quality.json").write_text(json.dumps({"quality": report}))
    assert perplexity_increase(record).value == pytest.approx(increase, abs=0.001)
    standings = [item.standing for item in quality_evidence(record)]
    assert (standing in standings, set(standings) <= {standing, "supported"}) == (True, True)


@pytest.mark.parametrize(
    ("loss", "standing"), [(14.049, "supported"), (14.0490001, "contradicted")]
)
def test_quality_with_lossless_coding(loss: float, standing: str, tmp_path: Path) -> None:
    """What lossless coding predicts is what the full cache does, to the last digit."""
    (record, *_) = bench_records("bench_full", tmp_path)
    target = record.spec.config["kv_h2o_target_lossy_ratio"]
    keys = ("perplexity", "divergence", "recall_perplexity", "effective_ratio")
    rows = {
        "full": (14.049, 0.0, 21.882, 1.0),
        "lossless": (14.049, 0.0, 21.882, 1.0),
        "store": (loss, 0.0, 21.882, 1.0),
        "h2o": (14.265, 0.02134, 22.618, 2.677),
        "window": (13.877, 0.02664, 23.296, 2.482),
    }
    report: list[dict[str, object]] = []
    for name, each in rows.items():
        whole = name not in ("h2o", "window")
        row = {"policy": name, "target": 1.0 if whole else target}
        report.append(row | dict(zip(keys, each, strict=True)))
    (record.directory / "quality.json").write_text(json.dumps({"quality": report}))
    found = {item.claim: item.standing for item in quality_evidence(record)}
    assert found["lossless coding changes nothing of what is predicted"] == standing


def test_quality_without_any_eviction(tmp_path: Path) -> None:
    """Settings under which nothing goes from windows of the text: not evaluated, and nobody is
    accused.
    """
    (record, *_) = bench_records("bench_full", tmp_path)
    target = record.spec.config["kv_h2o_target_lossy_ratio"]
    row = {
        "perplexity": 14.049,
        "divergence": 0.0,
        "recall_perplexity": 21.882,
        "effective_ratio": 1.0,
    }
    report = [{"policy": name, "target": target} | row for name in ("full", "h2o", "window")]
    (record.directory / "quality.json").write_text(json.dumps({"quality": report}))
    assert "lower H2O_TRIGGER_MIN" in perplexity_increase(record).missing
    assert quality_evidence(record) == []
