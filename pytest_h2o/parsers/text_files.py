"""Text files as people have them: byte-order marks skipped, UTF-16 and UTF-32 recognised, anything
else that is no UTF-8 named.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

HEAD_BYTES = 4096
CHUNK_BYTES = 1 << 16
UTF8 = "utf-8-sig"
# The marks of UTF-32 begin with those of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What editors save where UTF-8 is not their default; the first that fits is named.
_GUESSES = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1252")
_MOST, _FEW, _LEAST_PAIRS = 0.4, 0.05, 4
_SURELY = 64
ASCII_END = 0x80


class EncodingError(ValueError):
    """A text is not in an encoding that can be read for certain; the message names the likely
    one.
    """


def encoding_of(head: bytes) -> str:
    """The encoding that the first bytes of a file show: by its mark, or by the zero bytes of UTF-16
    that has none; else UTF-8.
    """
    for mark, name in _MARKS:
        # Text of some length has line ends or blanks, whose other byte is zero.
        if head.startswith(mark) and (name == UTF8 or 0 in head or len(head) < _SURELY):
            return name
    sample = head[: len(head) // 2 * 2]
    first, second = sample[::2], sample[1::2]
    if len(first) < _LEAST_PAIRS:
        return UTF8
    if _are_halves(first, second):
        return "utf-16-le"
    if _are_halves(second, first):
        return "utf-16-be"
    return UTF8


def _are_halves(low: bytes, high: bytes) -> bool:
    """Whether most pairs of bytes are an ASCII character each, whose high byte is zero."""
    pairs = len(low)
    if high.count(0) <= _MOST * pairs or low.count(0) > _FEW * pairs:
        return False
    plain = sum(byte < ASCII_END for byte in low)
    return plain > _MOST * pairs


def decoded(data: bytes) -> str:
    """Text of any encoding that :func:`encoding_of` knows; other bytes become U+FFFD."""
    return data.decode(encoding_of(data[:HEAD_BYTES]), errors="replace")


def decoded_strictly(data: bytes) -> str:
    """:func:`decoded`, but raises :class:`EncodingError` where bytes would have to be replaced."""
    try:
        return data.decode(encoding_of(data[:HEAD_BYTES]))
    except UnicodeDecodeError as error:
        raise EncodingError(_not_utf8(data, error.start)) from None


def read_text(path: Path) -> str:
    """The text of a file; raises OSError and :class:`EncodingError`."""
    return decoded_strictly(path.read_bytes())


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text, split at newlines only: JSON strings may hold other separators."""
    for line in text.split("\n"):
        yield line.removesuffix("\r")


def text_stream(stream: BinaryIO) -> TextIO:
    """Text lines of a stream that can be sought, bytes of unknown encodings as U+FFFD."""
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    return io.TextIOWrapper(stream, encoding_of(head), "replace", newline="\n")


def why_not_utf8(path: Path) -> str:
    """Why programs that read UTF-8 would read a file as another text; empty where they would not.
    Raises OSError.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        encoding = encoding_of(head)
        if encoding != UTF8:
            return f"is {encoding.upper()}, not UTF-8; save it as UTF-8"
        decoder = codecs.getincrementaldecoder("utf-8")()
        chunk = head
        while chunk:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return _not_utf8(chunk + stream.read(HEAD_BYTES), 0)
            chunk = stream.read(CHUNK_BYTES)
    if decoder.getstate()[0]:
        return "is not UTF-8: it ends within a character; save it as UTF-8"
    return ""


def _not_utf8(data: bytes, start: int) -> str:
    near = data[max(0, start - HEAD_BYTES) : start + HEAD_BYTES]
    for name in _GUESSES:
        if _fits(near, name):
            return f"is not UTF-8, perhaps {name}; save it as UTF-8"
    return "is not UTF-8; save it as UTF-8"


def _fits(data: bytes, encoding: str) -> bool:
    """Whether bytes can be read so, but for what is cut off at the ends."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True
