"""Prompt files of given token counts, put together from the pieces of a corpus."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, count, islice
from pathlib import Path
from typing import Any

from pytest_h2o.commands import note
from pytest_h2o.parsers.lines import printable
from pytest_h2o.parsers.text_files import EncodingError, lines_of, read_text
from pytest_h2o.runtimes.launch_config import read_config, resolve_base_dir

MANIFEST = "prompts_manifest.jsonl"
SUFFIXES = (".txt", ".jsonl", ".json")
SIZE_LIMIT = 256 * 2**20
# What a task is about, and the task: rows of public sets have one key of either, or of one kind.
CONTEXT_KEYS = (
    "context", "contexts", "passage", "passages", "article", "document", "documents", "story",
    "source", "src", "transcript", "premise",
)  # fmt: skip
TEXT_KEYS = (
    "text", "prompt", "instruction", "question", "query", "input", "inputs", "content", "body",
    "code", "problem", "sentence", "dialogue", "user", "human", "chosen",
)  # fmt: skip
# What rows hold beside what they ask.
ANSWER_KEYS = {
    "answer", "answers", "output", "outputs", "response", "responses", "completion", "completions",
    "target", "targets", "tgt", "summary", "highlights", "label", "labels", "reference",
    "references", "solution", "rationale", "reasoning", "assistant", "gold", "rejected",
}  # fmt: skip
TURN_KEYS = ("messages", "conversations", "conversation", "turns", "dialog", "dialogue", "prompt")
SAID_KEYS = ("content", "value", "text")
_ALL_KEYS = (*CONTEXT_KEYS, *TEXT_KEYS, *TURN_KEYS)
KNOWN = ", ".join(dict.fromkeys(_ALL_KEYS))
MAX_KEYS = 12
CHOICES = "ABCDEFGHIJ"
LONG_WORD = 24
# Thai, Lao, Burmese and Khmer; kana and ideographs.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
CountTokens = Callable[[str], int]


class CorpusError(ValueError):
    """The corpus cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Made:
    """A prompt file as the manifest describes it; ``file`` is relative to the manifest."""

    file: str
    target_tokens: int
    actual_tokens: int
    tokenizer: str
    chars: int


def read_pieces(paths: Iterable[Path], min_chars: int = 200) -> list[str]:
    """The pieces of files and directories: paragraphs of text, rows of JSON and JSONL; raises
    :class:`CorpusError`.

    Paragraphs shorter than ``min_chars`` are joined with those that follow. A leading ``#`` is cut
    off, since programs ignore a prompt that begins with one.
    """
    cleaned: list[str] = []
    for path in _files(paths):
        for piece in _pieces_of(path, min_chars):
            text = piece.replace("\0", "").strip().lstrip("#").strip()
            if text:
                cleaned.append(text)
    if not cleaned:
        raise CorpusError(
            "the corpus holds no text; give files or directories with .txt, .jsonl or .json"
        )
    return cleaned


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix in SUFFIXES and file.is_file() and file.name != MANIFEST:
                    yield file
        elif path.is_file():
            yield path
        else:
            raise CorpusError(f"{path}: no such file or directory")


def _pieces_of(path: Path, min_chars: int) -> Iterable[str]:
    if path.stat().st_size > SIZE_LIMIT:
        raise CorpusError(f"{path}: larger than 256 MiB; split it")
    try:
        text = read_text(path)
    except EncodingError as error:
        raise CorpusError(f"{path} {error}") from None
    if path.suffix not in (".json", ".jsonl"):
        return paragraphs(text, min_chars)
    pieces: list[str] = []
    unread: list[Any] = []
    passed_over: list[str] = []
    for row in _rows(path, text):
        found = list(row_texts(row))
        pieces += found
        if not found:
            unread.append(row)
        elif isinstance(row, dict):
            passed_over += _larger(row, sum(map(len, found)))
    if unread:
        note(f"{path}: {len(unread)} rows hold no text that is known; {_keys(unread)}")
    if passed_over:
        keys = ", ".join(dict.fromkeys(map(printable, passed_over)))
        note(f"{path}: rows hold more text under {keys} than what is read; known are {KNOWN}")
    return pieces


def _larger(row: Mapping[str, Any], size: int) -> Iterator[str]:
    """The keys of a row that nobody knows, and that hold more text than was read."""
    for key, value in row.items():
        known = key.lower() in _ALL_KEYS or key.lower() in ANSWER_KEYS
        if not known and sum(map(len, _strings(value))) > size:
            yield key


def _rows(path: Path, text: str) -> Iterable[Any]:
    """The rows of a JSON document, or of a document a line: either suffix is used for both."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return [json.loads(line) for line in lines_of(text) if line.strip()]
        except (ValueError, RecursionError) as in_line:
            reason = in_line if path.suffix == ".jsonl" else error
            raise CorpusError(f"{path}: not JSON ({reason})") from None
    return document if isinstance(document, list) else [document]


def _keys(rows: Iterable[Any]) -> str:
    """The keys of rows, and those that are looked for."""
    names: dict[str, None] = {}
    for row in rows:
        if isinstance(row, dict):
            names |= dict.fromkeys(map(str, row))
    there = ", ".join(list(names)[:MAX_KEYS]) or "none"
    return f"their keys: {printable(there)}; known are {KNOWN}"


def paragraphs(text: str, min_chars: int) -> Iterator[str]:
    """The text split at blank lines; short paragraphs go with the next one, a short rest goes
    alone.
    """
    waiting: list[str] = []
    for part in re.split(r"\n[ \t\r\u3000]*\n", text):
        waiting += [part.strip()] if part.strip() else []
        if sum(map(len, waiting)) >= min_chars:
            yield "\n\n".join(waiting)
            waiting = []
    if waiting:
        yield "\n\n".join(waiting)


def row_texts(row: Any) -> Iterator[str]:
    """The text of a JSON row; of an object without one, the texts of the rows in its lists."""
    text = row_text(row)
    if text:
        yield text
    elif isinstance(row, dict):
        for value in row.values():
            if isinstance(value, dict):
                yield from row_texts(value)
            elif isinstance(value, list):
                yield from chain.from_iterable(map(row_texts, value))


def row_text(row: Any) -> str:
    """What a JSON row asks a model: its context and its question, instruction or turns, with
    lettered choices; empty without one.
    """
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return ""
    row = {str(key).lower(): value for key, value in row.items()}
    parts = [_context(row), _first_text(row, TEXT_KEYS)]
    # Rows of instructions have a task and, in another key, what it is about.
    if row.get("instruction") and row.get("input"):
        parts.append(_first_text(row, ("input",)))
    parts = parts if any(parts) else [_turns(row)]
    lettered = _choices(row)
    if row.get("question") and lettered:
        parts.append("\n".join(lettered))
        return "\n".join(filter(None, parts))
    return "\n\n".join(filter(None, parts))


def _context(row: Mapping[str, Any]) -> str:
    """What a task is about, however it is nested: titles, paragraphs and sentences."""
    for key in CONTEXT_KEYS:
        parts = map(str.strip, _strings(row.get(key)))
        context = "\n\n".join(filter(None, parts))
        if context:
            return context
    return ""


def _strings(value: Any, depth: int = 4) -> Iterator[str]:
    """The texts in lists and objects."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, list | dict):
        inside = value.values() if isinstance(value, dict) else value
        for each in inside:
            yield from _strings(each, depth - 1)


def _first_text(row: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of ``keys`` that holds text, or a list of texts."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "\n\n".join(value)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _turns(row: Mapping[str, Any]) -> str:
    """The turns of a conversation, whoever spoke."""
    for key in TURN_KEYS:
        turns = row.get(key)
        if not isinstance(turns, list):
            continue
        said = "\n\n".join(filter(None, map(_said, turns)))
        if said:
            return said
    return ""


def _said(turn: Any) -> str:
    """What one turn says, which is text, or has a text or a list of parts."""
    if isinstance(turn, str):
        return turn
    if not isinstance(turn, dict):
        return ""
    content = turn.get("content")
    if isinstance(content, list):
        return "\n".join(_first_text(part, SAID_KEYS) for part in content if isinstance(part, dict))
    return _first_text(turn, SAID_KEYS)


def _choices(row: Mapping[str, Any]) -> list[str]:
    listed = row.get("choices")
    if isinstance(listed, dict):
        listed = listed.get("text")
    if isinstance(listed, list):
        return [f"{letter}. {choice}" for letter, choice in zip(CHOICES, listed, strict=False)]
    lettered: list[str] = []
    for letter in CHOICES:
        choice = row.get(letter.lower())
        if isinstance(choice, str):
            lettered.append(f"{letter}. {choice}")
    return lettered


def compose(  # noqa: PLR0913  the options of make_prompts
    pieces: Sequence[str],
    targets: Sequence[int],
    per_target: int,
    tokens: CountTokens,
    *,
    tolerance: float,
    seed: int,
) -> Iterator[tuple[int, int, str]]:
    """``(target, number from 1, text)``: shuffled pieces, one after the other over all texts, the
    last one cut to fit.

    A text ends below its target when every piece is in it once.
    """
    order = random.Random(seed).sample(pieces, len(pieces))
    cursor = count()
    for target in targets:
        for number in range(1, per_target + 1):
            yield target, number, _fill(order, cursor, target, tokens, tolerance)


def _fill(
    order: Sequence[str], cursor: Iterator[int], target: int, tokens: CountTokens, tolerance: float
) -> str:
    text = ""
    for place in islice(cursor, len(order)):
        before, piece = text, order[place % len(order)]
        text = f"{text}\n\n{piece}" if text else piece
        if (length := tokens(text)) >= target:
            return (
                text if length <= target * (1 + tolerance) else _cut(before, piece, target, tokens)
            )
    return text


def _cut(before: str, piece: str, target: int, tokens: CountTokens) -> str:
    """``before`` with the most words of ``piece`` that do not exceed the target, or the most
    characters where a word is too long for that: not every script has blanks, nor has all code.
    """
    start = f"{before}\n\n" if before else ""

    def fits(end: int) -> bool:
        return tokens(start + piece[:end]) <= target

    sizes = map(len, re.findall(r"\s*\S+", piece))
    ends = list(accumulate(sizes, initial=0))
    words = _last(lambda index: fits(ends[index]), len(ends) - 1)
    end = ends[words]
    if words + 1 < len(ends) and ends[words + 1] - end > LONG_WORD:
        end += _last(lambda size: fits(end + size), ends[words + 1] - end)
    if end:
        return start + piece[:end]
    return before or piece[: ends[1]]


def _last(fits: Callable[[int], bool], high: int) -> int:
    """The largest number up to ``high`` that fits; 0 always does."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def write_prompts(
    out: Path,
    made: Iterable[tuple[int, int, str]],
    name: str,
    tokens: CountTokens,
    *,
    overwrite: bool,
) -> list[Made]:
    """Write ``prompt_<target>_<number>.txt`` files and the manifest; files that exist are kept
    unless ``overwrite``.
    """
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for target, number, text in made:
        path = out / f"prompt_{target}_{number}.txt"
        if overwrite or not path.exists():
            path.write_text(text, encoding="utf-8")
        try:
            kept = read_text(path)
        except EncodingError as error:
            raise CorpusError(f"{path} {error}, or replace it with --overwrite") from None
        entries.append(Made(path.name, target, tokens(kept), name, len(kept)))
    (out / MANIFEST).write_text(
        "".join(json.dumps(asdict(entry)) + "\n" for entry in entries), encoding="utf-8"
    )
    return entries


def token_counter(config: Path, *, strict: bool = False) -> tuple[str, CountTokens]:
    """The name of the best tokenizer at hand and its count: SentencePiece, Hugging Face, else words
    unless ``strict``.

    Special tokens are not counted. Raises :class:`CorpusError`, and RuntimeSetupError for a config
    that is none.
    """
    base = read_config(config)
    directory = Path(resolve_base_dir(base, config))
    model = directory / str(base.get("tokenizer_file") or "tokenizer.model")
    if model.suffix == ".model" and model.is_file():
        import sentencepiece  # noqa: PLC0415

        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        return "sentencepiece", lambda text: len(processor.encode(text))
    if found := _hugging_face(directory):
        return "hf", found
    if strict:
        raise CorpusError(
            f"{directory} holds no tokenizer that can be read here; leave out --strict to count "
            f"words"
        )
    return "approx", approximate_tokens


def approximate_tokens(text: str) -> int:
    """Words; characters where a script writes none, and pieces of what is too long for a word."""
    words = _UNSPACED.sub(" ", text).split()
    pieces = sum(math.ceil(len(word) / LONG_WORD) for word in words)
    return pieces + len(_UNSPACED.findall(text))


def _hugging_face(directory: Path) -> CountTokens | None:
    try:
        from transformers import AutoTokenizer  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (ImportError, OSError, ValueError):
        return None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
