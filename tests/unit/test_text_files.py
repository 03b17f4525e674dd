"""Text as people have it: marks, UTF-16, other encodings, rows of public sets."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_h2o.cli import main
from pytest_h2o.commands.corpus import (
    CorpusError,
    approximate_tokens,
    compose,
    read_pieces,
    row_texts,
)
from pytest_h2o.data import bundled
from pytest_h2o.decode.history import read_history
from pytest_h2o.parsers.bench_table import read_tables
from pytest_h2o.parsers.lines import read_pieces as read_lines
from pytest_h2o.parsers.telling_lines import telling_lines
from pytest_h2o.parsers.text_files import (
    EncodingError,
    decoded,
    decoded_strictly,
    lines_of,
    why_not_utf8,
)
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.plan.presets import load_preset
from pytest_h2o.plan.prompts import select_prompts
from pytest_h2o.runs.ending import what_it_said

FIELD = Path(__file__).parents[1] / "data" / "field"
CONFIG = Path(__file__).parents[2] / "pytest_h2o" / "engine" / "weights" / "config.json"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
LOG = "| model | test | t/s |\r\n| - | - | - |\r\n| m | pp512 | 996.00 ± 16.00 |\r\n"


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-le", "utf-16-be"])
def test_encodings_are_recognised(encoding: str) -> None:
    """UTF-16 is told by its zero bytes where it has no mark."""
    assert decoded_strictly(LOG.encode(encoding)) == LOG


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_utf8_is_never_taken_for_something_else(text: str) -> None:
    """Whatever its characters are, but for the mark, which is skipped."""
    assert decoded_strictly(text.encode()) == text.removeprefix("\ufeff")


@given(st.binary())
def test_any_bytes_are_decoded(data: bytes) -> None:
    """Leniently, nothing is refused; strictly, only with the module's own error."""
    text = decoded(data)
    if "\ufffd" not in text:
        assert decoded_strictly(data) == text
    with suppress(EncodingError):
        decoded_strictly(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    """Output that a Windows shell redirected is a table like any other."""
    path = tmp_path / "log.md"
    path.write_bytes(LOG.encode(encoding))
    [table] = read_tables(path)
    assert table.rows[0].samples["prefill_tps"].mean == 996.0
    assert table.rows[0].samples["prefill_tps"].std == 16.0


@pytest.mark.parametrize(
    "sign",
    [b"\xb1", b"\xa1\xc0", b"\xf1", "┬▒".encode(), b"\xef\xbf\xbd", b"\x81\x7d", b"+-", b"+/-"],
)
def test_plus_minus_in_other_code_pages(tmp_path: Path, sign: bytes) -> None:
    """Between two numbers it can be nothing else, and the cell is written as it was meant."""
    path = tmp_path / "log.md"
    path.write_bytes(LOG.encode().replace("±".encode(), sign))
    [row] = read_tables(path)[0].rows
    assert (row.problems, row.cells["t/s"]) == ((), "996.00 ± 16.00")


@pytest.mark.parametrize("name", ["bench.log", "ansi.log"])
def test_recorded_logs_of_windows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """UTF-16 with a mark, and code page 1252."""
    assert main(["parse", str(FIELD / "encodings" / name)]) == 0
    shown = capsys.readouterr()
    assert "996.00 ± 16.00" in shown.out
    assert "170.00 ± 2.90" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_telling_lines_of_long_output(tmp_path: Path, encoding: str) -> None:
    """The tail of a long file has no mark of its own."""
    text = "started\n" + "loading\n" * 60_000 + "Error: the weights are missing\n"
    (tmp_path / "stdout").write_bytes(text.encode(encoding))
    assert what_it_said(tmp_path / "stdout", tmp_path / "none") == [
        "  Error: the weights are missing"
    ]


def test_prompts_that_a_program_would_read_as_another_text() -> None:
    """UTF-16 and GBK are named, a text of ideographic blanks is empty."""
    selection = select_prompts(FIELD / "encodings", resolve(["PROMPT_BUCKET_LIST=128"], {}))
    assert selection.prompts == ()
    first, second, third = (problem.reason for problem in selection.problems)
    assert first.startswith("is UTF-16, not UTF-8")
    assert second.startswith("is not UTF-8, perhaps gb18030")
    assert third == "is empty"


@pytest.mark.parametrize(
    "text", ["\u3000\n", "\u200b\u200b", "\ufeff", "\x00\x00\x00", "\u2028 \xa0"]
)
def test_prompts_of_nothing_that_shows(tmp_path: Path, text: str) -> None:
    """Blanks of any script and marks are no prompt."""
    (tmp_path / "prompt_128_1.txt").write_text(text)
    [problem] = select_prompts(tmp_path, resolve([], {})).problems
    assert problem.reason == "is empty"


def test_a_manifest_of_another_system(tmp_path: Path) -> None:
    """Its separators are read where no file is called so."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a prompt")
    (tmp_path / "list.txt").write_text("sub\\a.txt\r\n")
    knobs = resolve([], {"PROMPT_MANIFEST": str(tmp_path / "list.txt")})
    [prompt] = select_prompts(tmp_path, knobs).prompts
    assert prompt.path == tmp_path / "sub" / "a.txt"


def test_a_prompt_is_checked_to_its_end(tmp_path: Path) -> None:
    """Bytes late in a file, and a character that is cut off, change a prompt as well."""
    path = tmp_path / "p"
    path.write_bytes("ä".encode() * 50_000)
    assert why_not_utf8(path) == ""
    path.write_bytes("ä".encode() * 50_000 + b" caf\xe9 .")
    assert "is not UTF-8" in why_not_utf8(path)
    path.write_bytes(b"a caf\xe9 .")
    assert "cp1252" in why_not_utf8(path)
    path.write_bytes("ä".encode() * 50_000 + b"\xc3")
    assert "ends within a character" in why_not_utf8(path)


@pytest.mark.parametrize("name", ["list.jsonl", "list.txt"])
def test_marked_manifests(name: str) -> None:
    """The first prompt of a list is as good as the others."""
    folder = FIELD / "byte_order_mark"
    selection = select_prompts(folder, resolve([f"PROMPT_MANIFEST={folder / name}"], {}))
    assert [prompt.stem for prompt in selection.prompts] == ["prompt_128_1", "prompt_128_2"]


def test_marked_json_and_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports, corpora and meta files that begin with a mark are read."""
    folder = FIELD / "byte_order_mark"
    assert main(["parse", str(folder / "report.json")]) == 0
    assert main(["offline", str(folder / "dump")]) == 0
    assert "1 entries" in capsys.readouterr().out
    assert read_pieces([folder / "rows.jsonl"])[0].startswith("The harbour master")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_presets_and_histories(tmp_path: Path, encoding: str) -> None:
    """What an editor on Windows saved is the preset it was; the first entry is not lost."""
    shipped = next(bundled("presets").glob("*.json"))
    mine = tmp_path / "mine.json"
    mine.write_text(shipped.read_text("utf-8"), encoding)
    assert load_preset(str(mine)) == load_preset(str(shipped))
    line = json.dumps({"key": "k", "decode_best": 10.0, "overall_pass": True})
    (tmp_path / "history.jsonl").write_text(f"{line}\n{line}\n", "utf-8-sig")
    assert len(list(read_history(tmp_path / "history.jsonl"))) == 2


def test_settings_at_the_head_of_a_json_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of two models can be told apart: every line has what stands once in the file."""
    settings = {"model": "m-0.6b", "backend": "OPENCL", "threads": 4, "quantKv": 2}
    path = tmp_path / "report.json"
    results = [{"type": "decode", "generate_len": 128, "tps": 45.0, "std": 0.1}]
    path.write_text(json.dumps({**settings, "results": results}))
    assert main(["parse", str(path)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    assert [cells[name] for name in settings] == ["m-0.6b", "OPENCL", "4", "2"]


def test_lines_are_split_at_newlines_only(tmp_path: Path) -> None:
    """JSON strings may hold what other readers take for an end of line."""
    text = "before\u2028after\x85end\x0c"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\r\n", "utf-8", newline="")
    assert read_pieces([path]) == [text.strip()]
    assert list(lines_of("a\r\nb\u2028c\n")) == ["a", "b\u2028c", ""]
    assert [piece.text for piece in read_lines("a\u2028b\nc")] == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    "name", ["longbench.jsonl", "alpaca.json", "sharegpt.json", "messages.jsonl"]
)
def test_rows_of_public_sets(name: str) -> None:
    """Context and question, instruction and input, and turns make the text."""
    [text] = read_pieces([FIELD / "rows" / name])
    assert len(text) > 900


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"turns": ["one", "two"]}, ["one\n\ntwo"]),
        ({"context": "long", "question": "short?"}, ["long\n\nshort?"]),
        ({"instruction": "sum up", "input": "a text", "output": "x"}, ["sum up\n\na text"]),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}},
         ["q\nA. x\nB. y"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, ["hi"]),
        ({"prompt": [{"role": "user", "content": "hi"}]}, ["hi"]),
        ({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}, ["c"]),
        ({"rows": [{"row_idx": 0, "row": {"text": "t"}}]}, ["t"]),
        ({"question": "q", "contexts": ["one", "two"]}, ["one\n\ntwo\n\nq"]),
        ({"question": "q", "context": [["Title", ["a.", "b."]]]}, ["Title\n\na.\n\nb.\n\nq"]),
        ({"question": "q", "context": {"title": ["t"], "sentences": [["a."]]}}, ["t\n\na.\n\nq"]),
        ({"Question": "q", "A": "x", "B": "y"}, ["q\nA. x\nB. y"]),
        ({"inputs": "i", "targets": "t"}, ["i"]),
        ({"dialogue": "a: hi"}, ["a: hi"]),
        ({"id": 1}, []),
        (7, []),
    ],
)  # fmt: skip
def test_row_texts(row: object, texts: list[str]) -> None:
    """What a row asks, whichever of the usual shapes it has."""
    assert list(row_texts(row)) == texts


def test_unknown_rows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keys that rows have are said, beside those that are known."""
    (tmp_path / "rows.jsonl").write_text('{"utterance": "x", "id": 1}\n')
    with pytest.raises(CorpusError):
        read_pieces([tmp_path / "rows.jsonl"])
    assert "their keys: utterance, id; known are" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["a long text", ["a long", "text"], {"x": ["a long text"]}])
def test_text_under_an_unknown_key_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    """A question alone is not what a row is about; an answer is no part of a prompt."""
    rows = [{"question": "why?", "evidence_text": value}, {"question": "q", "answer": "x" * 99}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert read_pieces([tmp_path / "rows.json"]) == ["why?", "q"]
    said = capsys.readouterr().err
    assert "rows hold more text under evidence_text than what is read" in said
    assert "answer" not in said.partition("; known are")[0]


def test_a_corpus_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Prompts of replacement characters are nobody's text; UTF-16 is read."""
    (tmp_path / "a.txt").write_bytes("中文没有空格".encode("gbk"))
    with pytest.raises(CorpusError, match=r"a\.txt is not UTF-8, perhaps gb18030"):
        read_pieces([tmp_path / "a.txt"])
    (tmp_path / "a.txt").write_bytes("no blanks".encode("utf-16"))
    assert read_pieces([tmp_path / "a.txt"]) == ["no blanks"]


@pytest.mark.parametrize(
    "piece", ["中文没有空格" * 200, "let a=b;" * 200, "word " * 600, "ขอบคุณ" * 200]
)
def test_text_without_blanks_is_cut(piece: str) -> None:
    """Where words end nobody says, a text is cut at characters, to the length asked for."""
    made = compose([piece], [100], 1, approximate_tokens, tolerance=0.05, seed=1)
    [(_, _, text)] = made
    assert 95 <= approximate_tokens(text) <= 105


def test_chinese_corpus_with_the_models_tokenizer(tmp_path: Path) -> None:
    """A prompt of the length asked for, not the whole file."""
    corpus = str(FIELD / "rows" / "zh.txt")
    command = ["make_prompts", "--corpus", corpus, "--config", str(CONFIG)]
    assert (
        main([*command, "--out-dir", str(tmp_path), "--targets", "128", "--per-target", "1"]) == 0
    )


def test_the_shipped_prompts_are_sound() -> None:
    """Nothing of what ships is refused."""
    assert select_prompts(bundled("prompts"), resolve([], {})).problems == ()


def test_telling_lines_need_no_file() -> None:
    """A missing file tells nothing."""
    assert telling_lines(Path("/nonexistent/file")) == []
