"""Prompt files of given token counts, put together from the pieces of a corpus."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any

from pytest_h2o.runtimes.config import read_config, resolve_base_dir

MANIFEST = "prompts_manifest.jsonl"
SUFFIXES = (".txt", ".jsonl", ".json")
SIZE_LIMIT = 256 * 2**20
TEXT_KEYS = ("text", "prompt", "input", "question")
CHOICES = "ABCDEFGHIJ"
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
    pieces = [piece for path in _files(paths) for piece in _pieces_of(path, min_chars)]
    cleaned = [
        text for piece in pieces if (text := piece.replace("\0", "").strip().lstrip("#").strip())
    ]
    if not cleaned:
        raise CorpusError(
            "the corpus holds no text; give files or directories with .txt, .jsonl or .json"
        )
    return cleaned


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()
            )
        elif path.is_file():
            yield path
        else:
            raise CorpusError(f"{path}: no such file or directory")


def _pieces_of(path: Path, min_chars: int) -> Iterable[str]:
    if path.stat().st_size > SIZE_LIMIT:
        raise CorpusError(f"{path}: larger than 256 MiB; split it")
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix not in (".json", ".jsonl"):
        return paragraphs(text, min_chars)
    try:
        rows = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: not JSON ({error})") from None
    return [
        piece for row in (rows if isinstance(rows, list) else [rows]) if (piece := row_text(row))
    ]


def paragraphs(text: str, min_chars: int) -> Iterator[str]:
    """The text split at blank lines; short paragraphs go with the next one, a short rest goes
    alone.
    """
    waiting: list[str] = []
    for part in re.split(r"\n[ \t\r]*\n", text):
        waiting += [part.strip()] if part.strip() else []
        if sum(map(len, waiting)) >= min_chars:
            yield "\n\n".join(waiting)
            waiting = []
    if waiting:
        yield "\n\n".join(waiting)


def row_text(row: Any) -> str:
    """A multiple-choice question with its lettered choices, else the first text of a JSON row;
    empty without one.
    """
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return ""
    lettered = [
        f"{letter}. {row[letter]}" for letter in CHOICES if isinstance(row.get(letter), str)
    ]
    if isinstance(listed := row.get("choices"), list):
        lettered = [f"{letter}. {choice}" for letter, choice in zip(CHOICES, listed, strict=False)]
    if isinstance(row.get("question"), str) and lettered:
        return "\n".join([row["question"], *lettered])
    return next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), "")


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
    """``before`` with the most words of ``piece`` that do not exceed the target."""
    ends = list(accumulate(len(word) for word in re.findall(r"\s*\S+", piece)))
    joined = [f"{before}\n\n" if before else ""]
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high + 1) // 2
        fits = tokens(joined[0] + piece[: ends[middle - 1]]) <= target
        low, high = (middle, high) if fits else (low, middle - 1)
    return joined[0] + piece[: ends[low - 1]] if low else before or piece[: ends[0]]


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
        kept = path.read_text(encoding="utf-8", errors="replace")
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
    return "approx", lambda text: len(text.split())


def _hugging_face(directory: Path) -> CountTokens | None:
    try:
        from transformers import AutoTokenizer  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (ImportError, OSError, ValueError):
        return None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
