"""Lines in which a program says that it did otherwise than it was asked to, by their shape: another
backend, a feature off or left out, KV quantised, less work, another value than that of the config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Admission = Literal["", "otherwise", "off", "quantised"]
# Something else happened; the second pattern names what it must be about.
_OTHERWISE = re.compile(
    r"\binstead\b|running on|fall(?:s|ing)?[ -]?back|fell back|not (?:be )?support"
    r"|unsupported|n.t support|\bignor(?:ed|ing)\b|no effect|\bnot (?:available|enabled)\b"
    r"|\bdropp(?:ed|ing)\b|\bdrop\b|\bunknown\b|unrecogni[sz]ed|\bnot found\b"
    r"|\bno (?:\w+ )?(?:device|backend)\b|can.t (?:find|create)\b"
    r"|\bnot (?:applied|used|taken|active)\b|\b(?:discard|reject|bypass)(?:ed|ing)\b"
    r"|deactivat|\bdowngrad|\bunavailable\b|回退|降级|不支持|未启用|忽略|禁用|改用",
    re.IGNORECASE,
)
_MATTERS = re.compile(
    r"backend|h2o|lossless|evict|quant|atten|\bkv\b|kv_|codec|pending|\bplan"
    r"|opencl|metal|cuda|vulkan|hexagon|\b[gn]pu\b",
    re.IGNORECASE,
)
_TO_CPU = re.compile(
    r"\b(?:us(?:e|es|ed|ing)|run(?:s|ning)?|execut(?:e|es|ed|ing)|switch(?:ed|ing)?"
    r"|downgrad(?:e|ed|ing)|fall(?:s|ing)? ?back)(?: on| to| the)* cpu\b"
    r"|\bcpu (?:will be|is|was) used\b|\bto cpu\b|(?:回退到|使用|切换到) ?cpu",
    re.IGNORECASE,
)
_OFF = re.compile(
    r"\bdisabl(?:ed|ing)\b|(?:switched|turned) off\b|[:=] ?(?:off|false|no|none)\b"
    r"|\bskip(?:ped|ping)?\b(?! *[:=] *0)|\bmissing\b",
    re.IGNORECASE,
)
_FEATURE = re.compile(r"h2o|lossless|evict|codec", re.IGNORECASE)
_SWITCH = re.compile(
    r"(?<![a-z0-9])(?:enable_?)?(?:h2o|lossless|eviction)(?:_?enabled?)?"
    r"[\"']? ?[:=] ?(?:0|off|false|no)\b",
    re.IGNORECASE,
)
_KV = r"(?:\bkv|kv_?cache|\bk cache|\bv cache|\bkeys?\b|\bvalues?\b|atten)"
_FEW_BITS = r"(?:\bu?int[248]\b|\bi8\b|\bq[2-8]_\w|\bfp8|\bfp4|\b[2-8][ -]?bits?\b)"
_QUANTISED = re.compile(
    rf"{_KV}[^.]*quant\w*[^.]*\b(?:on|enabled|active)\b"
    rf"|{_KV}[^.]*(?<!not )quanti[sz]ed\b"
    r"|\b(?:enabl|activat|us)\w*\b[^.]*\b(?:kv|kv_?cache|atten\w*)\b[^.]*quant"
    rf"|{_KV}[^.]*{_FEW_BITS}|{_FEW_BITS}[^.]*\b(?:kv|attention)\b"
    r"|quanti[sz]ed (?:kv|attention|keys|values)"
    r"|(?:quant_?(?:kv|atten\w*)|kv[_ ]?quant\w*)(?: (?:mode|option|type))?[\"']? ?[:= ] ?[1-9]",
    re.IGNORECASE,
)
_LESS = re.compile(
    r"(?:thread|precision|context|prompt|max_new_tokens|tokens)[^.]*"
    r"\b(?:reduced|lowered|clamp(?:ed)?|clipped|capped|limited|truncated|shortened)\b"
    r"|\btruncat(?:ed|ing)\b[^.]*(?:prompt|context|tokens)",
    re.IGNORECASE,
)
_THREADS = re.compile(
    r"\b(?:only|us(?:e|es|ed|ing)|limited to) ([0-9]{1,4}) threads?\b",
    re.IGNORECASE,
)
# A number of threads that was set, first or later.
_THREADS_SET = re.compile(
    r"\bthreads?\b(?: (?:number|num|count))?\W{0,3}"
    r"(?:\b(?:is|are|was|were|has|have|been|now|re-?set|set|changed|forced|adjusted|[0-9]+)\b ?)*"
    r"(?:(?:to|as|->|=>|\u2192)\W*)([0-9]{1,4})\b",
    re.IGNORECASE,
)
# A setting that did not stay what it was.
_CHANGED = re.compile(
    r"(?:(?:precision|backend|threads?|(?:memory|power|attention|lossless|h2o)[ _]mode)\b"
    r"|\b(?:kv|h2o|lossless|attention)\b(?!.*\b(?:tokens?|length|size)\b))[^.;]{0,40}"
    r"\b(?:changed|forced|overrid(?:den|es?|ing)|overrode|switch(?:ed|ing)|promoted|demoted"
    r"|up-?graded|adjusted|(?<=mode )re-?set|(?<=precision )re-?set) (?:from|to|by|back)\b",
    re.IGNORECASE,
)
_ENCODING = re.compile(r"encod|worker|async", re.IGNORECASE)
_VALUE = re.compile(r"\b(kv_[a-z0-9_]+)[\"']? ?[:=] ?[\"']?([\w.+-]+)", re.IGNORECASE)
_MODE = re.compile(r"\blossless\b.*\bmode\b\W*(probe|full|store)\b", re.IGNORECASE)
_CHATTER = re.compile(
    r"deprecated|^the device supports|\bnot (?:disabled|ignored)\b|cache file|\bweights?\b",
    re.IGNORECASE,
)
_SHAPES = (
    _OTHERWISE, _OFF, _SWITCH, _QUANTISED, _LESS, _THREADS, _THREADS_SET, _CHANGED, _VALUE, _MODE,
    _TO_CPU,
)  # fmt: skip
_TRUTHS = {"true": 1.0, "on": 1.0, "yes": 1.0, "false": 0.0, "off": 0.0, "no": 0.0}


@dataclass(frozen=True)
class Instructions:
    """What a launch was asked to do, as far as lines can deny it."""

    backend: str
    threads: int
    config: Mapping[str, object]


def may_admit(line: str) -> bool:
    """Whether a line has any of the shapes."""
    return not _CHATTER.search(line) and any(shape.search(line) for shape in _SHAPES)


def admission(line: str, asked: Instructions) -> Admission:
    """What a line admits: another thing than was asked for, a feature that is off, quantised KV."""
    if _OTHERWISE.search(line) and _MATTERS.search(line):
        return "otherwise"
    if asked.backend.lower() != "cpu" and _TO_CPU.search(line):
        return "otherwise"
    if _other_threads(line, asked.threads) or _changed(line):
        return "otherwise"
    if _LESS.search(line) or _another_value(line, asked.config):
        return "otherwise"
    if _SWITCH.search(line) or (_OFF.search(line) and _FEATURE.search(line)):
        return "off"
    return "quantised" if _QUANTISED.search(line) else ""


def _other_threads(line: str, asked: int) -> bool:
    """Whether a line names another number of threads; workers that encode are not meant."""
    found = _THREADS.search(line) or _THREADS_SET.search(line)
    return found is not None and int(found[1]) != asked and not _ENCODING.search(line)


def _changed(line: str) -> bool:
    told = _THREADS_SET.search(line) or _ENCODING.search(line)
    return not told and _CHANGED.search(line) is not None


def _another_value(line: str, config: Mapping[str, object]) -> bool:
    """Whether a line gives a key of the config, or the lossless mode, another value."""
    for key, text in _VALUE.findall(line):
        value = config.get(key.lower())
        if value is not None and not _equal(value, text):
            return True
    mode = _MODE.search(line)
    asked = config.get("kv_lossless_runtime_mode")
    return mode is not None and asked is not None and mode[1].lower() != asked


def _equal(value: object, text: str) -> bool:
    said = _number(text.lower())
    expected = float(value) if isinstance(value, int | float) else _number(str(value).lower())
    if said is None or expected is None:
        return text.lower() == str(value).lower()
    return abs(said - expected) <= 1e-3 * max(1.0, abs(expected))


def _number(text: str) -> float | None:
    try:
        return _TRUTHS[text] if text in _TRUTHS else float(text)
    except ValueError:
        return None
