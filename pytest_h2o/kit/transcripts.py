"""What all launches of a sweep printed in one file, cut into what each of them printed."""

from __future__ import annotations

import codecs
import re
import shlex
import shutil
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_h2o.lab.recordings import RecordingError
from pytest_h2o.parsers.text_files import HEAD_BYTES, UTF8, encoding_of

MARK = b"Running: "
LINE_LIMIT = 1024 * 1024
# Lines by which a launch shows that it has begun.
BEGUN = (b"[H2O", b"The device supports", b"config path is", b"| model")


@dataclass(frozen=True)
class TranscriptPiece:
    """What one launch printed, in a file of its own, and the command line above it."""

    run_id: str
    argv: tuple[str, ...]
    path: Path


def split_transcript(path: Path, run_ids: Collection[str]) -> dict[str, TranscriptPiece]:
    """The pieces of a transcript by run id: each begins with ``Running: <argv>``.

    A run id that was launched again has what its last launch printed, as its table has; the pieces
    of the others have numbers. Raises :class:`RecordingError` if what launches printed cannot be
    told apart.
    """
    folder = Path(tempfile.mkdtemp(dir=_scratch()))
    pieces: dict[str, TranscriptPiece] = {}
    before = b""
    printed = _as_utf8(path, folder)
    with printed.open("rb") as source, ExitStack() as stack:
        target = None
        while line := source.readline(LINE_LIMIT):
            if line.startswith(MARK):
                stack.close()
                piece = _piece(line, run_ids, folder, len(pieces))
                if earlier := pieces.pop(piece.run_id, None):
                    pieces[f"{piece.run_id}, launch {len(pieces) + 1}"] = earlier
                pieces[piece.run_id] = piece
                target = stack.enter_context(piece.path.open("wb"))
            elif target:
                target.write(line)
            elif any(mark in line for mark in BEGUN):
                before = line
    if before and (pieces or len(run_ids) != 1):
        said = before.decode(errors="replace").strip()[:80]
        raise RecordingError(
            f"{path}: {said!r} stands above the first line that begins with 'Running: ', so "
            "nothing tells which launch printed it; give the log as the sweep wrote it"
        )
    if before:
        [run_id] = run_ids
        return {run_id: TranscriptPiece(run_id, (), printed)}
    return pieces


def is_transcript(path: Path) -> bool:
    """Whether any launch is told of."""
    folder = Path(tempfile.mkdtemp(dir=_scratch()))
    with _as_utf8(path, folder).open("rb") as source:
        while line := source.readline(LINE_LIMIT):
            if line.startswith(MARK):
                return True
    return False


def _as_utf8(path: Path, folder: Path) -> Path:
    """The file, or a copy of it if it is UTF-16 or begins with a mark, as shells of Windows write
    it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    encoding = encoding_of(head)
    if encoding == UTF8 and not head.startswith(codecs.BOM_UTF8):
        return path
    copied = folder / "transcript"
    with (
        path.open(encoding=encoding, errors="replace", newline="") as source,
        copied.open("w", encoding="utf-8", newline="") as target,
    ):
        shutil.copyfileobj(source, target)
    return copied


def _piece(line: bytes, run_ids: Collection[str], folder: Path, number: int) -> TranscriptPiece:
    command = line[len(MARK) :].decode("utf-8", "surrogateescape").strip()
    argv = _words(command)
    run_id = _run_id(command, argv, run_ids) or f"launch {number + 1}"
    return TranscriptPiece(run_id, argv, folder / f"{number:04d}.stdout")


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError:
        return tuple(command.split())


def _run_id(command: str, argv: tuple[str, ...], run_ids: Collection[str]) -> str:
    """The run id whose config or table the command line names, known or not; empty if it names
    none.
    """
    for run_id in sorted(run_ids, key=len, reverse=True):
        if re.search(rf"(^|[\s/\\'\"=]){re.escape(run_id)}\.(json|log)\b", command):
            return run_id
    configs = [word for word in argv if word.endswith(".json")]
    return Path(configs[0]).stem if configs else ""


@cache
def _scratch() -> str:
    """A folder that lasts as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="pytest-h2o-")
    _KEPT.append(folder)
    return folder.name


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
