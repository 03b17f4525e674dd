"""What a program says about itself that it did otherwise: another backend, a feature switched off,
KV quantised. By the shape of its lines, wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pytest_h2o.evidence.admissions import Instructions, admission, may_admit
from pytest_h2o.evidence.look import SHOWN, Look
from pytest_h2o.parsers.argv_options import behind_program, options_of
from pytest_h2o.parsers.demo_output import SUMMARY_END
from pytest_h2o.parsers.lines import is_endless, printable, read_pieces
from pytest_h2o.parsers.loglines import is_log_line, is_odd_log_line
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.verdict import Evidence

DONE = "the program did what it was asked to"
MAX_CHARS, MOST = 300, 2048
# A generated text follows; programs that answer prompts say these things before it.
ANSWER_BEGINS = "prompt file is "
_QUANT_OPTION = re.compile(r"qatten|quant|qkv", re.IGNORECASE)
_QUANT_KEY = re.compile(r"quant|attention_mode|attention_option", re.IGNORECASE)
_NONE = {"", "0", "-", "no", "none", "off", "false"}
_QUANT_COLUMN = re.compile(r"quant_?(?:kv|atten)|kv_?quant|attention_?option", re.IGNORECASE)


def deviations(look: Look) -> Iterator[Evidence]:
    """Needs lines or cells in which a program says so; that there are none shows nothing."""
    said: list[str] = []
    for source in dict.fromkeys((look.record.stdout, look.record.stderr)):
        said += _lines(source, _version(source))
    quantised = _asks_for_quantised_kv(look)
    wrong: list[str] = []
    odd: list[str] = []
    asked = Instructions(look.spec.backend, look.spec.threads, look.spec.config)
    said += [cell for cell in _cells(look) if may_admit(cell)]
    for line in said:
        admitted = admission(line, asked)
        off = admitted == "off"
        if admitted == "otherwise" or (off and _asks_for_feature(look, line)):
            wrong.append(f"it says {line!r}")
        elif (off and not look.spec.config) or (admitted == "quantised" and not quantised):
            odd.append(f"it says {line!r}")
    for name, cell in look.row.cells.items():
        if not quantised and is_quant_column(name) and cell.lower() not in _NONE:
            odd.append(f"{name} is {printable(cell[:40])}, and was not asked for")
    if wrong:
        yield look.says(DONE, False, "; ".join(wrong[:SHOWN]))
    if odd and (look.record.argv or look.spec.config):
        yield look.says(DONE, False, "; ".join(odd[:SHOWN]))
    elif odd:
        text = "; ".join(odd[:SHOWN])
        yield look.doubts(DONE, f"{text}; what was asked for is not known")


def _cells(look: Look) -> Iterator[str]:
    """The cells of a table as lines; how KV is quantised is looked at by its columns."""
    if look.row.kind == "bench":
        for name, cell in look.row.cells.items():
            if not is_quant_column(name) and "±" not in cell:
                yield printable(f"{name}: {cell}"[:MAX_CHARS])


def is_quant_column(name: str) -> bool:
    """Whether a column says how KV is quantised."""
    return _QUANT_COLUMN.search(name) is not None


def _asks_for_quantised_kv(look: Look) -> bool:
    if look.spec.attention_option:
        return True
    options = options_of(behind_program(look.record.argv, look.record.program))
    given = [value for name, value in options.items() if _QUANT_OPTION.search(name)]
    given += [str(value) for key, value in look.spec.config.items() if _QUANT_KEY.search(key)]
    return any(value.lower() not in _NONE for value in given)


def _asks_for_feature(look: Look, line: str) -> bool:
    """Whether the launch has what a line says is off."""
    lossless = re.search("lossless|codec", line, re.IGNORECASE)
    key = "kv_lossless_enable" if lossless else "kv_h2o_enable"
    return bool(look.spec.config.get(key))


@lru_cache(maxsize=1024)
def _lines(source: Path, _: tuple[int, int]) -> tuple[str, ...]:
    """The lines of an output that may say so, each once."""
    found: dict[str, None] = {}
    if not source.is_file() or is_endless(source):
        return ()
    answering = False
    try:
        for text in _parts(source):
            if text.startswith(ANSWER_BEGINS):
                answering = True
            elif text == SUMMARY_END:
                answering = False
            elif not answering and _may_say(text) and len(found) < MOST:
                found[printable(text)] = None
    except ParseError:
        return ()
    return tuple(found)


def _parts(source: Path) -> Iterator[str]:
    """The beginnings of lines, and of what a progress display wrote over them."""
    for piece in read_pieces(source):
        for part in piece.text.split("\r"):
            yield part[:MAX_CHARS].strip()


def _may_say(text: str) -> bool:
    if text.startswith("|") or not may_admit(text):
        return False
    return not is_log_line(text) or is_odd_log_line(text)


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
