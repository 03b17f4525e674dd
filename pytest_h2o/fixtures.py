"""Every fixture that a gate may ask for, each declaring what it needs launched.

What is needed to answer a gate is imported when it first asks.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from pytest_h2o.plan.needs import HOST_KIND, declared, module_label, needs, repeats_of
from pytest_h2o.plan.suites import on_kind
from pytest_h2o.plugin import session_of
from pytest_h2o.pytest_private import fixture_functions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_h2o.decode.pairs import PairedStudy
    from pytest_h2o.evidence.kv_quant_cost import Compared
    from pytest_h2o.lab.builds import Builds
    from pytest_h2o.lab.decode import Comparison
    from pytest_h2o.lab.lab import Lab
    from pytest_h2o.lab.offline import Evaluation
    from pytest_h2o.lab.recall import Recall
    from pytest_h2o.lab.target_ratios import TargetRatios
    from pytest_h2o.lab.text_relation import TextRelation
    from pytest_h2o.lab.unseen_prompts import Unseen
    from pytest_h2o.runs.records import LaunchRecord
    from pytest_h2o.runs.results import Run
    from pytest_h2o.session.gate import Gate


JOINT = ("joint_full", "joint_store")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The session's laboratory: cases, launches, decode studies, prompts."""
    return session_of(request.config).lab


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Compares a measurement with its requirement and records the verdict."""
    return session_of(request.config).gate(request.node)


@pytest.fixture
@needs(parameter="bench_case")
def bench_case(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The name of an ``llm_bench`` case: a test that asks for it runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
@needs(parameter="bench_case")
def run(lab: Lab, bench_case: str) -> Run:
    """The launches of one ``llm_bench`` case."""
    try:  # a recording may have other cases
        return lab.run(bench_case)
    except ValueError as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)


@pytest.fixture
@needs(parameter="bench_case", study=True)
def decode_study(lab: Lab, bench_case: str) -> PairedStudy | Comparison:
    """The decode speed of one ``llm_bench`` case against its baseline."""
    return _held_against(lab, bench_case)


@pytest.fixture
@needs(parameter="joint")
def joint(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The name of a group of repeated cases: a test that asks for it runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
@needs(parameter="joint")
def joint_runs(lab: Lab, joint: str) -> Sequence[Run]:
    """The launches of each case in a group of repeated ones."""
    return [lab.run(name) for name in repeats_of(joint, lab.cases)]


@pytest.fixture
def host_kind(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The kind of host that is judged: a test that asks for it runs once for each where there are
    several; empty where there are not.
    """
    name: str = getattr(request, "param", "")
    return name


@pytest.fixture
def lab_on_kind(lab: Lab, host_kind: str) -> Lab:
    """The laboratory, with the dumps, held-out texts and relations of the kind of host that is
    judged.
    """
    from pytest_h2o.lab.lab import seen_from  # noqa: PLC0415

    return seen_from(lab, host_kind)


@pytest.fixture
@needs("candidate")
def demo(lab: Lab, host_kind: str) -> Run:
    """The candidate's launches over the real prompts."""
    return lab.run(on_kind("candidate", host_kind))


@pytest.fixture
@needs("candidate", baseline=True)
def demo_baseline(lab: Lab, host_kind: str) -> Run:
    """The same prompts with H2O off."""
    return lab.baseline_run(on_kind("candidate", host_kind))


@pytest.fixture
@needs("candidate", study=True)
def demo_study(lab: Lab, demo: Run, host_kind: str) -> PairedStudy | Comparison:
    """The decode speed over all real prompts against its baseline."""
    return _held_against(lab, on_kind("candidate", host_kind))


@pytest.fixture
def bucket(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The bucket of some real prompts: a test that asks for it runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
@needs("candidate", study=True)
def bucket_study(lab: Lab, demo: Run, bucket: str, host_kind: str) -> PairedStudy | Comparison:
    """The decode speed over the real prompts of one bucket against its baseline."""
    return _held_against(lab, on_kind("candidate", host_kind), bucket)


@pytest.fixture
@needs(quality=True)
def quality(lab_on_kind: Lab) -> LaunchRecord | None:
    """The launch that predicts a held-out text."""
    return lab_on_kind.quality()


@pytest.fixture
@needs(relation="lossless")
def lossless_texts(lab_on_kind: Lab) -> TextRelation:
    """What is written with lossless coding off, and with it in several ways."""
    return _text_relation(lab_on_kind, "lossless")


@pytest.fixture
@needs(relation="unevicted")
def unevicted_texts(lab_on_kind: Lab) -> TextRelation:
    """What is written where nothing is evicted, beside what the baseline writes."""
    return _text_relation(lab_on_kind, "unevicted")


@pytest.fixture
@needs(relation="speed")
def baseline_study(lab: Lab, host_kind: str) -> PairedStudy:
    """The baseline's decode speed against that of a candidate with nothing to evict."""
    from pytest_h2o.lab.decode import baseline_held  # noqa: PLC0415

    return baseline_held(lab, host_kind)


@pytest.fixture
@needs(relation="greedy")
def repeated_texts(lab_on_kind: Lab) -> TextRelation:
    """What candidate and baseline write when they are launched again."""
    return _text_relation(lab_on_kind, "greedy")


@pytest.fixture
@needs(relation="heavy")
def heavy_eviction(lab_on_kind: Lab) -> TextRelation:
    """What is written where nearly all is evicted, beside what the baseline writes."""
    from pytest_h2o.lab.heavy_eviction import heavy_eviction as judged  # noqa: PLC0415

    return judged(lab_on_kind)


@pytest.fixture
@needs(relation="strangers")
def answers_in_a_row(lab_on_kind: Lab) -> TextRelation:
    """What prompts give one after the other in one process, and each alone."""
    from pytest_h2o.lab.unseen_prompts import strangers  # noqa: PLC0415

    return strangers(lab_on_kind)


@pytest.fixture
@needs(relation="unseen")
def unseen_prompts(lab_on_kind: Lab, demo: Run, demo_baseline: Run) -> Unseen:
    """Candidate and baseline over prompts that were made for this session."""
    from pytest_h2o.evidence import answers_beside, evicted_labels  # noqa: PLC0415
    from pytest_h2o.lab.unseen_prompts import unseen  # noqa: PLC0415

    return unseen(lab_on_kind, answers_beside(demo_baseline, demo), evicted_labels(demo))


@pytest.fixture
@needs(relation="recall")
def recalled_passage(lab_on_kind: Lab) -> Recall:
    """A passage that a prompt begins to repeat, under eviction and without."""
    from pytest_h2o.lab.recall import recall  # noqa: PLC0415

    return recall(lab_on_kind)


@pytest.fixture
@needs(relation="order")
def target_ratios(lab_on_kind: Lab) -> TargetRatios:
    """The same prompts at three target ratios."""
    from pytest_h2o.lab.target_ratios import target_ratios  # noqa: PLC0415

    return target_ratios(lab_on_kind)


@pytest.fixture
@needs(relation="builds")
def plain_builds(lab: Lab, host_kind: str) -> Builds:
    """The build under test beside the second one, with H2O off."""
    return _builds(lab, plain=True, kind=host_kind)


@pytest.fixture
@needs(relation="release")
def full_builds(lab: Lab, host_kind: str) -> Builds:
    """The build under test beside the second one, with H2O on."""
    return _builds(lab, plain=False, kind=host_kind)


@pytest.fixture
def quant_case(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The name of a case with quantised KV: a test that asks for it runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
@needs(parameter="quant_case")
def quant_run(lab: Lab, quant_case: str) -> Run:
    """The launches of one case with quantised KV."""
    return lab.run(quant_case)


@pytest.fixture
@needs(parameter="quant_case", baseline=True)
def quant_plain_run(lab: Lab, quant_case: str) -> Run:
    """The same launches with plain KV."""
    return lab.baseline_run(quant_case)


@pytest.fixture
@needs(parameter="quant_case", study=True)
def quant_study(lab: Lab, quant_case: str) -> PairedStudy | Comparison:
    """The decode speed with quantised KV against plain KV."""
    return _held_against(lab, quant_case)


@pytest.fixture
@needs(parameter="quant_case", quality=True)
def quant_text(lab: Lab, quant_case: str) -> Compared:
    """A held-out text predicted with plain KV, and with quantised KV."""
    from pytest_h2o.evidence.kv_quant_cost import Compared  # noqa: PLC0415

    return Compared(*lab.texts(quant_case))


@pytest.fixture
def quant_prompts(lab: Lab, request: pytest.FixtureRequest) -> str:
    """The name of a case with quantised KV on real prompts: a test that asks for it runs once for
    each.
    """
    name: str = request.param
    return name


@pytest.fixture
@needs(parameter="quant_prompts")
def quant_demo(lab: Lab, quant_prompts: str) -> Run:
    """The launches over the real prompts with quantised KV."""
    return lab.run(quant_prompts)


@pytest.fixture
@needs(parameter="quant_prompts", baseline=True)
def quant_plain_demo(lab: Lab, quant_prompts: str) -> Run:
    """The same prompts with plain KV."""
    return lab.baseline_run(quant_prompts)


@pytest.fixture
@needs(dump=True)
def online_sim(lab_on_kind: Lab) -> Evaluation:
    """The offline evaluation of a KV dump in the chunks that a runtime would code."""
    from pytest_h2o.lab.offline import evaluate_dump  # noqa: PLC0415

    return evaluate_dump(lab_on_kind, "online_sim")


@pytest.fixture
@needs(dump=True)
def full_eval_sim(lab_on_kind: Lab) -> Evaluation:
    """The same evaluation in chunks of 128 tokens with 16 bytes of framing."""
    from pytest_h2o.lab.offline import evaluate_dump  # noqa: PLC0415

    return evaluate_dump(lab_on_kind, "full_eval")


@pytest.fixture
@needs(dump=True)
def upper_bound(lab_on_kind: Lab) -> Evaluation:
    """The offline evaluation of the same KV dump, whole sequences at once."""
    from pytest_h2o.lab.offline import evaluate_dump  # noqa: PLC0415

    return evaluate_dump(lab_on_kind, "upper_bound")


def _held_against(lab: Lab, name: str, bucket: str = "") -> PairedStudy | Comparison:
    from pytest_h2o.lab.decode import held_against  # noqa: PLC0415

    return held_against(lab, name, bucket)


def _builds(lab: Lab, *, plain: bool, kind: str) -> Builds:
    from pytest_h2o.lab.builds import Builds  # noqa: PLC0415

    return Builds(lab, plain, kind)


def _text_relation(lab: Lab, name: str) -> TextRelation:
    from pytest_h2o.lab.text_relation import text_relation  # noqa: PLC0415

    return text_relation(lab, name)


def parametrize(metafunc: pytest.Metafunc, lab: Lab) -> None:
    """Run a test once for each case, group of cases and bucket that its fixtures ask for.

    What the test itself is parametrized with stays: ``bench_case`` with the cases it names.
    """
    item = metafunc.definition
    functions = fixture_functions(item)

    def asks(name: str) -> bool:
        return name in functions and functions[name].__module__ == __name__

    if asks("bench_case"):
        studied = any(need.study for need in declared(item))
        metafunc.parametrize("bench_case", _bench_cases(lab, studied=studied), indirect=True)
    kinds = lab.workload.kinds
    if asks("joint"):
        groups = [on_kind(name, kind) for kind in kinds or [""] for name in JOINT]
        metafunc.parametrize("joint", groups, indirect=True)
    for name, work in (("quant_case", "lengths"), ("quant_prompts", "prompts")):
        if asks(name):
            metafunc.parametrize(name, _quant_cases(lab, work), indirect=True)
    buckets = lab.buckets or ["none"]
    if kinds and asks(HOST_KIND) and not _given_dump(item, lab):
        _on_each_kind(metafunc, kinds, buckets if asks("bucket") else [])
    elif asks("bucket"):
        metafunc.parametrize("bucket", buckets, indirect=True)


def _on_each_kind(metafunc: pytest.Metafunc, kinds: Sequence[str], buckets: Sequence[str]) -> None:
    """Run a test once for each kind of host, or for each bucket on each kind."""
    if buckets:
        pairs = list(product(buckets, kinds))
        names = [on_kind(bucket, kind) for bucket, kind in pairs]
        metafunc.parametrize(f"bucket,{HOST_KIND}", pairs, ids=names, indirect=True)
        return
    module = module_label(metafunc.definition.path)
    names = [on_kind(module, kind) for kind in kinds]
    metafunc.parametrize(HOST_KIND, kinds, ids=names, indirect=True)


def _given_dump(item: pytest.Item, lab: Lab) -> bool:
    """Whether a test judges a dump that the user gives, which is of no kind of host."""
    return bool(lab.knobs.text("DUMP_DIR")) and any(need.dump for need in declared(item))


def _bench_cases(lab: Lab, *, studied: bool) -> list[object]:
    """Each case with its suite as a marker; repeats that have one decode study in common once."""
    found: list[object] = []
    for case in lab.cases.values():
        if case.work != "lengths" or case.quantises or not case.judged:
            continue
        if studied and case.replicate > 1 and lab.shares_study(case.name):
            continue
        if case.studied or not studied:
            mark = getattr(pytest.mark, case.suite)
            found.append(pytest.param(case.name, marks=mark))
    return found


def _quant_cases(lab: Lab, work: str) -> list[str]:
    """The cases with quantised KV; none where nobody asked for a suite that the runtime cannot
    answer.
    """
    if "kv_quant" not in lab.reports and lab.knobs.suite != "kv_quant":
        return []
    found = [case for case in lab.cases.values() if case.quantises and case.judged]
    return [case.name for case in found if case.work == work]
