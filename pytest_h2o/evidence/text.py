"""Is what the model writes under eviction still text? The candidate's answers beside the
baseline's.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from pytest_h2o.evidence.look import settle
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run
from pytest_h2o.runtimes import find_program
from pytest_h2o.verdict import Evidence, Measured, ShownRow

SOUND = "the output is still text"
NEEDS = {SOUND: "at least 400 characters that llm_demo wrote on either side"}
LEAST_CHARS, LONG_ANSWER = 400, 100
# Honest candidates write other text than their baselines, in about as surprising letters and about
# as varied.
MORE_SURPRISE, LESS_VARIED = 1.5, 0.4
PROMPT_CHARS = 1 << 14


@dataclass(frozen=True)
class Answer:
    """What both sides wrote to one prompt."""

    label: str
    prompt: str
    baseline: str
    candidate: str

    @property
    def agreement(self) -> float:
        """The share of characters before the first that differs, of the longer answer."""
        letters = zip(self.baseline, self.candidate, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))
        return same / max(len(self.baseline), len(self.candidate), 1)


def answers(pairs: Sequence[tuple[LaunchRecord, LaunchRecord]]) -> list[Answer]:
    """The answers of (baseline, candidate) launches, the first of each prompt; those that cannot be
    read are not in.
    """
    found: dict[str, Answer] = {}
    for baseline, candidate in pairs:
        if baseline.spec.prompt_file and candidate.label not in found:
            try:
                before, after = _text(baseline), _text(candidate)
            except ParseError:
                continue
            if before is not None and after is not None:
                prompt = _prompt(baseline)
                found[candidate.label] = Answer(candidate.label, prompt, before, after)
    return list(found.values())


def answers_beside(baseline: Run, candidate: Run) -> list[Answer]:
    """The answers of two runs over the same prompts."""
    beside = {record.label: record for record in baseline.launches}
    both = [record for record in candidate.launches if record.label in beside]
    return answers([(beside[record.label], record) for record in both])


def _text(record: LaunchRecord) -> str | None:
    return find_program(record.program).text(record)


def _prompt(record: LaunchRecord) -> str:
    try:
        with open(record.spec.prompt_file or "", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(PROMPT_CHARS)
    except OSError:
        return ""


def agreement(found: Sequence[Answer], missing: str = "", cause: str = "") -> Measured:
    """How far candidate and baseline write the same, mean over the prompts; ``missing`` says why
    that is not to be judged, ``cause`` what is at the root of it.
    """
    rows: list[ShownRow] = []
    shares: list[float] = []
    for answer in found:
        share = answer.agreement
        shares.append(share)
        rows.append(ShownRow(answer.label, f"{share:.1%} of the characters", share))
    value = None
    if shares:
        value = math.fsum(shares) / len(shares)
    else:
        missing = missing or "llm_demo wrote no text that can be compared"
    return Measured(
        metric="greedy_agreement",
        value=value,
        unit="share",
        rows=tuple(rows),
        cause=cause,
        missing=missing,
    )


def text_evidence(found: Sequence[Answer]) -> list[Evidence]:
    """Whether the candidate's text is as much text as the baseline's."""
    baseline = [answer.baseline for answer in found]
    candidate = [answer.candidate for answer in found]
    if min(sum(map(len, baseline)), sum(map(len, candidate))) < LEAST_CHARS:
        return settle((), NEEDS)
    return settle(_observations(found, baseline, candidate), NEEDS)


def _observations(
    found: Sequence[Answer], baseline: list[str], candidate: list[str]
) -> Iterator[Evidence]:
    letters = _Letters(found)
    usual, seen = letters.surprise(baseline), letters.surprise(candidate)
    text = f"surprise of {seen:.2f} bits per character, {usual:.2f} in the baseline"
    yield Evidence.of(SOUND, seen <= MORE_SURPRISE * usual + 0.5, text)
    usual, seen = _variety(baseline), _variety(candidate)
    text = f"compresses to {seen:.1%}, the baseline to {usual:.1%}"
    if seen >= LESS_VARIED * usual:
        yield Evidence.of(SOUND, True, text)
    else:
        yield Evidence.of(SOUND, False, f"the text repeats itself: it {text}")
    yield from _prompt_by_prompt(found, letters, usual)
    yield from _same_answer(found)
    yield from _answer_of_another(found)


def _prompt_by_prompt(
    found: Sequence[Answer], letters: _Letters, usual: float
) -> Iterator[Evidence]:
    """Garbage in one answer of many, which their mean hides."""
    for index, answer in enumerate(found):
        before = letters.surprise_of_one(index, answer.baseline)
        seen = letters.surprise_of_one(index, answer.candidate)
        if len(answer.candidate) >= LONG_ANSWER and seen > MORE_SURPRISE * max(usual, before) + 1:
            text = f"surprise of {seen:.2f} bits per character, {usual:.2f} in the baselines"
            yield Evidence.of(SOUND, False, f"{answer.label}: {text}")


def _same_answer(found: Sequence[Answer]) -> Iterator[Evidence]:
    """One answer to prompts that the baseline answers differently."""
    written = [answer.candidate for answer in found if len(answer.candidate) >= LONG_ANSWER]
    expected = {answer.baseline for answer in found}
    if len(written) > 1 and len(set(written)) == 1 and len(expected) > 1:
        yield Evidence.of(SOUND, False, f"the same answer to {len(written)} prompts")


def _answer_of_another(found: Sequence[Answer]) -> Iterator[Evidence]:
    """What the baseline answers to another prompt, and not to this one: a cache that serves the
    wrong request.
    """
    given = {
        answer.baseline: answer.label for answer in found if len(answer.baseline) >= LONG_ANSWER
    }
    for answer in found:
        other = given.get(answer.candidate)
        if other and answer.baseline != answer.candidate:
            yield Evidence.of(
                SOUND, False, f"{answer.label}: the answer that the baseline gives to {other}"
            )


class _Letters:
    """Which characters follow which in the prompts and in each baseline answer."""

    def __init__(self, found: Sequence[Answer]) -> None:
        self.own: list[tuple[Counter[tuple[str, str]], Counter[str]]] = []
        self.follows = Counter[tuple[str, str]]()
        self.before = Counter[str]()
        for answer in found:
            pairs, characters = Counter(pairwise(answer.baseline)), Counter(answer.baseline)
            self.own.append((pairs, characters))
            self.follows.update(pairwise(answer.prompt))
            self.follows.update(pairs)
            self.before.update(answer.prompt)
            self.before.update(characters)

    def surprise_of_one(self, index: int, text: str) -> float:
        """Bits per character of ``text``, a text for the prompt number ``index``."""
        side = [""] * len(self.own)
        side[index] = text
        return self.surprise(side)

    def surprise(self, side: Sequence[str]) -> float:
        """Bits per character, given the one before, of a text per prompt, by prompts and *other*
        baseline answers.
        """
        bits, count = 0.0, 0
        for (pairs, characters), text in zip(self.own, side, strict=True):
            for pair in pairwise(text):
                times = self.follows[pair] - pairs[pair]
                base = self.before[pair[0]] - characters[pair[0]]
                bits -= math.log2((times + 0.1) / (base + 0.1 * len(self.before) + 1))
            count += max(0, len(text) - 1)
        return bits / max(1, count)


def _variety(side: Sequence[str]) -> float:
    """Compressed over plain size, each answer on its own."""
    plain = compressed = 0
    for text in side:
        data = text.encode()
        plain += len(data)
        compressed += len(zlib.compress(data, 9))
    return compressed / max(1, plain)
