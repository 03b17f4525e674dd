"""Prompts made from a corpus: lengths, order, pieces of every format, and the manifest that the
reader understands.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.cli import main
from pytest_h2o.commands.corpus import CorpusError, compose, paragraphs, read_pieces, row_text
from pytest_h2o.data import bundled
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.prompts import select_prompts

CONFIG = Path(__file__).parents[2] / "pytest_h2o" / "engine" / "weights" / "h2o.json"
WORDS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=30).map(" ".join)


def words(text: str) -> int:
    return len(text.split())


@given(
    st.lists(WORDS, min_size=1, max_size=12, unique=True),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
def test_lengths(pieces: list[str], targets: list[int]) -> None:
    """A text has its target length, within the tolerance above, unless the whole corpus is
    shorter.
    """
    total = sum(map(words, pieces))
    made = list(compose(pieces, targets, 2, words, tolerance=0.1, seed=1))
    assert [(target, number) for target, number, _ in made] == [
        (target, n) for target in targets for n in (1, 2)
    ]
    for target, _, text in made:
        assert min(target, total) <= words(text) <= max(target * 1.1, 1)


@given(st.lists(WORDS, min_size=2, max_size=12, unique=True), st.integers(0, 5))
def test_one_cursor_over_all_texts(pieces: list[str], seed: int) -> None:
    """With a target of one word each text is the beginning of the next piece, and the order is the
    seed's.
    """
    firsts = [
        text for _, _, text in compose(pieces, [1], len(pieces), words, tolerance=0, seed=seed)
    ]
    assert sorted(firsts) == sorted(piece.split()[0] for piece in pieces)
    assert firsts == [
        text for _, _, text in compose(pieces, [1], len(pieces), words, tolerance=0, seed=seed)
    ]


def test_paragraphs_are_joined() -> None:
    """Blank lines split, short paragraphs go with the next, and nothing is lost."""
    assert list(paragraphs("a\n\nb\n \nlonger text\n\nc", 8)) == ["a\n\nb\n\nlonger text", "c"]
    assert list(paragraphs("one line\nnext line\r\n\r\nother", 1)) == [
        "one line\nnext line",
        "other",
    ]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"question": "Why?", "A": "so", "B": "thus"}, "Why?\nA. so\nB. thus"),
        ({"question": "Why?", "choices": ["so", "thus"]}, "Why?\nA. so\nB. thus"),
        ({"question": "Why?"}, "Why?"),
        ({"prompt": "p", "input": "i"}, "p"),
        ("plain", "plain"),
        ({"number": 1}, ""),
        (7, ""),
    ],
)
def test_rows(row: object, text: str) -> None:
    """Questions with choices, else the first text that a row has."""
    assert row_text(row) == text


def test_corpus_of_all_formats(tmp_path: Path) -> None:
    """Directories are read in the order of their names; a leading `#` would make a program ignore
    the prompt.
    """
    (tmp_path / "a.txt").write_text("# Heading\n\nfirst")
    (tmp_path / "b.jsonl").write_text('{"text": "second"}\n\n{"input": "third"}\n')
    (tmp_path / "c.json").write_text('[{"prompt": "fourth"}]')
    (tmp_path / "d.bin").write_bytes(b"\xff\x00")
    assert read_pieces([tmp_path], 1) == ["Heading", "first", "second", "third", "fourth"]


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", "{"), ("a.json", "["), ("a.txt", " \n")])
def test_unusable_corpus(tmp_path: Path, name: str, content: str) -> None:
    """What cannot be read is named, and an empty corpus is no corpus."""
    (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError):
        read_pieces([tmp_path / name])
    with pytest.raises(CorpusError, match="no such file"):
        read_pieces([tmp_path / "nothing"])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, manifest and token counts of the model's own tokenizer; the prompt selection takes all
    of them.
    """
    out = tmp_path / "made"
    command = [
        "make_prompts",
        "--corpus",
        str(bundled("prompts")),
        "--config",
        str(CONFIG),
        "--targets",
        "64,256",
        "--out-dir",
        str(out),
    ]
    assert main(command) == 0
    entries = [
        json.loads(line) for line in (out / "prompts_manifest.jsonl").read_text().splitlines()
    ]
    assert [entry["file"] for entry in entries] == [
        f"prompt_{t}_{n}.txt" for t in (64, 256) for n in (1, 2, 3)
    ]
    assert all(
        abs(entry["actual_tokens"] - entry["target_tokens"]) <= 0.05 * 256 for entry in entries
    )
    assert {entry["tokenizer"] for entry in entries} == {"sentencepiece"}
    selection = select_prompts(
        tmp_path, resolve([f"PROMPT_MANIFEST={out / 'prompts_manifest.jsonl'}"])
    )
    assert (len(selection.prompts), selection.problems) == (6, ())
    (out / "prompt_64_1.txt").write_text("mine")
    assert main(command) == 1
    assert (out / "prompt_64_1.txt").read_text() == "mine"
    assert "not as long as asked for" in capsys.readouterr().out
    assert main([*command, "--overwrite"]) == 0
