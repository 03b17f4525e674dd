"""Untrusted files as text lines, in bounded memory and linear time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.parsers.text_files import text_stream

PIECE_CHARS = 16_384
# Terminal escape sequences. Possessive, so that an unfinished sequence costs no second look.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b]*+(?:\x07|\x1b\\)|[ -/]++[0-~]|[@-Z\\^_])"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A line, or a part of one longer than :data:`PIECE_CHARS`; line numbers count from 1.

    ``ends`` is set on the last piece of a line, ``newline`` too unless the file ended there.
    """

    line: int
    text: str
    starts: bool
    ends: bool
    newline: bool

    @property
    def whole(self) -> bool:
        """Whether the piece is a line of its own."""
        return self.starts and self.ends


def is_endless(path: Path) -> bool:
    """Whether this is a pipe, a socket or a device: such a thing would be waited for, or read for
    ever.
    """
    return path.exists() and not (path.is_file() or path.is_dir())


def read_pieces(source: Path | str) -> Iterator[Piece]:
    """The lines of a file, or of a text given as str, without escape sequences and the NUL bytes
    around a line.

    A NUL within a line stands for bytes that were lost, so it is replaced: ``1\\x002`` is not 12.
    Bytes are decoded as UTF-8, or as UTF-16 where they are that, with replacement. Raises
    :class:`ParseError` if the file cannot be read.
    """
    if isinstance(source, str):
        yield from _pieces(io.BytesIO(source.encode(errors="replace")))
        return
    if is_endless(source):
        raise ParseError(f"{source}: is no regular file")
    try:
        with source.open("rb") as stream:
            yield from _pieces(stream)
    except OSError as error:
        raise ParseError(
            f"{source}: cannot be read: {error.strerror}; see whether the launch wrote it"
        ) from error


def _pieces(stream: BinaryIO) -> Iterator[Piece]:
    with text_stream(stream) as lines:
        number, starts, text = 1, True, lines.readline(PIECE_CHARS)
        while text:
            following = lines.readline(PIECE_CHARS)
            newline = text.endswith("\n")
            ends = newline or not following
            yield Piece(number, _clean(text.removesuffix("\n")), starts, ends, newline)
            number, starts, text = number + newline, newline, following


def _clean(text: str) -> str:
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\0" in text:
        text = text.strip("\0").replace("\0", "\ufffd")
    return text


def printable(text: str) -> str:
    """``text`` with every control or invisible character shown as an escape, safe for a terminal or
    a report.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if character == "\t":
        return " "
    return character.encode("unicode_escape").decode()
