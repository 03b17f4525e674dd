"""Whether a candidate's text is still text, and how far it agrees with the baseline's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pytest_h2o.evidence.answers import Answer, agreement, answers, text_evidence
from pytest_h2o.evidence.writing import kinds_of, longest_repeat, novelty, repeated_end
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


def alone(baseline: str, candidate: str, prompt: str = "") -> tuple[str, str]:
    """What is said first of a single answer, as of a recording whose prompts are not at hand."""
    said = text_evidence([Answer("p", prompt, baseline, candidate)])[0]
    return said.standing, said.text


LONG_BASELINE = BASELINE + " " + OTHER_TEXT
CHINESE = (
    "老人每天早晨沿着河边散步，看着渔船慢慢离开码头。他年轻的时候也是渔夫，曾经在大海上遇到过三次风暴，"
    "却从来没有丢过一条船。如今他的儿子在城里做木匠，女儿嫁给了邻村的教师，家里只剩下他和一只不爱叫的黄狗。"
    "邻居们常常来听他讲故事。"
)
DICE = random.Random(5)
LETTERS = "".join(DICE.choice("abcdefghijklmnopqrstuvwxyz  ") for _ in range(500))


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (LONG_BASELINE[:250] + "!" * 250, "250 of 500 characters are '!!!!!!' over and over"),
        (BASELINE + " and" * 60, "over and over"),
        (LONG_BASELINE[:70] + "cap", "73 characters were written"),
        (" ".join(map(str, range(150))), "digits"),
        (LONG_BASELINE.encode().hex(), "digits"),
        ("".join(DICE.choice("+-*/=<>?!") for _ in range(300)), "signs"),
        (LETTERS, "surprise of"),
        ("".join(DICE.sample(LONG_BASELINE, len(LONG_BASELINE))), "surprise of"),
    ],
)
def test_garbage_with_nothing_else_to_compare(candidate: str, said: str) -> None:
    """One answer alone, of a long baseline: what became of the text is seen by its own shape."""
    standing, text = alone(LONG_BASELINE, candidate)
    assert (standing, said in text) == ("contradicted", True)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (LONG_BASELINE[:150] + "!" * 150 + LONG_BASELINE[150:], "over and over"),
        (LONG_BASELINE[:100], "100 characters were written"),
        (OTHER_TEXT[:120] + "He never came back to the harbour, nor did she. " * 5, "last 2"),
        (CHINESE, "CJK letters"),
        ("Старик каждое утро гулял вдоль реки и смотрел, как лодки уходят из гавани. Потом он "
         "возвращался домой, варил чай и долго писал письма.", "Cyrillic letters"),
    ],
)  # fmt: skip
def test_what_may_be_an_answer_is_doubtful(candidate: str, said: str) -> None:
    """It is said, and left to whoever reads the texts."""
    standing, text = alone(LONG_BASELINE, candidate)
    assert (standing, said in text) == ("doubtful", True)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("I do not know the answer.\nI can not help with this.\n" * 12, "the baseline loops"),
        ((BASELINE[:90] + OTHER_TEXT[:95] + BASELINE[120:220]) * 4, "the baseline loops"),
        (BASELINE[:250] + "\n#" * 150, "the baseline loops"),
        (OTHER_TEXT[:100] + "The lamp went out. " * 30, "the baseline loops"),
        ("\n \n" * 150, "the baseline"),
        ("", "the baseline wrote 0 characters"),
        ("#", "the baseline wrote 1 characters"),
    ],
)
def test_baselines_that_are_no_reference(baseline: str, said: str) -> None:
    """Lines in turn, a long stretch over and over, blanks, next to nothing: said, and a candidate
    that writes words is not accused; one that writes nothing is, where the baseline wrote.
    """
    for prompt in ("", PROMPT):
        standing, text = alone(baseline, LONG_BASELINE, prompt)
        assert (standing, said in text) == ("doubtful", True)
    if baseline.strip():
        assert alone(baseline, "")[0] == "contradicted"


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


@pytest.mark.parametrize(("candidate", "said"), [("!" * 300, "over and over"), ("the " * 99, "")])
def test_one_sign_beside_a_baseline_that_repeats_words(candidate: str, said: str) -> None:
    """It is no text, whatever the baseline is; words over and over may be the model's way."""
    loop = "I do not know the answer.\nI can not help with this.\n" * 12
    items = text_evidence([Answer("p", PROMPT, loop, candidate)])
    assert [item.standing for item in items] == ["contradicted" if said else "doubtful"]
    assert said in items[0].text


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


def test_repeated_stretches() -> None:
    """Found at the end, whatever their period, and anywhere, where the piece is short."""
    assert repeated_end("what is this, " + "abc" * 9) == 27
    assert repeated_end("once upon a time there was") == 0
    assert repeated_end("x" + ("ab" * 40 + "c") * 3 + "\n") == 243
    assert longest_repeat("so " + "=" * 50 + " and " + "no" * 40) == "no" * 40
    assert longest_repeat("nothing of the kind") == ""


def test_kinds_of_characters() -> None:
    """Letters by their script, digits and signs; blanks count for nothing."""
    assert kinds_of("ab 1!") == {"Latin letters": 0.5, "digits": 0.25, "signs": 0.25}
    assert set(kinds_of("漢字 かな")) == {"CJK letters", "Hiragana letters"}


def test_novelty() -> None:
    """All stretches of a text are new, of a repeated character one."""
    assert novelty("abcdefghijkl") == 1
    assert novelty("#" * 105) == 0.01
    assert novelty("") == 1
