"""Prompts made for this session alone: each answered on its own, and one after the other."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from filelock import FileLock

from pytest_h2o.evidence.answers import Answer, answers
from pytest_h2o.evidence.known import table_evidence
from pytest_h2o.evidence.memory import GROWTH, NOISE_MB
from pytest_h2o.evidence.requests import memory_after_first, slowdown, timed_alike
from pytest_h2o.evidence.written_texts import Written
from pytest_h2o.lab.expected_texts import Texts
from pytest_h2o.lab.lab import Lab
from pytest_h2o.lab.relation_work import LINES, RECALL
from pytest_h2o.lab.text_relation import NO_TEXT, TextRelation
from pytest_h2o.plan.cases import baseline_of
from pytest_h2o.plan.relations import Arm, on_threads, repeated
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.plan.unseen import made_anew, recalling, reordered, with_one_opening
from pytest_h2o.runs.results import Run, read_launches
from pytest_h2o.verdict import Evidence

TIMED = "each request is timed on its own"
FAST = "a prompt is answered as fast as if no other had come before it"
# So much longer for a token, three times in a row, is no noise.
SLOWDOWN, ATTEMPTS = 1.5, 3
SLACK = 8  # letters that a program may print behind the last answer


@dataclass(frozen=True)
class Unseen:
    """The launches over unseen prompts, the answers of both sides, and what these say beside those
    to known prompts.
    """

    candidate: Run
    baseline: Run
    answers: tuple[Answer, ...]
    evidence: tuple[Evidence, ...] = ()


def unseen(lab: Lab, known: Sequence[Answer] = (), evicted: Collection[str] = ()) -> Unseen:
    """Candidate and baseline over the prompts that are made for this session.

    Where answers to ``known`` prompts, of which some were ``evicted``, look like those of a table,
    some more tell whether it is chance.
    """
    write_prompts(lab)
    specs = lab.workload.relations.unseen_launches("unseen")
    found = _answered(lab, specs)
    evidence = table_evidence(known, found.answers, evicted)
    if any(each.standing == "doubtful" for each in evidence):
        specs += lab.workload.relations.unseen_launches("unseen", more=True)
        more = _answered(lab, specs)
        if all(record.status != "not_recorded" for record in more.candidate.launches):
            found, evidence = more, table_evidence(known, more.answers, evicted)
    return replace(found, evidence=tuple(evidence))


def _answered(lab: Lab, specs: Sequence[LaunchSpec]) -> Unseen:
    # The candidate first: what its baseline answers is nowhere yet.
    after = [lab.get(spec) for spec in specs]
    before = [lab.get(baseline_of(spec)) for spec in specs]
    pairs = list(zip(before, after, strict=True))
    baseline = read_launches("candidate", before)
    candidate = read_launches("candidate", after)
    return Unseen(candidate, baseline, tuple(answers(pairs)))


def strangers(lab: Lab) -> TextRelation:
    """The same prompts one after the other in one process, beside each in a process of its own."""
    write_prompts(lab)
    relation = TextRelation(lab, "strangers")
    together = lab.workload.relations.line_by_line()
    if not together:
        relation.problems.append(lab.workload.nothing_to_run())
        relation.cause = lab.workload.without_prompts
        return relation
    alone = [Arm(spec) for spec in lab.workload.relations.unseen_launches("strangers")]
    beside = Arm(together[0])
    texts = [relation.texts.of(arm) for arm in alone]
    whole = relation.texts.of(beside)
    if relation.usable(chain(texts, [whole])):
        _compare(relation, alone, texts, beside)
        relation.evidence += _speed(lab, beside)
        relation.evidence += _memory(lab, beside)
        relation.evidence += _each_timed(lab, beside)
    return relation


def _speed(lab: Lab, beside: Arm) -> list[Evidence]:
    """Whether the first prompt is answered as fast at the end; what looks slow is tried again."""
    found: list[float] = []
    arm = beside
    for _ in range(ATTEMPTS):
        factor = slowdown(lab.get(arm.spec))
        if factor is None:
            break
        found.append(factor)
        if factor <= SLOWDOWN:
            break
        arm = repeated(arm)
    if not found:
        return []
    shown = ", ".join(f"{factor:.2f}" for factor in found)
    text = f"a token of the first prompt, answered again at the end, takes {shown} of the time"
    return [Evidence.of(FAST, found[-1] <= SLOWDOWN or len(found) < ATTEMPTS, text)]


def _memory(lab: Lab, beside: Arm) -> list[Evidence]:
    """Whether the peak stays where it was when the first prompt, a longest one, was answered."""
    peaks = memory_after_first(lab.get(beside.spec))
    if peaks is None or not lab.knobs.on("MAX_MEMORY_GROWTH"):
        return []
    first, last = peaks
    most = max(first * (1 + lab.knobs.number("MAX_MEMORY_GROWTH")), first + NOISE_MB)
    text = f"the peak goes from {first:.4g} to {last:.4g} MiB after the first answer"
    return [Evidence.of(GROWTH, last <= most, text)]


def _each_timed(lab: Lab, beside: Arm) -> list[Evidence]:
    times = timed_alike(lab.get(beside.spec))
    if times is None:
        return []
    shown = ", ".join(f"{each:g}" for each in times)
    text = f"two requests of one process took the same time to the microsecond: {shown} µs"
    return [Evidence.of(TIMED, False, f"{text} ({beside.spec.name})")]


def _compare(relation: TextRelation, alone: list[Arm], texts: list[Written], beside: Arm) -> None:
    """Whether the answers of one process are those of several, in order."""
    if not any(each.text.strip() for each in texts):
        relation.problems.append(NO_TEXT)
        return
    whole = relation.texts.of(beside).text.strip()
    labels = " after ".join(reversed([each.record.label for each in texts]))
    differs = _out_of_order(whole, texts)
    if differs and beside.spec.config != alone[0].spec.config:
        # What store mode itself changes is not for this relation to say.
        alone = [Arm(_in_mode_of(beside.spec, arm.spec)) for arm in alone]
        texts = [relation.texts.of(arm) for arm in alone]
        if not relation.usable(texts):
            return
        differs = _out_of_order(whole, texts)
    if not differs:
        relation.observe(True, f"{labels}: the text that each gives alone")
        return
    doubt = _doubt(relation.texts, alone, beside)
    relation.observe(False, f"{labels} in one process: {differs}", doubt)


def _doubt(texts: Texts, alone: list[Arm], beside: Arm) -> str:
    """Why an honest program may answer otherwise in a row; empty if it may not.

    On one thread nothing races: what repeats itself alone must be repeated there.
    """
    doubts = (texts.doubt(arm, beside) for arm in alone)
    doubt = next(filter(None, doubts), "")
    if not doubt or texts.drawn(beside):
        return doubt
    single = [on_threads(arm, 1) for arm in alone]
    if any(texts.unlike(arm, repeated(arm)) for arm in single):
        return doubt
    expected = [texts.of(arm) for arm in single]
    whole = texts.of(on_threads(beside, 1))
    usable = not any(each.problem for each in (*expected, whole))
    if usable and _out_of_order(whole.text.strip(), expected):
        return ""
    return doubt


def _in_mode_of(other: LaunchSpec, spec: LaunchSpec) -> LaunchSpec:
    """A launch with the config of another one."""
    return replace(spec, arm=f"{spec.arm}-as-{other.arm}", config=other.config)


def _out_of_order(whole: str, texts: list[Written]) -> str:
    """How a text is not several others in order and the first again, with nothing but white space
    between them, in which answers may end.
    """
    expected = [each.text.strip() for each in (*texts, texts[0])]
    rest = whole
    for number, text in enumerate(expected, 1):
        rest = rest.lstrip()
        if not rest.startswith(text):
            return f"answer {number} is not the one that its prompt gives alone"
        rest = rest.removeprefix(text)
    if len(rest.strip()) > SLACK:
        return "more was written than the prompts give alone"
    return ""


def write_prompts(lab: Lab) -> None:
    """Write the prompts once a session, whichever process comes first; a replay has its own."""
    folder = lab.workload.unseen_dir
    prompts = lab.workload.relations.renewed_prompts()
    if lab.replay or not prompts:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / LINES
    with FileLock(f"{lines}.lock"):
        if lines.is_file():
            return
        seed = lab.knobs.integer("UNSEEN_SEED") or secrets.randbelow(1 << 31)
        made: list[str] = []
        longest_first = list(reversed(prompts))
        for prompt in longest_first:
            made.append(made_anew(prompt.path.read_text("utf-8", "replace"), seed))
        made = with_one_opening(made)
        other = reordered(made[0], seed)
        if len(made) > 1 and other != made[0]:
            made[1] = other
        texts = dict(zip(longest_first, made, strict=True))
        for prompt in lab.workload.relations.renewed_prompts(more=True):
            texts[prompt] = made_anew(prompt.path.read_text("utf-8", "replace"), seed)
        if passage := recalling(made[-1]):
            (folder / f"{RECALL}{prompts[0].path.name}").write_text(passage, "utf-8")
        for prompt, text in texts.items():
            (folder / f"unseen_{prompt.path.name}").write_text(text, "utf-8")
        (folder / "seed.txt").write_text(f"{seed}\n")
        # The first comes once more, so that what a process has answered shows in speed as well.
        made.append(made[0])
        _write(lines, "\n".join(made) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
