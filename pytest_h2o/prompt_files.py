"""Real prompts of given lengths, put together from a corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

Count = Callable[[str], int]
SUFFIXES = (".txt", ".md", ".jsonl", ".json")
TEXT_KEYS = ("text", "prompt", "input", "question")
CHOICES = "ABCDE"
MAX_FILE = 64 * 2**20
MANIFEST = "prompts_manifest.jsonl"


class CorpusError(ValueError):
    """A corpus cannot be used; the message names the file, the cause and the next step."""


def corpus_files(paths: Iterable[Path]) -> list[Path]:
    """The files, directories replaced by the texts in them, sorted; raises :class:`CorpusError`."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
        found += inside
    if missing := [str(path) for path in found if not path.is_file()]:
        raise CorpusError(f"{missing[0]}: no such file; give {', '.join(SUFFIXES)} files or directories of them")
    if not found:
        raise CorpusError(f"the corpus holds no {', '.join(SUFFIXES)} file")
    return found


def pieces(path: Path, min_chars: int = 200) -> Iterator[str]:
    """The pieces of a corpus file: one per JSON record, or the paragraphs of a text, short ones joined."""
    if path.stat().st_size > MAX_FILE:
        raise CorpusError(f"{path}: larger than 64 MiB; split it")
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    if path.suffix in (".json", ".jsonl"):
        yield from filter(None, map(_record_text, _records(path, text)))
        return
    waiting = ""
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        waiting = f"{waiting}\n\n{paragraph}".strip()
        if len(waiting) >= min_chars:
            yield waiting
            waiting = ""
    if waiting:
        yield waiting


def _records(path: Path, text: str) -> list[object]:
    try:
        if path.suffix == ".json":
            content = json.loads(text)
            return content if isinstance(content, list) else [content]
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: not JSON: {error}; correct it or leave it out") from None


def _record_text(record: object) -> str:
    """A multiple-choice question with its lettered choices, else the first text of a record; empty if it has none."""
    if not isinstance(record, dict):
        return ""
    text = next((value for key in TEXT_KEYS if isinstance(value := record.get(key), str) and value.strip()), "")
    choices = [f"{letter}. {record[letter]}" for letter in CHOICES if isinstance(record.get(letter), str)]
    return "\n".join([text.strip(), *choices]) if text else ""


def assemble(source: Iterator[str], limit: int, target: int, tolerance: float, count: Count) -> str:
    """At most ``limit`` pieces, a blank line between them, until ``target`` tokens; the last one is cut if too long."""
    text = ""
    for piece in islice(source, limit):
        longer = f"{text}\n\n{piece}".strip()
        if count(longer) > target * (1 + tolerance):
            return _cut(text, piece, target, count)
        text = longer
        if count(text) >= target:
            break
    return text


def _cut(text: str, piece: str, target: int, count: Count) -> str:
    """``text`` and as many words of ``piece`` as fit into ``target`` tokens."""
    words = piece.split(" ")
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        fits = count(f"{text}\n\n{' '.join(words[:middle])}".strip()) <= target
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"{text}\n\n{' '.join(words[:low])}".strip()


def write_prompts(  # noqa: PLR0913  the original's options
    out: Path,
    corpus: Sequence[str],
    targets: Sequence[int],
    count: Count,
    *,
    per_target: int = 3,
    tolerance: float = 0.05,
    seed: int = 42,
) -> list[dict[str, object]]:
    """Write ``prompt_<target>_<n>.txt`` and the manifest, whose paths are relative to ``out``; returns its records.

    A prompt never begins with ``#``, which the programs would ignore. Raises :class:`CorpusError` if a file exists or
    the corpus holds no text.
    """
    shuffled = [text for piece in corpus if (text := piece.lstrip("# \n\t"))]
    if not shuffled:
        raise CorpusError("the corpus holds no text")
    random.Random(seed).shuffle(shuffled)
    names = [(target, f"prompt_{target}_{number}.txt") for target in targets for number in range(1, per_target + 1)]
    if taken := [name for name in (MANIFEST, *(name for _, name in names)) if (out / name).exists()]:
        raise CorpusError(f"{out / taken[0]} exists; give an empty directory")
    out.mkdir(parents=True, exist_ok=True)
    source = _endless(shuffled)
    records: list[dict[str, object]] = []
    for target, name in names:
        text = assemble(source, len(shuffled), target, tolerance, count)
        (out / name).write_text(text + "\n", encoding="utf-8")
        records.append({"file": name, "target_tokens": target, "actual_tokens": count(text), "chars": len(text)})
    (out / MANIFEST).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def _endless(texts: Sequence[str]) -> Iterator[str]:
    while True:
        yield from texts


def token_counter(tokenizer: Path | None) -> Count:
    """Counts with a SentencePiece model, or words without one; raises :class:`CorpusError`."""
    if tokenizer is None:
        return lambda text: len(text.split())
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    try:
        model = SentencePieceProcessor(model_file=str(tokenizer))
    except (OSError, RuntimeError) as error:
        raise CorpusError(f"{tokenizer}: not a SentencePiece model: {error}") from None
    return lambda text: len(model.encode(text))
