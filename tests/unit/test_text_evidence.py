"""Whether a candidate's text is still text, and how far it agrees with the baseline's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_h2o.evidence.answers import Answer, agreement, answers, novelty, text_evidence
from pytest_h2o.kit.archives import read_recording

FIELD = Path(__file__).parents[1] / "data" / "field"
PROMPT = (
    "The keeper of the light writes down each ship that passes, its flag, its cargo and the hour, "
    "and sends the list to the harbour with the boat that brings him bread and oil on Mondays. "
) * 3
BASELINE = (
    "A clerk counted the lamps along the quay each night and wrote the sum in a book with a red "
    "cover. In the first winter the sum was forty. In the second it fell to nine, since oil had "
    "become dear, and captains began to complain about the dark. The town then asked a glazier."
)
OTHER_TEXT = (
    "The town asked a glazier to build a lamp on the tower. He came with three mules in the first "
    "winter, and the captains said that the light could be seen from the islands. A clerk wrote "
    "it down in his book, since oil had become dear and the nights along the quay were dark."
)


def standing(baseline: str, candidate: str, prompt: str = PROMPT, others: int = 3) -> str:
    """What is said of one answer among sound ones."""
    texts = [BASELINE, OTHER_TEXT, PROMPT][:others]
    found = [Answer(text[:9], PROMPT, text, text) for text in texts]
    found.append(Answer("odd", prompt, baseline, candidate))
    [said, *_] = text_evidence(found)
    return said.standing


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        " \n",
        "A clerk.",
        "!" * 128,
        "!" * 20,
        "no, " * 6,
        "ا" * 128,
        "the " * 100,
        "\n#" * 200,
        "\ufffd" * 60,
    ],
)
def test_one_bad_answer_among_sound_ones(candidate: str) -> None:
    """Nothing, next to nothing and one thing over and over are findings, however few characters."""
    assert standing(BASELINE, candidate) == "contradicted"
    assert standing(BASELINE, candidate, others=0) == "contradicted"


@pytest.mark.parametrize(
    "candidate", [BASELINE, OTHER_TEXT.replace("glazier", "smith"), OTHER_TEXT[:90]]
)
def test_another_sound_answer(candidate: str) -> None:
    """Eviction changes what is written; that alone is no finding."""
    assert standing(BASELINE, candidate) == "supported"


def test_an_answer_that_begins_to_loop_is_doubtful() -> None:
    """Words, and then the same over and over: eviction may do that, and it is said."""
    candidate = OTHER_TEXT[:60] + "and the light " * 40
    found = [Answer("odd", PROMPT, BASELINE, candidate)]
    assert "loops" in "; ".join(item.text for item in text_evidence(found))


@pytest.mark.parametrize("candidate", ["", "!!!!!!!!", "No.No.No.No."])
def test_a_short_baseline_is_answered_by_something(candidate: str) -> None:
    """Where the baseline wrote a word, nothing and one thing over and over are findings."""
    assert standing("Yes.", candidate) == "contradicted"


def test_a_short_baseline_may_be_answered_shortly() -> None:
    """Yes and no are answers."""
    assert standing("Yes.", "No.") == "supported"


def test_a_looping_baseline_is_no_reference() -> None:
    """A candidate that writes words is not accused of differing from it, and it is said."""
    loop = "#\n" * 300
    found = [Answer(f"p{n}", PROMPT, loop, f"{OTHER_TEXT} {n}") for n in range(2)]
    doubt, support = text_evidence(found)
    assert (doubt.standing, support.standing) == ("doubtful", "supported")
    assert "the baseline loops" in doubt.text


def test_where_both_loop_nothing_is_concluded() -> None:
    """It is the model's way, and no evidence of anything."""
    [said] = text_evidence([Answer("p", PROMPT, "#\n" * 300, "#\n# '   " * 50)])
    assert said.standing == "doubtful"


def test_noise_beside_a_looping_baseline() -> None:
    """The prompts are held against it instead."""
    noise = "".join(chr(0x4E00 + 37 * n % 5000) for n in range(600))
    found = [Answer(f"p{n}", PROMPT, "#\n" * 300, noise) for n in range(2)]
    assert text_evidence(found)[0].standing == "contradicted"


def test_agreement_of_evicted_prompts_by_bucket() -> None:
    """Short prompts that keep their KV, and another bucket, do not raise the share."""
    same = Answer("short", PROMPT, BASELINE, BASELINE, "128", evicted=False)
    near = Answer("near", PROMPT, "abcd", "abcx", "512", evicted=True)
    far = Answer("far", PROMPT, "abcd", "axcd", "2048", evicted=True)
    assert agreement([same, near, far]).value == 0.25
    assert agreement([same]).value == 1.0


def test_recorded_garbage() -> None:
    """One quote mark repeated, as it was reported."""
    folder = FIELD / "garbage"
    sides = [read_recording(folder / side).records for side in ("baseline", "candidate")]
    [said] = text_evidence(answers(list(zip(*sides, strict=True))))
    assert (said.standing, "over and over" in said.text) == ("contradicted", True)


def test_novelty() -> None:
    """All stretches of a text are new, of a repeated character one."""
    assert novelty("abcdefghijkl") == 1
    assert novelty("#" * 105) == 0.01
    assert novelty("") == 1
