"""Which lines of an output tell why a launch failed, by their shape and in any language."""

from __future__ import annotations

import struct
from itertools import accumulate
from pathlib import Path

import pytest

from pytest_h2o.parsers.errno_texts import errno_texts
from pytest_h2o.parsers.telling_lines import broken_lines, telling_lines


@pytest.mark.parametrize(
    "line",
    [
        "Can't Find type=3 backend",
        "model don't support this op",
        "Not enough memory for KV",
        "weights do not match the graph",
        "shape mismatch: 4 against 8",
        "Killed",
        "Illegal instruction (core dumped)",
        "llm: engine.cpp:12: Assertion `kv' failed.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "caught signal 11",
        "open: Permission denied",
        "write: No space left on device",
        "文件不存在: model.mnn",
        "Fehler beim Laden",
        "thread panicked at src/main.rs",
        "E/MNNJNI(1234): model load",
        "[E] weight file size 0",
        "E0000 00:00 llm.cpp:55 weight",
        "CRITICAL weight",
        "F llm.cpp:55] Check `x>0`",
        "<3>weight file",
        "  what():  basic_string::_M_create",
        "dyld[123]: Library not loaded: @rpath/libMNN.dylib",
        "process exited with code 137",
        "exit status 3",
        "clCreateBuffer: ret = -61",
        "status -11",
        "logits are nan at token 3",
        "nullptr in Module::forward",
        "HRESULT 0x80070002",
        "Timed out waiting for the device",
        "model is empty",
        "bad magic number in header",
        "wrong model version 3, expected 4",
        "打开文件出错 llm.mnn",
        "内存不够",
        "llm.mnn を開けません",
        "파일을 찾을 수 없습니다",
        "Não foi possível abrir o arquivo",
        "Impossibile aprire il file",
        "No se puede abrir el archivo",
        "Konnte Modell nicht laden",
        "Le fichier spécifié est introuvable.",
        "Zugriff verweigert",
        "Не удается найти указанный путь.",
        "Kunde inte öppna modellen",
        "Kan bestand niet openen: fout",
        "Soubor nelze otevřít",
    ],
)
def test_telling_lines_by_shape(line: str) -> None:
    """Whoever wrote them, between lines of start-up and of progress."""
    chatter = "The device supports: i8sdot:0\nload tokenizer\nerrors: 0\n"
    assert telling_lines(f"{chatter}{line}\n{chatter}") == [line.strip()]


def test_texts_of_installed_languages(tmp_path: Path) -> None:
    """What a system says in any language that it has a catalogue of names a cause; one word of it
    in a sentence does not.
    """
    folder = tmp_path / "xx" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    said = {"No such file or directory": "Nil tia dosiero", "Killed": "Mortigita", "Aborted": ""}
    (folder / "libc.mo").write_bytes(catalogue(said))
    (tmp_path / "yy" / "LC_MESSAGES").mkdir(parents=True)
    (tmp_path / "yy" / "LC_MESSAGES" / "libc.mo").write_bytes(b"\xde\x12\x04\x95broken")
    texts = errno_texts(tmp_path)
    assert {"nil tia dosiero", "mortigita"} <= set(texts)
    assert "" not in texts


@pytest.mark.parametrize(
    ("line", "tells"),
    [
        ("llm.mnn: nil tia dosiero", True),
        ("Mortigita", True),
        ("run.sh: line 3: 4711 Mortigita (core) ./llm_bench -m x", True),
        ("the mortigita one came home", False),
    ],
)
def test_single_words_of_systems(line: str, tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell prints them alone, or behind a process number."""
    known = (["nil tia dosiero"], {"mortigita"})
    monkeypatch.setattr("pytest_h2o.parsers.telling_lines._texts", lambda: known)
    assert bool(telling_lines(line, or_last=False)) == tells


def catalogue(messages: dict[str, str]) -> bytes:
    """A file of translations as gettext reads it, little endian."""
    texts = [("", "Content-Type: text/plain; charset=UTF-8\n"), *sorted(messages.items())]
    strings = [text.encode() for pair in texts for text in pair]
    start = 28 + 16 * len(texts)
    places = list(accumulate((len(text) + 1 for text in strings), initial=start))
    header = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    for side in (0, 1):
        for text, place in zip(strings[side::2], places[side::2], strict=False):
            header += struct.pack("<2I", len(text), place)
    return header + b"".join(text + b"\0" for text in strings)


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("Killed", True),
        ("段错误 (核心已转储)", True),
        ("Speicherzugriffsfehler (Speicherabzug geschrieben)", True),
        ("run.sh: line 3: 4711 Abgebrochen ./llm_bench -m x", True),
        ("run.sh: Zeile 3: 4711 Getötet                ./llm_bench", True),
        ("Erreur de segmentation", True),
        ("the killed process of an earlier day", False),
        ("mmap: permission denied, reading instead", False),
        ("aborted: 0", False),
    ],
)
def test_what_shells_say_of_a_program_that_was_ended(line: str, broken: bool) -> None:
    """In any language, with or without the script and the process; whatever the exit code is."""
    assert bool(broken_lines(f"load\n{line}\n")) == broken


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("ERROR: block 3: CRC mismatch, using raw values", True),
        ("kv block 7: checksum differs", True),
        ("roundtrip check failed in layer 4", True),
        ("bad hash of block 12", True),
        ("hash table of 4096 entries", False),
        ("roundtrip checks: 0 failed", False),
        ("checksum ok", False),
    ],
)
def test_values_that_did_not_come_back(line: str, broken: bool) -> None:
    """A check that failed tells that values were lost, however the program went on."""
    assert bool(broken_lines(f"load\n{line}\n")) == broken
