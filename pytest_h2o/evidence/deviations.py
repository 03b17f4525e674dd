"""What a program says about itself that it did otherwise: another backend, a feature switched off,
KV quantised. By the shape of its lines, wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pytest_h2o.evidence.look import SHOWN, Look
from pytest_h2o.parsers.argv_options import behind_program, options_of
from pytest_h2o.parsers.lines import is_endless, printable, read_pieces
from pytest_h2o.parsers.loglines import is_log_line
from pytest_h2o.parsers.rows import ParseError
from pytest_h2o.verdict import Evidence

DONE = "the program did what it was asked to"
MAX_CHARS, MOST = 300, 256
# A generated text follows; programs that answer prompts say these things before it.
ANSWER_BEGINS = "prompt file is "
_OTHERWISE = re.compile(
    r"\binstead\b|running on|fall(?:s|ing)?[ -]?back|fell back|not (?:be )?support"
    r"|unsupported|n.t support|\bignor(?:ed|ing)\b|no effect|\bnot (?:available|enabled)\b"
    r"|\bdropp(?:ed|ing)\b|\bdrop\b|\bunknown\b|unrecogni[sz]ed|\bnot found\b"
    r"|\bno (?:\w+ )?(?:device|backend)\b|can.t (?:find|create)\b",
    re.IGNORECASE,
)
_OFF = re.compile(
    r"\bdisabl(?:ed|ing)\b|(?:switched|turned) off\b|[:=] ?(?:off|false|no)\b", re.IGNORECASE
)
_MATTERS = re.compile(
    r"backend|h2o|lossless|evict|quant|atten|\bkv\b|kv_|codec|pending|\bplan"
    r"|opencl|metal|cuda|vulkan|hexagon|\b[gn]pu\b",
    re.IGNORECASE,
)
_FEATURE = re.compile(r"h2o|lossless|evict|codec", re.IGNORECASE)
_QUANTISED = re.compile(
    r"(?:\bkv\b|kv_?cache|\bkey|\bvalue|atten)[^.]*quant\w*[^.]*\b(?:on|enabled|active)\b"
    r"|(?:\bkv\b|kv_?cache|\bkeys?\b|\bvalues?\b)[^.]*(?<!not )quanti[sz]ed\b"
    r"|\b(?:enabl|activat)\w*\b[^.]*\b(?:kv|kv_?cache|atten\w*)\b[^.]*quant",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"deprecated|^the device supports|\bnot (?:disabled|ignored)\b", re.IGNORECASE
)
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
    for line in said:
        off = _OFF.search(line) and _FEATURE.search(line)
        if _OTHERWISE.search(line) or (off and _asks_for_feature(look, line)):
            wrong.append(f"it says {line!r}")
        elif (off and not look.spec.config) or (_QUANTISED.search(line) and not quantised):
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
    try:
        for piece in read_pieces(source):
            text = piece.text[:MAX_CHARS].strip()
            if text.startswith(ANSWER_BEGINS):
                break
            if _may_say(text):
                found[printable(text)] = None
            if len(found) > MOST:
                break
    except ParseError:
        return ()
    return tuple(found)


def _may_say(text: str) -> bool:
    if text.startswith("|") or is_log_line(text) or _CHATTER.search(text):
        return False
    if not _MATTERS.search(text):
        return False
    return any(shape.search(text) for shape in (_OTHERWISE, _OFF, _QUANTISED))


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
