"""Which cases a gate runs on: ``run`` is parametrized over the bench cases, ``demo`` is the real-prompt case."""

from __future__ import annotations

import pytest

from pytest_h2o.lab import Lab, PairedStudy
from pytest_h2o.offline_run import Evaluation, evaluate_dump
from pytest_h2o.plugin import session_of
from pytest_h2o.results import Run


def pytest_configure(config: pytest.Config) -> None:
    """Settle runtime and knobs before anything is collected, so that a wrong setting is a usage error."""
    session_of(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    lab = session_of(metafunc.config).lab
    if "bench_case" in metafunc.fixturenames:
        bench = [case for case in lab.cases.values() if case.program == "llm_bench"]
        metafunc.parametrize(
            "bench_case", [pytest.param(case.name, marks=getattr(pytest.mark, case.suite)) for case in bench]
        )
    if "bucket" in metafunc.fixturenames:
        metafunc.parametrize("bucket", lab.buckets or ["none"])


@pytest.fixture
def run(lab: Lab, bench_case: str) -> Run:
    """The launches of one ``llm_bench`` case."""
    return lab.run(bench_case)


@pytest.fixture
def decode_study(lab: Lab, bench_case: str) -> PairedStudy:
    """The paired decode measurement of one ``llm_bench`` case."""
    return lab.study(bench_case)


@pytest.fixture
def demo(lab: Lab) -> Run:
    """The candidate's launches over the real prompts."""
    return lab.run("candidate")


@pytest.fixture
def demo_study(lab: Lab, demo: Run) -> PairedStudy:
    """The paired decode measurement over all real prompts."""
    return lab.study("candidate")


@pytest.fixture
def bucket_study(lab: Lab, demo: Run, bucket: str) -> PairedStudy:
    """The paired decode measurement over the real prompts of one bucket."""
    return lab.study("candidate", bucket)


@pytest.fixture
def online_sim(lab: Lab) -> Evaluation:
    """The offline evaluation of a KV dump in the chunks that a runtime would code."""
    return evaluate_dump(lab, "online_sim")
