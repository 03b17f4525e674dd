"""Is what the model writes under eviction still text? The candidate's answers beside the
baseline's.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_h2o.evidence.look import settle
from pytest_h2o.evidence.word_order import neighbours, order, words_of
from pytest_h2o.evidence.writing import (
    STRETCH,
    is_one_thing,
    kinds_of,
    longest_repeat,
    novelty,
    repeated_end,
    surprises,
)
from pytest_h2o.evidence.written_texts import alike
from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.plan.prompts import OTHER, bucket_of
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import Run, read_launch
from pytest_h2o.runtimes import find_program
from pytest_h2o.verdict import Evidence, Measured, ShownRow

SOUND = "the output is still text"
NEEDS = {SOUND: "at least 400 characters that llm_demo wrote on either side"}
LEAST_CHARS, LONG_ANSWER = 400, 100
# A text loops where so few of its stretches of six characters are new; it is no text at all where
# next to none is.
LOOPS, NO_TEXT = 0.2, 0.05
# A loop counts where it is so much of an answer.
MUCH, MOST = 1 / 3, 1 / 2
# What ends before this share of the baseline's answer was cut short, or may have been.
CUT_SHORT, SHORT = 0.15, 0.3
# Shares of the kinds of characters that two answers to one prompt do not have in common.
OTHER_KINDS = 0.7
# How many more bits a character of noise has than one of text, by the baseline's own answer alone.
NOISE, NOISE_BITS = 1.4, 1.5
# Honest candidates write other text than their baselines, in about as surprising letters and about
# as varied.
MORE_SURPRISE, LESS_VARIED = 1.5, 0.4
PROMPT_BYTES = 1 << 15
# Neighbours that prompts have as well, in standard deviations more than shuffled words have: honest
# candidates had 6.4 and more beside such baselines, shuffled ones 2.4 at most.
IN_ORDER, SHUFFLED = 6.0, 2.5
LEAST_WORDS, LEAST_ANSWERS, LEAST_IN_ALL = 30, 3, 100


@dataclass(frozen=True)
class Answer:
    """What both sides wrote to one prompt."""

    label: str
    prompt: str
    baseline: str
    candidate: str
    bucket: str = OTHER
    evicted: bool | None = None

    @property
    def baseline_loops(self) -> bool:
        """Whether the baseline's answer is long and says next to nothing new: it is no
        reference.
        """
        text = self.baseline
        if len(text) < LONG_ANSWER:
            return is_one_thing(text)
        much = max(LONG_ANSWER, MUCH * len(text))
        if novelty(text) < LOOPS or len(longest_repeat(text)) >= much:
            return True
        return repeated_end(text) >= max(LONG_ANSWER, MOST * len(text))

    @property
    def comparable(self) -> bool:
        """Whether there is a text that the candidate's can be held against; where both loop, it is
        the model's way.
        """
        if not self.baseline_loops:
            return True
        return bool(self.prompt) and novelty(self.candidate) >= LOOPS

    @property
    def agreement(self) -> float:
        """The share of characters before the first that differs, of the longer answer."""
        same = alike(self.baseline, self.candidate)
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
                found[candidate.label] = Answer(
                    label=candidate.label,
                    prompt=_prompt(baseline),
                    baseline=before,
                    candidate=after,
                    bucket=bucket_of(baseline.spec.prompt_file.name),
                    evicted=_evicted(candidate),
                )
    return list(found.values())


def answers_beside(baseline: Run, candidate: Run) -> list[Answer]:
    """The answers of two runs over the same prompts."""
    beside = {record.label: record for record in baseline.launches}
    both = [record for record in candidate.launches if record.label in beside]
    return answers([(beside[record.label], record) for record in both])


def _evicted(record: LaunchRecord) -> bool | None:
    """Whether any KV of a launch was evicted; None where it does not say."""
    counts: list[float] = []
    for row in read_launch(record)[0]:
        if sample := row.samples.get("h2o_total_evict_tokens"):
            counts.append(sample.mean)
    return max(counts) > 0 if counts else None


def _text(record: LaunchRecord) -> str | None:
    return find_program(record.program).text(record)


def _prompt(record: LaunchRecord) -> str:
    try:
        with open(record.spec.prompt_file or "", "rb") as file:  # noqa: PTH123
            return decoded(file.read(PROMPT_BYTES))
    except OSError:
        return ""


def agreement(found: Sequence[Answer], *runs: Run) -> Measured:
    """How far candidate and baseline write the same: the mean over the prompts of the bucket where
    it is least. Prompts that kept their KV say nothing of eviction, and count where none lost any.

    What is wrong with ``runs``, from which the answers are, keeps it from being judged.
    """
    missing = "; ".join(problem for run in runs for problem in run.problems)
    causes = [cause for run in runs if (cause := run.cause_of())]
    judged = [answer for answer in found if answer.evicted is not False] or found
    rows: list[ShownRow] = []
    shares: dict[str, list[float]] = {}
    for answer in judged:
        share = answer.agreement
        shares.setdefault(answer.bucket, []).append(share)
        rows.append(ShownRow(answer.label, f"{share:.1%} of the characters", share))
    value = None
    if shares and not missing:
        value = min(math.fsum(bucket) / len(bucket) for bucket in shares.values())
    missing = missing or ("" if shares else "llm_demo wrote no text that can be compared")
    return Measured(
        metric="greedy_agreement",
        value=value,
        unit="share",
        rows=tuple(rows),
        cause="".join(causes[:1]),
        missing=missing,
    )


def text_evidence(found: Sequence[Answer]) -> list[Evidence]:
    """Whether the candidate's text is as much text as the baseline's, prompt by prompt and in
    all.
    """
    seen: list[Evidence] = []
    for answer in found:
        seen += _each_answer(answer)
    seen += _same_answer(found)
    seen += _answer_of_another(found)
    seen += _word_order(found)
    compared = [answer for answer in found if answer.comparable]
    baseline = [_reference(answer) for answer in compared]
    candidate = [answer.candidate for answer in compared]
    if min(sum(map(len, baseline)), sum(map(len, candidate))) >= LEAST_CHARS:
        seen += _observations(compared, baseline, candidate)
    return settle(seen, NEEDS)


def _reference(answer: Answer) -> str:
    """The text that a candidate's is held against: the prompt's own where the baseline loops."""
    return answer.prompt if answer.baseline_loops else answer.baseline


def _each_answer(answer: Answer) -> Iterator[Evidence]:
    """Needs the baseline's answer to the same prompt."""
    before, after = answer.baseline, answer.candidate.strip()
    wrote = f"where the baseline wrote {len(before)} characters"
    if before.strip() and not after:
        yield Evidence.of(SOUND, False, f"{answer.label}: nothing was written {wrote}")
    elif answer.baseline_loops:
        text = f"the baseline loops, {novelty(before):.0%} of its text is new; it is no reference"
        yield _doubt(answer, text)
        yield from _only_signs(answer)
    elif len(after) >= LONG_ANSWER and len(before.strip()) < CUT_SHORT * len(after):
        text = f"the baseline wrote {len(before)} characters where the candidate wrote {len(after)}"
        yield _doubt(answer, f"{text}; it is no reference")
    elif len(before) >= LONG_ANSWER and len(after) < CUT_SHORT * len(before):
        text = f"{answer.label}: {len(after)} characters were written {wrote}"
        yield Evidence.of(SOUND, False, text)
    else:
        repeated = list(_repetition(answer, wrote))
        yield from repeated or _other_kinds(answer)
        if len(before) >= LONG_ANSWER and len(after) < SHORT * len(before):
            yield _doubt(answer, f"{len(after)} characters were written {wrote}")


def _doubt(answer: Answer, text: str) -> Evidence:
    return Evidence(claim=SOUND, standing="doubtful", text=f"{answer.label}: {text}")


def _repetition(answer: Answer, wrote: str) -> Iterator[Evidence]:
    """One thing over and over where the baseline wrote a text: all of the answer, or what became
    of it.
    """
    after = answer.candidate.strip()
    long = len(after) >= LONG_ANSWER
    if is_one_thing(after) or (long and novelty(after) < NO_TEXT):
        shown = printable(after[:STRETCH])
        text = (
            f"{answer.label}: the text repeats itself, {shown!r} over and over, "
            f"{len(after)} characters"
        )
        yield Evidence.of(SOUND, False, f"{text} {wrote}")
        return
    stuck = longest_repeat(after)
    if len(stuck) >= LONG_ANSWER and len(stuck) > len(longest_repeat(answer.baseline)):
        shown = printable(stuck[:STRETCH])
        text = f"{len(stuck)} of {len(after)} characters are {shown!r} over and over"
        if len(stuck) >= MUCH * len(after):
            yield Evidence.of(SOUND, False, f"{answer.label}: {text}")
        else:
            yield _doubt(answer, text)
    elif long and novelty(after) < LOOPS:
        yield _doubt(answer, f"the text loops, {novelty(after):.0%} of it is new")
    elif repeated_end(after) >= max(LONG_ANSWER, MUCH * len(after)):
        yield _doubt(answer, f"the text loops: its last {repeated_end(after)} characters do")


def _only_signs(answer: Answer) -> Iterator[Evidence]:
    """One sign over and over, which is no text even beside a baseline that repeats its words."""
    before, after = answer.baseline, answer.candidate.strip()
    if is_one_thing(after) and not any(map(str.isalnum, after)) and not is_one_thing(before):
        shown = printable(after[:STRETCH])
        text = f"{shown!r} over and over, {len(after)} characters, where the baseline repeats words"
        yield Evidence.of(SOUND, False, f"{answer.label}: {text}")


def _other_kinds(answer: Answer) -> Iterator[Evidence]:
    """Digits or signs where the baseline wrote words; words of another script may be an answer."""
    if min(len(answer.baseline.strip()), len(answer.candidate.strip())) < LONG_ANSWER:
        return
    before, after = kinds_of(answer.baseline), kinds_of(answer.candidate)
    common = sum(min(share, after.get(kind, 0.0)) for kind, share in before.items())
    if 1 - common < OTHER_KINDS:
        return
    usual, seen = next(iter(before)), next(iter(after))
    text = f"{after[seen]:.0%} of the characters are {seen}"
    text += f", {before[usual]:.0%} {usual} in the baseline"
    if seen.endswith("letters"):
        yield _doubt(answer, text)
    else:
        yield Evidence.of(SOUND, False, f"{answer.label}: {text}")


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


def _prompt_by_prompt(
    found: Sequence[Answer], letters: _Letters, usual: float
) -> Iterator[Evidence]:
    """Garbage in one answer of many, which their mean hides."""
    for index, answer in enumerate(found):
        if letters.known_beside(index) < LEAST_CHARS:
            yield from _noise(answer)
            continue
        before = letters.surprise_of_one(index, _reference(answer))
        seen = letters.surprise_of_one(index, answer.candidate)
        if len(answer.candidate) >= LONG_ANSWER and seen > MORE_SURPRISE * max(usual, before) + 1:
            text = f"surprise of {seen:.2f} bits per character, {usual:.2f} in the baselines"
            yield Evidence.of(SOUND, False, f"{answer.label}: {text}")


def _noise(answer: Answer) -> Iterator[Evidence]:
    """Needs two long texts: where nothing else is known, what it is held against must do."""
    reference = _reference(answer)
    if min(len(reference), len(answer.candidate)) < LEAST_CHARS:
        return
    usual, seen = surprises(reference, answer.candidate)
    if seen > max(NOISE * usual, usual + NOISE_BITS):
        text = f"surprise of {seen:.2f} bits per character, {usual:.2f} in the baseline"
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


def _word_order(found: Sequence[Answer]) -> Iterator[Evidence]:
    """Needs the prompts, and answers of some length: real words in no order, where the baseline's
    stand as in texts.
    """
    before: list[list[str]] = []
    after: list[list[str]] = []
    for answer in found:
        sides = words_of(answer.baseline), words_of(answer.candidate)
        if answer.baseline_loops or novelty(answer.candidate) < LOOPS:
            continue
        if min(map(len, sides)) >= LEAST_WORDS:
            before.append(sides[0])
            after.append(sides[1])
    if len(after) < LEAST_ANSWERS or sum(map(len, after)) < LEAST_IN_ALL:
        return
    known = neighbours(answer.prompt for answer in found)
    usual, seen = order(before, known), order(after, known)
    if usual >= IN_ORDER and seen <= SHUFFLED:
        text = (
            f"the words of {len(after)} answers stand in no order: {seen:.1f} deviations more "
            f"neighbours of the prompts than shuffled, {usual:.1f} in the baseline"
        )
        yield Evidence.of(SOUND, False, text)


class _Letters:
    """Which characters follow which in the prompts and in each baseline answer that does not
    loop.
    """

    def __init__(self, found: Sequence[Answer]) -> None:
        self.own: list[tuple[Counter[tuple[str, str]], Counter[str]]] = []
        self.follows = Counter[tuple[str, str]]()
        self.before = Counter[str]()
        for answer in found:
            reference = _reference(answer)
            pairs, characters = Counter(pairwise(reference)), Counter(reference)
            self.own.append((pairs, characters))
            self.follows.update(pairs)
            self.before.update(characters)
            if not answer.baseline_loops:
                self.follows.update(pairwise(answer.prompt))
                self.before.update(answer.prompt)

    def known_beside(self, index: int) -> int:
        """Characters of prompts and of the answers to the others."""
        return self.before.total() - self.own[index][1].total()

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
