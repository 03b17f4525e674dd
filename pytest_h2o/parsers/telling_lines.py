"""The lines of an output that tell why a launch failed, found by their shape."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pytest_h2o.parsers.errno_texts import errno_texts, fatal_texts
from pytest_h2o.parsers.lines import Piece, printable, read_pieces
from pytest_h2o.parsers.loglines import TELLING_CHARS, is_log_line
from pytest_h2o.parsers.rows import ParseError

# What names a cause, beside the texts of systems.
_CAUSES = re.compile(
    "unable to open|invalid parameter|llm init error|file not exist|no such file"
    "|invalid model config|error while loading shared|library not loaded|out of memory|bad_alloc"
    r"|terminate called|what\(\):|segmentation fault|core dumped|\bkilled\b|illegal instruction"
    r"|\bassert(?:ion)?\b.{0,200}\bfail|\bsig(?:segv|abrt|ill|bus|kill|fpe)\b|traceback"
    r"|error for |error: |fatal: |\[error\]|\berrno\b|\bbad magic\b"
    r"|\bexit(?:ed|s)? (?:with )?(?:code|status) -?0*[1-9]|\b0x8[0-9a-f]{7}\b"
)
# What a shell says of a program that was ended; elsewhere one word may mean anything.
_ALONE = re.compile(r"(?:.{0,200}:? +[0-9]+ +)?([^ (.:]{3,40})(?: *\(.*\))?[ .]*(?: \S*/.*)?$")
# Words for an error in languages that systems are set to, by their stems.
_ELSEWHERE = (
    "错误", "出错", "失败", "异常", "无法", "不能", "不存在", "没有找到", "找不到", "未找到",
    "不足", "不够", "拒绝", "崩溃", "超时", "錯誤", "失敗",
    "エラー", "異常", "不正", "できません", "ありません", "けません", "見つかりません",
    "오류", "실패", "없습니다", "찾을 수 없", "부족", "거부",
    "erreur", "échec", "impossible d", "introuvable", "fehler", "fehlgeschlagen", "verweigert",
    r"\bk(?:ann|onnte) (?:.{0,80} )?nicht\b", "no se (?:puede|pudo|encontr)", r"fall[oó]\b",
    "não (?:foi|é) possível", "não encontrad", "falha", "errore", "impossibile", "non trovat",
    "ошибка", "не удал", "не удается", "не найден", "невозможно", "помилка", "не вдалося",
    "nie można", "nie udało", "błąd", "nelze", r"chyba\b", "ingen sådan", "kunde inte", "kan inte",
    "kan niet", r"fout\b", "kunne ikke", "kan ikke", r"fe[ij]l\b", "virhe", "ei voi", r"hiba\b",
    "nem sikerült", "σφάλμα", "αδυναμία", "bulunamadı", "açılamadı", r"hata\b", "eroare",
    "nu se poate", "nu există", "không thể", "lỗi", "gagal", "tidak dapat", "שגיאה", "לא ניתן",
    "אין קובץ", "خطأ", "فشل", "تعذر", "لا يوجد", "त्रुटि",
)  # fmt: skip
# What marks a line as an error: words and tags of severity, codes, and what is missing.
_SUSPECTS = re.compile(
    r"error|fail|fatal|abort|exception|can't|can\u2019t|cannot|could(?: not|n't)|unable"
    r"|invalid|illegal"
    r"|not (?:be )?(?:exist|found|enough|support|available|allowed|implemented|compatible|loaded)"
    r"|(?:do|does)(?: not|n't) (?:exist|support|match|fit)|unsupported|mismatch|missing|refused"
    r"|denied|exceed|overflow|corrupt|truncated|\bterminat(?:e|ed|ing)\b|\bsignal [0-9]"
    r"|caught signal|\bassert(?:ed|ion)?\b|unrecogni[sz]ed|panic|timed? ?out\b|\bnull(?:ptr)?\b"
    r"|\b(?:is|are|has|got|contains?|found) nans?\b|\bnans? (?:at|in|detected|found)\b"
    r"|\bis empty\b|\bwrong\b|\bexpected .{0,80}\b(?:got|but|found)\b"
    r"|^\W*(?:e|f|err|crit|critical|severe|alert|emerg)\W|^[ef][0-9]{4} |^<[0-3]>|^!!"
    r"|\b(?:ret\w*|res\w*|err\w*|rc|code|status) ?(?:[:=]|is)? ?-[0-9]|" + "|".join(_ELSEWHERE)
)
_HARMLESS = re.compile(
    r"\b(?:0|no) (?:errors?|fail(?:ed|ures?)?|warnings?)\b"
    r"|\b(?:errors?|failed|failures?)\s*[:=]\s*0+\b"
)
# What programs say at every start, whatever becomes of it.
_STARTING = re.compile(
    r"the device supports|config path is|prepare for |.{0,80}\bcost time\b|load(?:ing)? tokenizer"
    r"|load cache file|cpu group:"
)
TELLING = 8


def telling_lines(*sources: Path | str, or_last: bool = True) -> list[str]:
    """The few lines of a failed launch's output that say most about the cause, safe to print; files
    or texts.

    Lines that name a cause come first, then those that look like an error; without any, the last
    lines that are not empty and not said at every start, unless ``or_last`` is off. Bytes that are
    no text tell nothing, and a file that cannot be read is left out.
    """
    causes: dict[str, None] = {}
    suspects: dict[str, None] = {}
    last: deque[str] = deque(maxlen=TELLING // 2)
    starting: deque[str] = deque(maxlen=TELLING // 2)
    for piece in _readable(sources):
        if not piece.text.strip():
            continue
        # What stands beside it in a line of the engine's may be a cause, its own words are none.
        lowered = _HARMLESS.sub("", piece.text.lower())
        at_start = _STARTING.match(lowered)
        readable = is_text(piece.text[:TELLING_CHARS])
        own = readable and not at_start and not is_log_line(piece.text)
        at = _cause_at(lowered)
        if at is not None:
            _keep(causes, piece.text, at)
        elif own and (found := _SUSPECTS.search(lowered)):
            _keep(suspects, piece.text, found.start())
        if readable:
            kept = starting if at_start else last
            kept.append(printable(piece.text[:TELLING_CHARS].rstrip()))
    told = list(causes | suspects)[:TELLING]
    return told if told or not or_last else list(last) or list(starting)[-1:]


def _cause_at(line: str) -> int | None:
    """Where a line, in lower case, names a cause."""
    if found := _CAUSES.search(line):
        return found.start()
    phrases, words = _texts()
    said = _ALONE.match(line)
    if said and said[1].strip() in words:
        return said.start(1)
    return next((line.index(text) for text in phrases if text in line), None)


@cache
def _texts() -> tuple[list[str], set[str]]:
    """What systems say, in phrases and in single words."""
    texts = errno_texts()
    return [text for text in texts if " " in text], {text for text in texts if " " not in text}


# What libraries and runtimes say when something broke; settings that merely did not suit are not
# among them.
_BROKEN = re.compile(
    r"assertion .*failed|assert(?:ion)?(?:error| failed)|terminate called|segmentation fault"
    r"|core dumped|\bbad_alloc\b|out of memory|traceback \(most recent|sanitizer:|\bpanicked\b"
    r"|(?:double free|corrupted|invalid pointer|stack smashing)\b"
    r"|\b(?:crc|checksum|hash|round.?trip)\w*\b.{0,40}\b(?:mismatch|differs?|failed|wrong)"
    r"|\b(?:mismatch|wrong|bad)\b.{0,20}\b(?:crc|checksum|hash)\b"
    r"|\b(?:unhandled|uncaught)\b.*\b(?:exception|error)"
    r"|\b(?:exception|error)\b.*\b(?:swallowed|ignored)\b"
    r"|(?:worker|thread).*\b(?:exception|error|failed|aborted|died|crashed)\b"
    # What stands around a program says how it ended: timeout, systemd, Slurm, Windows, handlers.
    r"|\bsending signal \w+ to\b|\b(?:caught|received|got|on|by) signal:? [0-9]"
    r"|\bcode=(?:killed|dumped)\b|\bstatus=[0-9]+/[A-Z]|\boom[-_ ]kill"
    r"|\bcancelled at\b|\b(?:time|memory|step) limit\b.{0,20}\b(?:exceeded|reached)\b"
    r"|\bexceeded\b.{0,20}\b(?:time|memory|step) limit\b|\bdue to (?:time limit|node fail)"
    r"|\b0xc0000[0-9a-f]{3}\b|\bsig(?:segv|abrt|ill|bus|kill|fpe|term)\b"
    r"|\bexit(?:ed|s)? (?:with )?(?:code|status) -?0*[1-9]",
    re.IGNORECASE,
)
# A script, its line, a process and how it ended, then the command: in any language.
_JOB = re.compile(r".{1,200}: \S{1,12} ?[0-9]+\S?: +[0-9]+ +\S.{0,60}? {2,}\S")
_NOTHING = re.compile(r"\b(?:0|no) (?:error|fail)|\b(?:errors?|failed|failures?)[:= ]+0\b", re.I)


def broken_lines(*sources: Path | str) -> list[str]:
    """The lines of an output that say that something broke, safe to print; at most eight."""
    found: list[str] = []
    for piece in _readable(sources):
        broken = _BROKEN.search(piece.text) and not _NOTHING.search(piece.text)
        broken = broken or _was_ended(piece.text[:TELLING_CHARS].rstrip())
        if broken and len(found) < TELLING:
            found.append(printable(piece.text.strip()[:TELLING_CHARS]))
    return found


# What a shell puts around it: the script, the process, the command.
_SHELLS = re.compile(r"(?:.{0,200}:? +[0-9]+ +)?([^(/.:]{3,60}?)(?: *\(.*\))?[ .]*(?: \S*/.*)?$")


def _was_ended(line: str) -> bool:
    """Whether a shell says that a program was ended, in any language."""
    if _JOB.match(line):
        return True
    said = _SHELLS.match(line.lower())
    return said is not None and said[1].strip() in _fatal()


@cache
def _fatal() -> set[str]:
    return fatal_texts()


def is_text(text: str) -> bool:
    """Whether most of it can be read."""
    if text.isascii() and text.isprintable():
        return bool(text)
    return sum(c.isprintable() and c != "\ufffd" for c in text) > 0.8 * len(text)


def _readable(sources: Iterable[Path | str]) -> Iterator[Piece]:
    for source in sources:
        try:
            yield from read_pieces(source)
        except ParseError:
            continue


def _keep(lines: dict[str, None], text: str, at: int) -> None:
    """Remember at most :data:`TELLING_CHARS` of a line, around offset ``at``."""
    if len(lines) < TELLING:
        begin = max(0, at - TELLING_CHARS // 2)
        lines[printable(text[begin : begin + TELLING_CHARS].strip())] = None
