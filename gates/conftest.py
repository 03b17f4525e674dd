"""Which cases a gate runs on: ``run`` is parametrized over the bench cases, ``demo`` is the
real-prompt case.
"""

from __future__ import annotations

import pytest

from pytest_h2o.decode.pairs import PairedStudy
from pytest_h2o.lab.decode import Comparison, held_against
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.offline import Evaluation, evaluate_dump
from pytest_h2o.plugin import session_of
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run


def pytest_configure(config: pytest.Config) -> None:
    """Settle runtime and knobs before anything is collected, so that a wrong setting is a usage
    error.
    """
    session_of(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    lab = session_of(metafunc.config).lab
    if "bench_case" in metafunc.fixturenames:
        cases = [case for case in lab.cases.values() if case.work == "lengths"]
        if "decode_study" in metafunc.fixturenames:  # a smoke test takes a launch, not a study
            cases = [case for case in cases if case.suite != "store_smoke"]
        metafunc.parametrize(
            "bench_case",
            [pytest.param(case.name, marks=getattr(pytest.mark, case.suite)) for case in cases],
        )
    if "bucket" in metafunc.fixturenames:
        metafunc.parametrize("bucket", lab.buckets or ["none"])


@pytest.fixture
def run(lab: Lab, bench_case: str) -> Run:
    """The launches of one ``llm_bench`` case."""
    return lab.run(bench_case)


@pytest.fixture
def decode_study(lab: Lab, bench_case: str) -> PairedStudy | Comparison:
    """The decode speed of one ``llm_bench`` case against its baseline."""
    return held_against(lab, bench_case)


@pytest.fixture
def demo(lab: Lab) -> Run:
    """The candidate's launches over the real prompts."""
    return lab.run("candidate")


@pytest.fixture
def demo_baseline(lab: Lab) -> Run:
    """The same prompts with H2O off."""
    return lab.baseline_run("candidate")


@pytest.fixture
def demo_study(lab: Lab, demo: Run) -> PairedStudy | Comparison:
    """The decode speed over all real prompts against its baseline."""
    return held_against(lab, "candidate")


@pytest.fixture
def bucket_study(lab: Lab, demo: Run, bucket: str) -> PairedStudy | Comparison:
    """The decode speed over the real prompts of one bucket against its baseline."""
    return held_against(lab, "candidate", bucket)


@pytest.fixture
def quality(lab: Lab) -> LaunchRecord | None:
    """The launch that predicts a held-out text."""
    return lab.quality()


@pytest.fixture
def online_sim(lab: Lab) -> Evaluation:
    """The offline evaluation of a KV dump in the chunks that a runtime would code."""
    return evaluate_dump(lab, "online_sim")


@pytest.fixture
def full_eval_sim(lab: Lab) -> Evaluation:
    """The same evaluation in v5's chunks."""
    return evaluate_dump(lab, "full_eval")


@pytest.fixture
def upper_bound(lab: Lab) -> Evaluation:
    """The offline evaluation of the same KV dump, whole sequences at once."""
    return evaluate_dump(lab, "upper_bound")
