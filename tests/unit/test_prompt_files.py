"""Prompts made from a corpus: their lengths, their manifest, and what makes a corpus unusable."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.cli import main
from pytest_h2o.knobs import resolve
from pytest_h2o.prompt_files import assemble, pieces, token_counter
from pytest_h2o.prompts import select_prompts

WORDS = token_counter(None)
TEXTS = st.lists(st.text("abc ", min_size=1, max_size=200).filter(str.strip).map(str.strip), min_size=1, max_size=20)


@given(TEXTS, st.integers(1, 60), st.floats(0, 0.5))
def test_length(texts: list[str], target: int, tolerance: float) -> None:
    """A prompt is as long as asked, within the tolerance above, or it holds the whole corpus."""
    text = assemble(cycle(texts), len(texts), target, tolerance, WORDS)
    whole = WORDS(" ".join(texts))
    assert min(target, whole) <= WORDS(text) <= target * (1 + tolerance)


def corpus(root: Path) -> Path:
    """A directory with a text and a JSONL file."""
    folder = root / "corpus"
    folder.mkdir()
    paragraphs = ["# A heading", *(f"Paragraph {n} says " + "something new " * (n % 7 + 5) for n in range(60))]
    (folder / "book.txt").write_text("\n\n".join(paragraphs))
    (folder / "quiz.jsonl").write_text(json.dumps({"question": "Which?", "A": "this", "B": "that"}) + "\n")
    return folder


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prompts can be run as they are, with the manifest that was written; the same seed gives the same prompts."""
    folder = str(corpus(tmp_path))
    options = ["--targets", "64,256", "--per-target", "2", "--generate", folder]
    for name in ("one", "two"):
        assert main(["prompts", str(tmp_path / name), *options]) == 0
    knobs = resolve([f"PROMPT_MANIFEST={tmp_path / 'one' / 'prompts_manifest.jsonl'}"])
    selection = select_prompts(tmp_path / "one", knobs)
    assert selection.problems == ()
    assert sorted(prompt.bucket for prompt in selection.prompts) == ["256", "256", "64", "64"]
    for line in (tmp_path / "one" / "prompts_manifest.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["target_tokens"] * 0.9 <= record["actual_tokens"] <= record["target_tokens"] * 1.05
        assert (tmp_path / "one" / record["file"]).read_text() == (tmp_path / "two" / record["file"]).read_text()
    assert main(["prompts", str(tmp_path / "one"), *options]) == 1
    assert "exists; give an empty directory" in capsys.readouterr().err


def test_pieces(tmp_path: Path) -> None:
    """Blank lines separate pieces, short paragraphs are joined, and a choice question keeps its letters."""
    folder = corpus(tmp_path)
    assert list(pieces(folder / "quiz.jsonl")) == ["Which?\nA. this\nB. that"]
    texts = list(pieces(folder / "book.txt"))
    assert len(texts) > 10
    assert all(len(text) >= 200 for text in texts[:-1])
    assert "\n\n".join(texts) == (folder / "book.txt").read_text().replace(" \n", "\n").strip()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.jsonl={", [], "a.jsonl: not JSON"),
        ("a.txt=", [], "the corpus holds no text"),
        ("a.txt=text", ["--targets", "x"], "--generate needs"),
        ("a.txt=text", ["--per-target", "0"], "--generate needs"),
        ("a.txt=text", ["--tokenizer", "none.model"], "none.model: not a SentencePiece model"),
        ("other/a.bin=text", [], "the corpus holds no .txt"),
    ],
)
def test_wrong_use(
    tmp_path: Path, name: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is named, and nothing is written."""
    name, _, text = name.partition("=")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    given = path.parent if path.suffix == ".bin" else path
    assert main(["prompts", str(tmp_path / "out"), *options, "--generate", str(given)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
